"""The MLflow record: every contract tag, one run per training, a model that loads anywhere, and no talk outside."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run

import test_house
from conftest import ROOT, edit_params, run, wait_for
from lenet import tracking
from lenet.cli import cli
from lenet.digits.data import Digits, load_digits
from lenet.inference import model as packaged
from lenet.params import loading
from lenet.params.schema import Params
from lenet.pipeline import evaluate
from lenet.pipeline.train import train
from lenet.runs.record import Record
from lenet.runtime import processes
from lenet.runtime.errors import InputError
from lenet.tracking import journal, recorder
from lenet.tracking import store as store_module
from lenet.training import fingerprint
from test_train import small_params

pytestmark = pytest.mark.usefixtures("unsigned")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store in which `modern` seed 1 was trained and evaluated."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def tracked(store: Path, params: Params, small_digits: Path) -> tuple[MlflowClient, Run, Path]:
    """A client, the run and the run's folder."""
    folder = store / "modern-1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
        patch.setattr(recorder, "SECONDS", 0.2)
        patch.setattr(recorder, "PATIENCE", 300.0)  # a busy machine's store answers late: not the subject
        train_once(params, small_digits, folder)
        evaluate.evaluate(folder, small_digits / "test.safetensors", store / "modern-1.json", track=True)
        client = tracking.open_store()
        found = tracking.find(client, Record.read(folder / "run.json"))
        assert found
        return client, found, folder


def train_once(params: Params, digits: Path, folder: Path, name: str = "modern") -> None:
    train(small_params(params), name, {1: folder}, digits / "train.safetensors", None, "lenet5")


def test_a_run_has_every_contract_tag(tracked, digits: Digits) -> None:
    _, found, folder = tracked
    tags, record = found.data.tags, Record.read(folder / "run.json")
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    assert {name: tags[name] for name in ("variant", "seed", "threads", "current", "kind")} == {
        "variant": "modern", "seed": "1", "threads": "1", "current": "false", "kind": "training",
    }  # fmt: skip
    assert tags["run.key"] == record.key
    assert tags["weights.sha256"] == record.weights
    assert tags["data.sha256"] == fingerprint.data_sha256(digits[70:400], digits[:70])
    assert tags["environment.sha256"] == fingerprint.environment_sha256()
    assert tags["source.sha256"] == fingerprint.source_sha256()
    assert (tags["conformance"], tags["threads"]) == ("right", "1")
    assert "canary" not in tags
    assert tags["git.commit"] == git
    assert tags["git.dirty"] in ("true", "false")
    assert found.info.run_name == "modern-1"
    assert found.info.status == "FINISHED"


def test_the_block_is_its_parameters_and_the_data_its_input(tracked, params: Params) -> None:
    _, found, _ = tracked
    block = small_params(params).variants["modern"]
    assert found.data.params == {"variant": "modern", "seed": "1"} | {
        name: str(value) for name, value in loading.flatten(block).items()
    }
    assert found.data.params["network.pooling.kind"] == "average"
    (entry,) = found.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("mnist-train", found.data.tags["data.sha256"][:36])


def test_the_readme_s_model_loads_without_lightning_and_pickle_on_any_batch(
    tracked, store: Path, prepared: Path
) -> None:
    """By the README's script as it stands, on its five digits; then on others."""
    client, found, folder = tracked
    (script,) = {
        re.search(r"```python\n(import mlflow\n.*?)```", (ROOT / page).read_text(), re.S)[1]
        for page in ("README.md", "docs/tutorial/first-hour.md")
    }
    (model,) = client.search_logged_models([found.info.experiment_id], filter_string="name = 'model'")
    files = [path.name for path in Path(model.artifact_location).rglob("*") if path.is_file()]
    assert not [name for name in files if name.endswith((".pkl", ".pth", ".pt", ".pt2"))]
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, *rest):
        if name.split(".")[0] in ("pytorch_lightning", "lightning"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.path[:] = [path for path in sys.path if path != "{ROOT}/src"]  # not this checkout
{script}
import numpy as np, json
images = np.fromfile("{store}/images", np.uint8).reshape(-1, 28, 28)
import lenet
assert lenet.__file__.endswith("code/lenet/__init__.py"), lenet.__file__
print(json.dumps([model.predict(images[:n])["digit"].tolist() for n in (1, 2, 7, 64)]))
assert "pytorch_lightning" not in sys.modules
(given,), told = model.metadata.signature.inputs.inputs, model.metadata.signature.outputs.inputs
assert (given.type, given.shape) == (np.dtype("uint8"), (-1, 28, 28))
assert {{output.name: output.shape for output in told}} == {{"digit": (-1,), "scores": (-1, 10)}}
images.flags.writeable = False
assert model.predict(images[0].astype(np.float64))["digit"].tolist() == model.predict(images[:1])["digit"].tolist()
for wrong in (images[:1] / 200, images[0][:, :20], np.stack([images] * 3, -1)):
    try:
        model.predict(wrong)
    except Exception as error:
        print(error)
"""
    images = load_digits(prepared / "test.safetensors").images[:64].numpy()
    images.tofile(store / "images")
    (store / "data").symlink_to(prepared)
    client.set_tag(found.info.run_id, "current", "true")
    done = run(sys.executable, "-c", code, cwd=store, MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false")
    client.set_tag(found.info.run_id, "current", "false")
    expected = packaged.load(folder).predict(images)["digit"].tolist()
    answered, *refused = done.stdout.strip().splitlines()[-4:]
    assert json.loads(answered) == [expected[:n] for n in (1, 2, 7, 64)]
    assert refused == [
        "fractions from 0 to 1.275: neither of 1 nor grey levels; round those to uint8",
        "an array of shape (28, 20); expected (n, 28, 28), or (28, 28) for one image",
        "an array of shape (64, 28, 28, 3); expected (n, 28, 28), or (28, 28) for one image; take the mean of colours",
    ]
    assert "Warning" not in done.stderr


def test_two_names_of_one_block_are_two_runs(tracked, params, small_digits, store, monkeypatch) -> None:
    client, found, folder = tracked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    twin = params.model_copy(update={"variants": params.variants | {"twin": params.variants["modern"]}})
    train_once(twin, small_digits, store / "twin-1", name="twin")
    record = Record.read(store / "twin-1" / "run.json")
    assert record.key == found.data.tags["run.key"]
    assert tracking.find(client, record).info.run_name == "twin-1"
    assert tracking.find(client, Record.read(folder / "run.json")).info.run_id == found.info.run_id
    client.delete_run(tracking.find(client, record).info.run_id)


def test_training_again_goes_on_in_the_same_run_and_logs_nothing_twice(
    tracked, params, small_digits, store, monkeypatch
):
    client, found, folder = tracked
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    train_once(params, small_digits, folder)
    evaluate.evaluate(folder, small_digits / "test.safetensors", store / "modern-1.json", track=True)
    assert len(client.search_runs([found.info.experiment_id])) == 1
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == 2
    assert len(client.get_metric_history(found.info.run_id, "test/misses")) == 1
    made = f"source_run_id = '{found.info.run_id}'"
    assert len(client.search_logged_models([found.info.experiment_id], filter_string=made)) == 1


def test_current_marks_exactly_the_runs_behind_the_outputs(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    client = tracking.open_store()
    experiment = client.get_experiment_by_name("lenet5").experiment_id
    for variant, seed, key in (("v", "1", "a"), ("v", "2", "b"), ("w", "1", "a")):
        tags = {"run.key": key, "kind": "training", "variant": variant, "seed": seed}
        client.create_run(experiment, run_name="v-1", tags=tags | {"current": "true"})  # as anybody may tag and rename
    for found in ({("v-1", "a"), ("v-2", "b")}, {("w-1", "a")}, set()):
        tracking.mark_current(frozenset(found))
        runs = client.search_runs([experiment], "tags.current = 'true'")
        assert set(map(store_module.identity, runs)) == found
    assert capsys.readouterr().err == ""
    tracking.mark_current(frozenset({("v-1", "another key"), ("v-2", "another key")}))
    assert "2 of the 2 present runs are not in MLflow; `lenet sync` completes it" in capsys.readouterr().err
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "copy"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)  # as a queued experiment: same store, other outputs
    assert store_module.uri() == f"sqlite:///{tmp_path}/mlflow.db"
    tracking.mark_current(frozenset({("v-1", "a")}))
    assert not client.search_runs([experiment], "tags.current = 'true'")


def test_a_run_whose_process_was_killed_does_not_stay_running(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = tracking.open_store()
    experiment = client.get_experiment_by_name("lenet5").experiment_id
    import socket

    ended = psutil.Popen(["true"])  # and nobody has asked how: it still has its number
    wait_for(lambda: ended.status() == psutil.STATUS_ZOMBIE)
    mine = store_module.this_process()
    runs = {
        process: client.create_run(experiment, tags={"process": process}).info.run_id
        for process in (
            mine,
            f"{socket.gethostname()}:999999@1.00",
            "elsewhere:1@1.00",
            f"{socket.gethostname()}:{os.getpid()}@1.00",  # it had this process's number before it
            f"{socket.gethostname()}:{ended.pid}@{ended.create_time():.2f}",
            f"{socket.gethostname()}:of an older tag",
        )
    }
    tracking.end_dead_runs(client)
    found = [client.get_run(run_id).info.status for run_id in runs.values()]
    assert found == ["RUNNING", "KILLED", "RUNNING", "KILLED", "KILLED", "KILLED"]
    ended.wait()


RUNNERS = "CI", "GITHUB_ACTIONS", "CIRCLECI", "BUILDKITE", "GITLAB_CI", "TRAVIS"
QUIETING = "PYTEST_CURRENT_TEST", "PYTEST_VERSION", *RUNNERS
"""Variables whose presence alone makes MLflow send nothing."""


def test_a_training_talks_to_nobody(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process of ours resolves a name or connects, telemetry included, even where the caller allows it."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def hook(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        address = args[1] if event == 'socket.connect' else args[0]\n"
        "        if isinstance(address, (bytes, str)) and event == 'socket.connect': return\n"  # a Unix socket
        "        open('talk', 'a').write(f'{event} {address}\\n')\n"
        "sys.addaudithook(hook)\n"
    )
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(
        text.replace("train_size: 55000", "train_size: 300").replace("validation_size: 5000", "validation_size: 50")
    )
    (tmp_path / "check.py").write_text("import socket; socket.getaddrinfo('localhost', 80)")
    environment = {"PYTHONPATH": str(tmp_path), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    for name in (*QUIETING, "DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    run(sys.executable, "check.py", cwd=tmp_path, **environment)
    assert (tmp_path / "talk").read_text().startswith("socket.getaddrinfo localhost")  # the hook works
    (tmp_path / "talk").unlink()
    run(
        sys.executable, "-m", "lenet", "train", "modern", "1", "--data", str(prepared / "train.safetensors"),
        "--out", "runs/modern-1", cwd=tmp_path, **environment,
    )  # fmt: skip
    assert (tmp_path / "runs" / "modern-1" / "run.json").exists()
    assert not (tmp_path / "talk").exists(), (tmp_path / "talk").read_text()


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://eve:pass@word@host:5000/a", "https://***@host:5000/a"),
        ("https://eve:pass/word@host:5000/a", "https://***@host:5000/a"),
        ("https://token@host/mail@a", "https://***@host/mail@a"),
        (
            "mysql+pymysql://eve:p%40ss@host/db?ssl_password=abc&x=1",
            "mysql+pymysql://***@host/db?ssl_password=***&x=***",
        ),
        ("eve:pass@host:5000", "***@host:5000"),
        ("https:/eve:pass@host:5000", "***@host:5000"),
        ("https://host/?api_key=abc#pass%77ord=abc", "https://host/?api_key=***#pass%77ord=***"),
        ("sqlite:////a@b/mlflow.db", "sqlite:////a@b/mlflow.db"),
        ("https://host:5000", "https://host:5000"),
        ("models:/lenet5@champion", "models:/lenet5@champion"),
    ],
)
def test_passwords_of_addresses_are_neither_shown_nor_kept(
    address: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert store_module.shown() == (shown if not address.startswith("sqlite") else store_module.uri())
    assert store_module.masked(f"no answer from {address} today") == f"no answer from {shown} today"
    assert store_module.reason(OSError(f"{address} is gone")) == f"{shown} is gone"


def test_every_command_shows_masked_addresses_alone(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a server that does not answer, and of package indexes; and the journal of a training beside it."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "requirements.lock").write_text("--index-url https://eve:s3cret@host/simple\ntorch==1\n")
    home = tmp_path / "journal"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://eve:s3cret@127.0.0.1:9/mlflow")
    monkeypatch.setattr(journal, "home", lambda: home)
    monkeypatch.setattr(processes, "follow_parents", lambda: None)
    edit_params(tmp_path, lambda content: content["variants"]["modern"].update(epochs=1, train_size=100))
    words = ("train", "modern", "1", "--data", str(prepared / "train.safetensors"), "--out", "runs/modern-1")
    said = ""
    for command in (words, ("sync",), ("doctor",), ("diff", "modern-1", "modern-2"), ("ui",), ("rerun", "modern-1")):
        done = CliRunner().invoke(cli, command)
        said += f"{done.output}{done.exception}\n"
    assert "127.0.0.1:9" in said
    assert "s3cret" not in said
    assert "modern-1 is recorded without its sources; requirements.lock, line 1, has a key, password or token" in said
    kept = [*home.glob("modern-1-*/**/*")]
    assert {"points.jsonl", "entry.json", "outputs", "weights.safetensors"} <= {path.name for path in kept}
    assert not [path for path in kept if path.is_file() and b"s3cret" in path.read_bytes()]
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_store_that_is_no_database_is_told_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_text("some text\n")
    with pytest.raises(sqlite3.DatabaseError) as caught:
        store_module.look()
    assert "; move it away, and `lenet sync` records" in store_module.reason(caught.value)


@pytest.mark.parametrize(("variant", "key"), [("../../x", "0" * 64), ("/tmp/x", "0" * 64), ("x", "/../victim")])
def test_a_stranger_s_run_leads_to_no_folder_elsewhere(variant: str, key: str, params: Params) -> None:
    record = Record(variant, 1, params.variants["modern"], key, "d", "s")
    with pytest.raises(InputError, match="names no training"):
        journal.of(record)
    with pytest.raises(InputError, match="names no training"):
        journal.Entry(record, "lenet5", "store", {}, 0).forget_outputs()


def test_the_model_has_all_that_its_modules_import() -> None:
    """Its own sources and its requirements: it is loaded where nothing else of the project is."""
    places = [fingerprint.PACKAGE / name for name in packaged.SOURCES]
    paths = {path for place in places for path in ([place] if place.is_file() else place.rglob("*.py"))}
    imported = {name for path in paths for name in test_house.imported(path)}
    lazily = {"digits.datamodule", "training.module", "runtime.layout"}  # by what a model does not do
    ours = {name.removeprefix("lenet.") for name in imported} & test_house.MODULES.keys()
    assert {test_house.MODULES[name] for name in ours - lazily} <= paths
    needed = {name.partition(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"lenet"}
    assert needed == {requirement.split("==")[0].split(".")[0] for requirement in packaged.requirements()}


def test_a_model_in_mlflow_answers_pictures(tracked, store: Path, small_digits: Path, tmp_path: Path, monkeypatch):
    """By its run, its alias or its folder; its test is known from the run's own artifacts."""
    client, found, folder = tracked
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / ".dvc").mkdir()
    images = load_digits(small_digits / "test.safetensors").images[:20].numpy()
    np.save("some.npy", images)
    (model,) = client.search_logged_models([found.info.experiment_id], f"source_run_id = '{found.info.run_id}'")
    client.create_registered_model("lenet5")
    client.create_model_version("lenet5", model.artifact_location, found.info.run_id)
    client.set_registered_model_alias("lenet5", "champion", "1")
    expected, path = packaged.load(folder).predict(images), list(sys.path)
    addresses = f"runs:/{found.info.run_id}/model", "models:/lenet5@champion", model.artifact_location
    for address in addresses:
        done = CliRunner().invoke(cli, ["predict", "--json", "--model", address, "some.npy"])
        assert done.exit_code == 0, done.output
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert [one["digit"] for one in answers] == expected["digit"].tolist()
        np.testing.assert_array_equal(np.float32([one["probabilities"] for one in answers]), expected["scores"])
        assert {one["model"] for one in answers} == {address}
        assert sum({one["tested"]["from"]: one["tested"]["digits"] for one in answers}.values()) > 100  # of 400
    assert sys.path == path
    shutil.copytree(model.artifact_location, "others")
    file = Path("others/MLmodel")
    file.write_text(file.read_text().replace("lenet.inference.model", "mlflow.sklearn"))
    for address, said in (("others", "not a model of this project"), ("models:/none@champion", "the model cannot be")):
        with pytest.raises(InputError, match=f"^{address}: {said}"):
            tracking.load_model(address, tmp_path / "scratch")
    client.delete_registered_model("lenet5")
