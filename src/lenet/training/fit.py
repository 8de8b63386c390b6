"""One training from its digits to its files: ``fit``, and what a run's folder holds."""

import csv
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jaxtyping import Float32
from pytorch_lightning.plugins.environments import LightningEnvironment
from safetensors.torch import save_file
from torch import Tensor

from lenet.digits.data import Digits
from lenet.params.schema import Variant
from lenet.runs.record import History, Record
from lenet.runtime.errors import Diverged
from lenet.runtime.files import whole, write_text
from lenet.training import fingerprint
from lenet.training.fast_module import FastLeNet, Observer, State, Training

_DEFAULTS = {name: parameter.default for name, parameter in inspect.signature(pl.Trainer).parameters.items()}


@dataclass(frozen=True)
class Fitted:
    """What a training leaves: weights by name, a row per epoch, each step's loss, and snapshots where asked for."""

    weights: dict[str, Tensor]
    history: History
    trace: Float32[Tensor, "epochs steps"]
    snapshots: dict[str, Tensor]  # the weights at each epoch's end, epochs first; or nothing


def fit(
    variant: Variant,
    seed: int,
    train: Digits,
    validation: Digits,
    observers: Sequence[Observer] = (),
    callbacks: Sequence[pl.Callback] = (),
    start: State | None = None,
    snapshots: bool = False,
) -> Fitted:
    """Train one variant with one seed, on one thread.

    Args:
        variant: the block of params.yaml.
        seed: with the epoch, the source of everything random.
        train: the digits to learn from.
        validation: the digits held out; may be none.
        observers: called with the history's row after each epoch.
        callbacks: Lightning callbacks, for example a progress display or Checkpoints.
        start: where a training of the same arguments was stopped; None for the beginning.
        snapshots: whether to keep the weights of each epoch's end.

    Returns:
        The last epoch's weights; nothing is selected.
    """
    training = Training(variant, seed, len(train), observers, start, snapshots)
    for _ in fit_all(variant, [training], train, validation, callbacks):
        if training.fault:
            raise training.fault
    return fitted(training)


def fit_all(
    variant: Variant,
    trainings: Sequence[Training],
    train: Digits,
    validation: Digits,
    callbacks: Sequence[pl.Callback] = (),
) -> Iterator[Training]:
    """Train one variant with several seeds side by side, on one thread: each gets the bits that it gets alone.

    Those that stand at different places, as they were stopped, are trained one group after another.

    Yields:
        Each training when it has ended: one that has diverged as soon as that is known, with its ``fault``.
    """
    waiting = list(trainings)
    while waiting:
        position = waiting[0].position
        group = [training for training in waiting if training.position == position]
        module = FastLeNet(variant, group, train, validation)
        device = module.flat.matrix.device.type
        with trainer(variant.epochs, callbacks, accelerator=device, reload_dataloaders_every_n_epochs=1) as its:
            done = dict.fromkeys(("ready", "started", "processed", "completed"), position[0])
            its.fit_loop.epoch_progress.load_state_dict({"total": done, "current": done})
            try:
                its.fit(module)
            except Diverged:
                if not any(training.fault for training in group):
                    raise
        ended = [training for training in group if training.fault or len(training.history) == variant.epochs]
        for training in group:
            if training not in ended:
                training.start = module.state(training.seed)
        yield from ended
        waiting = [training for training in waiting if training not in ended]


def fitted(training: Training) -> Fitted:
    """What a training that has come to its end leaves."""
    return Fitted(training.weights(), training.history, training.trace, training.snapshots)


def write(out: Path, record: Record, fitted: Fitted) -> None:
    """Write a training's files into its folder, ``run.json`` last."""
    with whole(out / "weights.safetensors") as beside:
        save_file(fitted.weights, beside)
    write_text(out / "history.csv", to_csv(fitted.history))
    with whole(out / "trace") as beside:
        beside.write_bytes(fitted.trace.numpy().astype("<f4").tobytes())
    if fitted.snapshots:
        with whole(out / "snapshots.safetensors") as beside:
            save_file(fitted.snapshots, beside)
    record.with_weights(fingerprint.tensors_sha256(fitted.weights)).write(out / "run.json")


def to_csv(rows: History) -> str:
    """Rows of equal keys as CSV; floats in their shortest exact form."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextmanager
def trainer(epochs: int, callbacks: Sequence[pl.Callback] = (), **options: Any) -> Iterator[pl.Trainer]:
    """A Trainer that shows and keeps nothing of its own, and that no variable of the environment changes.

    Lightning's hints are silent meanwhile.
    """
    with warnings.catch_warnings():
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
            warnings.filterwarnings("ignore", module=name)
        ours = {
            "accelerator": "cpu",
            "devices": 1,
            "plugins": [LightningEnvironment()],
            "max_epochs": epochs,
            "callbacks": list(callbacks),
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
        }
        yield pl.Trainer(**_DEFAULTS | ours | options)  # all of them: what is not given, PL_TRAINER_… may set
