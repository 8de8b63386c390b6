"""Stage train: one variant, one seed → weights, history, trace and run record, tracked."""

from pathlib import Path

from lenet import tracking
from lenet.arithmetic import conformance
from lenet.digits.data import Digits, load_digits
from lenet.params.schema import Params, Variant
from lenet.pipeline import signing
from lenet.runs.record import Record
from lenet.runtime import processes
from lenet.tracking.logger import RunLogger
from lenet.training import checkpoint, fingerprint, progress
from lenet.training.fit import fit, write


def train(
    params: Params,
    name: str,
    seed: int,
    data: Path,
    signature: Path | None,
    out: Path,
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
        signature: the file of the variant's signature; None: it is signed first.
        out: the run's folder.
        experiment: the MLflow experiment that records the run; None for no record.
        snapshots: write ``out``/snapshots.safetensors, too: the weights of each epoch's end.

    Raises:
        InputError: unknown variant, unfit data, a stale signature, an arithmetic that is off, or the folder is in use.
    """
    variant = params.variant(name)
    conformance.check()
    with processes.sole_writer(out):
        digits = load_digits(data)
        signed = signing.checked(signature, name, variant, digits) if signature else signing.of(variant, digits)
        record = identify(name, seed, variant, digits, signed)
        with checkpoint.kept(record.name, record.key) as checkpoints:
            with (
                tracking.training(record, experiment) as run,
                progress.training(record.name, variant) as (observers, shown),
            ):
                start = checkpoints.latest(with_snapshots=snapshots)
                fitted = fit(
                    variant, seed, *digits.split(variant), observers, [*shown, checkpoints],
                    start, snapshots, RunLogger(run),
                )  # fmt: skip
                processes.check()
                write(out, record, fitted)
                run.trained(out)
            checkpoints.remove()


def identify(name: str, seed: int, variant: Variant, digits: Digits, signature: str) -> Record:
    """The record of a training that has yet to run.

    Args:
        name: the variant's name.
        seed: the run's seed.
        variant: the resolved block.
        digits: all training digits.
        signature: the block's.
    """
    data = fingerprint.data_sha256(*digits.split(variant))
    return Record(name, seed, variant, fingerprint.run_key(variant, seed, data, signature), data, signature)
