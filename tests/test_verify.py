"""The judge of the committed result: same bits are seen as same, and planted drift as drift."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from ruamel.yaml import YAML
from safetensors.torch import save_file

from conftest import ROOT, commit, refused, run
from lenet.cli import cli
from lenet.params.schema import Params
from lenet.reproduce import verify
from lenet.runs import stale
from lenet.runtime.errors import InputError
from lenet.training import fingerprint

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
    made = {"fetch": "1", "prepare": "5", "train@modern-1": "2"}
    stages = {name: {"outs": [{"md5": digest}]} for name, digest in made.items()}
    YAML().dump({"schema": "2.0", "stages": stages}, tmp_path / "dvc.lock")
    for name, seed in params.runs():
        write(name, seed, MISSES[name][seed - 1])
    commit(tmp_path, "published")
    return tmp_path


def write(name: str, seed: int, misses: int, canary: str = "", weights: str = "w") -> None:
    """A metrics file and weights; with a canary, as before there were signatures."""
    path, folder = Path("metrics") / f"{name}-{seed}.json", Path("runs") / f"{name}-{seed}"
    path.parent.mkdir(exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {"C1.weight": torch.tensor([*weights.encode()])}
    save_file(tensors, folder / "weights.safetensors")
    digest = fingerprint.tensors_sha256(tensors)
    run = {"key": "k", "weights.sha256": digest} | ({"canary": canary} if canary else {"signature": "g"})
    path.write_text(json.dumps({"run": run, "test": {"misses": misses}}))


def differing(params: Params) -> list[str]:
    return [part.what for part in verify.verify(params, "HEAD", Path()) if not part.same]


def test_the_same_result_in_another_order_of_the_lock_is_the_same(published: Path, params: Params) -> None:
    lock = YAML(typ="safe").load(published / "dvc.lock")
    lock["stages"] = dict(reversed(lock["stages"].items()))
    YAML().dump(lock, published / "dvc.lock")
    assert differing(params) == []


def test_planted_drift_is_named(published: Path, params: Params) -> None:
    write("modern", 2, 94, weights="v")
    metrics, weights = [part for part in verify.verify(params, "HEAD", Path()) if not part.same]
    assert (metrics.what, weights.what) == ("metrics/modern-2.json", "runs/modern-2/weights.safetensors")
    assert metrics.change.endswith(", test.misses 95 → 94")
    write("modern", 2, 95)
    lock = (published / "dvc.lock").read_text()
    (published / "dvc.lock").write_text(lock.replace("md5: '2'", "md5: '3'"))
    assert differing(params) == ["train@modern-1"]
    (published / "dvc.lock").write_text(lock.replace("train@modern-1", "train@modern-9"))
    assert differing(params) == ["train@modern-1", "train@modern-9"]


def test_what_was_not_computed_here_is_not_judged(published: Path, params: Params) -> None:
    """Metrics and lock are in Git: in a fresh clone they are equal to themselves."""
    shutil.rmtree("runs/modern-2")
    with pytest.raises(InputError, match=r"^modern-2: not computed here; `lenet repro modern-2` does it$"):
        verify.verify(params, "HEAD", Path())
    assert all(part.same for part in verify.verify(params, "HEAD", Path(), ["modern-1"]))
    shutil.rmtree("runs")
    with pytest.raises(InputError, match=r"original-sigmoid-1, .*: not computed here"):
        verify.verify(params, "HEAD", Path())


def test_results_of_before_signatures_are_judged_by_nobody_and_equal_to_none_of_now(
    published: Path, params: Params
) -> None:
    for name, seed in params.runs():
        write(name, seed, MISSES[name][seed - 1], canary="A")
    assert differing(params) == sorted(f"metrics/{name}-{seed}.json" for name, seed in params.runs())
    commit(published, "older")
    said = "modern-1: HEAD has results of the former arithmetic, .*; `lenet rerun` judges a run of then$"
    with pytest.raises(InputError, match=said):
        verify.verify(params, "HEAD", Path(), ["modern-1"])


def test_a_run_s_signature_is_judged_with_it(published: Path, params: Params) -> None:
    lock = YAML(typ="safe").load(published / "dvc.lock")
    for stage in ("signature@modern", "signature@original-tanh", "evaluate@modern-2"):
        lock["stages"][stage] = {"outs": [{"md5": "4"}]}
    YAML().dump(lock, published / "dvc.lock")
    found = verify.verify(params, "HEAD", Path(), ["modern-1"])
    assert [part.what for part in found if not part.same] == ["signature@modern"]


SIGN = """
import os, sys
from pathlib import Path
variant, out = sys.argv[2], Path(sys.argv[6])
assert sys.argv[1:6] == ["signature", variant, "--data", "data/train.safetensors", "--out"], sys.argv
if variant == "original-sigmoid":
    sys.exit("lenet: error: no such thing")
out.write_text("{}\\n" if os.environ["LENET_THREADS"] == "1" or variant == "modern" else "{ }\\n")
"""


@pytest.fixture
def signed(published: Path, params: Params) -> Path:
    """Committed signatures, and a package whose `signature` is off for one variant with two threads; one has none."""
    (published / "src" / "lenet").mkdir(parents=True)
    (published / "src" / "lenet" / "__init__.py").touch()
    (published / "src" / "lenet" / "__main__.py").write_text(SIGN)
    (published / "signatures").mkdir()
    for name in params.compare:
        (published / "signatures" / f"{name}.json").write_text("{}\n")
    commit(published, "signed")
    (published / "signatures" / "modern.json").write_text("not committed")
    (published / "data").mkdir()
    (published / "data" / "train.safetensors").touch()
    return published


def signatures(params: Params, *variants: str) -> list[str]:
    return list(verify.signatures(params, "HEAD", variants, [{}], lambda line: None))


def test_a_signature_is_compared_by_bytes_in_each_setting(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "params.yaml", signed)
    monkeypatch.setattr(verify, "settings", lambda: [{"LENET_THREADS": threads} for threads in ("1", "2")])
    failed = "original-sigmoid: LENET_THREADS={}: ended with 1: lenet: error: no such thing\n"
    for variants, said in (
        (["modern"], ""),
        (["modern", "original-tanh"], "original-tanh: LENET_THREADS=2: another signature\n"),
        (["original-sigmoid"], failed.format(1) + failed.format(2)),
    ):
        done = CliRunner().invoke(cli, ["verify", "--signatures", *variants])
        assert (done.exit_code, done.stdout) == (bool(said), said)


def test_what_cannot_be_signed_is_one_line(signed: Path, params: Params) -> None:
    with pytest.raises(InputError, match="nothing-1: not compared; legal: "):
        signatures(params, "nothing-1")
    (signed / "data" / "train.safetensors").unlink()
    with pytest.raises(InputError, match=r"train\.safetensors is missing; `dvc repro prepare` makes it"):
        signatures(params)
    run("git", "rm", "-q", "--cached", "signatures/modern.json", cwd=signed)
    commit_ = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "gone"]
    run(*commit_, cwd=signed)
    with pytest.raises(InputError, match="modern: no signature is committed at HEAD"):
        signatures(params)


@pytest.mark.parametrize(("here", "count"), [("AVX512", 18), ("AVX2", 12), ("DEFAULT", 6), ("SVE256", 6)])
def test_settings_are_all_that_the_processor_has(monkeypatch, here: str, count: int) -> None:
    monkeypatch.setattr("lenet.training.fingerprint.processor", lambda: here)
    found = verify.settings()
    assert len({tuple(sorted(setting.items())) for setting in found}) == count
    assert {setting["LENET_THREADS"] for setting in found} == {"1", "2"}
    assert {setting["MKL_ENABLE_INSTRUCTIONS"] for setting in found} == {"SSE4_2", "AVX2", "AVX512"}
    assert ("avx512" in {setting["ATEN_CPU_CAPABILITY"] for setting in found}) == (here == "AVX512")


def test_pipelines_of_before_signatures_are_named_once_and_no_others(published: Path, params: Params) -> None:
    assert list(stale.pipelines()) == []
    for folder in ("ladder", "sizes"):
        metrics = published / "experiments" / folder / "metrics"
        metrics.mkdir(parents=True)
        for seed in (1, 2):
            run_ = {"key": "k", "canary": "c"} | ({"signature": "g"} if folder == "sizes" else {})
            (metrics / f"v-{seed}.json").write_text(json.dumps({"run": run_}))
    (line,) = stale.pipelines()
    assert line.startswith("experiments/ladder: skipped, its results use the arithmetic of an earlier commit, ")
    commit(published, "ladder")
    at = run("git", "rev-parse", "HEAD", cwd=published).stdout[:12]
    (published / "README").touch()
    commit(published, "later")
    (line,) = stale.pipelines()
    assert line == f"experiments/ladder: skipped, its results use the arithmetic of commit {at}, not recomputed yet"


def test_missing_files_and_revisions_are_one_line(published: Path, params: Params) -> None:
    with pytest.raises(InputError, match="nowhere"):
        verify.verify(params, "nowhere", Path())
    extended = params.model_copy(update={"seeds": (*params.seeds, 6)})
    with pytest.raises(InputError, match="modern-6: not published at HEAD; name the runs"):
        verify.verify(extended, "HEAD", Path())
    assert all(part.same for part in verify.verify(extended, "HEAD", Path(), ["modern-1"]))
    path = published / "metrics" / "modern-1.json"
    content = json.loads(path.read_text())
    for part in ({}, {"key": "k"}, {"weights.sha256": "w"}):
        path.write_text(json.dumps(content | {"run": part}))
        with pytest.raises(InputError, match=r"metrics/modern-1\.json: .*run\.(key|weights\.sha256)"):
            verify.verify(params, "HEAD", Path())
    path.unlink()
    with pytest.raises(InputError, match=r"metrics/modern-1\.json: No such file.*`lenet repro`"):
        verify.verify(params, "HEAD", Path())


def test_the_command_s_exit_status_tells(published: Path, monkeypatch, capsys) -> None:
    shutil.copy(ROOT / "params.yaml", published)

    def said(status: int) -> str:
        done = CliRunner().invoke(cli, ["verify", "--here"])
        assert done.exit_code == status
        return done.output

    assert "bitwise" in said(0)
    write("modern", 2, 95, weights="v")
    assert "NO" in said(1)
    write("modern", 2, 95, canary="A")
    assert said(1).startswith("this pipeline: skipped, its results use the arithmetic of commit ")
    assert "exclude each other" in refused("verify --here --signatures", monkeypatch, capsys)
