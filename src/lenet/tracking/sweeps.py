"""The record of studies: a run for each, made while it is computed, and below it one for each trial that has ended."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lenet.params.loading import flatten
from lenet.params.schema import Variant
from lenet.runs.record import Row
from lenet.runtime import snapshot
from lenet.tracking import journal, store
from lenet.tracking.live import surroundings
from lenet.tracking.mirror import digest_tags, expected_params
from lenet.tracking.recorder import Recorder, ending, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = f"{store.EXPERIMENT}-sweeps"
ENDED = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""A trial's states at its end, and MLflow's."""


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial that has ended.

    Attributes:
        number: from 0.
        state: complete, pruned or failed.
        block: the resolved block that it tries.
        fingerprints: of its training, under public names; none if it has not begun.
        rows: of its history.
        reason: why it failed.
        started, ended: milliseconds since 1970.
    """

    number: int
    state: str
    block: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    rows: Sequence[Row]
    reason: str
    started: int
    ended: int


@dataclass(frozen=True)
class StudyRecord:
    """What is known of a study.

    Attributes:
        name: the study's.
        variant: the variant's name.
        seeds: of each trial's trainings, with blanks between.
        settings: how it is made, as parameters of its run.
        trials: tells those that have ended, and the numbers of the best ones.
    """

    name: str
    variant: str
    seeds: str
    settings: Mapping[str, Any]
    trials: Callable[[], tuple[Sequence[TrialRecord], Sequence[int]]]


@contextmanager
def study(record: StudyRecord, files: Sequence[Path]) -> Iterator[Callable[[], None]]:
    """The record of a study while it is computed; whatever fails in it is said once, and the study goes on.

    Args:
        record: the study.
        files: what is published of it, if it is there at the end.

    Yields:
        What begins the record, as soon as there is a trial to tell of: a study that is refused leaves none.
    """
    status = ""

    def begin(client: "MlflowClient") -> Callable[[], None]:
        runs = _Runs(client, record)

        def update() -> None:
            runs.update(*record.trials())
            if status:
                runs.end(status, [path for path in files if path.exists()])

        return update

    def start() -> None:
        if not recorder.ident:
            recorder.start()

    def end(how: str) -> None:
        nonlocal status
        status = how
        if recorder.ident:
            recorder.finish()

    lacks = f"study {record.name} goes on without its MLflow record"
    recorder = Recorder(lacks, begin, "`lenet sweep` with the same words completes it")
    with ending(end):
        yield start


class _Runs:
    """A study's runs in MLflow. What is there already stays."""

    def __init__(self, client: "MlflowClient", record: StudyRecord) -> None:
        self.client, self.record = client, record
        self.tags = surroundings() | {"mlflow.source.name": "lenet sweep", "study": record.name}
        self.tags |= {"variant": record.variant, "seed": record.seeds}
        self.id = self._parent()
        self.best: Sequence[int] = ()
        found = store.reclaim(client, f"tags.kind = 'trial' and tags.study = '{record.name}'", "trial")
        self.trials = {run.data.tags.get("trial"): run for run in found if run.data.tags.get("state") in ENDED}

    def update(self, trials: Sequence[TrialRecord], best: Sequence[int]) -> None:
        """Add what the runs lack."""
        for trial in trials:
            if str(trial.number) not in self.trials:
                self._add(trial)
        if list(best) != list(self.best):
            self._link([trial for trial in trials if trial.number in best], len(trials))
            self.best = list(best)

    def end(self, status: str, files: Sequence[Path]) -> None:
        """Close the study's run, with its files."""
        for path in files:
            self.client.log_artifact(self.id, str(path))
        self.client.set_terminated(self.id, status)

    def _parent(self) -> str:
        condition, tags = f"tags.kind = 'study' and tags.study = '{self.record.name}'", self.tags | {"kind": "study"}
        run, is_new = store.run_of(self.client, EXPERIMENT, condition, tags=tags, run_name=self.record.name)
        run_id = str(run.info.run_id)
        if not is_new:
            self.client.update_run(run_id, "RUNNING")
            self.client.set_tag(run_id, "process", self.tags["process"])
            return run_id
        store.add(self.client, run_id, params=flatten(self.record.settings))
        if why := snapshot.withheld():
            warn(f"study {self.record.name} is recorded without its sources", why)
        if content := snapshot.archive():
            with TemporaryDirectory() as scratch:
                (Path(scratch) / "source.zip").write_bytes(content)
                self.client.log_artifact(run_id, f"{scratch}/source.zip", "source")
        return run_id

    def _add(self, trial: TrialRecord) -> None:
        """A trial's run; the tag ``state`` comes last, so that one without it is not whole."""
        number = str(trial.number)
        identity = {"kind": "trial", "trial": number, "mlflow.parentRunId": self.id}
        run, _ = store.run_of(
            self.client,
            EXPERIMENT,
            f"tags.kind = 'trial' and tags.study = '{self.record.name}' and tags.trial = '{number}'",
            start_time=trial.started,
            tags=self.tags | identity,
            run_name=f"trial-{trial.number:03}",
        )
        tags = digest_tags(trial.fingerprints)
        if trial.rows and "weights.sha256" in trial.rows[-1]:  # of one seed
            tags["weights.sha256"] = str(trial.rows[-1]["weights.sha256"])
        if trial.reason:
            tags |= {"reason": trial.reason[:5000], "mlflow.note.content": trial.reason[:5000]}
        block = Variant.model_validate(trial.block)
        params = expected_params(self.record.variant, self.record.seeds, block)
        store.add(self.client, run.info.run_id, tags, params, store.points(trial.rows, trial.ended))
        self.client.set_terminated(run.info.run_id, ENDED[trial.state], trial.ended)
        self.client.set_tag(run.info.run_id, "state", trial.state)
        self.trials[number] = run

    def _link(self, best: Sequence[TrialRecord], count: int) -> None:
        runs = [(one.number, self.trials[str(one.number)]) for one in best]
        tags = {
            "best.trial": ", ".join(str(number) for number, _ in runs),
            "best.run": ", ".join(run.info.run_id for _, run in runs),
            "mlflow.note.content": "Best: " + ", ".join(store.link(run, f"trial {number}") for number, run in runs),
        }
        error = min(float(one.rows[-1]["validation/error"]) for one in best)
        store.add(self.client, self.id, tags, points=[("best/validation/error", error, journal.now(), count)])
