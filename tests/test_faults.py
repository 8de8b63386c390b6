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
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML
from safetensors.torch import save_file

from conftest import ENVIRONMENT, ROOT, commit, edit_params, run
from lenet import compare, config, evaluate, journal, snapshot, tracking, train
from lenet.data import load_digits
from lenet.errors import InputError
from lenet.record import Record
from lenet.tracking import live
from lenet.tracking import store as store_module

LOCK = ROOT / "requirements-numeric.lock"
EXTRA_SECONDS = 30.0  # 10 are promised; this machine may be busy, and MLflow's own retries take minutes
EPOCHS = 4
SURROUNDINGS = {"git.commit", "git.dirty", "environment.sha256", "mlflow.user", "mlflow.source.git.commit"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: making one takes seconds, a copy of it none."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        tracking.open_store()
    return path


@pytest.fixture(scope="module")
def small_digits(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few hundred digits."""
    folder = tmp_path_factory.mktemp("digits")
    for name in ("train", "test"):
        few = load_digits(prepared / f"{name}.safetensors")[:400]
        save_file({part: getattr(few, part).clone() for part in ("images", "labels", "index")}, folder / name)
    return folder


@dataclass
class Project:
    """A folder to train in, with a store of its own."""

    folder: Path
    digits: Path

    @property
    def params(self) -> config.Params:
        return config.load(self.folder / "params.yaml")

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def weights(self) -> str:
        return str(Record.read(self.folder / "runs" / "modern-1" / "run.json").weights)

    def command(self) -> list[str]:
        """The training, as dvc.yaml calls it."""
        return [
            sys.executable, "-m", "lenet", "train", "modern", "1", "--data", f"{self.digits}/train",
            "--numerics", str(LOCK), "--out", "runs/modern-1",
        ]  # fmt: skip

    @contextmanager
    def entered(self, uri: str | None = None) -> Iterator[None]:
        """This process works here."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(journal, "home", lambda: self.folder / ".dvc" / "tmp" / "lenet" / "journal")
            patch.setenv("MLFLOW_TRACKING_URI", uri or f"sqlite:///{self.database}")
            yield

    def sync(self, uri: str | None = None) -> int:
        """How many runs `lenet sync` completes."""
        with self.entered(uri):
            found = tracking.sync(self.params, Path("runs"), Path("metrics"), Path("reports"))
            return sum(bool(one.added) for one in found)

    def record(self, uri: str | None = None) -> dict[str, dict]:
        """All of MLflow's record here, by run."""
        with self.entered(uri):
            client = tracking.open_store()
            return {str(one.info.run_name): whole_run(client, one) for one in store_module.search(client, "")}


@pytest.fixture
def project(tmp_path: Path, small_digits: Path, template: Path) -> Project:
    made = make_project(tmp_path / "project", small_digits)
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
    return Project(folder, digits)


def whole_run(client: MlflowClient, found: Run) -> dict:
    """A run without ids, times, the process and what was measured of it, and its files by their digests."""
    run_id = found.info.run_id
    names = {one.info.run_id: str(one.info.run_name) for one in store_module.search(client, "")}
    tags = {name: value for name, value in found.data.tags.items() if name not in ("process", "mlflow.note.content")}
    if "compares" in tags:
        tags["compares"] = sorted(names[one] for one in tags["compares"].split())
    history = {name: client.get_metric_history(run_id, name) for name in found.data.metrics}
    metrics = {
        name: sorted((one.step, None if name == "epoch_seconds" else one.value) for one in values)
        for name, values in history.items()
        if not name.startswith("system/")
    }
    there = Path(client.download_artifacts(run_id, ""))
    models = client.search_logged_models([found.info.experiment_id], f"source_run_id = '{run_id}'")
    return {
        "experiment": client.get_experiment(found.info.experiment_id).name,
        "status": found.info.status,
        "params": found.data.params,
        "tags": tags,
        "metrics": metrics,
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
    made = make_project(tmp_path_factory.mktemp("recorded") / "project", small_digits)
    shutil.copy(template, made.database)
    (made.folder / "mlartifacts").mkdir()
    run("git", "init", "-q", cwd=made.folder)
    (made.folder / ".gitignore").write_text("/mlflow.db*\n/mlartifacts/\n/runs/\n/reports/\n/.dvc/\n")
    commit(made.folder, "start")
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
                train.train(made.params, "modern", seed, made.digits / "train", LOCK, folder, False, "lenet5")
            elif stage == "evaluate":
                evaluate.evaluate(folder, made.digits / "test", metrics / f"modern-{seed}.json", True)
    if "compare" in stages:
        compare.compare(made.params, runs, metrics / "summary.json", reports, True)


# --- the tracker is never in the way ---------------------------------------------------------------------------------


@dataclass
class Ended:
    """How a training in a process of its own ended."""

    status: int
    seconds: float
    said: list[str]


def train_there(project: Project, held: Callable[[], None] | None = None, **environment: str) -> Ended:
    """Train in a process of its own. ``held`` is called in the middle of it; the seconds then count from there."""
    command, before = project.command(), time.monotonic()
    if held:
        code = (
            "import pathlib, time\n"
            "from lenet import classifier, cli\n"
            "end = classifier.Classifier.on_train_epoch_end\n"
            "def hold(self):\n"
            "    end(self)\n"
            "    while self.current_epoch == 1 and not pathlib.Path('go').exists(): time.sleep(0.01)\n"
            "classifier.Classifier.on_train_epoch_end = hold\n"
            "cli.main()\n"
        )
        command = [sys.executable, "-c", code, *command[3:]]
    surroundings = os.environ | ENVIRONMENT | {"PYTHONPATH": f"{ROOT}/src", "PYTHONWARNINGS": "default"} | environment
    process = subprocess.Popen(
        command, cwd=project.folder, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        if held:
            held()
            before = time.monotonic()
            (project.folder / "go").touch()
        out, error = process.communicate(timeout=240)
    finally:
        process.kill()
    return Ended(process.returncode, time.monotonic() - before, [*out.splitlines(), *error.splitlines()])


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory, small_digits: Path) -> tuple[str, float]:
    """The weights of the training without a tracker, and its seconds."""
    made = make_project(tmp_path_factory.mktemp("untracked") / "project", small_digits)
    ended = train_there(made, LENET_TRACK="0")
    assert (ended.status, ended.said) == (0, [])
    assert not (made.folder / ".dvc" / "tmp" / "lenet" / "journal").exists()
    return made.weights, ended.seconds


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


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


@contextmanager
def listening() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as bare:
        yield f"http://127.0.0.1:{bare.getsockname()[1]}"


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own at a folder."""
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


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
    assert ended.seconds - base < EXTRA_SECONDS


def check_completed(project: Project, recorded: tuple[Project, dict, dict]) -> None:
    """Sync makes the record what it is live, once."""
    assert project.sync() == 1
    assert without_source(project.record()["modern-1"]) == without_source(
        without(recorded[1]["modern-1"]) | {"tags": recorded[1]["modern-1"]["tags"] | {"current": "true"}}
    )
    assert [project.sync(), project.sync()] == [0, 0]
    assert not list((project.folder / ".dvc" / "tmp" / "lenet" / "journal").glob("*/outputs"))


def without_source(record: dict) -> dict:
    """A run's record without what it says of its place's sources: only one of the projects is in Git."""
    kept = {name: digest for name, digest in record["artifacts"].items() if not name.startswith("source/")}
    return without(record, *SURROUNDINGS) | {"artifacts": kept}


def test_a_refused_connection_is_not_in_the_way(project, untracked, recorded) -> None:
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    ended = train_there(project, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    check_harmless(ended, project, untracked, untracked[1])
    check_completed(project, recorded)


def test_a_server_that_never_answers_is_not_in_the_way(project, untracked, recorded) -> None:
    with listening() as uri:
        ended = train_there(project, MLFLOW_TRACKING_URI=uri)
    check_harmless(ended, project, untracked, untracked[1])
    check_completed(project, recorded)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_locked_store_is_not_in_the_way(project, untracked, recorded, mode: str) -> None:
    """In WAL mode, ours, readers get through; in SQLite's default nobody does."""
    with closing(sqlite3.connect(project.database)) as connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
    with locked(project.database):
        ended = train_there(project)
    check_harmless(ended, project, untracked, untracked[1])
    check_completed(project, recorded)


def test_a_locked_new_store_is_not_in_the_way(project, untracked, recorded) -> None:
    project.database.unlink()
    with locked(project.database):
        ended = train_there(project)
    check_harmless(ended, project, untracked, untracked[1])
    check_completed(project, recorded)


def test_a_store_locked_midway_is_not_in_the_way(project, untracked, recorded) -> None:
    with contextlib.ExitStack() as until_the_end:

        def hold() -> None:
            wait_for(lambda: metrics_in(project.database))
            until_the_end.enter_context(locked(project.database))

        ended = train_there(project, hold)
    check_harmless(ended, project, untracked, 0)
    check_completed(project, recorded)


def test_a_full_disk_under_the_store_is_not_in_the_way(project, untracked, recorded, template: Path) -> None:
    place = project.folder / "store"
    place.mkdir()
    with small_disk(place, "4m"):
        shutil.copy(template, place)

        def hold() -> None:
            wait_for(lambda: metrics_in(place / "mlflow.db"))
            fill(place)

        ended = train_there(project, hold, MLFLOW_TRACKING_URI=f"sqlite:///{place}/mlflow.db")
        check_harmless(ended, project, untracked, 0)
        (place / "filler").unlink()
    check_completed(project, recorded)


def test_a_disk_too_full_for_a_new_store_is_not_in_the_way(project, untracked, recorded) -> None:
    place = project.folder / "store"
    place.mkdir()
    with small_disk(place, "64k"):
        fill(place)
        ended = train_there(project, MLFLOW_TRACKING_URI=f"sqlite:///{place}/mlflow.db")
        assert not list(place.glob("*mlflow.db*partial*"))
    check_harmless(ended, project, untracked, untracked[1])
    check_completed(project, recorded)
