"""Stage train: one variant, one seed → weights, history, trace and run record. Owns ``fit``."""

import csv
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from jaxtyping import Float32
from safetensors.torch import save_file
from torch import Tensor

from lenet import arithmetic, checkpoint, fingerprint, lifetime, progress, tracking
from lenet.checkpoint import State
from lenet.classifier import Classifier, Observer
from lenet.config import Params, Variant
from lenet.data import Digits, load_digits
from lenet.files import whole, write_text
from lenet.record import History, Record


@dataclass(frozen=True)
class Fitted:
    """What a training leaves: weights by name, a row per epoch, each step's loss, and snapshots where asked for."""

    weights: dict[str, Tensor]
    history: History
    trace: Float32[Tensor, "epochs steps"]
    snapshots: dict[str, Tensor]  # the weights at each epoch's end, epochs first; or nothing


@arithmetic.fixed()
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
        callbacks: Lightning callbacks, for example a progress display, a pruner or Checkpoints.
        start: where a training of the same arguments was stopped; None for the beginning.
        snapshots: whether to keep the weights of each epoch's end.

    Returns:
        The last epoch's weights; nothing is selected.
    """
    classifier = Classifier(variant, seed, train, validation, observers, start, snapshots)
    with quiet():
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=variant.epochs,
            callbacks=list(callbacks),
            reload_dataloaders_every_n_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        if start:
            done = dict.fromkeys(("ready", "started", "processed", "completed"), start.epoch)
            trainer.fit_loop.epoch_progress.load_state_dict({"total": done, "current": done})
        trainer.fit(classifier)
    return Fitted(classifier.network.state_dict(), classifier.history, classifier.trace, classifier.snapshots)


def train(
    params: Params,
    name: str,
    seed: int,
    data: Path,
    numerics: Path,
    out: Path,
    allow_other: bool,
    experiment: str | None,
    snapshots: bool = False,
) -> None:
    """Train variant ``name`` with ``seed`` and write ``out``/{weights.safetensors, history.csv, trace, run.json}.

    Nothing is written there unless the training ends; until then its checkpoints lie elsewhere, and a training that was
    killed goes on from them. A second training into the same folder has to wait for the first.

    Args:
        params: the whole of params.yaml.
        name: the variant.
        seed: the run's seed.
        data: the file of training digits.
        numerics: the lock of the packages that can change bits.
        out: the run's folder.
        allow_other: train even if the installed packages differ from that lock.
        experiment: the MLflow experiment that records the run; None for no record.
        snapshots: write ``out``/snapshots.safetensors, too: the weights of each epoch's end.

    Raises:
        InputError: unknown variant, unfit data, other packages than locked, or the folder is in use.
    """
    variant = params.variant(name)
    if not allow_other:
        fingerprint.check_numerics(numerics)
    with lifetime.sole_writer(out):
        digits = load_digits(data)
        record = identify(name, seed, variant, digits, numerics)
        with checkpoint.kept(record.name, record.key) as checkpoints:
            with (
                tracking.training(record, experiment) as run,
                progress.training(record.name, variant) as display,
            ):
                observers, callbacks = [run.epoch, *display.observers], [*display.callbacks, checkpoints]
                start = checkpoints.latest(with_snapshots=snapshots)
                fitted = fit(variant, seed, *digits.split(variant), observers, callbacks, start, snapshots)
                lifetime.check()
                write(out, record, fitted)
                run.trained(out, fitted.history)
            checkpoints.remove()


def identify(name: str, seed: int, variant: Variant, digits: Digits, numerics: Path) -> Record:
    """The record of a training that has yet to run, here.

    Args:
        name: the variant's name.
        seed: the run's seed.
        variant: the resolved block.
        digits: all training digits.
        numerics: the lock of the packages that can change bits.
    """
    return Record(name, seed, variant, *fingerprint.identify(variant, seed, digits, numerics), fingerprint.canary())


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
def quiet() -> Iterator[None]:
    """Keep Lightning's hints (hardware found, workers for a DataLoader that is none) out of the way."""
    with warnings.catch_warnings():
        for name in ("pytorch_lightning", "lightning_fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
            warnings.filterwarnings("ignore", module=name)
        yield
