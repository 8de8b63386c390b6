"""Stages killed by SIGKILL at any moment: the same `dvc repro` again ends with the bits of one never interrupted."""

import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing, nullcontext
from pathlib import Path

import pandas as pd
import pytest

import killer
from conftest import (
    HARDEST,
    ROOT,
    edit_params,
    files_of,
    lenet_command,
    run,
    small_checkout,
    small_disk,
)
from lenet.evaluation import robustness
from lenet.params import loading
from lenet.pipeline import evaluate, signing, train
from lenet.runtime import layout
from lenet.training import fingerprint

BLOCKS = loading.load(ROOT / "params.yaml").variants
VARIANTS = [
    "original-sigmoid", "original-tanh", "modern", "frontier-distorted", "lecun1998", "lecun1998-distorted",
]  # fmt: skip
EVERYWHERE = ["modern", "lecun1998-distorted"]
EPOCHS = 3
HOOK = """

if "KILL" in os.environ:  # for a test
    sys.path.append({folder!r})
    import killer

    _follow_parents = follow_parents

    def follow_parents(poll: float = 0.2) -> None:
        _follow_parents(poll)
        killer.install()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, mnist: Path) -> Path:
    """A checkout with prepared digits and an empty store, whose stages can be killed."""
    folder = small_checkout(tmp_path_factory.mktemp("resume") / "checkout", EPOCHS, seeds=[1], compare=VARIANTS)
    moved = {}
    for home in layout.homes(folder)[1:]:  # experiments' variants are compared here as the root's
        edit_params(home, lambda content: moved.update(content.pop("variants", {})))
    edit_params(folder, lambda content: content["variants"].update(moved))
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("train_size: 1500", "train_size: 1504"))
    with (folder / "src" / "lenet" / "runtime" / "processes.py").open("a") as file:  # no stage depends on it
        file.write(HOOK.format(folder=str(Path(__file__).parent)))
    run(*lenet_command("sync"), cwd=folder)
    run("dvc", "repro", "prepare", cwd=folder, LENET_DATA_DIR=str(mnist))
    return folder


def plan(variant: str) -> list[str]:
    """Where to kill, at steps drawn by chance. Each epoch has a checkpoint at least, and two are kept.

    Every variant is killed where its recipe matters; two of them also where it does not.
    """
    chance = random.Random(variant)
    steps = 1504 // BLOCKS[variant].batch_size
    first, second = (f"step:{chance.randrange(1, steps)}" for _ in range(2))
    write, told = f"checkpoint:{chance.randrange(2, 4)}", f"tracking:{chance.randrange(1, 3)}"
    if variant not in EVERYWHERE:
        return [first, write, second]
    return ["start:1", first, write, second, told, "end:1", "evaluate:1"]  # the record follows behind


def test_plans_cover_every_place_and_variants_of_every_kind() -> None:
    places = Counter(kill.partition(":")[0] for variant in VARIANTS for kill in plan(variant))
    assert min(places[name] for name in killer.PLACES) >= len(EVERYWHERE)
    assert places["step"] == 2 * places["checkpoint"] == 2 * len(VARIANTS)
    assert words(VARIANTS) == words(BLOCKS)


def words(variants: Iterable[str]) -> set[tuple[str, str]]:
    """The kinds that their blocks name: of activation, loss, optimizer and so on."""
    leaves = (leaf for name in variants for leaf in loading.flatten(BLOCKS[name]).items())
    return {(name, value) for name, value in leaves if isinstance(value, str)}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_stages_killed_anywhere_end_with_the_same_bits_in_the_same_run(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    killed, straight, name = tmp_path / "killed", tmp_path / "straight", f"{variant}-1"
    shutil.copytree(built, killed, symlinks=True)
    command = ("dvc", "repro", f"evaluate@{name}")
    damaged = None
    for number, kill in enumerate([*plan(variant), None]):
        done = run(*command, cwd=killed, status=None, **({"KILL": kill} if kill else {}))
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == (kill is None), f"{kill}: {said}"
        assert kill is None or "exited with -9" in said or "Killed" in said, said
        assert damaged is None or f"{damaged} is damaged" in said, f"{kill}: {said}"
        damaged = damage_newest(killed, number) if kill and kill.startswith("checkpoint") else None
    monkeypatch.chdir(killed)
    monkeypatch.setattr(robustness, "DISTURBANCES", robustness.DISTURBANCES)
    monkeypatch.setattr(robustness, "curves", robustness.curves)
    exec(HARDEST, vars(robustness))  # as its own sources have it
    monkeypatch.setattr(signing, "checked", lambda path, *_: fingerprint.json_sha256(json.loads(path.read_text())))
    data, signed = killed / "data", killed / "signatures" / f"{variant}.json"
    train.train(loading.load(), variant, {1: straight / name}, data / "train.safetensors", signed, None)
    evaluate.evaluate(straight / name, data / "test.safetensors", straight / "metrics.json", False)
    for path in sorted((straight / name).iterdir()):
        assert (killed / "runs" / name / path.name).read_bytes() == path.read_bytes(), path.name
    assert (killed / "metrics" / f"{name}.json").read_bytes() == (straight / "metrics.json").read_bytes()
    assert not list(checkpoints(killed).glob("*"))
    with closing(sqlite3.connect(killed / "mlflow.db")) as store:
        runs = pd.read_sql("SELECT status FROM runs", store)
        points = pd.read_sql("SELECT key, step FROM metrics WHERE key LIKE '%/%' AND key NOT LIKE 'system/%'", store)
    assert runs["status"].tolist() == ["FINISHED"]
    assert not points.duplicated().any()
    assert sorted(points.loc[points["key"] == "train/loss", "step"]) == [1, 2, 3]


@pytest.mark.slow
def test_seeds_side_by_side_that_are_killed_go_on_together(built: Path, tmp_path: Path) -> None:
    """First the process that trains them, then the stage that does it alone; and the same again."""
    killed, plain = tmp_path / "killed", tmp_path / "plain"
    names, command = ("modern-1", "modern-2"), lenet_command("repro", "--jobs", "1", "modern-1", "modern-2")
    shutil.copytree(built, killed, symlinks=True)
    edit_params(killed, lambda content: content.update(compare=["modern"], seeds=[1, 2]))
    shutil.copytree(killed, plain, symlinks=True)
    kept = killed / ".dvc" / "tmp" / "lenet"
    done = run(*command, cwd=killed, status=1, KILL="step:20")
    assert "train@modern-1+2 did not end well" in done.stderr
    assert "train@modern-1 failed" in done.stderr

    run(*command, cwd=killed, status=1, KILL="step:3")
    assert not [*killed.glob("runs/*/*"), *kept.glob("results/*")]
    run(*command, cwd=killed)
    log = (kept / "logs" / "train@modern-1+2.log").read_text()
    assert [name for name in names if f"lenet: {name} goes on after" in log] == [*names]
    assert not [*kept.glob("results/*"), *kept.glob("ahead/*/"), *kept.glob("checkpoints/*")]
    run("dvc", "repro", *(f"evaluate@{name}" for name in names), cwd=plain)
    for name in names:
        assert files_of(killed / "runs" / name) == files_of(plain / "runs" / name)
    with closing(sqlite3.connect(killed / "mlflow.db")) as store:
        assert pd.read_sql("SELECT name, status FROM runs ORDER BY name", store).to_numpy().tolist() == [
            [name, "FINISHED"] for name in names
        ]


def checkpoints(folder: Path) -> Path:
    return folder / ".dvc" / "tmp" / "lenet" / "checkpoints"


def damage_newest(folder: Path, number: int) -> Path:
    """One bit of the last checkpoint; another one each time, lest the second mend what the first has damaged."""
    newest = max(checkpoints(folder).glob("*/*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2 + number] ^= 1
    newest.write_bytes(content)
    return newest


@pytest.mark.slow
def test_a_disk_too_small_for_checkpoints_is_said_and_changes_nothing(built: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("roomy", "full"):
        folder = Path(shutil.copytree(built, tmp_path / name, symlinks=True))
        checkpoints(folder).mkdir(parents=True)
        with small_disk(checkpoints(folder), "64k") if name == "full" else nullcontext():
            done = run("dvc", "repro", "train@modern-1", cwd=folder, KILL="step:0")  # at every chance one is saved
        assert ("no checkpoint can be saved" in done.stdout + done.stderr) == (name == "full")
        weights.append((folder / "runs" / "modern-1" / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]
