"""What is published: the files that DVC's locks name lie in Git, and a fresh clone has everything without training."""

import hashlib
from pathlib import Path

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from conftest import ROOT, files_of, lenet_command, refused, run
from lenet.params.schema import Params
from lenet.runtime import layout
from lenet.runtime.files import read_json
from lenet.training import fingerprint
from tools import published


def test_the_folder_has_what_the_locks_name_and_nothing_else() -> None:
    found = published.present()
    assert {digest for home in published.homes() for digest in published.named(home)} == found.keys()
    for digest, path in found.items():
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "md5").hexdigest() == digest


@pytest.mark.slow
def test_a_fresh_clone_gets_runs_report_and_record_without_training(
    params: Params, mnist: Path, tmp_path: Path
) -> None:
    run("git", "clone", "-q", str(ROOT), "clone", cwd=tmp_path)
    clone = tmp_path / "clone"
    said = run(*lenet_command("pull"), cwd=clone, LENET_DATA_DIR=str(mnist)).stderr
    names = [f"{variant}-{seed}" for variant, seed in params.runs()]
    assert f"{len(names) + 1} runs" in said  # and the comparison
    for name in names:
        metrics = read_json(clone / layout.METRICS / f"{name}.json")
        weights = fingerprint.tensors_sha256(load_file(clone / "runs" / name / "weights.safetensors"))
        assert metrics["run"]["weights.sha256"] == weights
    assert (clone / "reports" / "comparison.html").exists()
    assert run("git", "status", "--porcelain", cwd=clone).stdout == ""
    assert "up to date" in run("dvc", "status", cwd=clone).stdout
    client = MlflowClient(f"sqlite:///{clone}/mlflow.db")
    current = client.search_runs([client.get_experiment_by_name("lenet5").experiment_id], "tags.current = 'true'")
    assert {one.info.run_name for one in current} == {*names}
    before = files_of(clone / "runs" / names[0])
    assert "0 of them completed" in run(*lenet_command("pull"), cwd=clone, LENET_DATA_DIR=str(mnist)).stderr
    assert files_of(clone / "runs" / names[0]) == before


def test_what_cannot_be_pulled_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert "nowhere: no such experiment; legal: frontier, ladder" in refused("pull nowhere", monkeypatch, capsys)
