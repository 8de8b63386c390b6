"""Stages killed by SIGKILL at any moment: the same `dvc repro` again ends with the bits of one never interrupted."""

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from conftest import lenet_command, run, small_checkout

pytestmark = pytest.mark.slow
VARIANTS = ("original-sigmoid", "original-tanh", "modern", "overview-relu", "explanation-cross-entropy")
EPOCHS, STEPS = 3, {16: 282, 64: 72}
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
    folder = small_checkout(tmp_path_factory.mktemp("resume") / "checkout", EPOCHS, seeds=[1], compare=list(VARIANTS))
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("train_size: 1500", "train_size: 1504"))
    with (folder / "src" / "lenet" / "lifetime.py").open("a") as file:  # no stage depends on it
        file.write(HOOK.format(folder=str(Path(__file__).parent)))
    run(*lenet_command("sync"), cwd=folder)
    run("dvc", "repro", "prepare", cwd=folder, LENET_DATA_DIR=str(mnist))
    return folder


@pytest.mark.parametrize("variant", VARIANTS)
def test_stages_killed_anywhere_end_with_the_same_bits_in_the_same_run(
    built: Path, tmp_path: Path, variant: str
) -> None:
    straight, killed = (tmp_path / name for name in ("straight", "killed"))
    for folder in (straight, killed):
        shutil.copytree(built, folder, symlinks=True)
    command = ("dvc", "repro", f"evaluate@{variant}-1")
    run(*command, cwd=straight)
    chance = random.Random(variant)
    steps = 94 if variant != "modern" else 24
    plan = [
        "start:1",
        f"step:{chance.randrange(1, steps)}",
        "checkpoint:1",
        f"step:{chance.randrange(1, steps)}",
        f"checkpoint:{chance.randrange(2, 4)}",
        f"tracking:{chance.randrange(1, 3)}",
        f"end:{chance.randrange(1, 2)}",
        "evaluate:1",
    ]
    for kill in plan:
        done = run(*command, cwd=killed, status=None, KILL=kill)
        assert done.returncode != 0, f"{kill}: {done.stdout}\n{done.stderr}"
        assert "exited with -9" in done.stderr + done.stdout or "Killed" in done.stderr + done.stdout, done.stderr
    run(*command, cwd=killed)
    for path in sorted((straight / "runs" / f"{variant}-1").iterdir()):
        assert (killed / "runs" / f"{variant}-1" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (killed / "metrics" / f"{variant}-1.json").read_bytes() == (
        straight / "metrics" / f"{variant}-1.json"
    ).read_bytes()
    assert not list((killed / ".dvc" / "tmp" / "lenet" / "checkpoints").glob("*"))
    with closing(sqlite3.connect(killed / "mlflow.db")) as store:
        runs = pd.read_sql("SELECT status FROM runs", store)
        points = pd.read_sql("SELECT key, step FROM metrics WHERE key LIKE '%/%' AND key NOT LIKE 'system/%'", store)
    assert runs["status"].tolist() == ["FINISHED"]
    assert not points.duplicated().any()
    assert sorted(points.loc[points["key"] == "train/loss", "step"]) == [1, 2, 3]
