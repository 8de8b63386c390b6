"""Stage train: one variant, a seed or several → weights, history, trace and run record of each, tracked."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import torch

from lenet import tracking
from lenet.arithmetic import conformance
from lenet.digits.data import load_digits
from lenet.params.schema import Params
from lenet.pipeline import signing
from lenet.runtime import processes
from lenet.runtime.errors import Diverged, InputError
from lenet.training import progress
from lenet.training.fit import write
from lenet.training.resumable import trained


def train(
    params: Params,
    name: str,
    outs: Mapping[int, Path],
    data: Path,
    signature: Path | None,
    experiment: str | None,
    snapshots: bool = False,
    device: str = "cpu",
    scheduler: str | None = None,
) -> None:
    """Train variant ``name`` and write each seed's {weights.safetensors, history.csv, trace, run.json}.

    Several seeds are trained side by side, with the bits that each has alone; one that diverges leaves the others
    alone. Nothing is written into a folder unless its training ends; until then its checkpoints lie elsewhere, and a
    training that was killed goes on from them. A second training into the same folder has to wait for the first.

    Args:
        params: the whole of params.yaml.
        name: the variant.
        outs: the runs' folders, by seed.
        data: the file of training digits.
        signature: the file of the variant's signature; None: it is signed first.
        experiment: the MLflow experiment that records the runs; None for no record.
        snapshots: write snapshots.safetensors, too: the weights of each epoch's end.
        device: where to compute, ``cpu`` or ``cuda``; the bits are the same.
        scheduler: of a cluster that computes; None for this process.

    Raises:
        InputError: unknown variant, unfit data, a stale signature, an arithmetic that is off, or a folder is in use.
        Diverged: at least one of them has; the others are complete.
    """
    variant = params.variant(name)
    conformance.check()
    if device != "cpu" and not scheduler:
        _check(device)
    with ExitStack() as stack:
        for out in outs.values():
            stack.enter_context(processes.sole_writer(out))
        digits = load_digits(data)
        signed = signing.checked(signature, name, variant, digits)
        records = {seed: signing.identify(name, seed, variant, digits, signed) for seed in outs}
        runs = {s: stack.enter_context(tracking.training(record, experiment)) for s, record in records.items()}
        observers, shown = stack.enter_context(progress.training({s: r.name for s, r in records.items()}, variant))
        watching = {seed: [runs[seed].row, *observers[seed]] for seed in outs}
        if scheduler:
            from lenet.pipeline.elsewhere import trained_there  # Dask

            results = trained_there(scheduler, records, digits, watching, snapshots, device)
        else:
            results = trained(records, digits, watching, shown, snapshots, device)
        diverged = []
        for seed, result in results:
            processes.check()
            if isinstance(result, Diverged):
                runs[seed].end("FAILED")
                if len(outs) == 1:
                    raise result
                print(f"lenet: {records[seed].name}: {result}", file=sys.stderr)
                diverged.append(records[seed].name)
            else:
                write(outs[seed], records[seed], result)
                runs[seed].trained(outs[seed])
                runs[seed].end("FINISHED")
        if diverged:
            raise Diverged(f"of {len(outs)} trainings these have diverged: {', '.join(diverged)}")


def _check(device: str) -> None:
    """Raise InputError where a device is not here, or cannot compute the bits."""
    if device == "mps":
        raise InputError("--device mps: it has no double precision, in which sums are exact; legal: cpu, cuda")
    if not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch finds none here; legal: cpu")
    conformance.check(device)
