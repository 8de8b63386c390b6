"""The whole pipeline on 2,000 real digits in a checkout of its own."""

import json
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import networkx
import psutil
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Run
from ruamel.yaml import YAML

from conftest import (
    ENVIRONMENT,
    ROOT,
    Checkout,
    commit,
    declared_plots,
    edit_params,
    files_of,
    lenet_command,
    run,
    wait_for,
)
from lenet.cli import cli
from lenet.params import loading
from lenet.pipeline import scheduling
from lenet.reproduce import doctor
from lenet.tracking import TRAINED

VARIANTS = ["original-tanh", "modern"]


def stages(folder: Path) -> dict:
    return YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]


def tracked(folder: Path, condition: str = "") -> list[Run]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("lenet5")
    trainings = " and ".join(["tags.kind = 'training'", *filter(None, [condition])])
    return client.search_runs([experiment.experiment_id], trainings)


def keys(folder: Path) -> set[str]:
    return {json.loads(p.read_text())["run"]["key"] for p in (folder / "metrics").glob("*-*.json")}


def current(folder: Path) -> set[str]:
    return {found.data.tags["run.key"] for found in tracked(folder, "tags.current = 'true'")}


def ran(log: str) -> list[str]:
    return [line.split("'")[1] for line in log.splitlines() if line.startswith("Running stage")]


def test_the_longest_trainings_start_first_and_what_is_short_fills_the_cores(params, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = {"original-sigmoid": 16, "original-tanh": 16, "modern": 64}
    blocks = {
        name: params.variants[name].model_copy(update={"batch_size": size, "epochs": 12})
        for name, size in sizes.items()
    }
    params = params.model_copy(update={"seeds": (1, 2, 3), "compare": tuple(sizes), "variants": blocks})
    graph = networkx.DiGraph()
    for name, seed in params.runs():
        graph.add_edge(f"train@{name}-{seed}", "prepare")
        graph.add_edge(f"evaluate@{name}-{seed}", f"train@{name}-{seed}")
        graph.add_edge("compare", f"evaluate@{name}-{seed}")
    waiting = set(graph)
    costs = {name: scheduling._cost(params, name) for name in waiting}
    scheduler = scheduling._Scheduler(Path(), graph, waiting, 2, costs, [])
    order = []
    while scheduler.waiting:  # as if each stage ended at once
        order.append(next(scheduler._ready()))
        scheduler.waiting.remove(order[-1])
    assert order[0] == "prepare"
    assert order[-1] == "compare"
    # updates of 8 digits take longer than a sixteenth as many of 128; seed by seed among equals
    originals = [f"train@original-{kind}-{seed}" for seed in (1, 2, 3) for kind in ("sigmoid", "tanh")]
    assert order[1:10] == [*originals, *(f"train@modern-{seed}" for seed in (1, 2, 3))]
    # an evaluation starts beside a training only when no training waits
    assert all(name.startswith("evaluate") for name in order[10:-1])


def faster(folder: Path) -> None:
    edit_params(folder, lambda content: content["variants"]["modern"]["optimizer"].update(lr=0.0031))


def refused_and_killed(folder: Path) -> None:
    """A second `lenet repro` is refused while one runs; SIGKILL of this one leaves neither dvc nor training behind."""
    lock = folder / ".dvc" / "tmp" / "lenet" / "repro.pid"
    lock.unlink()  # the first run's
    with subprocess.Popen(
        lenet_command("repro"), cwd=folder, env=os.environ | ENVIRONMENT, stderr=subprocess.DEVNULL
    ) as first:
        wait_for(lock.exists)
        refused = run(*lenet_command("repro"), cwd=folder, status=2)
        assert f"the pipeline is being run by process {first.pid}" in refused.stderr
        wait_for(lambda: psutil.Process(first.pid).children(recursive=True))
        family = psutil.Process(first.pid).children(recursive=True)
        first.kill()
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family))


def test_runs_and_experiments_are_named_together(params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    root, ladder, runs = Path(), Path("experiments/ladder"), [f"{name}-{seed}" for name, seed in params.runs()]
    for names, expected in (
        ([], {root: []}),
        (["modern-1"], {root: ["modern-1"]}),
        (["tutorial-1", "modern-1"], {root: ["modern-1", "prepare"], ladder: ["tutorial-1"]}),
        (["tutorial-1", "ladder"], {root: [*runs, "prepare"], ladder: []}),
        (["modern-1", "ladder"], {root: ["modern-1", *runs, "prepare"], ladder: []}),
    ):
        assert scheduling._by_home(params, names) == expected
        assert list(scheduling._by_home(params, names)) == list(expected)


def test_the_pipeline_runs_once_and_then_only_what_changed(published: Path, copy: Path, monkeypatch) -> None:
    folder = copy
    monkeypatch.chdir(folder)

    # everything, side by side
    said = published.with_name("said").read_text().splitlines()
    assert said[0] == "removing signatures/original-sigmoid.json: no stage produces it any more"
    assert len(said) == 1 + 2 + 3 * len(VARIANTS) + 1
    assert set(stages(folder)) == {
        "fetch", "prepare", "compare", *(f"signature@{v}" for v in VARIANTS),
        *(f"{s}@{v}-1" for s in ("train", "evaluate") for v in VARIANTS),
    }  # fmt: skip
    for name in VARIANTS:
        metrics = json.loads((folder / "metrics" / f"{name}-1.json").read_text())
        assert metrics["test"]["count"] == 10_000
        assert 0 < metrics["test"]["error"] < 0.92
    summary = json.loads((folder / "metrics" / "summary.json").read_text())
    assert list(summary) == VARIANTS
    assert {"comparison.html", "comparison.json", "learning-curves.png"} <= {
        path.name for path in (folder / "reports").iterdir()
    }
    assert "original-tanh" in CliRunner().invoke(cli, ["results"]).output

    log = folder / ".dvc" / "tmp" / "lenet" / "logs" / "train@modern-1.log"
    assert "modern-1: epoch 1/2  loss" in log.read_text()  # what the live view shows

    # the record
    runs = tracked(folder)
    assert sorted(found.info.run_name for found in runs) == sorted(f"{name}-1" for name in VARIANTS)
    assert {found.info.status for found in runs} == {"FINISHED"}
    assert current(folder) == keys(folder)
    assert all("test/misses" in found.data.metrics for found in runs)

    # a second time nothing, however it is asked for
    lock = (folder / "dvc.lock").read_bytes()
    assert "up to date" in run(*lenet_command("repro"), cwd=folder).stderr
    assert ran(run("dvc", "repro", cwd=folder).stdout) == []
    assert (folder / "dvc.lock").read_bytes() == lock
    assert len(tracked(folder)) == len(VARIANTS)
    assert not [name for name in ("ladder", "sizes", "frontier") if (folder / "experiments" / name / "runs").exists()]

    # a changed learning rate reruns its variant alone; a `lenet repro` that is killed on the way is not in the way
    before = keys(folder)
    faster(folder)
    refused_and_killed(folder)
    its = ran(run("dvc", "repro", cwd=folder).stdout)
    assert [stage for stage in its if stage != "signature@modern"] == ["train@modern-1", "evaluate@modern-1", "compare"]
    assert len(tracked(folder)) == len(VARIANTS) + 1
    other = keys(folder)
    assert current(folder) == other != before
    changed = run("dvc", "metrics", "diff", cwd=folder).stdout
    assert "modern.misses" in changed
    assert "original" not in changed
    assert "lr" in run("dvc", "params", "diff", cwd=folder).stdout

    # outputs changed without any stage: the next `lenet repro` marks the runs behind them
    undo = (ROOT / "docs" / "how-to" / "change-a-parameter.md").read_text().partition("## Undo\n\n```sh\n")[2]
    for command in undo.partition("```")[0].splitlines():
        run(*shlex.split(command, comments=True), cwd=folder)  # where the experiments have computed nothing
    assert run("git", "status", "--short", cwd=folder).stdout == ""
    assert current(folder) == other != keys(folder)
    assert "up to date" in run(*lenet_command("repro"), cwd=folder).stderr
    assert current(folder) == keys(folder) == before

    # and what was computed once needs no training: DVC's cache has it, and the run that made it is current again
    faster(folder)
    assert "train@modern-1" not in ran(run("dvc", "repro", cwd=folder).stdout)
    assert len(tracked(folder)) == len(VARIANTS) + 1
    assert current(folder) == keys(folder) == other

    # plots and metrics show something, offline
    run("dvc", "plots", "show", cwd=folder)
    page = (folder / "dvc_plots" / "index.html").read_text()
    assert page.count("<img") == declared_plots(folder)
    assert "http" not in page.replace("file://", "")
    shown = run("dvc", "metrics", "show", cwd=folder)
    assert "modern.misses" in shown.stdout
    assert "failed" not in shown.stderr

    # an invalid file trains nothing and takes nothing away
    kept = (folder / "runs" / "modern-1" / "weights.safetensors").read_bytes()
    edit_params(folder, lambda content: content["variants"]["modern"]["optimizer"].update(lr=-1.0))
    for command, status in ((["dvc", "repro"], 255), (lenet_command("repro"), 2)):
        refused = run(*command, cwd=folder, status=status)
        assert "variants.modern.optimizer.lr = -1.0; legal: greater than 0" in refused.stderr
    run("git", "checkout", "-q", "params.yaml", cwd=folder)
    edit_params(folder, lambda content: content.update(seeds=[1, "2'; touch stolen; '"]))
    assert "seeds.1 = " in run("dvc", "repro", cwd=folder, status=255).stderr
    assert not (folder / "stolen").exists()
    assert len(tracked(folder)) == len(VARIANTS) + 1
    assert (folder / "runs" / "modern-1" / "weights.safetensors").read_bytes() == kept


STEP = {"to": "tutorial-mse", "change": "softmax", "parts": ["network.output", "objective"]}
LADDER = {"seeds": [1], "train": ["tutorial-mse"], "chains": [{"start": "original-tanh", "steps": [STEP]}]}


def test_an_experiment_runs_what_it_needs_of_the_root_and_no_more(copy: Path, monkeypatch) -> None:
    """And without tracking no store is made."""
    folder, ladder, untracked = copy, copy / "experiments" / "ladder", {"LENET_TRACK": "0"}
    for path in (*folder.glob("ml*"), folder / "runs"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    edit_params(folder, lambda content: content.update(compare=["original-tanh"]))
    edit_params(ladder, lambda content: content.update(LADDER))
    run(*lenet_command("repro", "tutorial-mse-1"), cwd=folder, **untracked)
    named = {"signature@tutorial-mse", "train@tutorial-mse-1", "evaluate@tutorial-mse-1"}
    assert {*stages(ladder)} == named
    assert not (folder / "runs").exists()
    run(*lenet_command("repro", "ladder"), cwd=folder, **untracked)
    assert {*stages(ladder)} == named | {"publish"}
    assert [path.name for path in (folder / "runs").iterdir()] == ["original-tanh-1"]
    step = json.loads((ladder / "result.json").read_text())["steps"][0]
    assert (step["from"], step["to"]) == ("original-tanh", "tutorial-mse")
    errors = {
        name: json.loads((home / "metrics" / f"{name}-1.json").read_text())["test"]["error"]
        for home, name in ((folder, "original-tanh"), (ladder, "tutorial-mse"))
    }
    assert step["difference"] == pytest.approx(errors["tutorial-mse"] - errors["original-tanh"])
    assert "up to date" in run("dvc", "status", cwd=ladder).stdout
    monkeypatch.chdir(folder)
    weights = ladder / "runs" / "tutorial-mse-1" / "weights.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    told = [line for line in doctor.pipeline(loading.load(), ()) if "tutorial-mse-1/weights" in line]
    assert told
    assert "experiments/ladder/dvc.yaml:train@tutorial-mse-1" in told[0]
    weights.write_bytes(kept)

    # without arguments the root's pipeline runs nothing of it, nor speaks of it, nor removes it
    assert ran(run("dvc", "repro", "--dry", cwd=folder).stdout) == ["compare"]
    assert "tutorial" not in run("dvc", "status", "-v", cwd=folder).stdout
    assert "up to date" in run(*lenet_command("repro", "ladder"), cwd=folder, **untracked).stderr
    assert (ladder / "runs" / "tutorial-mse-1" / "run.json").exists()
    assert not list(folder.glob("ml*"))

    # an experiment of DVC's, in a copy, uses the digits and runs of the main checkout, and leaves the link alone
    commit(folder, "results")
    back = "{to: original-tanh, change: tanh, parts: [network.output, objective]}"
    words = "dvc", "exp", "run", "--temp", "-n", "other", "-S", f"chains=[{{start: tutorial-mse, steps: [{back}]}}]"
    run(*words, cwd=ladder, **untracked)
    (ref,) = run("git", "for-each-ref", "--format=%(refname)", "refs/exps/**/other", cwd=ladder).stdout.split()
    assert run("git", "ls-tree", ref, "src", cwd=ladder).stdout.startswith("120000 blob")
    at = json.loads(run("git", "show", f"{ref}:./result.json", cwd=ladder).stdout)
    assert at["steps"][0]["difference"] == pytest.approx(-step["difference"])
    assert run("git", "status", "--porcelain", cwd=folder).stdout == ""

    unknown = run(*lenet_command("repro", "modern-9"), cwd=folder, status=2)
    assert "modern-9: no such run; legal: original-tanh-1, frontier, ladder, paper, sizes, sweeps" in unknown.stderr
    (folder / "dvc.yaml").write_text("stages: 3")
    broken = run(*lenet_command("repro"), cwd=folder, status=2)
    assert broken.stderr.startswith("lenet: error: DVC: ")
    assert "Traceback" not in broken.stderr


def test_a_failing_stage_shows_its_log_and_ends_with_status_1(checkout: Checkout, tmp_path: Path) -> None:
    folder = checkout(seeds=[1], compare=["modern"])
    failed = run(*lenet_command("repro"), cwd=folder, status=1, LENET_DATA_DIR=str(tmp_path / "empty"))
    assert "fetch failed" in failed.stderr
    assert "holds neither train-images-idx3-ubyte" in failed.stderr
    assert "Traceback" not in failed.stderr


def record(folder: Path) -> dict[str, object]:
    """What MLflow says of each training, but for when, by which process and how fast."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found: dict[str, object] = {}
    for one in tracked(folder):
        run_id, data = one.info.run_id, one.data
        own = {"process", "checkout", "mlflow.log-model.history"}
        points = {
            name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
            for name in data.metrics
            if not name.startswith("system/") and name != "epoch_seconds"
        }
        places = [path.path for place in (None, "figures", "source") for path in client.list_artifacts(run_id, place)]
        tags = {name: value for name, value in data.tags.items() if name not in own}
        models = len(client.search_logged_models([one.info.experiment_id], f"source_run_id = '{run_id}'"))
        assert one.info.run_name not in found
        found[str(one.info.run_name)] = (one.info.status, tags, data.params, points, places, models)
    return found


@pytest.mark.slow
def test_several_seeds_leave_what_plain_dvc_repro_leaves(published: Path, mnist: Path, tmp_path: Path) -> None:
    """Files, lock and record, though one process has trained them all; in a pipeline of an experiment, too."""
    side, plain = tmp_path / "side", tmp_path / "plain"
    experiment, data = side / "experiments" / "ladder", {"LENET_DATA_DIR": str(mnist)}
    run("git", "clone", "-q", str(published), str(side), cwd=tmp_path)
    (side / "dvc.lock").unlink()
    edit_params(side, lambda content: content.update(compare=["modern"], seeds=[1, 2]))
    edit_params(experiment, lambda content: content.update(LADDER, seeds=[1, 2]))
    commit(side, "two seeds")
    run("git", "clone", "-q", str(side), str(plain), cwd=tmp_path)
    run("dvc", "repro", cwd=plain, **data)
    run("dvc", "repro", *(f"evaluate@tutorial-mse-{seed}" for seed in (1, 2)), cwd=plain / "experiments" / "ladder")
    logs = side / ".dvc" / "tmp" / "lenet" / "logs"
    for words, group in (((), "train@modern-1+2"), (("tutorial-mse-1", "tutorial-mse-2"), "train@tutorial-mse-1+2")):
        assert f"{group}: " in run(*lenet_command("repro", "--jobs", "1", *words), cwd=side, **data).stderr
        assert group in {entry["stage"] for entry in json.loads((logs / "timeline.json").read_text())}
    assert stages(side) == stages(plain)
    assert (side / "metrics" / "modern-1.json").read_bytes() == (published / "metrics" / "modern-1.json").read_bytes()
    names = [(Path(), f"modern-{seed}") for seed in (1, 2)]
    names += [(Path("experiments", "ladder"), f"tutorial-mse-{seed}") for seed in (1, 2)]
    for home, name in names:
        assert files_of(side / home / "runs" / name) == files_of(plain / home / "runs" / name)
        metrics = home / "metrics" / f"{name}.json"
        assert (side / metrics).read_bytes() == (plain / metrics).read_bytes()
    assert record(side) == record(plain)
    assert len(record(side)) == 2
    assert not [*side.glob(".dvc/tmp/lenet/results/*"), *side.glob(".dvc/tmp/lenet/ahead/*/")]
    shutil.rmtree(side / "runs")  # what DVC's cache has is not trained ahead
    said = run(*lenet_command("repro", "--jobs", "1"), cwd=side).stderr
    assert all(f"train@modern-{seed}: from DVC's cache" in said for seed in (1, 2))
    assert "+" not in said


@pytest.mark.slow
def test_queued_experiments_run_their_own_code_and_record_into_the_same_store(copy: Path) -> None:
    folder = copy
    edit_params(folder, lambda content: content.update(compare=["modern"]))
    run(*lenet_command("repro"), cwd=folder)
    commit(folder, "one variant")
    before = current(folder)
    model = folder / "src" / "lenet" / "training" / "objective.py"
    text = model.read_text()
    other = text.replace("(1, 1), -1.0", "(1, 1), -0.9")
    for name, source in (("first", f"{text}\n# first\n"), ("second", other)):
        assert source != text
        model.write_text(source)
        run("dvc", "exp", "run", "--queue", "-n", name, "-S", "variants.modern.optimizer.lr=0.0033", cwd=folder)
        model.write_text(text)
    run("dvc", "queue", "start", cwd=folder)

    def both_succeeded() -> bool:
        status = run("dvc", "queue", "status", cwd=folder).stdout
        assert "Failed" not in status, status
        return status.count("Success") == 2

    wait_for(both_succeeded)
    runs = {found.data.tags.get("dvc.experiment"): found for found in tracked(folder, "tags.variant = 'modern'")}
    assert set(runs) == {None, "first", "second"}
    assert runs["first"].data.params["optimizer.lr"] == runs["second"].data.params["optimizer.lr"] == "0.0033"
    weights = {found.data.tags["weights.sha256"] for found in runs.values()}
    assert len(weights) == 3  # by the rate, and by another gradient
    assert current(folder) == before
    shown = run("dvc", "exp", "show", "--json", cwd=folder).stdout
    assert "first" in shown
    assert "0.0033" in shown


@pytest.mark.slow
def test_an_experiment_in_the_workspace_is_named_in_its_run_and_can_be_applied(checkout: Checkout, mnist: Path) -> None:
    folder = checkout(seeds=[1], compare=["modern"])
    changes = ["-S", "seeds=[2]", "-S", "variants.modern.optimizer.lr=0.002", "-S", "variants.modern.batch_size=30"]
    run("dvc", "exp", "run", "-n", "e1", *changes, cwd=folder, LENET_DATA_DIR=str(mnist))
    (found,) = tracked(folder)
    assert found.data.tags["dvc.experiment"] == "e1"
    assert found.data.params["batch_size"] == "30"
    assert found.data.tags["git.dirty"] == "true"
    assert current(folder) == keys(folder)
    assert loading.load(folder / "params.yaml").variants["modern"].batch_size == 30
    experiment = stages(folder), keys(folder)
    run("git", "reset", "-q", "--hard", cwd=folder)
    shutil.rmtree(folder / "runs")
    shutil.rmtree(folder / "metrics")
    run("dvc", "exp", "apply", "e1", cwd=folder)
    assert (stages(folder), keys(folder)) == experiment
    assert "up to date" in run("dvc", "status", cwd=folder).stdout


@pytest.mark.slow
def test_a_killed_training_is_recorded_as_such_and_goes_on(copy: Path) -> None:
    folder = copy
    edit_params(folder, lambda content: content["variants"]["modern"].update(epochs=5000))
    before = {found.info.run_id for found in tracked(folder)}

    def statuses() -> list[str]:
        return [found.info.status for found in tracked(folder) if found.info.run_id not in before]

    def killed(victim: str, number: signal.Signals) -> None:
        """Start `dvc repro`, wait until the training learns, kill, and see it end without outputs."""
        environment, pipes = os.environ | ENVIRONMENT, {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(["dvc", "repro"], cwd=folder, env=environment, text=True, **pipes) as dvc:
            assert dvc.stderr
            assert any("/5000  loss" in line for line in dvc.stderr)  # maybe from a checkpoint on
            wait_for(lambda: "RUNNING" in statuses())  # the record follows beside it
            training = next(p for p in psutil.Process(dvc.pid).children(recursive=True) if "train" in p.cmdline())
            (training if victim == "training" else dvc).send_signal(number)
            training.wait(20)
        assert not [name for name in TRAINED if (folder / "runs" / "modern-1" / name).exists()]

    for victim, number, status in (
        ("training", signal.SIGINT, "KILLED"),
        ("training", signal.SIGTERM, "KILLED"),
        ("dvc", signal.SIGKILL, "KILLED"),
        ("training", signal.SIGKILL, "RUNNING"),  # nobody was left to say so; the next command does
    ):
        killed(victim, number)
        assert statuses() == [status], (victim, number)
    edit_params(folder, lambda content: content["variants"]["modern"].update(epochs=1))
    run(*lenet_command("repro"), cwd=folder)
    assert sorted(statuses()) == ["FINISHED", "KILLED"]
    assert current(folder) == keys(folder)
