"""Trainings on the workers of a Dask cluster. Files and MLflow are written by this process alone."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lenet import cluster
from lenet.digits.data import Digits
from lenet.params.schema import Variant
from lenet.pipeline import signing
from lenet.runs.record import Record
from lenet.runtime.errors import Diverged, InputError
from lenet.training import fingerprint
from lenet.training.fast_module import Observer
from lenet.training.fit import Fitted
from lenet.training.resumable import trained

Results = list[tuple[int, Fitted | Diverged]]


def trained_there(
    scheduler: str,
    records: Mapping[int, Record],
    digits: Digits,
    observers: Mapping[int, Sequence[Observer]],
    snapshots: bool = False,
    device: str = "cpu",
) -> Iterator[tuple[int, Fitted | Diverged]]:
    """What ``resumable.trained`` yields, computed by a worker; a worker that dies is replaced by another.

    Args:
        scheduler: the cluster's address.
        records: of the trainings, by seed.
        digits: all training digits.
        observers: of each seed's rows; a row may be told again.
        snapshots: whether to keep the weights of each epoch's end.
        device: where the worker computes.

    Raises:
        InputError: no such cluster, no worker that computes as this process does, or it could not compute.
    """
    name, first = " ".join(record.name for record in records.values()), next(iter(records.values()))
    proof = partial(_prove, first.parameters, first.signature)
    with cluster.opened(scheduler, 0) as client, cluster.admitted(client, digits, proof) as workers:
        workers.submit(name, compute, dict(records), snapshots, device)
        while workers.jobs:
            for _, report in workers.reports():
                if not isinstance(report, cluster.Ended):
                    seed, row = report
                    for observe in observers[seed]:
                        observe(row)
                elif report.error:
                    raise InputError(f"{name} cannot be trained on {scheduler}: {cluster.reason(report.error)}")
                else:
                    yield from map(_checked, report.value)


def compute(
    digits: Digits, tell: Callable[[Any], None], records: Mapping[int, Record], snapshots: bool, device: str
) -> Results:
    """Train on a worker; its checkpoints are on the worker's disk."""
    observers = {seed: [lambda row, seed=seed: tell([seed, row])] for seed in records}
    return [*trained(records, digits, observers, (), snapshots, device)]


def _prove(variant: Variant, signature: str, digits: Digits) -> None:
    if signing.of(variant, digits) != signature:
        raise InputError("its code signs the block otherwise; it needs this commit's sources")


def _checked(result: tuple[int, Fitted | Diverged]) -> tuple[int, Fitted | Diverged]:
    """A result as it was on the worker. Raises InputError if weights have changed on the way."""
    seed, left = result
    if isinstance(left, Fitted) and fingerprint.tensors_sha256(left.weights) != left.history[-1]["weights.sha256"]:
        raise InputError(f"seed {seed}: the weights have not arrived as they were sent")
    return result
