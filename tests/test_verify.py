"""The judge of the committed result: same bits are seen as same, and planted drift as drift."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from conftest import commit, lenet_command, run
from lenet import verify
from lenet.config import Params
from lenet.errors import InputError

MISSES = {
    "original-sigmoid": [150, 160, 155, 152, 158],
    "original-tanh": [110, 112, 108, 109, 111],
    "modern": [90, 95, 100, 92, 98],
}


@pytest.fixture
def published(tmp_path: Path, params: Params, monkeypatch) -> Path:
    """A repository with a committed dvc.lock and metrics."""
    monkeypatch.chdir(tmp_path)
    run("git", "init", "-q", cwd=tmp_path)
    stages = {"fetch": {"outs": [{"path": "data/raw", "md5": "1"}]}, "train@modern-1": {"outs": [{"md5": "2"}]}}
    YAML().dump({"schema": "2.0", "stages": stages}, tmp_path / "dvc.lock")
    for name, seed in params.runs():
        write(name, seed, MISSES[name][seed - 1])
    commit(tmp_path, "published")
    return tmp_path


def write(name: str, seed: int, misses: int, canary: str = "A", weights: str = "w") -> None:
    path = Path("metrics") / f"{name}-{seed}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"run": {"canary": canary, "weights.sha256": weights}, "test": {"misses": misses}}))


def differing(params: Params) -> list[str]:
    return [verdict.name for verdict in verify.verify(params, "HEAD", Path()) if not verdict.same]


def test_the_same_result_in_another_order_of_the_lock_is_the_same(published: Path, params: Params) -> None:
    lock = YAML(typ="safe").load(published / "dvc.lock")
    lock["stages"] = dict(reversed(lock["stages"].items()))
    YAML().dump(lock, published / "dvc.lock")
    assert differing(params) == []
    assert all(verdict.how == "bitwise" for verdict in verify.verify(params, "HEAD", Path()))


def test_planted_drift_is_named(published: Path, params: Params) -> None:
    write("modern", 2, 95, weights="v")
    assert differing(params) == ["metrics/modern-2.json"]
    write("modern", 2, 95)
    lock = (published / "dvc.lock").read_text()
    (published / "dvc.lock").write_text(lock.replace("md5: '2'", "md5: '3'"))
    assert differing(params) == ["train@modern-1"]
    (published / "dvc.lock").write_text(lock.replace("train@modern-1", "train@modern-9"))
    assert differing(params) == ["train@modern-1", "train@modern-9"]


def test_other_arithmetic_is_judged_by_the_seeds_spread(published: Path, params: Params) -> None:
    for name, seed in params.runs():
        write(name, seed, MISSES[name][seed - 1] + 3, canary="B", weights="other")
    lock = (published / "dvc.lock").read_text()
    (published / "dvc.lock").write_text(lock.replace("md5: '2'", "md5: '3'"))
    assert differing(params) == []
    for seed in params.seeds:
        write("modern", seed, 150 + seed, canary="B")
    assert differing(params) == ["modern"]
    (published / "dvc.lock").write_text(lock.replace("md5: '1'", "md5: '9'"))
    assert differing(params) == ["fetch", "modern"]  # the data is promised bit for bit everywhere


@given(st.lists(st.integers(80, 100), min_size=3, max_size=5))
def test_a_result_is_within_its_own_spread(misses: list[int]) -> None:
    assert verify.judge_spread("v", misses, list(reversed(misses))).same
    assert not verify.judge_spread("v", misses, [count + 60 for count in misses]).same


def test_one_seed_is_given_what_counting_alone_gives() -> None:
    """√(100 + 110) · 2.58 = 37: 10 apart is noise, 60 is not."""
    assert verify.judge_spread("v", [100], [110]).same
    assert not verify.judge_spread("v", [100], [160]).same


def test_missing_files_and_revisions_are_one_line(published: Path, params: Params) -> None:
    with pytest.raises(InputError, match="nowhere"):
        verify.verify(params, "nowhere", Path())
    extended = params.model_copy(update={"seeds": (*params.seeds, 6)})
    with pytest.raises(InputError, match="modern-6: not published at HEAD; name the runs"):
        verify.verify(extended, "HEAD", Path())
    assert all(verdict.same for verdict in verify.verify(extended, "HEAD", Path(), ["modern-1"]))
    (published / "metrics" / "modern-1.json").unlink()
    with pytest.raises(InputError, match=r"metrics/modern-1\.json: No such file.*make repro"):
        verify.verify(params, "HEAD", Path())


def test_the_command_s_exit_status_tells(published: Path) -> None:
    root = Path(__file__).parents[1]
    (published / "params.yaml").write_text((root / "params.yaml").read_text())
    (published / "src").symlink_to(root / "src")
    assert "bitwise" in run(*lenet_command("verify", "--here"), cwd=published).stdout
    write("modern", 2, 95, weights="v")
    assert "NO" in run(*lenet_command("verify", "--here"), cwd=published, status=1).stdout
