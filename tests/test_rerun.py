"""`lenet rerun`: a run again from its own sources; what it says of planted differences; and that nothing is touched."""

import json
import os
import re
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.torch import load_file, save_file

from conftest import ENVIRONMENT, ROOT, commit, files_of, lenet_command, mlflow_server, run, small_disk, wait_for
from lenet.digits.data import shuffled
from lenet.pipeline import ahead
from lenet.reproduce import many
from lenet.runtime.files import write_json
from test_ahead import forge

pytestmark = pytest.mark.slow
OTHER = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OMP_NUM_THREADS": "2"}
"""As another processor would compute."""
FASTER = "training/optimizer.py", 'group["lr"] / (1 - whole', '1.01 * group["lr"] / (1 - whole'
"""An edit of Adam's step, which the readable and the fast network share."""


@pytest.fixture
def folder(copy: Path) -> Path:
    return copy


def rerun(folder: Path, *words: str, status: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(*lenet_command("rerun", *words), cwd=folder, status=status, **environment)


def judged(folder: Path, *words: str, status: int, **environment: str) -> dict[str, Any]:
    """The verdict of a rerun."""
    return json.loads(rerun(folder, *words, "--json", status=status, **environment).stdout)["verdict"]


def runs(folder: Path, experiment: str = "lenet5", condition: str = "") -> list[Run]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], condition) if found else []


def train(folder: Path, variant: str = "modern", *words: str) -> Run:
    """Train and evaluate in the checkout as it is, without DVC; the run in MLflow."""
    before = {one.info.run_id for one in runs(folder)}
    train_stages(folder, variant, *words)
    (made,) = [one for one in runs(folder) if one.info.run_id not in before]
    return made


def train_stages(folder: Path, variant: str = "modern", *words: str, **environment: str) -> None:
    out, metrics = f"runs/{variant}-1", f"metrics/{variant}-1.json"
    data = ("--data", "data/train.safetensors", "--out", out)
    run(*lenet_command("train", variant, "1", *data, *words), cwd=folder, **environment)
    run(*lenet_command("evaluate", out, "--test", "data/test.safetensors", "--out", metrics), cwd=folder, **environment)


def artifacts(folder: Path, made: Run) -> Path:
    return folder / "mlartifacts" / made.info.run_id / "artifacts"


def edit_json(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_source(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / "src" / "lenet" / name
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


def edit_snapshot(folder: Path, made: Run, name: str, old: str, new: str) -> None:
    """Change a line in the sources that a run has kept."""
    path = artifacts(folder, made) / "source" / "source.zip"
    with zipfile.ZipFile(path) as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    assert files[f"src/lenet/{name}"].count(old.encode()) == 1
    files[f"src/lenet/{name}"] = files[f"src/lenet/{name}"].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)


def state(folder: Path) -> dict[str, Any]:
    """All of the user's that a rerun could touch: work tree, index, stash, branches, DVC's cache and outputs."""
    git = {
        words: run("git", *words.split(), cwd=folder, GIT_OPTIONAL_LOCKS="0").stdout
        for words in ("status --porcelain", "stash list", "for-each-ref", "worktree list", "diff --cached")
    }
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".dvc/tmp" not in str(path) and not path.name.startswith("mlflow.db")
    ]
    kept = {
        str(path): path.stat().st_mtime_ns
        for path in files
        if "mlartifacts" not in path.parts and path.suffix != ".pyc"
    }
    return git | kept


def leftovers(folder: Path) -> list[Path]:
    return list((folder / ".dvc" / "tmp" / "lenet" / "reruns").glob("*"))


def test_a_published_run_is_rerun_bitwise_and_recorded_with_links(folder: Path) -> None:
    """With other instructions and threads, too."""
    before = state(folder)
    done = rerun(folder, "modern-1", **OTHER)
    assert "best possible grade here: bitwise" in done.stdout
    assert "modern-1: bitwise" in done.stdout
    assert [line.split("│")[1].strip() for line in done.stdout.splitlines() if line.count("│") == 5][-3:] == [
        "prepare", "train", "evaluate",
    ]  # fmt: skip
    (again,) = runs(folder, "lenet5-reruns")
    (original,) = runs(folder, condition="attributes.run_name = 'modern-1'")
    assert again.data.tags["rerun.of"] == original.info.run_id
    assert original.data.tags["reruns"].split() == [again.info.run_id]
    assert again.data.tags["rerun.grade"] == original.data.tags["rerun.grade"] == "bitwise"
    assert original.info.run_id in again.data.tags["mlflow.note.content"]
    assert again.data.tags["weights.sha256"] == original.data.tags["weights.sha256"]
    assert again.data.params == original.data.params
    for name in ("train/loss", "validation/error", "test/misses"):
        assert again.data.metrics[name] == original.data.metrics[name]
    kept = json.loads((artifacts(folder, again) / "rerun.json").read_text())
    assert kept["verdict"]["grade"] == "bitwise"
    assert (artifacts(folder, again) / "weights.safetensors").exists()
    assert len(runs(folder)) == 3  # two trainings and their comparison, as before
    assert state(folder) == before
    assert leftovers(folder) == []


def test_preflight_stops_before_any_stage_and_tells_what_is_in_reach(folder: Path) -> None:
    """Other versions are shown, and keep nothing out of reach."""
    (made,) = runs(folder, condition="attributes.run_name = 'modern-1'")
    path = artifacts(folder, made) / "source" / "environment.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join("numpy==1.26.0\n" if line.startswith("numpy==") else line for line in lines))
    MlflowClient(f"sqlite:///{folder}/mlflow.db").set_tag(made.info.run_id, "git.commit", "0" * 40)
    shown = rerun(folder, "modern-1", "--preflight", **OTHER).stdout
    assert "best possible grade here: bitwise" in shown
    assert "if the rerun is not bitwise, something is broken" in shown
    assert re.search(r"code .*\(commit [0-9a-f]{12}\)", shown)  # its own has vanished: its like
    assert [line for line in shown.splitlines() if "numpy 1.26.0" in line and "it need not be" in line]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert {name: same for name, _, _, same in rows if name in ("signature", "conformance")} == {
        "signature": "yes",
        "conformance": "yes",
    }
    edit_json(artifacts(folder, made) / "run.json", lambda record: record["parameters"]["optimizer"].update(lr=0.0031))
    assert "best possible grade here: predictions" in rerun(folder, "modern-1", "--preflight", status=3).stdout
    assert runs(folder, "lenet5-reruns") == []


def test_one_pixel_is_found_in_the_data_at_its_step_and_one_parameter_beside_it(folder: Path) -> None:
    path = folder / "data" / "train.safetensors"
    tensors = load_file(path)
    validation, digit = 500, shuffled(1500, 1, 1).tolist()[7]  # of the first step: the parameter matters from the next
    tensors["images"][validation + digit, 14, 14] ^= 255
    path.unlink()
    save_file(tensors, path)
    made = train(folder)
    edit_json(artifacts(folder, made) / "run.json", lambda record: record["parameters"]["optimizer"].update(lr=0.0031))
    verdict = judged(folder, made.info.run_id, status=None)
    assert (verdict["epoch"], verdict["step"]) == (1, [1, 1])
    assert [cause["kind"] for cause in verdict["causes"]] == ["data", "parameters"]
    assert re.search(r"optimizer\.lr [\d.]+ → 0\.0031", verdict["causes"][1]["detail"])
    same = {stage["what"]: stage["same"] for stage in verdict["stages"]}
    answers = verdict["grade"] == "predictions"  # may still be the same, by the machine's arithmetic
    assert same == {"prepare": False, "train": False, "evaluate": answers}


def test_a_dirty_run_is_rerun_from_its_snapshot_and_a_changed_source_line_is_found(folder: Path) -> None:
    edit_source(folder, *FASTER)
    made = train(folder)
    assert made.data.tags["git.dirty"] == "true"
    run("git", "checkout", "-q", "src", cwd=folder)
    refused = rerun(folder, made.info.run_id, status=2).stderr
    assert "they would be executed" in refused
    assert f"1 of them not as in commit {made.data.tags['git.commit'][:12]}: src/lenet/{FASTER[0]}" in refused
    done = rerun(folder, made.info.run_id, "--trust-sources")
    assert "bitwise" in done.stdout
    assert "the run's own snapshot" in done.stdout
    edit_snapshot(folder, made, FASTER[0], FASTER[2], FASTER[2].replace("1.01", "1.02"))
    verdict = judged(folder, made.info.run_id, "--trust-sources", status=None)
    assert [cause["kind"] for cause in verdict["causes"]] == ["code"]
    assert verdict["step"] == [1, 2]  # the first loss is taken before the first update
    assert verdict["epoch"] == 1


THIEF = """

import os
from pathlib import Path
Path(os.environ["HOME"], "stolen").write_text(os.environ.get("SECRET", "nothing"))
"""


def test_nothing_of_a_changed_snapshot_is_executed_unasked_and_asked_it_gets_no_secret(
    folder: Path, tmp_path: Path
) -> None:
    (made,) = runs(folder, condition="attributes.run_name = 'modern-1'")
    set_tag = MlflowClient(f"sqlite:///{folder}/mlflow.db").set_tag
    set_tag(made.info.run_id, "git.dirty", "true")
    surroundings = {"HOME": str(tmp_path), "SECRET": "password"}
    assert "(commit " in rerun(folder, "modern-1", "--preflight", **surroundings).stdout  # Git vouches for it
    # a module that the probe and every stage import
    edit_snapshot(folder, made, "runtime/errors.py", "class Diverged", f"{THIEF}class Diverged")
    for words, status in (("--preflight",), 3), ((), 2), (("--preflight", "--trust-sources", "--env"), 0):
        done = rerun(folder, "modern-1", *words, status=status, **surroundings)
        assert "1 of them not as in commit" in done.stderr
        assert "src/lenet/runtime/errors.py; recorded by " in done.stderr
        assert not (tmp_path / "stolen").exists()
    rerun(folder, "modern-1", "--trust-sources", **surroundings)
    assert (tmp_path / "stolen").read_text() == "nothing"


def test_an_experiment_of_dvc_is_rerun_with_its_parameters_and_sources(folder: Path) -> None:
    run("dvc", "commit", "-f", "dvc.yaml", cwd=folder)  # the copy's cache knows its outputs
    edit_source(folder, *FASTER)
    change = ["-S", "variants.modern.optimizer.lr=0.0021"]
    run("dvc", "exp", "run", "--queue", *change, "train@modern-1", cwd=folder)
    run("git", "checkout", "-q", ".", cwd=folder)
    run("dvc", "exp", "run", "--run-all", cwd=folder)
    (made,) = [one for one in runs(folder) if one.data.params.get("optimizer.lr") == "0.0021"]
    assert made.data.tags["git.dirty"] == "true"
    run("git", "checkout", "-q", ".", cwd=folder)
    done = rerun(folder, made.info.run_id)
    assert "bitwise" in done.stdout, done.stdout + done.stderr


def test_a_run_on_another_tracking_server_is_rerun_from_what_is_kept_there(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "mlartifacts")
    (folder / "mlflow.db").unlink()
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server") as (_, address):
        edit_source(folder, *FASTER)
        train_stages(folder, MLFLOW_TRACKING_URI=address)
        run("git", "checkout", "-q", ".", cwd=folder)
        client = MlflowClient(address)
        (made,) = client.search_runs([client.get_experiment_by_name("lenet5").experiment_id])
        for here in ("runs", "metrics", ".dvc/tmp/lenet"):  # nothing is left of it but the server's record
            shutil.rmtree(folder / here)
        words = made.info.run_id, "--json", "--trust-sources"
        report = json.loads(rerun(folder, *words, MLFLOW_TRACKING_URI=address).stdout)
        assert report["sources"] == "the run's own snapshot"
        assert report["verdict"]["grade"] == "bitwise"
        assert client.get_run(made.info.run_id).data.tags["reruns"] == report["rerun"]
        assert client.get_run(report["rerun"]).data.tags["rerun.of"] == made.info.run_id
    assert not (folder / "mlflow.db").exists()


def test_many_are_rerun_seeds_of_one_block_together(folder: Path) -> None:
    """And one that is not what it says leaves the other its verdict."""
    for variant in ("lecun1998", "lecun1998-distorted"):  # on-line, with the weights of each pass
        train(folder, variant, "--snapshots")
    run(*lenet_command("train", "lecun1998", "2", "--data", "data/train.safetensors", "--out", "runs/lecun1998-2"),
        cwd=folder)  # fmt: skip
    run(*lenet_command("evaluate", "runs/lecun1998-2"), cwd=folder)
    (second,) = runs(folder, condition="attributes.run_name = 'lecun1998-2'")
    MlflowClient(f"sqlite:///{folder}/mlflow.db").set_tag(second.info.run_id, "weights.sha256", "0" * 64)
    done = rerun(folder, "--all", "--jobs", "1", "--filter", "tags.variant LIKE 'lecun1998%'", status=4)
    assert sorted(line for line in done.stderr.splitlines() if line.startswith("lecun1998")) == [
        "lecun1998-1: bitwise", "lecun1998-2: predictions", "lecun1998-distorted-1: bitwise",
    ]  # fmt: skip
    again = {one.info.run_name: one.data.tags["rerun.grade"] for one in runs(folder, "lenet5-reruns")}
    assert again == {"lecun1998-1": "bitwise", "lecun1998-2": "predictions", "lecun1998-distorted-1": "bitwise"}
    assert leftovers(folder) == []
    assert rerun(folder, "--all", "--filter", "tags.variant = 'none'", status=2).stdout == ""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_many_are_interrupted_at_once(folder: Path, how: signal.Signals) -> None:
    command = lenet_command("rerun", "--all", "--jobs", "1")
    process = subprocess.Popen(command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=-1, stderr=-1, text=True)
    wait_for(lambda: leftovers(folder))
    process.send_signal(how)
    _, said = process.communicate(timeout=60)  # a busy machine needs a while to start what is interrupted
    assert process.returncode == 128 + how
    assert "Traceback" not in said
    assert runs(folder, "lenet5-reruns") == []  # neither has been computed
    wait_for(lambda: not strays(folder))
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    ("untrusted", "said"), [(False, "possible: bitwise"), (True, "possible: bitwise with --trust-sources")]
)
def test_a_preflight_of_many_says_what_a_rerun_asks_for(untrusted: bool, said: str) -> None:
    report = {"verdict": None, "preflight": {"best": "bitwise", "untrusted": untrusted}}
    assert many.OneOfMany("modern-1", "modern-1", 3, report, "").grade == said


def test_an_id_of_a_store_is_no_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else ``--all`` as a run's id would begin reruns without end."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    how = many.How("bitwise", False, False, False, False)
    (found,) = many._process([("modern-1", "--all")], how, 1, [])
    assert (found.status, "'--all' names no run" in found.fault) == (2, True)


def text(folder: Path) -> str:
    return "".join(
        path.read_text(errors="replace") for path in folder.glob(".dvc/tmp/lenet/reruns/*/log") if path.exists()
    )


STEPS: dict[str, Callable[[Path], object]] = {
    "rebuild": lambda folder: leftovers(folder),
    "probe": lambda folder: list(folder.glob(".dvc/tmp/lenet/reruns/*/log")),
    "prepare": lambda folder: "Running stage 'prepare'" in text(folder),
    "train": lambda folder: "Running stage 'train@modern-1'" in text(folder),
}


@pytest.mark.parametrize(
    ("step", "how"),
    [
        ("rebuild", signal.SIGTERM),
        ("probe", signal.SIGKILL),
        ("prepare", signal.SIGINT),
        ("train", signal.SIGKILL),
    ],
)
def test_killed_at_any_step_it_leaves_everything_of_the_user_s_as_it_was(
    folder: Path, step: str, how: signal.Signals
) -> None:
    (folder / "README.md").write_text("a change of the user's\n")
    run("git", "add", "README.md", cwd=folder)
    (folder / "params.yaml").write_text((folder / "params.yaml").read_text() + "# another\n")
    before = state(folder)
    command = [*lenet_command("rerun", "modern-1")]
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(lambda: STEPS[step](folder))
    process.send_signal(how)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in output
    wait_for(lambda: not strays(folder))
    if how != signal.SIGKILL:
        assert leftovers(folder) == []
    run(*lenet_command("clean"), cwd=folder)
    assert leftovers(folder) == []
    assert state(folder) == before
    assert runs(folder, "lenet5-reruns") == []


def strays(folder: Path) -> list[psutil.Process]:
    """Processes at work in a rerun's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.cwd() and "reruns" in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_a_fresh_clone_reruns_the_published_result_and_verify_sees_planted_drift_alone(
    published: Path, tmp_path: Path, mnist: Path
) -> None:
    clone, data = tmp_path / "clone", {"LENET_DATA_DIR": str(mnist)}
    run("git", "clone", "-q", str(published), str(clone), cwd=tmp_path)
    assert "modern-1: bitwise" in rerun(clone, "modern-1", "--no-track", **data).stdout  # known by its metrics alone
    assert not (clone / "mlflow.db").exists()
    path = clone / "metrics" / "modern-1.json"
    edit_json(path, lambda content: content["test"].update(misses=content["test"]["misses"] - 1))
    commit(clone, "drift")
    done = run(*lenet_command("verify", "modern-1"), cwd=clone, status=1, **data)
    rows = [line for line in done.stdout.splitlines() if " yes " in line]
    assert len(rows) == 6  # fetch, prepare, signature, train, evaluate, weights
    assert all("bitwise" in row for row in rows)
    (row,) = [line for line in done.stdout.splitlines() if "NO" in line]
    assert "metrics/modern-1.json" in row
    assert not (clone / "runs").exists()
    assert run("git", "status", "--porcelain", cwd=clone).stdout == ""
    assert "modern-9" in run(*lenet_command("verify", "modern-9"), cwd=clone, status=2).stderr


def test_a_forged_result_that_waits_is_taken_by_no_other_command(folder: Path, tmp_path: Path) -> None:
    """All of them compute; what it is like is seen where a stage of `lenet repro` takes it."""
    waiting = folder / ".dvc" / "tmp" / "lenet" / "results"
    path, data = folder / "runs" / "modern-1", ("--data", "data/train.safetensors")
    true = (path / "weights.safetensors").read_bytes()
    key = json.loads((path / "run.json").read_text())["run"]["key"]
    forged = Path(shutil.copytree(path, tmp_path / "forged"))
    for name in ("missed.safetensors", "predictions.csv", "robustness.json"):
        (forged / name).unlink()
    forge(forged)
    write_json(forged / ahead.DIGESTS, ahead._digests(forged))
    shutil.copytree(forged, waiting / f"modern-1-{key}")
    run("dvc", "repro", "--force", "--single-item", "train@modern-1", cwd=folder)
    assert (path / "weights.safetensors").read_bytes() == true
    shutil.rmtree(path)
    run("dvc", "repro", "evaluate@modern-1", cwd=folder)
    assert (path / "weights.safetensors").read_bytes() == true
    run(*lenet_command("train", "modern", "1", *data, "--out", "by-hand/modern-1", "--no-track"), cwd=folder)
    assert (folder / "by-hand" / "modern-1" / "weights.safetensors").read_bytes() == true
    assert "modern-1: bitwise" in rerun(folder, "modern-1", "--no-track").stdout
    run(*lenet_command("verify", "modern-1"), cwd=folder)
    assert files_of(waiting / f"modern-1-{key}") == files_of(forged)
    words = "train", "modern", "1", *data, "--out", "taken/modern-1"
    run(*lenet_command(*words), cwd=folder, LENET_AHEAD="1")
    assert (folder / "taken" / "modern-1" / "weights.safetensors").read_bytes() != true


def test_a_full_disk_is_one_line_and_leaves_nothing(folder: Path) -> None:
    before = state(folder)
    place = folder / ".dvc" / "tmp" / "lenet" / "reruns"
    place.mkdir(parents=True)
    with small_disk(place, "200k"):
        done = rerun(folder, "modern-1", status=2)
        assert leftovers(folder) == []
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert state(folder) == before
