"""What the code makes of a block, in seconds: digests of miniature trainings of it, and of what these cannot reach.

Two versions of the code, or two machines, that sign a block alike train it alike; that is what a run's identity rests
on, in place of source text and versions. The digests have names, so that a review sees which part of a change shows.

The miniature is the real ``fit`` and ``write`` on some real digits: the block's own batch size and the partial batch
at its epochs' end, its epochs compressed so that every piece of its schedule, and every copy of its digits, occurs.
"""

import contextlib
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from lenet import networks
from lenet.digits.data import Digits
from lenet.digits.datamodule import DigitsModule
from lenet.digits.epochs import present
from lenet.params.schema import DiagonalLevenbergMarquardt, NoDistortion, PaperDistortion, StepSchedule, Variant
from lenet.runs.record import Record
from lenet.runtime.errors import Diverged
from lenet.training import objective, optimizer
from lenet.training.checkpoint import Checkpoints
from lenet.training.fast_module import UPDATES, FastLeNet, State
from lenet.training.fingerprint import block_sha256, digits_sha256, json_sha256, sha256_of, tensors_sha256
from lenet.training.fit import Fitted, fit, trainer, write
from lenet.training.module import LeNet

SEED = 1998
EPOCHS = 3  # of a miniature, at least: a beginning, a middle and an end
PRESENTATIONS = 480  # digits that a miniature presents, about, over its epochs
HELD_OUT = 60  # validation digits of a miniature, at most
FEW = 32  # digits whose inputs and answers are looked at
WIDE = 1024  # digits of one update, for sums as long as any
SMALL_BATCH = 4  # of the training that is stopped in mid-epoch
STEPS = UPDATES + 2  # whole updates of its epochs: more than Lightning gets at a time
STANDARD = {
    "initialisation.scale": 1.5,
    "network.pooling.bias": 0.5,
    "network.pooling.coefficient": 1.0,
    "objective.factor": 0.5,
    "objective.j": 4.0,
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.99,
    "optimizer.lr": 2**-10,
    "optimizer.momentum": 0.9,
    "optimizer.mu": 2**-5,
    "optimizer.weight_decay": 2**-10,
    "schedule.final": 0.0625,
}
"""What stands for any other value but 0 in a structure."""


def sign(variant: Variant, digits: Digits) -> dict[str, Any]:
    """The signature of a block: its digest, that of the digits, and named digests of what the code makes of them.

    Args:
        variant: the block.
        digits: all training digits.

    Raises:
        InputError, RuntimeError: two ways of computing the same differ; the code is broken.
    """
    block, (train, validation) = block_sha256(variant), digits.split(variant)
    if len(train) < variant.train_size:  # there are no more
        variant = changed(variant, train_size=len(train), validation_size=len(validation))
    small = miniature(variant)
    fitted = _fit(small, train, validation, snapshots=True)
    found: dict[str, Any] = {
        "files": _files(small, fitted),
        "answers": _answers(small, fitted, train),
        "initial": _initial(variant),
        "rates": json_sha256([optimizer.factor(variant.schedule, e, variant.epochs) for e in _epochs(variant)]),
        "extremes": {"loss": _losses(variant), "steps": _steps(variant)},
        "presented": _presented(variant, train, validation),
        "wide": _wide(variant, train),
        "loud": _loud(variant, train),
    }
    stopped, found["resumed"] = _resumed(variant, train, validation)
    found["epoch"] = _end_of_an_epoch(variant, train, validation, stopped)
    _readable(variant, train, validation)
    return {"block": block, "data": digits_sha256(digits), "digests": found}


def miniature(variant: Variant, presentations: int = PRESENTATIONS) -> Variant:
    """The same block with few digits and epochs."""
    pieces = _pieces(variant)
    kinds = 1 + variant.distortion.copies if isinstance(variant.distortion, PaperDistortion) else 1
    epochs = min(variant.epochs, max(EPOCHS, len(pieces), kinds + 1 if kinds > 1 else 1))
    size, rest = variant.batch_size, variant.train_size % variant.batch_size
    batches = max(2, presentations // epochs // size)
    changes: dict[str, Any] = {
        "epochs": epochs,
        "train_size": min(variant.train_size, batches * size + rest),
        "validation_size": min(variant.validation_size, HELD_OUT),
    }
    if isinstance(variant.schedule, StepSchedule):
        changes["schedule"] = {"kind": "piecewise", "steps": _compressed(pieces, epochs)}
    return changed(variant, **changes)


def changed(variant: Variant, **changes: Any) -> Variant:
    """A block with some of its parts changed, checked as any other."""
    return Variant.model_validate(variant.model_dump(mode="json") | changes)


def structure(variant: Variant) -> Variant:
    """The block that stands for all that differ from it in the amounts of STANDARD alone.

    These are factors and summands of the computation: the code does the same steps for any value but 0, so an edit that
    changes the bits of one such block changes those of all of them, and of this one. It is all that a study's trials
    are signed by (one signature for many trials); a pipeline's blocks are signed themselves.
    """
    block = variant.model_dump(mode="json")
    for name, standard in STANDARD.items():
        *path, last = name.split(".")
        part: Any = block
        for step in path:
            part = part.get(step, {})
        if part.get(last):
            part[last] = standard
    return Variant.model_validate(block)


def _pieces(variant: Variant) -> list[tuple[int, float]]:
    """The epochs and the factor of the pieces of a schedule that a training reaches."""
    if not isinstance(variant.schedule, StepSchedule):
        return []
    found, left = [], variant.epochs
    for step in variant.schedule.steps:
        if left > 0:
            found.append((min(step.epochs, left), step.factor))
            left -= step.epochs
    return found


def _compressed(pieces: list[tuple[int, float]], epochs: int) -> list[dict[str, Any]]:
    """The pieces in so many epochs: one each, and what is left to the first that have more in truth."""
    given = [1] * len(pieces)
    while sum(given) < epochs:
        place = min((i for i, (length, _) in enumerate(pieces) if given[i] < length), key=lambda i: given[i])
        given[place] += 1
    return [{"epochs": length, "factor": factor} for length, (_, factor) in zip(given, pieces, strict=True)]


def _fit(variant: Variant, train: Digits, validation: Digits, *callbacks: pl.Callback, **options: Any) -> Fitted | str:
    """A training of a block that is smaller than its digits; where it diverges, what it says."""
    try:
        return fit(
            variant, SEED, train[: variant.train_size], validation[: variant.validation_size], (), callbacks, **options
        )
    except Diverged as error:
        return str(error)


def _files(variant: Variant, fitted: Fitted | str) -> dict[str, str]:
    """Digests of the bytes of all files that a training writes; ``run.json`` without what follows from these."""
    if isinstance(fitted, str):
        return {"none": sha256_of(fitted.encode())}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), Record("variant", SEED, variant, "key", "data", "signature"), fitted)
        return {path.name: sha256_of(path.read_bytes()) for path in sorted(Path(folder).iterdir())}


def _outcome(fitted: Fitted | str) -> str:
    """A digest of what a training leaves, but for its files' form."""
    if isinstance(fitted, str):
        return sha256_of(fitted.encode())
    parts = {"weights": fitted.weights, "snapshots": fitted.snapshots, "trace": {"losses": fitted.trace}}
    return json_sha256({"history": fitted.history} | {name: tensors_sha256(part) for name, part in parts.items()})


def _answers(variant: Variant, fitted: Fitted | str, train: Digits) -> str:
    """The scores of a trained network in use; and of the same with weights so large that its units saturate."""
    if isinstance(fitted, str):
        return sha256_of()
    network = networks.build(variant.network)
    found = {}
    for factor in (1, 8):
        network.load_state_dict({n: w * factor if w.is_floating_point() else w for n, w in fitted.weights.items()})
        found[f"scores with {factor}"] = networks.outputs(network, train.images[-FEW:], variant.pixels)
    return tensors_sha256(found)


def _initial(variant: Variant) -> list[str]:
    """The first weights, of several seeds."""
    return [
        tensors_sha256(networks.build(variant.network).initialise(variant.initialisation, seed).state_dict())
        for seed in (0, 1, 2**62 + 1)
    ]


def _magnitudes(count: int, steps: int) -> Tensor:
    """Numbers of both signs from 1 down to 2^-steps, with all digits; some are 0."""
    places = torch.arange(count, dtype=torch.int64)
    fractions = (1 + (places * 40503 % 65521).double() / 65536) * (1 - 2 * (places % 2)) * (places % 17 != 0)
    exponents = (places * 7919 % (steps + 1)).tolist()
    return (fractions * torch.tensor([2.0**-exponent for exponent in exponents], dtype=torch.float64)).float()


def _losses(variant: Variant) -> str:
    """Losses, gradients and answers for scores of all sizes, as only long trainings meet them."""
    of = objective.build(variant)
    scores, labels = (_magnitudes(640, 24) * 64).view(64, 10), torch.arange(64) % 10
    if variant.network.output.endswith("rbf"):  # squared distances
        scores = scores.abs()
    found = {"losses": of.losses(scores, labels), "gradient": of.gradient(scores, labels, len(labels))}
    return tensors_sha256({**found, "answers": of.decide(scores), "mean": of.loss(scores, labels).reshape(1)})


def _steps(variant: Variant) -> str:
    """A few steps of the optimizer from gradients of all sizes, down to those whose squares are next to nothing."""
    parameter = torch.nn.Parameter(_magnitudes(512, 8))
    rule = optimizer.build(variant.optimizer, [parameter])
    for turn in range(4):
        parameter.grad = _magnitudes(512, 100).roll(turn)
        if isinstance(rule, optimizer.StochasticDiagonalLM):
            rule.set_curvatures([_magnitudes(512, 30).abs()])
        rule.step()
    return tensors_sha256({"parameter": parameter, **optimizer.memory(rule)})


def _epochs(variant: Variant) -> range:
    return range(1, variant.epochs + 1)


def _presented(variant: Variant, train: Digits, validation: Digits) -> dict[str, str]:
    """All digits at their real number: which are held out, and each epoch's order, maps and first inputs.

    With copies, which are made once, that is one pass through all of them.
    """
    orders, maps, inputs = [sha256_of(validation.index.numpy().tobytes())], [], []
    copies = variant.distortion.copies if isinstance(variant.distortion, PaperDistortion) else 0
    for epoch in _epochs(variant)[: 2 + copies] if copies else _epochs(variant):
        presented = present(variant, SEED, train, epoch)
        orders.append(sha256_of(train.index[presented.order].numpy().tobytes()))
        if presented.maps is not None:
            maps.append(tensors_sha256({"maps": presented.maps}))
        if epoch == 1 or not isinstance(variant.distortion, NoDistortion):
            part = slice(0, FEW)
            inputs.append(tensors_sha256({"inputs": presented.inputs(part), "labels": presented.labels(part)}))
    return {name: json_sha256(found) for name, found in (("order", orders), ("maps", maps), ("inputs", inputs))}


def _wide(variant: Variant, train: Digits) -> str:
    """One update from many digits; curvature estimates from as many patterns as the block has."""
    size = WIDE
    if isinstance(variant.optimizer, DiagonalLevenbergMarquardt):
        size = max(size, variant.optimizer.patterns)
    size = min(size, variant.train_size)
    return _outcome(_fit(changed(variant, epochs=1, train_size=size, validation_size=0, batch_size=size), train, train))


def _loud(variant: Variant, train: Digits) -> str:
    """A few small updates from inputs so large that each digit has grids of its own (arithmetic/exact.py)."""
    size = min(variant.batch_size, 12)
    section = variant.optimizer.model_dump(mode="json") | {"lr": variant.optimizer.lr * 2.0**-8}
    small = changed(
        variant,
        pixels={"background": -4.0, "ink": 90.0},
        optimizer=section,
        epochs=1,
        batch_size=size,
        train_size=min(variant.train_size, 3 * size - 1),
        validation_size=0,
    )
    return _outcome(_fit(small, train, train))


class _Stop(Exception):
    """Ends a training in place of a kill."""


class _Stopping(Checkpoints):
    """Saves a training's state in the middle of an epoch, the second if there is one, and ends it."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pass

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last = batch_idx + 1 == trainer.num_training_batches
        if trainer.current_epoch + 1 == min(2, trainer.max_epochs or 1) and not last:
            assert isinstance(pl_module, FastLeNet)
            self.save(pl_module.state())
            raise _Stop


def _resumed(variant: Variant, train: Digits, validation: Digits) -> tuple[State | None, str]:
    """A training with small batches, ended between two chunks of updates, that goes on from its checkpoint.

    Returns:
        The state in between, None if there was none, and the digest of what it leaves.

    Raises:
        RuntimeError: it leaves something else than a training that was never stopped.
    """
    small = miniature(variant)
    size = max(1, min(variant.batch_size, SMALL_BATCH, variant.train_size // STEPS))
    section = variant.optimizer.model_dump(mode="json")
    small = changed(
        small,
        batch_size=size,
        train_size=min(variant.train_size, size * STEPS + (size + 1) // 2),
        validation_size=0,
        epochs=min(2, small.epochs),
        optimizer=section | {"lr": variant.optimizer.lr * size / variant.batch_size},  # for the smaller batch
    )
    whole = _outcome(_fit(small, train, validation, snapshots=True))
    with tempfile.TemporaryDirectory() as folder:
        kept = _Stopping(Path(folder), "signature")
        with contextlib.suppress(_Stop):
            _fit(small, train, validation, kept, snapshots=True)
        with contextlib.redirect_stderr(io.StringIO()):  # it tells of going on
            state = Checkpoints(Path(folder), "signature").latest(with_snapshots=True)
    if state is None:  # it has too few digits, or it diverged
        return None, whole
    parts = _outcome(_fit(small, train, validation, start=replace(state, history=list(state.history)), snapshots=True))
    if parts != whole:
        raise RuntimeError("a training that goes on from a checkpoint ends otherwise than one that was never stopped")
    return state, whole


def _end_of_an_epoch(variant: Variant, train: Digits, validation: Digits, state: State | None) -> str:
    """An epoch's last update and its row of the history, at the real numbers of digits and steps.

    The steps before are made up: their losses are a sequence of fractions.
    """
    steps = -(-variant.train_size // variant.batch_size)
    if state is None or steps < 2:
        return sha256_of()
    losses = (torch.arange(steps, dtype=torch.int64) * 40503 % 65521).to(torch.float32) / 16384
    tensors: dict[str, Tensor] = {n: t for n, t in state.tensors.items() if n.startswith(("network.", "optimizer."))}
    tensors["trace"] = losses[None]
    last = State(0, steps - 1, variant.train_size // 7, [], tensors)
    return _outcome(_fit(changed(variant, epochs=1), train, validation, start=last))


def _readable(variant: Variant, train: Digits, validation: Digits) -> None:
    """Raise RuntimeError if the readable module, under Lightning's own optimization, leaves other weights."""
    small = miniature(variant, 2 * variant.batch_size)
    fitted = _fit(small, train, validation)
    if isinstance(fitted, str):
        return
    digits = DigitsModule(small, SEED, train)
    digits.train_set, digits.validation_set = train[: small.train_size], validation[: small.validation_size]
    readable = LeNet(small, SEED)
    with trainer(small.epochs) as plain:
        plain.fit(readable, digits)
    if tensors_sha256(readable.network.state_dict()) != tensors_sha256(fitted.weights):
        raise RuntimeError("the readable network is trained to other weights than the fast one")
