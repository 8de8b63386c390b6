"""Trainings from their checkpoints: killed at any moment and begun again, they end with the same bits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import pytorch_lightning as pl

from lenet.digits.data import Digits
from lenet.runs.record import Record
from lenet.runtime.errors import Diverged
from lenet.training import checkpoint
from lenet.training.fast_module import Observer, Training
from lenet.training.fit import Fitted, fit_all, fitted


def trained(
    records: Mapping[int, Record],
    digits: Digits,
    observers: Mapping[int, Sequence[Observer]],
    callbacks: Sequence[pl.Callback] = (),
    snapshots: bool = False,
    device: str = "cpu",
) -> Iterator[tuple[int, Fitted | Diverged]]:
    """Train one variant with several seeds side by side, from their checkpoints if there are any.

    Args:
        records: of the trainings, by seed.
        digits: all training digits.
        observers: of each seed's rows; those of before a checkpoint are not told again.
        callbacks: Lightning's.
        snapshots: whether to keep the weights of each epoch's end.
        device: where to compute.

    Yields:
        Each seed when its training has ended, with what it leaves or why it ended early. Its checkpoints are removed
        when the next one is asked for: whoever asks has kept the result.
    """
    variant = next(iter(records.values())).parameters
    train, validation = digits.split(variant)
    with ExitStack() as stack:
        kept = {s: stack.enter_context(checkpoint.kept(record.name, record.key, s)) for s, record in records.items()}
        trainings = [
            Training(variant, seed, len(train), observers[seed], kept[seed].latest(snapshots), snapshots, device)
            for seed in records
        ]
        for its in fit_all(variant, trainings, train, validation, [*callbacks, *kept.values()]):
            yield its.seed, its.fault or fitted(its)
            if not its.fault:
                kept[its.seed].remove()
