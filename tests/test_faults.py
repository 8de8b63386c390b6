"""The tracker is never in the way, whatever happens to it; and afterwards `lenet sync` makes the record whole."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.file_utils import local_file_uri_to_path
from ruamel.yaml import YAML
from sqlalchemy import make_url

from conftest import ENVIRONMENT, ROOT, commit, edit_params, mlflow_server, run, small_disk, wait_for
from lenet import tracking
from lenet.inference import model as packaged
from lenet.params import loading, schema
from lenet.pipeline import compare, evaluate, train
from lenet.runs import readers
from lenet.runs.record import Record
from lenet.runtime import layout, snapshot
from lenet.runtime.errors import InputError
from lenet.tracking import journal, live, recorder
from lenet.tracking import store as store_module
from lenet.tracking.mirror import outputs

EXTRA_SECONDS = 30.0  # 10 are promised; MLflow's own retries take many minutes
BUSY = 4  # times the whole training without a tracker: on a busy machine the import of MLflow, too, takes long
EPOCHS = 4
OF_A_PLACE = {"process", "checkout", "mlflow.note.content"}
SURROUNDINGS = {"git.commit", "git.dirty", "environment.sha256", "mlflow.user", "mlflow.source.git.commit"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making one takes seconds, a copy of it none."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        tracking.open_store()
    return path


@dataclass
class Project:
    """A folder to train in, with a store of its own."""

    folder: Path
    digits: Path

    @property
    def params(self) -> schema.Params:
        return loading.load(self.folder / "params.yaml")

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def weights(self) -> str:
        return str(Record.read(self.folder / "runs" / "modern-1" / "run.json").weights)

    def words(self, seed: int = 1) -> tuple[str, ...]:
        """The training, as dvc.yaml calls it."""
        data = f"{self.digits}/train.safetensors"
        return "train", "modern", str(seed), "--data", data, "--out", f"runs/modern-{seed}"

    @contextmanager
    def entered(self, uri: str | None = None) -> Iterator[None]:
        """This process works here."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(journal, "home", lambda: self.folder / ".dvc" / "tmp" / "lenet" / "journal")
            patch.setenv("MLFLOW_TRACKING_URI", uri or layout.sqlite(self.database))
            yield

    def sync(self, uri: str | None = None) -> int:
        """How many runs `lenet sync` completes."""
        with self.entered(uri):
            return sum(bool(added) for _, added in tracking.sync(self.params))

    def record(self, uri: str | None = None) -> dict[str, dict]:
        """All of MLflow's record here, by run."""
        with self.entered(uri):
            client = tracking.open_store()
            return {str(one.info.run_name): whole_run(client, one) for one in store_module.search(client, "")}


@pytest.fixture
def project(tmp_path: Path, small_digits: Path, template: Path) -> Project:
    return with_store(make_project(tmp_path / "project", small_digits), template)


def with_store(made: Project, template: Path) -> Project:
    shutil.copy(template, made.database)
    (made.folder / "mlartifacts").mkdir()
    return made


def make_project(folder: Path, digits: Path) -> Project:
    (folder / ".dvc").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder)

    def edit(content: dict) -> None:
        content.update(compare=["modern"], seeds=[1, 2])
        content["variants"]["modern"].update(epochs=EPOCHS, train_size=330, validation_size=70)

    edit_params(folder, edit)
    run("git", "init", "-q", cwd=folder)
    return Project(folder, digits)


def whole_run(client: MlflowClient, found: Run) -> dict:
    """A run without ids and process, its files by their digests; under ``measured`` what no second training repeats."""
    run_id = found.info.run_id
    names = {one.info.run_id: str(one.info.run_name) for one in store_module.search(client, "")}
    tags = {name: value for name, value in found.data.tags.items() if name not in OF_A_PLACE}
    if "compares" in tags:
        tags["compares"] = sorted(names[one] for one in tags["compares"].split())
    history = {name: client.get_metric_history(run_id, name) for name in found.data.metrics}
    measured = {name for name in history if name.startswith("system/") or name == "epoch_seconds"}
    there = Path(client.download_artifacts(run_id, ""))
    models = client.search_logged_models([found.info.experiment_id], f"source_run_id = '{run_id}'")
    return {
        "experiment": client.get_experiment(found.info.experiment_id).name,
        "status": found.info.status,
        "params": found.data.params,
        "tags": tags,
        "metrics": {n: sorted((one.step, one.value) for one in history[n]) for n in history.keys() - measured},
        "measured": {n: sorted((one.step, one.timestamp, one.value) for one in history[n]) for n in measured}
        | {"time": (found.info.start_time, found.info.end_time)},
        "inputs": [(one.dataset.name, one.dataset.digest, one.dataset.source) for one in found.inputs.dataset_inputs],
        "outputs": len(found.outputs.model_outputs) if found.outputs else 0,
        "artifacts": files(there),
        "models": [
            (one.name, str(one.status), files(Path(mlflow.artifacts.download_artifacts(f"models:/{one.model_id}"))))
            for one in models
        ],
    }


def files(folder: Path) -> dict[str, str]:
    """Digests of all files, by path; of a model's description without ids and times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if path.name == "MLmodel":
            described = YAML(typ="safe").load(content)
            kept = {n: described[n] for n in ("flavors", "signature", "metadata", "saved_input_example_info")}
            content = json.dumps(kept, sort_keys=True, default=str).encode()
        if path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()[:12]
    return found


def without(record: dict, *names: str) -> dict:
    """A run's record without some tags."""
    return record | {"tags": {name: value for name, value in record["tags"].items() if name not in names}}


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, small_digits: Path, template: Path
) -> Iterator[tuple[Project, dict, dict]]:
    """A project recorded live, its record after the training of seed 1, and after everything."""
    made = with_store(make_project(tmp_path_factory.mktemp("recorded") / "project", small_digits), template)
    (made.folder / ".gitignore").write_text("/mlflow.db*\n/mlartifacts/\n/runs/\n/reports/\n/.dvc/\n")
    commit(made.folder, "start")
    with pytest.MonkeyPatch.context() as patient:
        patient.setattr(recorder, "PATIENCE", 300.0)  # a busy machine's store answers late: not the subject
        with made.entered():
            work(made, "train", seeds=(1,))
        trained = made.record()
        with made.entered():
            work(made, "train", seeds=(2,))
            work(made, "evaluate", "compare")
    return made, trained, made.record()


def work(made: Project, *stages: str, seeds: tuple[int, ...] = (1, 2)) -> None:
    """Stages in this process, recorded."""
    runs, metrics, reports = Path("runs"), Path("metrics"), Path("reports")
    for stage in stages:
        for seed in seeds:
            folder = runs / f"modern-{seed}"
            if stage == "train":
                train.train(made.params, "modern", {seed: folder}, made.digits / "train.safetensors", None, "lenet5")
            elif stage == "evaluate":
                evaluate.evaluate(folder, made.digits / "test.safetensors", metrics / f"modern-{seed}.json", True)
    if "compare" in stages:
        compare.compare(made.params, runs, Path("no-studies"), metrics / "summary.json", reports, True)


# --- the tracker is never in the way ---------------------------------------------------------------------------------


@dataclass
class Ended:
    """How a training in a process of its own ended."""

    status: int
    seconds: float
    said: list[str]


Process = subprocess.Popen[str]


def train_there(project: Project, held: Callable[[Process], None] | None = None, **environment: str) -> Ended:
    """Train in a process of its own. ``held`` is called in the middle of it; the seconds then count from there.

    The middle of the training itself: those of its signature have another seed.
    """
    how, before = ("-m", "lenet"), time.monotonic()
    if held:
        code = (
            "import pathlib, time\n"
            "from lenet import cli\n"
            "from lenet.training.fast_module import FastLeNet\n"
            "end = FastLeNet.on_train_epoch_end\n"
            "def hold(self):\n"
            "    end(self)\n"
            "    here = self.seed < 1998 and self.current_epoch == 1\n"
            "    while here and not pathlib.Path('go').exists(): time.sleep(0.01)\n"
            "FastLeNet.on_train_epoch_end = hold\n"
            "cli.main()\n"
        )
        how = "-c", code
    process = started(project.folder, *how, *project.words(), **environment)
    try:
        if held:
            held(process)
            before = time.monotonic()
            (project.folder / "go").touch()
        out, error = process.communicate(timeout=400)
    finally:
        process.kill()
    return Ended(process.returncode, time.monotonic() - before, messages(out + error))


def started(folder: Path, *words: str, **environment: str) -> Process:
    """A Python in a process of its own, with these sources."""
    surroundings = os.environ | ENVIRONMENT | {"PYTHONPATH": f"{ROOT}/src", "PYTHONWARNINGS": ""} | environment
    command = [sys.executable, *words]
    return subprocess.Popen(command, cwd=folder, env=surroundings, stdout=-1, stderr=-1, text=True)


def messages(text: str) -> list[str]:
    """The lines that a command says, without those of a training's progress."""
    return [line for line in text.splitlines() if ": epoch " not in line]


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory, small_digits: Path) -> tuple[str, float]:
    """The weights of the training without a tracker, and its seconds."""
    made = make_project(tmp_path_factory.mktemp("untracked") / "project", small_digits)
    ended = train_there(made, LENET_TRACK="0")
    assert (ended.status, ended.said) == (0, [])
    assert not (made.folder / ".dvc" / "tmp" / "lenet" / "journal").exists()
    return made.weights, ended.seconds


def metrics_in(database: Path) -> int:
    """How many numbers a store has of finished epochs."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return int(connection.execute("SELECT count(*) FROM metrics WHERE key = 'train/loss'").fetchone()[0])
    except sqlite3.Error:
        return 0


@contextmanager
def locked(database: Path) -> Iterator[None]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield


def fill(folder: Path) -> None:
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def check_harmless(ended: Ended, project: Project, untracked: tuple[str, float], base: float) -> None:
    """One line of warning, no other word, and the same weights in about the same time."""
    print(f"extra seconds: {ended.seconds - base:.1f} (untracked {untracked[1]:.1f})")
    said = "\n".join(ended.said)
    assert ended.status == 0, said
    assert len(ended.said) == 1, said
    assert ended.said[0].startswith("lenet: warning: modern-1 goes on without its MLflow record ("), said
    assert project.weights == untracked[0]
    assert ended.seconds - base < EXTRA_SECONDS + BUSY * untracked[1]


def check_completed(project: Project, recorded: tuple[Project, dict, dict]) -> None:
    """Sync makes the record what it is live, once."""
    assert project.sync() == 1
    found, expected = project.record()["modern-1"], recorded[1]["modern-1"]
    assert found["tags"].pop("current") == "true"
    assert comparable(found) == comparable(without(expected, "current"))
    assert [step for step, *_ in found["measured"]["epoch_seconds"]] == [1, 2, 3, 4]
    assert [project.sync(), project.sync()] == [0, 0]
    assert not list((project.folder / ".dvc" / "tmp" / "lenet" / "journal").glob("*/outputs"))


def comparable(record: dict) -> dict:
    """A run's record without what is of its place and time: commit, environment, sources, measurements."""
    kept = {name: digest for name, digest in record["artifacts"].items() if not name.startswith("source/")}
    return without(record, *SURROUNDINGS) | {"artifacts": kept, "measured": None}


def test_outside_git_a_training_keeps_its_sources_and_says_that_it_has_no_commit(project, monkeypatch, capfd) -> None:
    shutil.rmtree(project.folder / ".git")
    monkeypatch.setattr(recorder, "PATIENCE", 300.0)
    with project.entered():
        work(project, "train", seeds=(1,))
    assert messages(capfd.readouterr().err) == [
        "lenet: warning: modern-1 is recorded without a commit, with its sources; "
        "this folder is in no Git repository; `git init` makes it one"
    ]
    tags = project.record()["modern-1"]["tags"]
    assert (tags["git.commit"], tags["git.dirty"]) == ("none", "unknown")
    (archive,) = project.folder.glob("mlartifacts/*/artifacts/source/source.zip")
    assert snapshot.read(archive.read_bytes()).keys() == {"params.yaml"}


Hold = Callable[[Process], None]
Fault = Callable[[Project, contextlib.ExitStack], tuple[str | None, Hold | None]]
"""Makes a store fail until the end; gives its address, if it is another, and what to do in the middle of training."""


def refuses(project: Project, until_the_end: contextlib.ExitStack) -> tuple[str, None]:
    with socket.create_server(("127.0.0.1", 0)) as once:
        return f"http://127.0.0.1:{once.getsockname()[1]}", None


def never_answers(project: Project, until_the_end: contextlib.ExitStack) -> tuple[str, None]:
    bare = until_the_end.enter_context(socket.create_server(("127.0.0.1", 0), backlog=50))
    return f"http://127.0.0.1:{bare.getsockname()[1]}", None


def is_locked(project: Project, until_the_end: contextlib.ExitStack, mode: str = "wal") -> tuple[None, None]:
    """In WAL mode, ours, readers get through; in SQLite's default nobody does."""
    with closing(sqlite3.connect(project.database)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
    until_the_end.enter_context(locked(project.database))
    return None, None


def is_new_and_locked(project: Project, until_the_end: contextlib.ExitStack) -> tuple[None, None]:
    project.database.unlink()
    until_the_end.enter_context(locked(project.database))
    return None, None


def is_locked_midway(project: Project, until_the_end: contextlib.ExitStack) -> tuple[None, Hold]:
    def hold(_: Process) -> None:
        wait_for(lambda: metrics_in(project.database))
        until_the_end.enter_context(locked(project.database))

    return None, hold


def is_on_a_disk_that_fills(project: Project, until_the_end: contextlib.ExitStack) -> tuple[str, Hold]:
    place = project.folder / "store"
    place.mkdir()
    until_the_end.enter_context(small_disk(place, "4m"))
    shutil.copy(project.database, place)

    def hold(_: Process) -> None:
        wait_for(lambda: metrics_in(place / "mlflow.db"))
        fill(place)

    return f"sqlite:///{place}/mlflow.db", hold


def is_new_on_a_full_disk(project: Project, until_the_end: contextlib.ExitStack) -> tuple[str, None]:
    place = project.folder / "store"
    place.mkdir()
    until_the_end.enter_context(small_disk(place, "64k"))
    fill(place)
    return f"sqlite:///{place}/mlflow.db", None


OFTEN = (refuses, is_locked_midway)
SELDOM = (
    never_answers, is_locked, partial(is_locked, mode="delete"), is_new_and_locked, is_on_a_disk_that_fills,
    is_new_on_a_full_disk,
)  # fmt: skip


@pytest.mark.parametrize("fault", [*OFTEN, *(pytest.param(fault, marks=pytest.mark.slow) for fault in SELDOM)])
def test_a_store_that_fails_is_not_in_the_way(project, untracked, recorded, fault: Fault) -> None:
    with contextlib.ExitStack() as until_the_end:
        uri, hold = fault(project, until_the_end)
        ended = train_there(project, hold, **({"MLFLOW_TRACKING_URI": uri} if uri else {}))
        assert not list(project.folder.glob("store/*mlflow.db*partial*"))
    check_harmless(ended, project, untracked, 0 if hold else untracked[1])
    check_completed(project, recorded)


@pytest.mark.slow
def test_a_killed_server_is_not_in_the_way(project, untracked, recorded) -> None:
    with served(project) as (server, uri):

        def hold(_: Process) -> None:
            wait_for(lambda: metrics_in(project.database))
            os.killpg(server.pid, signal.SIGKILL)

        ended = train_there(project, hold, MLFLOW_TRACKING_URI=uri)
    check_harmless(ended, project, untracked, 0)
    with served(project) as (_, uri):
        assert project.sync(uri) == 1
        assert [project.sync(uri), project.sync(uri)] == [0, 0]
        (found,) = project.record(uri).values()
    assert found["tags"].pop("current") == "true"
    assert comparable(found) == comparable(without(recorded[1]["modern-1"], "current"))


@contextmanager
def served(project: Project) -> Iterator[tuple[Process, str]]:
    """MLflow's own server on a project's store."""
    with closing(sqlite3.connect(project.database)) as connection, connection:
        connection.execute("DELETE FROM experiments WHERE name = 'lenet5'")  # the server chooses the artifacts' place
    with mlflow_server(project.folder) as found:
        yield found


def test_a_process_that_keeps_a_run_s_lock_is_not_in_the_way(project, recorded, monkeypatch, capfd) -> None:
    """For example `lenet sync`, stopped by Ctrl-Z."""
    monkeypatch.setattr(live, "PATIENCE_BESIDE", 0.2)
    with project.entered():
        shutil.copytree(recorded[0].folder / "runs", "runs")
        record = Record.read(Path("runs/modern-1/run.json"))
        capfd.readouterr()
        with journal.lock(f"modern-1-{record.key[:16]}", 0):
            work(project, "evaluate", seeds=(1,))
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1, said
    assert "lenet: warning: modern-1 goes on without" in said[0]
    assert project.sync() == 2
    assert [project.sync(), project.sync()] == [0, 0]


def test_a_store_that_answers_late_says_so_once_and_keeps_the_outputs(project, recorded, monkeypatch, capfd) -> None:
    monkeypatch.setattr(recorder, "PATIENCE", 0.3)
    with project.entered():
        shutil.copytree(recorded[0].folder / "runs", "runs")
        store_module._newest()  # its imports take longer than this patience
        with locked(project.database):
            work(project, "evaluate", seeds=(1,))
        said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lenet: warning")]
        assert said == [
            "lenet: warning: modern-1 goes on without its MLflow record "
            "(the store has not answered for 0 seconds); `lenet sync` completes it"
        ]
        (kept,) = journal.home().glob("*/outputs")
        assert {path.name for path in kept.iterdir()} >= {"weights.safetensors", "predictions.csv", "modern-1.json"}
        shutil.rmtree("runs")  # the next training's outputs are others
        shutil.rmtree("metrics")
        assert project.sync() == 1
    (found,) = project.record().values()
    expected = recorded[2]["modern-1"]
    assert comparable(without(found, "rebuilt", "current")) == comparable(without(expected, "current"))


# --- the record again, from files ------------------------------------------------------------------------------------


def copied(recorded_project: Project, folder: Path, template: Path) -> Project:
    """Another computer: the sources and the outputs, no journal, an empty store."""
    made = Project(folder, recorded_project.digits)
    (folder / ".dvc").mkdir(parents=True)
    for name in ("runs", "metrics", "reports"):
        shutil.copytree(recorded_project.folder / name, folder / name)
    shutil.copy(recorded_project.folder / "params.yaml", folder)
    return with_store(made, template)


def whole_copy(recorded_project: Project, folder: Path) -> Project:
    """All of it, journal and store included; MLflow remembers where runs are, so no artifact may be added here."""
    shutil.copytree(recorded_project.folder, folder)
    return Project(folder, recorded_project.digits)


def check_rebuilt(made: Project, expected: dict[str, dict]) -> None:
    found = made.record()
    assert found.keys() == expected.keys() == {"modern-1", "modern-2", "comparison"}
    for name in ("modern-1", "modern-2"):
        assert found[name]["tags"].pop("rebuilt") == "true"
        assert found[name]["tags"]["git.commit"] == "none"
        assert found[name]["measured"].keys() == {"time"}
    for name, record in found.items():
        assert comparable(record) == comparable(expected[name]), name
    assert found["comparison"]["tags"]["kind"] == "comparison"
    assert found["comparison"]["tags"]["compares"] == ["modern-1", "modern-2"]
    assert [found[name]["tags"].get("current") for name in sorted(found)] == [None, "true", "true"]


def test_a_fresh_copy_s_record_is_rebuilt_from_outputs(recorded, tmp_path: Path, template: Path) -> None:
    made = copied(recorded[0], tmp_path / "copy", template)
    assert made.sync() == 3
    check_rebuilt(made, recorded[2])
    assert [made.sync(), made.sync()] == [0, 0]


def test_the_live_record_is_whole(recorded) -> None:
    whole = recorded[2]
    assert recorded[0].sync() == 0
    for name in ("modern-1", "modern-2"):
        assert whole[name]["status"] == "FINISHED"
        history = readers.read(recorded[0].folder / "runs" / name / "history.csv", readers.history)
        for metric in ("train/loss", "train/error", "validation/loss", "validation/error", "learning_rate"):
            assert whole[name]["metrics"][metric] == list(zip([1, 2, 3, 4], history[metric], strict=True))
        tested = json.loads((recorded[0].folder / "metrics" / f"{name}.json").read_text())["test"]
        for metric in ("misses", "error", "negative_log_likelihood", "calibration_error"):
            assert whole[name]["metrics"][f"test/{metric}"] == [(4, tested[metric])]
        assert len(whole[name]["measured"]["epoch_seconds"]) == EPOCHS
        assert whole[name]["measured"]["system/cpu_utilization_percentage"]
        assert whole[name]["outputs"] == 1
        assert [(model, status) for model, status, _ in whole[name]["models"]] == [("model", "READY")]
        assert whole[name]["artifacts"].keys() >= {
            "history.csv", "weights.safetensors", "run.json", "trace", "predictions.csv", "missed.safetensors",
            "robustness.json", f"{name}.json", "source/source.zip", "source/environment.txt",
            *(f"figures/{figure}.png" for figure in ("learning_curve", "C1_kernels", "confusion", "misclassified")),
        }  # fmt: skip


def test_a_lost_store_is_made_again_from_journals_as_it_was(recorded, tmp_path: Path, template: Path) -> None:
    """Though a number is in one twice, as two checkouts of one project may train the same at the same time."""
    folder = tmp_path / "project"
    shutil.copytree(recorded[0].folder, folder, ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts"))
    made = with_store(Project(folder, recorded[0].digits), template)
    (journalled,) = (folder / ".dvc" / "tmp" / "lenet" / "journal").glob("modern-1-*/points.jsonl")
    journalled.write_text(2 * journalled.read_text() + '[17, 3, {"train/lo')
    assert made.sync() == 3
    found, expected = made.record(), recorded[2]
    for name in ("modern-1", "modern-2"):  # times and measurements, commit and sources, too
        assert found[name] == expected[name]
    assert comparable(found["comparison"]) == comparable(expected["comparison"])
    head = run("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()
    assert found["modern-1"]["tags"]["git.commit"] == head
    assert [made.sync(), made.sync()] == [0, 0]


def test_a_copy_adds_nothing_to_a_record_that_is_there(recorded, tmp_path: Path, template: Path) -> None:
    """Least of all that it was rebuilt."""
    made = copied(recorded[0], tmp_path / "copy", template)
    assert made.sync(f"sqlite:///{recorded[0].database}") == 0
    assert recorded[0].record() == recorded[2]


def test_values_are_corrected_once_whatever_the_clock_says(
    recorded, tmp_path: Path, template: Path, monkeypatch
) -> None:
    """A clock set back by two days makes every new point older than those that it corrects.

    And the smaller of two values of one time is not the latest to MLflow.
    """
    made = copied(recorded[0], tmp_path / "copy", template)
    made.sync()
    for name, change in (("modern-1", {"error": 0.5}), ("modern-2", {"error": 0.001})):
        path = made.folder / "metrics" / f"{name}.json"
        content = json.loads(path.read_text())
        content["test"] |= change
        path.write_text(json.dumps(content))
    summary = made.folder / "metrics" / "summary.json"
    content = json.loads(summary.read_text())
    content["modern"]["test_error"] = 0.375
    summary.write_text(json.dumps(content))
    two_days = 2 * 24 * 3600 * 1000
    monkeypatch.setattr(journal, "now", lambda: int(time.time() * 1000) - two_days)
    with made.entered():
        added = [[count for _, count in tracking.sync(made.params)] for _ in range(2)]
        assert all(count >= 1 for count in added[0])
        assert added[1] == [0, 0, 0]
        assert list(tracking.check(made.params)) == []


def test_a_comparison_is_recorded_of_exactly_its_runs(recorded, tmp_path: Path, template: Path, capfd) -> None:
    made = copied(recorded[0], tmp_path / "copy", template)
    summary, reports = made.folder / "metrics" / "summary.json", made.folder / "reports"
    with made.entered():
        tracking.compared(made.params, Path("runs"), summary, reports)
    assert "not in MLflow (of its runs MLflow lacks modern-1, modern-2); `lenet sync`" in capfd.readouterr().err
    assert made.record() == {}
    edit_params(made.folder, lambda content: content.update(seeds=[1]))
    made.sync()
    assert made.record().keys() == {"modern-1"}
    edit_params(made.folder, lambda content: content.update(seeds=[1, 2]))
    assert made.sync() >= 1
    edit_params(made.folder, lambda content: content.update(seeds=[2, 1]))
    made.sync()  # of the same trainings there is one
    with made.entered():
        assert list(tracking.check(made.params)) == []
        client = tracking.open_store()
        (found,) = store_module.search(client, "tags.kind = 'comparison'")
        client.log_metric(found.info.run_id, "modern/test_error", 0.5)
        (fault,) = tracking.check(made.params)
        assert "metric modern/test_error is 0.5" in fault
        client.delete_run(found.info.run_id)
        assert list(tracking.check(made.params)) == ["the comparison is not there; `lenet sync` records it"]
    metrics = made.folder / "metrics" / "modern-1.json"
    text = metrics.read_text()
    for name, value in (("run", {"key": "another's"}), ("test", {"misses": 999})):  # trained again, not compared again
        content = json.loads(text)
        content[name] |= value
        metrics.write_text(json.dumps(content))
        made.sync()
        assert made.record().keys() == {"modern-1", "modern-2"}  # its comparison was deleted
        with made.entered():
            tracking.compared(made.params, Path("runs"), summary, reports)
        assert "not in MLflow (it is of other runs than there are by now)" in capfd.readouterr().err


def test_what_is_deleted_in_mlflow_is_restored_by_sync_and_not_doubled(recorded, tmp_path: Path, capfd) -> None:
    made = whole_copy(recorded[0], tmp_path / "copy")
    assert made.sync() == 0
    whole = made.record()
    with made.entered():
        client = tracking.open_store()
        experiment = client.get_experiment_by_name("lenet5").experiment_id
        runs = {run.info.run_name: run.info.run_id for run in store_module.search(client, "")}
        client.delete_experiment(experiment)
    capfd.readouterr()
    assert made.sync() == 0
    assert capfd.readouterr().err == "lenet: experiment lenet5 was deleted in MLflow, and is restored\n"
    assert made.record() == whole
    for name in whole:
        client.delete_run(runs[name])
        assert made.sync() == 0
        told = f"lenet: run {name} ({runs[name][:8]}) was deleted in MLflow, and is restored\n"
        assert capfd.readouterr().err == told
    # somebody's copy of a run that is there stays deleted
    tags = client.get_run(runs["modern-1"]).data.tags
    client.delete_run(client.create_run(experiment, tags=tags).info.run_id)
    assert made.sync() == 0
    assert made.record() == whole
    with made.entered():
        assert list(tracking.check(made.params)) == []


def test_two_checkouts_leave_each_other_s_current_runs_alone(recorded, tmp_path: Path, template: Path) -> None:
    one, other = (copied(recorded[0], tmp_path / name, template) for name in ("one", "other"))
    uri = layout.sqlite(one.database)

    def compare_seeds(project: Project, *seeds: int) -> set[str]:
        """The current runs after this project's sync; what each project's doctor says of them goes into ``said``."""
        edit_params(project.folder, lambda content: content.update(seeds=[*seeds]))
        project.sync(uri)
        for each in (one, other):
            with each.entered(uri):
                said[each.folder.name] = [line for line in tracking.check(each.params) if "current" in line]
                runs = store_module.search(tracking.open_store(), "tags.current = 'true'")
        return {str(run.info.run_name) for run in runs}

    said: dict[str, list[str]] = {}
    edit_params(other.folder, lambda content: content.update(seeds=[2]))
    assert compare_seeds(one, 1) == {"modern-1"}
    assert compare_seeds(other, 2) == {"modern-1", "modern-2"}
    assert said == {"one": [], "other": []}
    assert compare_seeds(other, 1) == {"modern-1"}
    assert compare_seeds(other, 2) == {"modern-2"}  # of what both had, the last one's mark goes, and the other is told
    (line,) = said.pop("one")
    assert line.startswith("modern-1 (")
    assert line.endswith(") is not tagged current")
    assert said == {"other": []}
    assert compare_seeds(one, 1) == {"modern-1", "modern-2"}
    shutil.rmtree(other.folder / "runs")
    other.folder.rename(tmp_path / "gone")
    other.folder = tmp_path / "gone"
    assert compare_seeds(one, 1) == {"modern-1"}


def test_another_training_s_files_are_none_of_a_training_s_outputs(recorded) -> None:
    with recorded[0].entered():
        record = Record.read(Path("runs/modern-1/run.json"))
        own, other = (outputs(record, Path("runs/modern-1"), Path(f"metrics/modern-{seed}.json")) for seed in (1, 2))
        assert own.keys() - other.keys() == {"modern-1.json"}
        assert "modern-2.json" not in other
        assert outputs(record, Path("runs/modern-2"), None) == {}


def test_what_the_record_lacks_or_has_twice_is_named(recorded, tmp_path: Path) -> None:
    copy = whole_copy(recorded[0], tmp_path / "copy")
    with copy.entered():
        client = tracking.open_store()
        assert list(tracking.check(copy.params)) == []
        first, second = (tracking.find(client, Record.read(Path(f"runs/modern-{seed}/run.json"))) for seed in (1, 2))
        assert first
        assert second
        (model,) = client.search_logged_models([first.info.experiment_id], f"source_run_id = '{first.info.run_id}'")
        client.delete_logged_model(model.model_id)
        client.set_terminated(first.info.run_id, "KILLED")
        for tag, value in (("data.sha256", "other"), ("current", "false")):
            client.set_tag(first.info.run_id, tag, value)
        client.log_metric(first.info.run_id, "train/loss", 9.0, step=9)
        artifacts = Path(first.info.artifact_uri)
        (artifacts / "history.csv").write_bytes((artifacts / "history.csv").read_bytes()[:-1] + b" ")
        (artifacts / "trace").unlink()
        with closing(sqlite3.connect(copy.database)) as connection, connection:
            change = "UPDATE params SET value = '1' WHERE key = 'optimizer.lr' AND run_uuid = ?"
            connection.execute(change, (first.info.run_id,))
        twin = client.create_run(second.info.experiment_id, run_name="modern-2", tags=second.data.tags).info.run_id
        named = f"modern-1 ({first.info.run_id[:8]})"
        assert list(tracking.check(copy.params)) == [
            f"{named} is not tagged current",
            f"{named}: status KILLED, not FINISHED",
            f"{named}: tag data.sha256 is other, and {first.data.tags['data.sha256']} in the files",
            f"{named}: parameter optimizer.lr is 1, and {first.data.params['optimizer.lr']} in the files",
            f"{named}: metric train/loss is 9.0 in epoch 9, and missing in the files",
            f"{named}: artifact history.csv is not the file runs/modern-1/history.csv",
            f"{named}: artifact trace is missing",
            f"{named}: it has no model",
            "modern-2 is there 2 times",
        ]
        client.delete_run(twin)
        client.delete_run(second.info.run_id)
        assert "modern-2 is not there; `lenet sync` records it" in list(tracking.check(copy.params))
    with copy.entered(f"sqlite:///{tmp_path}/none.db"):
        (said,) = tracking.check(copy.params)
        assert said == f"sqlite:///{tmp_path}/none.db: no runs there yet; `lenet sync` records them"
    with copy.entered("nonsense://x"):
        (said,) = tracking.check(copy.params)
        assert said.startswith("nonsense://x: ")


def test_sync_leaves_alone_what_runs_or_was_meant_for_another_store_and_ends_what_is_dead(project, recorded) -> None:
    dead = f"{socket.gethostname()}:999999@1.00"
    with project.entered():
        shutil.copytree(recorded[0].folder / "runs", "runs")
        record = Record.read(Path("runs/modern-1/run.json"))
        here = store_module.shown()
        for seed, key, store, process in (
            (1, record.key, here, store_module.this_process()),
            (3, "3" * 64, "http://elsewhere", dead),
            (4, "4" * 64, here, dead),
        ):
            training = replace(record, seed=seed, key=key)
            journal.Entry(training, "lenet5", store, {"process": process}, journal.now()).begin()
    assert project.sync() == 2
    assert {name: one["status"] for name, one in project.record().items()} == {
        "modern-2": "FINISHED", "modern-4": "KILLED",
    }  # fmt: skip


@pytest.mark.slow
def test_two_syncs_at_once_complete_each_run_once(recorded, tmp_path: Path, template: Path) -> None:
    made = copied(recorded[0], tmp_path / "copy", template)
    both = [started(made.folder, "-m", "lenet", "sync") for _ in range(2)]
    said = [process.communicate(timeout=240)[1].splitlines() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(lines[-1].split(":")[0] for lines in said) == [
        "3 runs, 0 of them completed",
        "3 runs, 3 of them completed",
    ]
    check_rebuilt(made, recorded[2])


@pytest.mark.slow
def test_eight_trainings_at_once_lose_nothing_in_a_new_store(project, recorded) -> None:
    project.database.unlink()
    for process in [started(project.folder, "-m", "lenet", *project.words(seed)) for seed in range(1, 9)]:
        assert messages("".join(process.communicate(timeout=400))) == []
        assert process.returncode == 0
    found = project.record()
    assert found.keys() == {f"modern-{seed}" for seed in range(1, 9)}
    expected = comparable(recorded[1]["modern-1"])
    assert comparable(found["modern-1"]) == expected
    for record in found.values():
        assert record["status"] == "FINISHED"
        assert record["metrics"].keys() == expected["metrics"].keys()
        assert all([step for step, _ in values] == [1, 2, 3, 4] for values in record["metrics"].values())
        assert record["artifacts"].keys() == found["modern-1"]["artifacts"].keys()
        assert len(record["models"]) == 1
        assert record["measured"].keys() >= {"epoch_seconds", "system/cpu_utilization_percentage"}


@pytest.mark.slow
def test_a_record_over_http_is_the_same(recorded, project, tmp_path: Path, template: Path) -> None:
    served_project, expected = recorded[0], recorded[2]
    shutil.copy(served_project.folder / "params.yaml", project.folder)
    with served(project) as (_, uri):
        with project.entered(uri):
            work(project, "train", "evaluate", "compare")
        assert project.sync(uri) == 0
        found = project.record(uri)
        assert found.keys() == expected.keys()
        for name, record in found.items():
            assert comparable(record) == comparable(expected[name]), name
        with project.entered(uri):
            client = tracking.open_store()
            one = tracking.find(client, Record.read(Path("runs/modern-1/run.json")))
            assert one
            assert one.info.artifact_uri.startswith("mlflow-artifacts:/")
            predicted = mlflow.pyfunc.load_model(f"runs:/{one.info.run_id}/model").predict(packaged.example())
            assert predicted["digit"].shape == (2,)
        other = copied(served_project, tmp_path / "copy", template)
        assert other.sync(uri) == 0
        assert project.record(uri) == found


# --- the store itself ------------------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def test_a_store_is_moved_and_copied_with_its_folder(recorded, tmp_path: Path) -> None:
    origin, whole = recorded[0].folder, recorded[2]
    before = digests(origin / "mlartifacts")
    copy = whole_copy(recorded[0], tmp_path / "a copy's 100%41 [own] {folder}; ü?x=1#")
    assert copy.sync() == 0
    assert copy.record() == whole
    with closing(sqlite3.connect(copy.database)) as connection:
        assert str(origin) not in "\n".join(connection.iterdump()).replace(str(copy.folder), "")

    # what happens to the copy does not happen to the original; in a process of its own: MLflow remembers where runs are
    code = (
        "from lenet.tracking import store\n"
        "client = store.open_store()\n"
        "for one in store.search(client, ''):\n"
        "    client.log_text(one.info.run_id, 'new', 'note.txt')\n"
        "    client.set_tag(one.info.run_id, 'new', 'true')\n"
    )
    uri = layout.sqlite(copy.database)
    run(sys.executable, "-c", code, cwd=copy.folder, MLFLOW_TRACKING_URI=uri, PYTHONPATH=f"{ROOT}/src")
    assert digests(origin / "mlartifacts") == before
    assert recorded[0].record() == whole

    # moved, the old place is no more
    moved = Project(tmp_path / "moved", recorded[0].digits)
    copy.folder.rename(moved.folder)
    assert moved.sync() == 0
    found = moved.record()
    assert {n: {*record["artifacts"]} - {"note.txt"} for n, record in found.items()} == {
        n: {*record["artifacts"]} for n, record in whole.items()
    }
    with moved.entered():
        client = tracking.open_store()
        one = tracking.find(client, Record.read(Path("runs/modern-1/run.json")))
        assert one
        model = mlflow.pyfunc.load_model(f"runs:/{one.info.run_id}/model")
        assert model.predict(packaged.example())["digit"].shape == (2,)


@pytest.mark.parametrize("options", ["", "?timeout=60"])
def test_a_copied_store_without_artifacts_has_its_own_place_for_them(
    template: Path, tmp_path: Path, options: str
) -> None:
    shutil.copytree(template.parent, tmp_path / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/copy/mlflow.db{options}")
        client = tracking.open_store()
        place = client.get_experiment_by_name("lenet5").artifact_location
    assert place == f"{tmp_path}/copy/mlartifacts"
    assert {path.name.partition(".db")[0] for path in (tmp_path / "copy").iterdir()} == {"mlflow", "mlartifacts"}


@pytest.mark.parametrize(
    ("given_uri", "expected"),
    [
        (None, "sqlite:///{}/mlflow.db"),
        ("sqlite:///records/mlflow.db", "sqlite:///{}/records/mlflow.db"),
        ("sqlite:////elsewhere/mlflow.db", "sqlite:////elsewhere/mlflow.db"),
        ("http://example.invalid", "http://example.invalid"),
    ],
)
def test_the_store_lies_in_the_main_checkout_unless_it_is_named(tmp_path, monkeypatch, given_uri, expected) -> None:
    (tmp_path / ".dvc" / "tmp" / "exps" / "copy" / ".dvc").mkdir(parents=True)
    (tmp_path / "a" / "b").mkdir(parents=True)
    if given_uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given_uri)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert store_module.uri() == expected.format(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # in one of DVC's temporary copies
    monkeypatch.chdir(tmp_path / ".dvc" / "tmp" / "exps" / "copy")
    assert store_module.uri() == expected.format(tmp_path)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("%?#{}; &+@:2")))
def test_an_address_names_exactly_its_file_and_folder(name: str) -> None:
    path = Path("/", name)
    address = layout.sqlite(path)
    assert make_url(address.format()).database == str(path)  # Optuna formats addresses
    assert layout.sqlite_file(f"{address}?timeout=60") == path
    assert layout.absolute(f"{address}?timeout=60") == f"{address}?timeout=60"
    assert local_file_uri_to_path(layout.artifacts(path)) == str(path)


def test_a_store_of_an_older_mlflow_is_upgraded_and_kept_beside(tmp_path: Path, monkeypatch, capfd) -> None:
    import sqlalchemy
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    older = "770bee3ae1dd"  # of MLflow 3.2
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    engine = sqlalchemy.create_engine(uri)
    Base.metadata.create_all(engine)
    alembic = _get_alembic_config(uri)
    with engine.begin() as connection:
        alembic.attributes["connection"] = connection
        command.upgrade(alembic, older)
    engine.dispose()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        place = f"{tmp_path}/mlartifacts"
        connection.execute(f"INSERT INTO experiments VALUES (1, 'lenet5', '{place}', 'active', 1, 1)")
        connection.execute(
            "INSERT INTO runs (run_uuid, name, user_id, status, start_time, end_time, lifecycle_stage, experiment_id)"
            f" VALUES ('{32 * 'a'}', 'old-1', 'someone', 'FINISHED', 1, 2, 'active', 1)"
        )
        connection.execute(f"INSERT INTO params VALUES ('seed', '1', '{32 * 'a'}')")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = tracking.open_store()
    (found,) = client.search_runs(["1"])
    assert (found.info.run_name, found.info.status, found.data.params) == ("old-1", "FINISHED", {"seed": "1"})
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lenet")]
    assert said == [f"lenet: mlflow.db was of an older MLflow and is upgraded; as it was: mlflow.db.{older}"]
    with closing(sqlite3.connect(tmp_path / f"mlflow.db.{older}")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(older,)]
        assert connection.execute("SELECT name FROM runs").fetchall() == [("old-1",)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE alembic_version SET version_num = 'fffeeedddccc'", "schema fffeeedddccc is none that MLflow"),
        ("DROP TABLE alembic_version", "none of MLflow's"),
    ],
)
def test_an_unknown_store_is_refused_untouched(template: Path, tmp_path: Path, monkeypatch, change, named) -> None:
    shutil.copy(template, tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute(change)
    before = (tmp_path / "mlflow.db").read_bytes()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(InputError, match=named) as refused:
        tracking.open_store()
    assert str(tmp_path / "mlflow.db") in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert (tmp_path / "mlflow.db").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"mlflow.db", "mlflow.db.lock"}


def begun(folder: Path) -> int:
    """Bytes of a store in the making; its journals come and go."""
    sizes = 0
    for path in folder.glob("*mlflow.db*"):
        with contextlib.suppress(FileNotFoundError):
            sizes += path.stat().st_size
    return sizes


@pytest.mark.slow
def test_a_store_whose_maker_was_killed_is_made_by_the_next(tmp_path: Path) -> None:
    """MLflow cannot finish a store that was begun."""
    code = "from lenet import tracking; tracking.open_store()"
    folder = tmp_path / "new%41?{}"
    environment = os.environ | {"MLFLOW_TRACKING_URI": layout.sqlite(folder / "mlflow.db"), "PYTHONPATH": f"{ROOT}/src"}
    maker = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment)
    wait_for(lambda: begun(folder) > 100_000)
    maker.kill()
    maker.wait()
    assert not (folder / "mlflow.db").exists()
    run(sys.executable, "-c", code, cwd=tmp_path, **environment)
    assert (folder / "mlflow.db").exists()
    assert {path.name for path in folder.iterdir()} <= {"mlflow.db", "mlflow.db.lock", "mlartifacts"}
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


# --- the sources behind a run ----------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path: Path, monkeypatch) -> Path:
    """A Git repository with a project in it, and this process there."""
    content = {
        "src/lenet/a.py": "a = 1\n", "src/lenet/gone.py": "gone\n", "src/lenet/old.py": "old = 1\n" * 9,
        "src/lenet/crlf.py": "x = 1\r\ny = 2\r\n", "src/lenet/templates/t.html": "<p>\n",
        "params.yaml": "seeds: [1]\n", "dvc.yaml": "stages:\n", "dvc.lock": "schema\n",
        "experiments/ladder/dvc.yaml": "stages:\n",
        "experiments/ladder/dvc.lock": "schema\n", "requirements.lock": "torch\n", "pyproject.toml": "[project]\n",
        "README.md": "read\n", "tests/test_a.py": "test\n", ".gitignore": "ignored.py\n.env\n",
    }  # fmt: skip
    folder = tmp_path / "repository"
    for name, text in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    run("git", "init", "-q", cwd=folder)
    commit(folder, "start")
    monkeypatch.chdir(folder)
    return folder


KEPT = {
    "src/lenet/a.py", "src/lenet/gone.py", "src/lenet/old.py", "src/lenet/crlf.py", "src/lenet/templates/t.html",
    "params.yaml", "dvc.yaml", "dvc.lock",
    "experiments/ladder/dvc.yaml", "experiments/ladder/dvc.lock", "requirements.lock", "pyproject.toml",
}  # fmt: skip


def archived() -> set[str]:
    return set(zipfile.ZipFile(io.BytesIO(snapshot.archive())).namelist())


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)


def test_an_archive_has_the_sources_and_nothing_else(sources: Path) -> None:
    assert archived() == KEPT
    for name in (
        "data/train.safetensors", "src/lenet/data.csv", "src/lenet/weights.pt", ".env", "src/.env", "secret.py",
        "src/lenet/.env.py", "src/.hidden/a.py", "src/lenet/ignored.py", "src/lenet/id_rsa", "src/lenet/key.yaml",
    ):  # fmt: skip
        write(name, "secret")
    Path("src/lenet/linked").symlink_to("/etc")
    assert archived() == KEPT
    assert snapshot.diff() == b""
    run("git", "add", "-A", ".", cwd=sources)  # not even when Git has them
    run("git", "add", "-f", ".env", "src/.env", cwd=sources)
    assert archived() == KEPT
    assert snapshot.diff() == b""
    before = snapshot.archive()
    os.utime("src/lenet/a.py", (1e9, 1e9))
    assert snapshot.archive() == before


def test_in_the_midst_of_a_merge_each_source_is_kept_once_and_in_order(sources: Path) -> None:
    run("git", "branch", "other", cwd=sources)
    for text, words in (("a = 2\n", ("checkout", "-q", "other")), ("a = 3\n", ("merge", "-q", "@{-1}"))):
        Path("src/lenet/a.py").write_text(text)
        commit(sources, text)
        run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words, cwd=sources, status=None)
    assert len(run("git", "ls-files", "-u", cwd=sources).stdout.splitlines()) == 3
    assert zipfile.ZipFile(io.BytesIO(snapshot.archive())).namelist() == sorted(KEPT)


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", "--extra-index-url https://eve:s3cret@host/simple",
        "-i http://s3cret@host/simple", "x @ git+https://${USER}:s3cret@host/x", "postgresql://:s3cret@db/trials",
        "https://host/simple?Access_Token=s3cret", "https://host/?a=b&password=s3cret",
    ],
)  # fmt: skip
def test_sources_with_a_secret_are_not_kept_and_the_line_is_told(sources: Path, text: str) -> None:
    for name in ("requirements.lock", "src/lenet/new.py"):
        before = Path(name).read_text() if Path(name).exists() else ""
        write("src/lenet/a.py", f"a = '{name}'\n")
        write(name, f"# first\n{text}\n")
        for add in (False, True):
            if add:
                run("git", "add", "-A", ".", cwd=sources)
            assert snapshot.archive() == b""
            assert b"s3cret" not in snapshot.diff()
            assert b"c2VjcmV0" not in snapshot.diff()
            assert f"+a = '{name}'".encode() in snapshot.diff()
            assert snapshot.withheld().startswith(f"{name}, line 2, has a key")
            assert "s3cret" not in snapshot.withheld()
        commit(sources, "secret")
        write(name, before)  # taken out, it would be in the diff
        assert b"s3cret" not in snapshot.diff()
        assert b"c2VjcmV0" not in snapshot.diff()
        assert archived() >= KEPT


@pytest.mark.parametrize(
    "text",
    [
        "-i https://${TOKEN}@host/simple", "https://eve:${TOKEN}@host", "f'http://{user}:{word}@{host}'",
        "postgresql://lenet@db/trials", "git+ssh://git@host/x", "https://host/a:b@c", "https://host/?tokens=3",
    ],
)  # fmt: skip
def test_an_address_without_a_secret_is_kept(sources: Path, text: str) -> None:
    write("requirements.lock", text)
    assert archived() == KEPT
    assert text.encode() in snapshot.diff()


def test_sources_that_cannot_all_be_kept_are_not_kept(sources: Path) -> None:
    """A part of changed ones may be another commit's whole, and would be rerun in their place."""
    Path("src/lenet/link.py").symlink_to("/etc/passwd")
    assert (snapshot.archive(), snapshot.withheld()) == (b"", "src/lenet/link.py is no file but a link or folder")
    assert b"passwd" not in snapshot.diff()
    Path("src/lenet/link.py").unlink()
    write("src/lenet/large.py", "secret" * 350_000)
    assert (snapshot.archive(), snapshot.withheld()) == (b"", "src/lenet/large.py has more than 1,048,576 bytes")
    assert b"secret" not in snapshot.diff()
    Path("src/lenet/large.py").unlink()
    for i in range(6):
        write(f"src/lenet/long{i}.py", f"# {i:>1000}\n" * 1000)
    assert (snapshot.archive(), snapshot.withheld()) == (b"", "more than 1,000 files or 4,194,304 bytes of sources")
    text = snapshot.diff()  # cut at its bound
    assert snapshot.LIMIT < len(text) < snapshot.LIMIT + 100
    assert text.endswith(b"bytes in all\n")


def change(folder: Path) -> None:
    (folder / "src/lenet/a.py").write_text("a = 2\n")
    (folder / "src/lenet/crlf.py").write_bytes(b"x = 1\r\ny = 3\r\n")
    (folder / "src/lenet/latin.py").write_bytes(b"# caf\xe9\n")
    (folder / "src/lenet/new file.py").write_text("ä\n")
    (folder / "src/lenet/gone.py").unlink()
    (folder / "params.yaml").write_text("seeds: [1, 2]\n")
    run("git", "mv", "src/lenet/old.py", "src/lenet/renamed.py", cwd=folder)
    (folder / "README.md").write_text("not a source\n")
    (folder / "src/lenet/staged.py").write_text("staged\n")
    run("git", "add", "src/lenet/staged.py", cwd=folder)


@pytest.mark.parametrize(
    "settings", [[], ["diff.noprefix=true", "color.ui=always", "diff.renames=copies", "diff.external=true"]]
)
def test_the_diff_applies_to_the_commit_and_gives_the_sources(sources: Path, tmp_path: Path, settings) -> None:
    for setting in settings:
        run("git", "config", *setting.split("="), cwd=sources)
    assert snapshot.diff() == b""
    assert snapshot.state() == "false"
    (sources / "src/lenet/untracked.py").write_text("new\n")
    assert snapshot.state() == "true"
    (sources / "src/lenet/untracked.py").unlink()
    change(sources)
    assert snapshot.state() == "true"
    (tmp_path / "uncommitted.diff").write_bytes(snapshot.diff())
    assert b"-a = 1\n+a = 2\n" in snapshot.diff()
    assert b"not a source" not in snapshot.diff()
    run("git", "clone", "-q", str(sources), "clone", cwd=tmp_path)
    run("git", "apply", "--whitespace=nowarn", str(tmp_path / "uncommitted.diff"), cwd=tmp_path / "clone")
    there = {p.relative_to(tmp_path / "clone" / "src"): p.read_bytes() for p in (tmp_path / "clone/src").rglob("*.*")}
    here = {p.relative_to(sources / "src"): p.read_bytes() for p in (sources / "src").rglob("*.*")}
    assert there == here
    assert (tmp_path / "clone" / "params.yaml").read_text() == "seeds: [1, 2]\n"


def test_the_diff_of_a_project_within_a_repository_applies_there(sources: Path, tmp_path: Path, monkeypatch) -> None:
    outer = tmp_path / "outer"
    (outer / "sub").mkdir(parents=True)
    (outer / "src").mkdir()
    (outer / "src" / "other.py").write_text("other\n")
    shutil.copytree(sources, outer / "sub" / "project", ignore=shutil.ignore_patterns(".git"))
    run("git", "init", "-q", cwd=outer)
    commit(outer, "start")
    project = outer / "sub" / "project"
    monkeypatch.chdir(project)
    assert archived() == KEPT
    (project / "src/lenet/a.py").write_text("a = 2\n")
    (project / "src/lenet/new.py").write_text("new\n")
    (outer / "src" / "other.py").write_text("changed\n")
    (tmp_path / "uncommitted.diff").write_bytes(snapshot.diff())
    assert b"changed" not in snapshot.diff()
    run("git", "stash", "-qu", cwd=outer)
    run("git", "apply", str(tmp_path / "uncommitted.diff"), cwd=project)
    assert (project / "src/lenet/a.py").read_text() == "a = 2\n"
    assert (project / "src/lenet/new.py").read_text() == "new\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_the_repository_of_another_user_is_not_known_to_be_clean(sources: Path, monkeypatch) -> None:
    for variable in ("GLOBAL", "SYSTEM"):
        monkeypatch.setenv(f"GIT_CONFIG_{variable}", "/dev/null")
    assert (snapshot.state(), snapshot.silence()) == ("false", "")
    for path in (sources, sources / ".git"):
        os.chown(path, 65534, 65534)
    assert (snapshot.commit(), snapshot.state()) == ("none", "unknown")
    assert f"`git config --global --add safe.directory {sources}` trusts it" in snapshot.silence()
    assert archived() == KEPT


def test_outside_git_nothing_fails(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("a\n")
    monkeypatch.chdir(tmp_path)
    for path in (os.environ["PATH"], "/nowhere"):  # where there is no Git at all
        monkeypatch.setenv("PATH", path)
        assert (snapshot.commit(), snapshot.state(), snapshot.diff()) == ("none", "unknown", b"")
        assert "`git init` makes" in snapshot.silence()
        assert archived() == {"src/a.py"}
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    run("git", "init", "-q", cwd=tmp_path)  # nor before the first commit
    assert (snapshot.commit(), snapshot.state(), snapshot.silence()) == ("none", "true", "")
    assert b"+a" in snapshot.diff()
