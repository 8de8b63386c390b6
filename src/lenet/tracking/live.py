"""The record of what is happening now: made beside it, and no more than some seconds after it."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from lenet import THREADS
from lenet.arithmetic import conformance
from lenet.params.schema import Params
from lenet.runs import current
from lenet.runs.record import Record
from lenet.runtime import layout, snapshot
from lenet.tracking import journal, store
from lenet.tracking.journal import Entry
from lenet.tracking.mirror import TRAINED, Mirror, mirror_comparison, outputs
from lenet.tracking.recorder import Recorder, bounded, ending, warn
from lenet.training import fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

PATIENCE_BESIDE = 5.0  # seconds for another process that works on the same run, for example `lenet sync`


class Run:
    """The record of one training; whatever fails in it is said once, and the training goes on."""

    def __init__(self, record: Record, experiment: str | None) -> None:
        self.record, self.experiment = record, experiment
        self.recorder = _recorder(record, self._begin)
        self.entry: Entry | None = None
        self.files: Mapping[str, Path] = {}
        self.monitors: list[BaseMetricsMonitor] = []
        self.since = time.monotonic()

    def start(self) -> None:
        """Begin the journal, and follow it into MLflow."""
        if self.experiment:
            with self.recorder.harmless():
                if why := snapshot.silence():
                    warn(f"{self.record.name} is recorded without a commit, with its sources", why)
                if why := snapshot.withheld():
                    warn(f"{self.record.name} is recorded without its sources", why)
                self.entry = Entry(self.record, self.experiment, store.shown(), surroundings(), journal.now()).begin()
                self.recorder.start()
        self.since = time.monotonic()

    def epoch(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Note numbers of an epoch, from 1, at step = epoch; with those of its end, its wall time."""
        if "train/loss" in numbers:
            seconds, self.since = time.monotonic() - self.since, time.monotonic()
            numbers = {**numbers, "epoch_seconds": seconds}
        if self.entry:
            with self.recorder.harmless():
                self.entry.add(epoch, numbers)

    def row(self, row: Mapping[str, float | int | str]) -> None:
        """Note the history's row of an epoch."""
        self.epoch(int(row["epoch"]), {name: value for name, value in row.items() if isinstance(value, float)})

    def trained(self, folder: Path) -> None:
        """Hand over what the training left in ``folder``."""
        self.files = {name: folder / name for name in TRAINED}

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED, unless it is closed; after a fault too."""
        if self.entry and self.entry.status == "RUNNING":
            with self.recorder.harmless():
                self.entry.end(status)
            with self.recorder.harmless():
                _finish(self.recorder, self.entry, self.files)

    def _begin(self, client: "MlflowClient") -> Callable[[], None]:
        assert self.entry
        entry, mirror = self.entry, _mirror(client, self.entry)

        def copy() -> None:
            self._sample(entry)
            mirror.update(self.files)

        return copy

    def _sample(self, entry: Entry) -> None:
        """Note the system's metrics; at least once, and not after the end."""
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self.monitors = self.monitors or [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        steps = [point.step for point in entry.points if "system/cpu_utilization_percentage" in point.metrics]
        if entry.status == "RUNNING" or not steps:
            numbers: dict[str, float] = {}
            for monitor in self.monitors:
                monitor.collect_metrics()
                numbers |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            entry.add(max(steps, default=-1) + 1, numbers)


@contextmanager
def training(record: Record, experiment: str | None) -> Iterator[Run]:
    """The record of a training while it lasts; its status tells how it ended."""
    run = Run(record, experiment)
    run.start()
    with ending(run.end):
        yield run


def evaluated(record: Record, folder: Path, metrics: Path) -> None:
    """Add what evaluate found to the run of this training, and whatever else that run lacks.

    Args:
        record: the training.
        folder: its folder, with evaluate's files.
        metrics: its metrics file.
    """

    def begin(client: "MlflowClient") -> Callable[[], None]:
        mirror = _mirror(client, entry)
        return lambda: mirror.update(files)

    recorder = _recorder(record, begin)
    with recorder.harmless():
        entry, files = entry_of(record, layout.mlflow_experiment(folder)), outputs(record, folder, metrics)
        _finish(recorder, entry, files)


def _recorder(record: Record, begin: "Callable[[MlflowClient], Callable[[], None]]") -> Recorder:
    return Recorder(f"{record.name} goes on without its MLflow record", begin)


def _mirror(client: "MlflowClient", entry: Entry) -> Mirror:
    store.end_dead_runs(client)
    return Mirror(client, entry, PATIENCE_BESIDE)


def _finish(recorder: Recorder, entry: Entry, files: Mapping[str, Path]) -> None:
    """Wait for the record; keep the outputs if MLflow has not taken all."""
    if recorder.finish(killed=entry.status == "KILLED"):
        entry.forget_outputs()
    else:
        entry.keep(files)


def compared(params: Params, runs: Path, summary: Path, reports: Path) -> None:
    """Record the comparison as a run that links what it compares, and tag the runs behind the present outputs.

    Args:
        params: what is compared.
        runs: the folder of the runs' folders.
        summary: the file of the variants' means.
        reports: the folder of the report.
    """

    def record(client: "MlflowClient") -> None:
        with journal.lock("comparison", PATIENCE_BESIDE):
            mirror_comparison(client, current.records(params, runs), summary, reports)

    if layout.root() == Path.cwd() and bounded("the comparison", record):
        mark_current(current.present(params, runs))


def mark_current(found: current.Runs) -> None:
    """Tag exactly the runs behind the present outputs ``current = true``, in the main checkout; say so if it fails.

    In an experiment's copy nothing is marked: its outputs are not the workspace's.
    """
    missing = 0

    def record(client: "MlflowClient") -> None:
        nonlocal missing
        store.end_dead_runs(client)
        missing = store.mark(client, found)

    if layout.root() == Path.cwd() and bounded("which runs are current", record):
        current.note(found)
        if missing:
            warn(f"{missing} of the {len(found)} present runs are not in MLflow")


def surroundings() -> dict[str, str]:
    """Tags that say where a run is made: commit, sources, environment, machine, process. They do not identify it."""
    commit = snapshot.commit()
    tags = {
        "git.commit": commit,
        "git.dirty": snapshot.state(),
        "source.sha256": fingerprint.source_sha256(),
        "environment.sha256": fingerprint.environment_sha256(),
        "processor": fingerprint.processor(),
        "threads": str(THREADS),
        "conformance": ", ".join(conformance.faults()) or "right",
        "process": store.this_process(),
        "mlflow.user": psutil.Process().username(),  # a number where it has no name
        "mlflow.source.name": "lenet train",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
    }
    experiment = os.environ.get("DVC_EXP_NAME")
    return tags | ({"dvc.experiment": experiment} if experiment else {})


def entry_of(record: Record, experiment: str) -> Entry:
    """The journal of a training whose outputs are there; one made from them where this machine has none.

    What such a one says of its surroundings (tag ``rebuilt``) is where it was rebuilt.
    """
    entry = journal.of(record)
    if entry is None:
        now = journal.now()
        tags = surroundings() | {"rebuilt": "true"}
        entry = Entry(record, experiment, store.shown(), tags, now, status="FINISHED", ended=now)
    elif entry.status != "FINISHED":  # killed between its outputs and its journal's end
        entry.status, entry.ended = "FINISHED", entry.ended or entry.latest
    return entry
