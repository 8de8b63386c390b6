"""The record of what is happening now: made beside it, and no more than some seconds after it."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import psutil

from lenet import THREADS
from lenet.arithmetic import conformance
from lenet.params.schema import Params
from lenet.runs import current
from lenet.runs.record import History, Record
from lenet.runtime import layout, snapshot
from lenet.tracking import journal, store
from lenet.tracking.journal import Entry
from lenet.tracking.mirror import TRAINED, Mirror, mirror_comparison, outputs
from lenet.training import fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

SAMPLING_SECONDS = 5.0  # of system metrics, so that they appear on runs of a minute
PATIENCE = 6.0  # seconds that a stage waits at its end for a store that does not answer
PATIENCE_KILLED = 3.0  # the same of one that is asked to end
PATIENCE_BESIDE = 5.0  # the same for another process that works on the same run, for example `lenet sync`
PAUSE = 10.0  # seconds after a fault until the store is tried again

SYNC = "`lenet sync` completes it"

P = ParamSpec("P")
T = TypeVar("T")


class Run:
    """The record of one training; whatever fails in it is said once, and the training goes on."""

    def __init__(self, record: Record, experiment: str | None) -> None:
        self.record, self.experiment = record, experiment
        self.follower: _Follower | None = None
        self.voice = Voice(record.name)
        self.since = time.monotonic()

    def start(self) -> None:
        """Begin the journal, and follow it into MLflow."""
        if self.experiment:
            with self.voice.harmless():
                if why := snapshot.silence():
                    warn(f"{self.record.name} is recorded without a commit, with its sources", why)
                if why := snapshot.withheld():
                    warn(f"{self.record.name} is recorded without its sources", why)
                entry = Entry(self.record, self.experiment, store.shown(), surroundings(), journal.now()).begin()
                self.follower = _Follower(entry, self.voice)
                self.follower.start()
        self.since = time.monotonic()

    def epoch(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """Note numbers of an epoch, from 1, at step = epoch; with those of its end, its wall time."""
        if "train/loss" in numbers:
            seconds, self.since = time.monotonic() - self.since, time.monotonic()
            numbers = {**numbers, "epoch_seconds": seconds}
        if self.follower:
            with self.voice.harmless():
                self.follower.entry.add(epoch, numbers)
                self.follower.more.set()

    def trained(self, folder: Path, history: History) -> None:
        """Hand over what the training left in ``folder``."""
        if self.follower:
            self.follower.files = {name: folder / name for name in TRAINED}

    def end(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED; after a fault too."""
        if follower := self.follower:
            with self.voice.harmless():
                follower.entry.end(status)
            with self.voice.harmless():
                follower.finish(PATIENCE_KILLED if status == "KILLED" else PATIENCE)


@contextmanager
def training(record: Record, experiment: str | None) -> Iterator[Run]:
    """The record of a training while it lasts; its status tells how it ended."""
    run = Run(record, experiment)
    run.start()
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.end(status)


def evaluated(record: Record, folder: Path, metrics: Path) -> None:
    """Add what evaluate found to the run of this training, and whatever else that run lacks.

    Args:
        record: the training.
        folder: its folder, with evaluate's files.
        metrics: its metrics file.
    """
    voice = Voice(record.name)
    with voice.harmless():
        entry = entry_of(record, layout.mlflow_experiment(folder))
        follower = _Follower(entry, voice, outputs(record, folder, metrics))
        follower.start()
        follower.finish(PATIENCE)


def compared(params: Params, runs: Path, summary: Path, reports: Path) -> None:
    """Record the comparison as a run that links what it compares, and tag the runs behind the present outputs.

    Args:
        params: what is compared.
        runs: the folder of the runs' folders.
        summary: the file of the variants' means.
        reports: the folder of the report.
    """
    found = current.present(params, runs)

    def record(client: "MlflowClient") -> None:
        with journal.lock("comparison", PATIENCE_BESIDE):
            mirror_comparison(client, current.records(params, runs), summary, reports)

    # in an experiment's copy nothing is current
    if layout.root() == Path.cwd():
        mark = current.mark_of(found)  # before MLflow puts its address into the environment
        if bounded("the comparison", record):
            mark_current(found, mark)


def mark_current(found: current.Runs, mark: str | None = None) -> None:
    """Tag exactly the runs behind the present outputs ``current = true``, in the main checkout; say so if it fails.

    In an experiment's copy nothing is marked: its outputs are not the workspace's.

    Args:
        found: these runs.
        mark: what to remember of it, if this process has opened the store before.
    """
    missing = 0

    def record(client: "MlflowClient") -> None:
        nonlocal missing
        store.end_dead_runs(client)
        missing = store.mark(client, found)

    if layout.root() == Path.cwd():
        mark = mark or current.mark_of(found)
        if bounded("which runs are current", record):
            current.note(mark)
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


class _Follower(threading.Thread):
    """Copies a growing journal into MLflow. After a fault it tries again, now and then, and at the end."""

    def __init__(self, entry: Entry, voice: "Voice", files: Mapping[str, Path] | None = None) -> None:
        """Follow a training, or, given its files, what is known of it when it is over."""
        super().__init__(daemon=True, name="mlflow")
        self.entry, self.voice = entry, voice
        self.files: Mapping[str, Path] = files or {}
        self.monitors: list[BaseMetricsMonitor] = []
        self.more = threading.Event()
        self.last = files is not None
        self.complete = False
        self.questions = Questions()

    def run(self) -> None:
        mirror: Mirror | None = None
        training, resume = not self.last, 0.0
        while not self.complete:
            last = self.last
            try:
                if last or time.monotonic() >= resume:
                    if mirror is None:
                        client = self.questions.open_store()
                        store.end_dead_runs(client)
                        mirror = Mirror(client, self.entry, PATIENCE_BESIDE)
                    if training:
                        self._sample()
                    mirror.update(self.files)
                    self.complete = last
            except Exception as error:
                mirror, resume = None, time.monotonic() + PAUSE
                self.voice.tell(error)
                if last:
                    return
            self.more.wait(0 if self.last else SAMPLING_SECONDS)
            self.more.clear()

    def finish(self, patience: float) -> None:
        """Wait for the end, as long as the store answers; keep the outputs if it has not taken all."""
        self.last = True
        self.more.set()
        if self.entry.status == "KILLED":  # it is asked to end: whatever the thread is about
            self.join(patience)
        else:
            self.questions.wait(self, patience)
        if self.complete:
            self.entry.forget_outputs()
        else:
            self.voice.tell(_silent(patience))
            self.entry.keep(self.files)

    def _sample(self) -> None:
        """Note the system's metrics; at least once, and not after the end."""
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        self.monitors = self.monitors or [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        steps = [point.step for point in self.entry.points if "system/cpu_utilization_percentage" in point.metrics]
        if self.entry.status == "RUNNING" or not steps:
            numbers: dict[str, float] = {}
            for monitor in self.monitors:
                monitor.collect_metrics()
                numbers |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            self.entry.add(max(steps, default=-1) + 1, numbers)


class Voice:
    """Tells the first fault of a record, and no other, whichever thread meets it."""

    def __init__(self, name: str) -> None:
        self.name, self.told = name, threading.Lock()

    def tell(self, error: Exception, remedy: str = SYNC) -> None:
        if self.told.acquire(blocking=False):
            warn(f"{self.name} goes on without its MLflow record ({store.reason(error)})", remedy)

    @contextmanager
    def harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.tell(error)


class Questions:
    """What the store is being asked, and since when it has not answered."""

    def __init__(self) -> None:
        self.asked: float | None = None

    def open_store(self) -> "MlflowClient":
        """A client whose every call is such a question."""
        import mlflow  # noqa: F401  takes seconds, which are not the store's

        return cast("MlflowClient", _Asking(self.ask(store.open_store), self))

    def ask(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.asked = time.monotonic()
        try:
            return question(*args, **kwargs)
        finally:
            self.asked = None

    def wait(self, thread: threading.Thread, patience: float) -> None:
        """Until the thread ends, or a question has waited for so many seconds; making a new store may take longer."""
        made = 0.0
        while thread.is_alive():
            if store.making.is_set():
                made = time.monotonic()
            asked = self.asked
            if asked and time.monotonic() - max(asked, made) > patience:
                return
            thread.join(0.05)


class _Asking:
    def __init__(self, client: "MlflowClient", questions: Questions) -> None:
        self.client, self.questions = client, questions

    def __getattr__(self, name: str) -> Any:
        return partial(self.questions.ask, getattr(self.client, name))


def bounded(what: str, action: "Callable[[MlflowClient], None]", remedy: str = SYNC) -> bool:
    """Do something with the store as long as it answers; tell whether it was done, and say so if it was not."""
    questions, outcome = Questions(), Future[None]()

    def work() -> None:
        try:
            action(questions.open_store())
            outcome.set_result(None)
        except Exception as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=work, daemon=True, name="mlflow")
    thread.start()
    questions.wait(thread, PATIENCE)
    fault = outcome.exception() if outcome.done() else _silent(PATIENCE)
    if fault:
        warn(f"{what} is not in MLflow ({store.reason(fault)})", remedy)
    return fault is None


def _silent(patience: float) -> TimeoutError:
    return TimeoutError(f"the store has not answered for {patience:.0f} seconds")


def warn(text: str, remedy: str = SYNC) -> None:
    """Say on standard error what a record lacks, and what helps."""
    print(f"lenet: warning: {text}; {remedy}", file=sys.stderr)
