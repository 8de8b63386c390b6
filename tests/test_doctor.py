"""`lenet doctor` on a small pipeline: each planted disagreement is named, and nothing else."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML
from safetensors.numpy import load_file, save_file

from conftest import HARDEST, edit_params, lenet_command, run
from lenet import tracking
from lenet.cli import cli
from lenet.evaluation import robustness, scoring
from lenet.params import loading
from lenet.pipeline import compare, evaluate
from lenet.reproduce import doctor, verify
from lenet.runtime import remedies
from lenet.runtime.errors import FaultyFile, InputError

pytestmark = pytest.mark.slow
SECTIONS = ("environment", "lock", "files", "arithmetic", "record", "again")
LOCK, FILES, ARITHMETIC, RECORD = "lock", "files", "arithmetic", "record"


@pytest.fixture
def folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """To be damaged."""
    monkeypatch.chdir(copy)
    for name in ("DISTURBANCES", "curves"):
        monkeypatch.setattr(robustness, name, getattr(robustness, name))
    exec(HARDEST, vars(robustness))  # as its own sources have it
    return copy


def findings(*names: str, deep: bool = False) -> dict[str, list[str]]:
    """What was found, by section; sections without a finding are left out."""
    found = dict(zip(SECTIONS, doctor.examine(loading.load(), names, deep), strict=False))
    return {section: faults for section, (_, faults) in found.items() if faults}


def test_a_sound_checkout_has_no_finding_and_status_0(folder: Path) -> None:
    done = run(*lenet_command("doctor", "--deep"), cwd=folder, status=None)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("they agree") == len(SECTIONS)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, indent=2) + "\n")


def test_an_edited_metric_is_named_wherever_it_does_not_fit(folder: Path) -> None:
    edit(folder / "metrics" / "modern-1.json", lambda content: content["test"].update(misses=7))
    found = findings()
    assert set(found) == {LOCK, FILES, RECORD}
    assert "evaluate@modern-1: changed outs: metrics/modern-1.json modified" in found[LOCK]
    assert any("test.misses is 7, and" in fault for fault in found[FILES])
    assert any("summary.json: modern.misses" in fault for fault in found[FILES])
    assert any("metric test/misses is" in fault and "7.0 in the files" in fault for fault in found[RECORD])
    assert any("artifact modern-1.json is not the file" in fault for fault in found[RECORD])
    done = CliRunner().invoke(cli, ["doctor"])
    assert (done.exit_code, done.stdout.count("test.misses is 7")) == (1, 1)


def test_of_named_runs_alone_other_runs_and_the_comparison_do_not_matter(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "original-tanh-1")
    (folder / "metrics" / "summary.json").unlink()
    assert LOCK in findings()
    assert {LOCK, FILES}.isdisjoint(findings("modern-1"))
    assert FILES in findings("original-tanh-1")
    unknown = CliRunner().invoke(cli, ["doctor", "modern-9"])
    assert unknown.exit_code == 1
    assert "modern-9: not compared; legal: original-tanh-1, modern-1" in unknown.stdout


def test_a_changed_byte_of_the_weights_is_named(folder: Path) -> None:
    path = folder / "runs" / "original-tanh-1" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    found = findings()
    assert set(found) == {LOCK, FILES, RECORD}
    assert any("runs/original-tanh-1: run.json: run.weights.sha256 is" in fault for fault in found[FILES])
    assert any("artifact weights.safetensors is not the file" in fault for fault in found[RECORD])


def test_an_edited_hash_in_the_lock_is_named(folder: Path) -> None:
    lock = folder / "dvc.lock"
    text = lock.read_text()
    at = text.index("md5:", text.index("runs/modern-1/weights.safetensors")) + 5
    lock.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    found = findings()
    assert set(found) == {LOCK}
    assert any("runs/modern-1/weights.safetensors" in fault for fault in found[LOCK])


@pytest.mark.parametrize("path", ["runs/modern-1/weights.safetensors", "data/raw/t10k-labels-idx1-ubyte", None])
def test_a_damaged_object_of_the_cache_is_named_and_removed_does_not_come_back(folder: Path, path: str | None) -> None:
    """DVC gives the damage back, as often as it is asked, and its status finds nothing. None: the list of a folder."""
    lock = YAML(typ="safe").load(Path("dvc.lock"))["stages"]["fetch"]["outs"][0]
    oid = hashlib.md5(Path(path).read_bytes()).hexdigest() if path else lock["md5"]
    kept = Path(".dvc/cache/files/md5") / oid[:2] / oid[2:]
    content = bytearray(kept.read_bytes())
    content[-2] ^= 1
    kept.unlink()
    kept.write_bytes(content)
    kept.chmod(0o444)  # as DVC has them, and so believes them
    if path:
        Path(path).unlink()
        run("dvc", "checkout", "-q", path, cwd=folder)
        assert Path(path).read_bytes() == content
        assert path not in run("dvc", "status", "dvc.yaml", cwd=folder).stdout
    params = loading.load()
    found = [*doctor.pipeline(params, ())]
    told = f"what DVC's cache has of it is damaged: `rm -f {kept}`, then `lenet repro`"
    assert any(told in fault for fault in found), found
    assert any("is not what dvc.lock says" in fault for fault in found) == bool(path)
    if path and path.startswith("runs"):
        weighed = [one for one in verify.verify(params, "HEAD", Path()) if not one.same]
        assert [told in one.change for one in weighed] == [True]
        with pytest.raises(FaultyFile, match=r"not those of run\.json") as raised:
            evaluate.evaluate(folder / "runs" / "modern-1", doctor.TEST, folder / "out.json", track=False)
        assert told in remedies.of(raised.value)
        kept.unlink()
        run(*lenet_command("repro", "--no-track", "modern-1"), cwd=folder)
        assert [*doctor.pipeline(params, ())] == []


def test_another_package_and_another_arithmetic_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = folder / "requirements.lock"
    lock.write_text(lock.read_text().replace("\nclick==", "\nclick==0"))
    (found,) = findings()["environment"]
    assert found.startswith("click: ")
    monkeypatch.setattr("lenet.arithmetic.conformance.faults", lambda: ["sqrt", "product"])
    assert [fault.split(" is off here")[0] for fault in findings()[ARITHMETIC]] == ["sqrt", "product"]


def test_an_identity_that_does_not_follow_is_named(folder: Path) -> None:
    path = folder / "runs" / "modern-1" / "run.json"
    whole = path.read_text()
    path.unlink()
    for part, said in (
        ("key", "by its parameters, seed, data.sha256 and signature"),
        ("data.sha256", "by the present digits"),
        ("signature", "by signatures/modern.json"),
    ):
        content = json.loads(whole)
        content["run"][part] = "0" * 64
        path.write_text(json.dumps(content, indent=2) + "\n")
        told = f"runs/modern-1: run.json: run.{part} is {'0' * 64}, and "
        found = [*doctor.files(loading.load(), ["modern-1"])]
        assert [fault.startswith(told) for fault in found if fault.endswith(said)] == [True]


def test_results_from_before_signatures_are_named_once_and_no_disagreement(folder: Path) -> None:
    before = {"key": "b" * 64, "weights.sha256": "a" * 64, "data.sha256": "d" * 64, "canary": "c" * 16}
    for seed in (1, 2):
        for name in (
            f"experiments/ladder/runs/tutorial-{seed}/run.json",
            f"experiments/ladder/metrics/tutorial-{seed}.json",
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps({"variant": "tutorial", "seed": seed, "run": before}))
    assert findings() == {}
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 0
    assert done.stdout.count("its results use the arithmetic of") == 1
    assert done.stdout.splitlines()[0].startswith("experiments/ladder: skipped, its results use the arithmetic of ")
    assert "warning" not in done.stderr


def test_a_number_edited_consistently_everywhere_is_found_by_computing_again(folder: Path) -> None:
    run_folder, metrics = folder / "runs" / "modern-1", folder / "metrics" / "modern-1.json"
    predictions = pd.read_csv(run_folder / "predictions.csv")
    missed = load_file(run_folder / "missed.safetensors")
    gone = int(missed["index"][0])
    predictions.loc[predictions["index"] == gone, "answer"] = predictions["label"]
    predictions.to_csv(run_folder / "predictions.csv", index=False, lineterminator="\n")
    rest = {name: np.ascontiguousarray(array[1:]) for name, array in missed.items()}
    save_file(rest, run_folder / "missed.safetensors")
    misses = len(rest["index"])
    answers = {"answers.sha256": scoring.answers_sha256(predictions["answer"].to_numpy())}
    edit(metrics, lambda content: content["test"].update(misses=misses, error=misses / 10_000, **answers))
    params = loading.load()
    compare.compare(params, doctor.RUNS, doctor.EXPERIMENTS, Path("metrics/summary.json"), doctor.REPORTS, track=False)
    run("dvc", "commit", "-f", "dvc.yaml", cwd=folder)
    for _ in tracking.sync(params):
        pass
    assert findings() == {}
    found = findings(deep=True)
    assert set(found) == {"again"}
    told = f"metrics/modern-1.json: test.misses is {misses}, and {misses + 1} when computed again"
    assert any(told in fault for fault in found["again"])
    assert any(fault.startswith("runs/modern-1/predictions.csv") for fault in found["again"])
    assert any(fault.startswith("metrics/summary.json") for fault in found["again"])


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "runs")
    shutil.rmtree(folder / "reports")


def halve(folder: Path) -> None:
    shutil.rmtree(folder / "runs" / "original-tanh-1")
    (folder / "runs" / "modern-1" / "weights.safetensors").unlink()


def edit_block(folder: Path) -> None:
    edit_params(folder, lambda content: content["variants"]["modern"]["optimizer"].update(lr=0.00123))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (empty, {"verify --here": "2 not computed", "doctor": "2 no run here", "results": "2 is missing"}),
        (
            halve,
            {
                "verify --here": "2 not computed",
                "doctor": "1 deleted",
                "doctor --deep": "1 weights.safetensors: No such file",
                "results": "0 not the runs of params.yaml",
            },
        ),
        # of verify: what was computed is still what the commit says
        (
            edit_block,
            {
                "verify --here": "0 bitwise",
                "doctor": "1 by params.yaml",
                "results": "0 not the runs of params.yaml",
            },
        ),
    ],
)
def test_a_check_that_has_compared_nothing_never_says_yes(folder: Path, change, said: dict[str, str]) -> None:
    before = [CliRunner().invoke(cli, command.split()) for command in said]
    assert {done.exit_code for done in before} == {0}
    assert not any("not the runs" in done.output for done in before)
    change(folder)
    for command, expected in said.items():
        status, words = expected.split(" ", 1)
        done = CliRunner().invoke(cli, command.split())
        refused = done.exception if isinstance(done.exception, InputError) else ""
        assert refused or isinstance(done.exception, SystemExit | None), done.exception
        assert str(2 if refused else done.exit_code) == status, command
        assert words in f"{refused}{done.output}", command
