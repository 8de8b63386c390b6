"""Stage train: one variant, one seed → weights, history, trace and run record, tracked."""

from pathlib import Path

from lenet import fingerprint, lifetime, progress, tracking
from lenet.config import Params, Variant
from lenet.digits.data import Digits, load_digits
from lenet.training import checkpoint
from lenet.training.fit import fit, write
from lenet.training.record import Record


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
