"""The record of studies: a run for each, and a run of its own for each trial, while they are computed."""

import threading
import time
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
from lenet.tracking.live import PATIENCE, PATIENCE_KILLED, PAUSE, Questions, Voice, surroundings, warn
from lenet.tracking.mirror import BATCH, digest_tags, expected_params

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

EXPERIMENT = f"{store.EXPERIMENT}-sweeps"
SECONDS = 5.0  # between two looks at the trials: what they tell goes to MLflow in batches
ENDED = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
"""A trial's states at its end, and MLflow's."""
REMEDY = "`lenet sweep` with the same words completes it"


@dataclass(frozen=True)
class TrialRecord:
    """What is known of a trial.

    Attributes:
        number: from 0.
        state: waiting, running, complete, pruned or failed.
        block: the resolved block that it tries.
        fingerprints: of its training, under public names; none before it has begun.
        rows: of its history, so far.
        reason: why it failed.
        started, ended: milliseconds since 1970; None where it has not.
    """

    number: int
    state: str
    block: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    rows: Sequence[Row]
    reason: str
    started: int | None
    ended: int | None


@dataclass(frozen=True)
class StudyRecord:
    """What is known of a study.

    Attributes:
        name: the study's.
        variant: the variant's name.
        seed: of each trial's training.
        settings: how it is made, as parameters of its run.
    """

    name: str
    variant: str
    seed: int
    settings: Mapping[str, Any]


News = Callable[[], tuple[Sequence[TrialRecord], Sequence[int]]]
"""Tells all trials, and the numbers of the best ones; called when it is their turn."""
See = Callable[[News], None]


@contextmanager
def study(record: StudyRecord | None, files: Mapping[str, Path]) -> Iterator[See]:
    """The record of a study while it is computed; whatever fails in it is said once, and the study goes on.

    Args:
        record: the study; None for no record.
        files: what is published of it, by name, if it is there at the end.
    """
    if record is None:
        yield lambda news: None
        return
    recorder = _Recorder(record)
    recorder.start()
    status = "FAILED"
    try:
        yield recorder.see
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        recorder.finish(status, {name: path for name, path in files.items() if path.exists()})


class _Recorder(threading.Thread):
    """Copies what is known of a study into MLflow. After a fault it tries again, now and then, and at the end."""

    def __init__(self, record: StudyRecord) -> None:
        super().__init__(daemon=True, name="mlflow")
        self.record = record
        self.voice, self.questions = Voice(f"study {record.name}"), Questions()
        self.news: News | None = None
        self.over = threading.Event()
        self.status, self.files = "RUNNING", dict[str, Path]()
        self.complete = False

    def see(self, news: News) -> None:
        self.news = news

    def run(self) -> None:
        mirror: _Mirror | None = None
        resume = 0.0
        while not self.complete:
            over = self.over.is_set()
            try:
                if self.news and (over or time.monotonic() >= resume):
                    if mirror is None:
                        mirror = _Mirror(self.questions.open_store(), self.record)
                    mirror.update(*self.news())
                    if over:
                        mirror.end(self.status, self.files)
                self.complete = over
            except Exception as error:
                mirror, resume = None, time.monotonic() + PAUSE
                self.voice.tell(error, REMEDY)
                if over:
                    return
            self.over.wait(0 if self.complete else SECONDS)

    def finish(self, status: str, files: Mapping[str, Path]) -> None:
        self.status, self.files = status, dict(files)
        self.over.set()
        self.questions.wait(self, PATIENCE_KILLED if status == "KILLED" else PATIENCE)
        if not self.complete:
            self.voice.tell(TimeoutError("the store has not answered"), REMEDY)


class _Mirror:
    """A study's runs in MLflow, brought up to what is known of it. What is there already stays."""

    def __init__(self, client: "MlflowClient", record: StudyRecord) -> None:
        self.client, self.record = client, record
        self.experiment = store.experiment_id(client, EXPERIMENT)
        self.tags = {name: value for name, value in surroundings().items() if name != "mlflow.source.name"}
        self.tags |= {"mlflow.source.name": "lenet sweep", "study": record.name}
        self.tags |= {"variant": record.variant, "seed": str(record.seed)}
        self.id = self._parent()
        self.best: Sequence[int] = ()
        self.ended = dict[int, str]()  # trials that are told, with their runs
        self.runs = dict[int, tuple[str, int]]()  # of others: the run, and how many epochs it has
        for run in store.reclaim(client, f"tags.kind = 'trial' and tags.study = '{record.name}'", "trial"):
            self._know(run)

    def update(self, trials: Sequence[TrialRecord], best: Sequence[int]) -> None:
        """Add what the runs lack."""
        for trial in trials:
            begun = trial.state in ENDED or trial.state == "running"
            told = self.runs.get(trial.number, ("", -1))[1] >= len(trial.rows) and trial.state not in ENDED
            if begun and not told and trial.number not in self.ended:
                self._tell(trial)
        if list(best) != list(self.best):
            self._link([trial for trial in trials if trial.number in best], trials)
            self.best = list(best)

    def end(self, status: str, files: Mapping[str, Path]) -> None:
        """Close the study's run, with its files. Trials under way are closed with it."""
        for path in files.values():
            self.client.log_artifact(self.id, str(path))
        for run, _ in self.runs.values():
            self.client.set_terminated(run, "KILLED")
        self.client.set_terminated(self.id, status)

    def _parent(self) -> str:
        from mlflow.entities import Param

        found = store.reclaim(self.client, f"tags.kind = 'study' and tags.study = '{self.record.name}'")
        if found:
            run_id = str(found[0].info.run_id)
            self.client.update_run(run_id, "RUNNING")
            self.client.set_tag(run_id, "process", self.tags["process"])
            return run_id
        tags = self.tags | {"kind": "study"}
        run_id = str(self.client.create_run(self.experiment, tags=tags, run_name=self.record.name).info.run_id)
        given = {name: str(value) for name, value in flatten(self.record.settings).items()}
        self.client.log_batch(run_id, params=[Param(name, value) for name, value in given.items()])
        if why := snapshot.withheld():
            warn(f"study {self.record.name} is recorded without its sources", why)
        if content := snapshot.archive():
            with TemporaryDirectory() as scratch:
                (Path(scratch) / "source.zip").write_bytes(content)
                self.client.log_artifact(run_id, f"{scratch}/source.zip", "source")
        return run_id

    def _know(self, run: "MlflowRun") -> None:
        if not run.data.tags.get("trial", "").isdecimal():  # a tag that somebody has edited
            return
        number, run_id = int(run.data.tags["trial"]), str(run.info.run_id)
        if run.data.tags.get("state") in ENDED:
            self.ended[number] = run_id
            return
        points = self.client.get_metric_history(run_id, "train/loss") if "train/loss" in run.data.metrics else []
        self.runs[number] = run_id, max((point.step for point in points), default=0)
        self.client.update_run(run_id, "RUNNING")
        self.client.set_tag(run_id, "process", self.tags["process"])

    def _tell(self, trial: TrialRecord) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = {"state": trial.state} | digest_tags(trial.fingerprints)
        params: list[Param] = []
        if trial.number not in self.runs:
            identity = {"kind": "trial", "trial": str(trial.number), "mlflow.parentRunId": self.id}
            made = self.client.create_run(
                self.experiment,
                start_time=trial.started or journal.now(),
                tags=self.tags | identity,
                run_name=f"trial-{trial.number:03}",
            )
            self.runs[trial.number] = str(made.info.run_id), 0
            block = Variant.model_validate(trial.block)
            params = [Param(*pair) for pair in expected_params(self.record.variant, self.record.seed, block).items()]
        run_id, known = self.runs[trial.number]
        fresh = [row for row in trial.rows if int(row["epoch"]) > known]
        now = trial.ended or journal.now()
        metrics = [
            Metric(name, value, now, int(row["epoch"]))
            for row in fresh
            for name, value in row.items()
            if isinstance(value, float)
        ]
        if trial.state in ENDED and trial.rows:
            tags["weights.sha256"] = str(trial.rows[-1]["weights.sha256"])
        if trial.reason:
            tags |= {"reason": trial.reason[:5000], "mlflow.note.content": trial.reason[:5000]}
        for start in range(0, max(1, len(metrics)), BATCH):
            some = [RunTag(*pair) for pair in tags.items()] if start + BATCH >= len(metrics) else []
            self.client.log_batch(run_id, metrics[start : start + BATCH], params if start == 0 else [], some)
        # a trial taken up again has fewer rows for a moment, the same as before
        self.runs[trial.number] = run_id, max(known, len(trial.rows))
        if trial.state in ENDED:
            self.client.set_terminated(run_id, ENDED[trial.state], trial.ended)
            self.ended[trial.number] = run_id
            del self.runs[trial.number]

    def _link(self, best: Sequence[TrialRecord], trials: Sequence[TrialRecord]) -> None:
        from mlflow.entities import Metric, RunTag

        links = [f"[trial {one.number}](#/experiments/{self.experiment}/runs/{self.ended[one.number]})" for one in best]
        tags = {
            "best.trial": ", ".join(str(one.number) for one in best),
            "best.run": ", ".join(self.ended[one.number] for one in best),
            "mlflow.note.content": f"Best: {', '.join(links)}",
        }
        done = sum(trial.state in ENDED for trial in trials)
        error = min(float(one.rows[-1]["validation/error"]) for one in best)
        point = Metric("best/validation/error", error, journal.now(), done)
        self.client.log_batch(self.id, [point], tags=[RunTag(*pair) for pair in tags.items()])
