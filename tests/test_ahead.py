"""Results that wait for their stages: who takes them, that they are whole, and which trainings go ahead together."""

import shutil
from collections.abc import Callable
from pathlib import Path

import networkx
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ROOT, files_of, run
from lenet.params.schema import Params
from lenet.pipeline import ahead, scheduling, train
from lenet.reproduce import clean
from lenet.runs.record import Record
from lenet.runtime import processes
from lenet.runtime.errors import Diverged
from lenet.runtime.files import write_json
from lenet.training import fingerprint
from lenet.training.fast_module import Training

TINY = {"epochs": 2, "train_size": 60, "validation_size": 20, "batch_size": 32}


@pytest.fixture(scope="module")
def tiny(params: Params) -> Params:
    blocks = {"modern": params.variants["modern"].model_copy(update=TINY)}
    return params.model_copy(update={"variants": blocks})


@pytest.fixture(scope="module")
def trained(tiny: Params, small_digits: Path, unsigned: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two seeds as they wait, and beside these, under ``runs``, what their stages leave."""
    folder = tmp_path_factory.mktemp("ahead")
    data = small_digits / "train.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "home", lambda: folder / "results")
        with ahead.kept({1: "modern-1", 2: "modern-2"}) as outs:
            train.train(tiny, "modern", outs, data, None, None)
    for seed in (1, 2):
        train.train(tiny, "modern", {seed: folder / "runs" / f"modern-{seed}"}, data, None, None)
    return folder


@pytest.fixture
def take(
    tiny: Params, trained: Path, small_digits: Path, unsigned: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., bool]:
    """Stage train takes a result from a copy of those that wait, into ``out``."""
    shutil.copytree(trained / "results", tmp_path / "results")
    monkeypatch.setattr(ahead, "home", lambda: tmp_path / "results")
    monkeypatch.setenv(ahead.AHEAD, "1")

    def one(seed: int = 1, **changes: object) -> bool:
        blocks = {"modern": tiny.variants["modern"].model_copy(update=changes)}
        params = tiny.model_copy(update={"variants": blocks})
        return ahead.take(params, "modern", seed, small_digits / "train.safetensors", None, tmp_path / "out")

    return one


def forge(folder: Path) -> None:
    """Other weights in a training's files, and digests that are theirs."""
    path, record = folder / "weights.safetensors", Record.read(folder / "run.json")
    weights = load_file(path)
    name = min(weights)
    save_file(weights | {name: torch.nextafter(weights[name], weights[name] + 1)}, path)
    other = fingerprint.tensors_sha256(load_file(path))
    for file in ("history.csv", "run.json"):
        (folder / file).write_text((folder / file).read_text().replace(str(record.weights), other))


def test_a_stage_of_lenet_repro_takes_what_it_would_train_once(take, trained: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(ahead.AHEAD)
    assert not take()  # by hand or by `dvc repro`
    monkeypatch.setenv(ahead.AHEAD, "1")
    assert not take(epochs=3)  # another training's
    assert not (tmp_path / "out").exists()
    assert take()
    assert files_of(tmp_path / "out") == files_of(trained / "runs" / "modern-1")
    assert not take()
    assert take(2)
    assert files_of(tmp_path / "out") == files_of(trained / "runs" / "modern-2")
    assert list((tmp_path / "results").iterdir()) == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    **{name: lambda entry, name=name: flip(entry / name) for name in ("weights.safetensors", "history.csv", "trace")},
    "run.json": lambda entry: (entry / "run.json").write_text("{}"),
    "a file less": lambda entry: (entry / "trace").unlink(),
    "a file more": lambda entry: (entry / "snapshots.safetensors").write_text(""),
    "no digests": lambda entry: (entry / ahead.DIGESTS).unlink(),
    "other weights": forge,
    "weights of another, with their digest": lambda entry: (
        shutil.copy(next(entry.parent.glob("modern-2-*")) / "weights.safetensors", entry),
        write_json(entry / ahead.DIGESTS, ahead._digests(entry)),
    ),
    "of another training": lambda entry: shutil.copytree(  # whole, but under this one's name
        next(entry.parent.glob("modern-2-*")), entry, dirs_exist_ok=True
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_result_is_removed_with_a_line(take, tmp_path: Path, capsys, how: str) -> None:
    (entry,) = (tmp_path / "results").glob("modern-1-*")
    DAMAGES[how](entry)
    capsys.readouterr()
    assert not take()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lenet: warning: {entry} is no whole result of this training (")
    assert not entry.exists()
    assert not (tmp_path / "out").exists()


def test_the_oldest_results_make_room(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "home", lambda: tmp_path / "results")
    size = sum(path.stat().st_size for path in (trained / "runs" / "modern-1").iterdir())
    monkeypatch.setattr(ahead, "MOST", 2.5 * size)
    for seed in (1, 2, 3):
        shutil.copytree(trained / "runs" / f"modern-{min(seed, 2)}", tmp_path / "one")
        content = (tmp_path / "one" / "run.json").read_text()
        (tmp_path / "one" / "run.json").write_text(content.replace('"seed": 2', f'"seed": {seed}'))
        ahead.keep(tmp_path / "one")
    assert [seed for seed in (1, 2, 3) if ahead.waits(f"modern-{seed}")] == [2, 3]
    assert not ahead.waits("modern-1")


def test_what_a_killed_call_has_trained_to_the_end_is_kept(take, trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(ahead, "workshop", lambda: tmp_path / "ahead")
    shutil.rmtree(tmp_path / "results")
    shutil.copytree(trained / "runs", tmp_path / "ahead" / "1")
    (tmp_path / "ahead" / "1" / "modern-2" / "run.json").unlink()  # it comes last
    ahead.salvage()
    assert take(1)
    assert not take(2)
    with processes.own_folder(tmp_path / "ahead") as folder:
        assert [path.name for path in folder.iterdir()] == [".lock"]  # what was left is gone


def test_clean_removes_what_no_stage_has_taken_but_not_under_a_lenet_repro(take, tiny: Params, tmp_path: Path) -> None:
    entries = sorted((tmp_path / "results").iterdir())

    def cleaned(dry_run: bool) -> list[Path]:
        return [path for path, _ in clean.clean(tiny, tmp_path / "none", dry_run) if path.parent == entries[0].parent]

    with processes.sole_pipeline():
        assert cleaned(dry_run=False) == []
    assert cleaned(dry_run=True) == cleaned(dry_run=False) == entries
    assert not take()


def test_one_that_diverges_leaves_the_others_their_results(
    tiny: Params, small_digits: Path, unsigned: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of its own, nor a folder of work."""
    monkeypatch.setattr(ahead, "home", lambda: tmp_path / "results")
    initialise = Training.__init__

    def wild(self: Training, variant, seed: int, *arguments: object) -> None:
        initialise(self, variant, seed, *arguments)
        if seed == 2:
            with torch.no_grad():
                next(self.network.parameters()).fill_(1e38)

    monkeypatch.setattr(Training, "__init__", wild)
    runs, data = {seed: f"modern-{seed}" for seed in (1, 2, 3)}, small_digits / "train.safetensors"
    with pytest.raises(Diverged, match="of 3 trainings these have diverged: modern-2"), ahead.kept(runs) as outs:
        train.train(tiny, "modern", outs, data, None, None)
    assert [ahead.waits(f"modern-{seed}") for seed in (1, 2, 3)] == [True, False, True]
    assert not [path for path in ahead.workshop().iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("jobs", "seeds", "sizes"),
    [(2, {"a": 5}, [2, 3]), (2, {"a": 5, "b": 5, "c": 5}, [2, 3] * 3), (1, {"a": 3, "b": 1}, [3, 1]),
     (8, {"a": 5}, [1] * 5), (8, {"a": 5, "b": 5, "c": 5}, [1, 2, 2] * 3), (2, {}, [])],
)  # fmt: skip
def test_groups_are_as_large_as_keep_all_cores_busy(jobs: int, seeds: dict[str, int], sizes: list[int]) -> None:
    graph = networkx.DiGraph()
    for name, count in seeds.items():
        graph.add_nodes_from((f"train@{name}-{seed}" for seed in range(1, count + 1)), command="")
    graph.add_node("evaluate@a-1")
    groups = scheduling._groups(graph, dict.fromkeys(graph, 1.0), jobs)
    assert [len(group) for group in groups] == sizes
    assert sorted(name for group in groups for name in group) == sorted({*graph} - {"evaluate@a-1"})


def test_seeds_go_ahead_of_their_stages_which_come_first_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "waits", lambda run: run == "a-3")
    graph = networkx.DiGraph()
    for seed in (1, 2, 3):
        graph.add_edge(f"train@a-{seed}", "signature@a")
        graph.add_edge(f"evaluate@a-{seed}", f"train@a-{seed}")
        graph.nodes[f"train@a-{seed}"].update(command=f"cd .. && train 'a' '{seed}' --out 'runs/a-{seed}'", folder="x")
    costs = dict.fromkeys(graph, 0.0) | {f"train@a-{seed}": 1.0 for seed in (1, 2, 3)}
    groups = [["train@a-1"], ["train@a-2", "train@a-3"]]
    scheduler = scheduling._Scheduler(Path(), graph, {*graph}, 2, costs, [], groups)
    assert scheduler.ahead == {"train@a-2+3": ("cd .. && train 'a' '2' --out 'runs/a-2' 3 --ahead", "x")}
    order = []
    while ready := [*scheduler._ready()]:
        order.append(ready[0])
        scheduler.waiting.remove(ready[0])
        if ready[0] == "train@a-2+3":  # as if a stage had failed: only what is done is still taken in
            scheduler.failed = True
            assert [*scheduler._ready()] == ["train@a-3"]
            scheduler.failed = False
    assert order == [
        "signature@a", "train@a-2+3", "train@a-2", "train@a-3", "train@a-1",
        *(f"evaluate@a-{seed}" for seed in (1, 2, 3)),
    ]  # fmt: skip


def test_each_seed_s_latest_epoch_is_shown(tmp_path: Path) -> None:
    lines = "a-1: epoch 1/3  x", "a-2: epoch 1/3  x", "lenet: warning: y", "a-1: epoch 2/3  x"
    (tmp_path / "log").write_text("\n".join(lines))
    running = scheduling.Running("train@a-1+2", None, tmp_path / "log")
    assert running.progress().splitlines() == ["a-1: epoch 2/3  x", "a-2: epoch 1/3  x"]


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [("lenet.pipeline.ahead, lenet.pipeline.signing, lenet.evaluation.judge", {"pytorch_lightning", "numba", "mlflow"}),
     ("lenet.tracking", {"pytorch_lightning", "mlflow", "pandas", "scipy.special", "matplotlib"})],
)  # fmt: skip
def test_what_most_stages_import_is_light(modules: str, heavy: set[str]) -> None:
    """What takes a result, or checks a signature that is at hand, waits for no Lightning."""
    code = f"import sys, {modules}; print(*{heavy} & {{*sys.modules}})"
    assert run("python", "-c", code, cwd=ROOT, PYTHONPATH=str(ROOT / "src")).stdout.split() == []
