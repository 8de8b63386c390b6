"""The comparison's numbers from runs made by hand, and its report."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from conftest import run
from lenet import compare, current, figures, repro, results
from lenet.config import Params
from lenet.errors import InputError
from lenet.record import Record

LABELS = np.tile(np.arange(10), 20)  # 200 test digits


@pytest.fixture
def runs(tmp_path: Path, params: Params) -> Path:
    """Runs of three seeds of two variants: original-tanh misses digits 0…9, modern misses seed digits."""
    for name, seed, missed in [
        *(("original-tanh", seed, range(10)) for seed in (1, 2, 3)),
        *(("modern", seed, range(seed)) for seed in (1, 2, 3)),
    ]:
        folder = tmp_path / "runs" / f"{name}-{seed}"
        folder.mkdir(parents=True)
        Record(name, seed, params.variants[name], f"key {name} {seed}", "data", "canary", "weights").write(
            folder / "run.json"
        )
        answers = LABELS.copy()
        answers[list(missed)] = (answers[list(missed)] + 1) % 10
        table = pd.DataFrame({"index": range(200), "label": LABELS, "answer": answers})
        table.to_csv(folder / "predictions.csv", index=False)
        errors = {"epoch": [1, 2], "train/error": [0.2, 0.1], "validation/error": [0.1, 0.01 * seed]}
        pd.DataFrame(errors).to_csv(folder / "history.csv", index=False)
        wrong = np.flatnonzero(answers != LABELS)
        save_file({"images": np.full((len(wrong), 28, 28), 7, np.uint8), "index": wrong}, folder / "missed.safetensors")
    return tmp_path / "runs"


@pytest.fixture
def two(params: Params) -> Params:
    return params.model_copy(update={"compare": ("original-tanh", "modern"), "seeds": (1, 2, 3)})


def test_the_summary_and_the_report_hold_the_runs_numbers(two: Params, runs: Path, tmp_path: Path) -> None:
    compare.compare(two, runs, tmp_path / "summary.json", tmp_path / "reports", track=False)
    summary = json.loads((tmp_path / "summary.json").read_text())
    # modern misses 1, 2 and 3 of 200: mean error 1 %, standard deviation (n − 1) ½ %
    assert summary["modern"] == pytest.approx(
        {"misses": 2.0, "test_error": 0.01, "test_error_sd": 0.005, "validation_error": 0.02}
    )
    assert summary["original-tanh"]["misses"] == 10
    assert summary["original-tanh"]["test_error_sd"] == 0
    content = json.loads((tmp_path / "reports" / "comparison.json").read_text())
    assert [seed["misses"] for seed in content["variants"]["modern"]["seeds"].values()] == [1, 2, 3]
    assert content["variants"]["modern"]["network"]["parameters"] == 61_706
    hardest = content["hardest"]
    assert hardest[0] == {"index": 0, "label": 0, "missed_by": 6, "of": 6, "answers": {"original-tanh": 1, "modern": 1}}
    assert [(one["index"], one["missed_by"]) for one in hardest[1:4]] == [(1, 5), (2, 4), (3, 3)]
    assert hardest[2]["answers"] == {"original-tanh": 3, "modern": 2}  # most modern runs get it right
    assert np.array(content["variants"]["modern"]["confusion"]).sum() == 600
    assert results.cells(content["variants"]["modern"]) == ("1 · 2 · 3", "1.00 ± 0.50", "2.00", "61,706")


def test_the_report_needs_nothing_from_outside(two: Params, runs: Path, tmp_path: Path) -> None:
    compare.compare(two, runs, tmp_path / "summary.json", tmp_path / "reports", track=False)
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://|@import|<script""", page)
    assert page.count("data:image/png;base64,") == 3
    for text in ("1 · 2 · 3", "1.00 ± 0.50", "61,706", "original-tanh"):
        assert text in page


def test_the_report_is_a_function_of_the_runs(two: Params, runs: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        compare.compare(two, runs, tmp_path / folder / "summary.json", tmp_path / folder, track=False)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "comparison.html", "comparison.json", "confusion.png", "hardest.png", "learning-curves.png", "summary.json",
    ]  # fmt: skip
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_one_seed_has_no_standard_deviation(two: Params, runs: Path, tmp_path: Path) -> None:
    one = two.model_copy(update={"seeds": (1,)})
    compare.compare(one, runs, tmp_path / "summary.json", tmp_path / "reports", track=False)
    assert "test_error_sd" not in json.loads((tmp_path / "summary.json").read_text())["modern"]
    assert results.cells(results.load(tmp_path / "reports")["variants"]["modern"])[1] == "0.50"


def test_runs_without_a_miss_or_without_validation_can_be_shown(two: Params, runs: Path, tmp_path: Path) -> None:
    for folder in runs.iterdir():
        perfect = pd.DataFrame({"index": range(200), "label": LABELS, "answer": LABELS})
        perfect.to_csv(folder / "predictions.csv", index=False)
        pd.DataFrame({"epoch": [1], "train/error": [0.1]}).to_csv(folder / "history.csv", index=False)
        none = {"images": np.zeros((0, 28, 28), np.uint8), "index": np.zeros(0, np.int64)}
        save_file(none, folder / "missed.safetensors")
    compare.compare(two, runs, tmp_path / "summary.json", tmp_path / "reports", track=False)
    assert json.loads((tmp_path / "summary.json").read_text())["modern"]["misses"] == 0
    assert results.cells(results.load(tmp_path / "reports")["variants"]["modern"])[2] == "–"


def test_a_missing_or_faulty_run_is_one_line_and_nothing_is_written(two: Params, runs: Path, tmp_path: Path) -> None:
    (runs / "modern-2" / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"runs/modern-2: not a whole evaluated run .*predictions"):
        compare.compare(two, runs, tmp_path / "summary.json", tmp_path / "reports", track=False)
    assert not (tmp_path / "summary.json").exists()
    assert not (tmp_path / "reports").exists()
    with pytest.raises(InputError, match=r"comparison\.json is missing"):
        results.load(tmp_path / "reports")


def test_the_present_runs_are_those_with_outputs(two: Params, runs: Path) -> None:
    found = current.present(two.model_copy(update={"seeds": (3, 4)}), runs)
    assert found == {("original-tanh-3", "key original-tanh 3"), ("modern-3", "key modern 3")}


def test_a_mark_is_noted_until_runs_or_store_change(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    mark = current.mark_of(frozenset({("a-1", "k"), ("b-1", "l")}))
    assert not current.is_noted(mark)
    current.note(mark)
    assert current.is_noted(mark)
    assert not current.is_noted(current.mark_of(frozenset({("a-1", "k")})))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.invalid")
    assert not current.is_noted(current.mark_of(frozenset({("a-1", "k"), ("b-1", "l")})))


def test_outputs_of_runs_that_are_compared_no_longer_are_removed(two: Params, runs: Path, tmp_path: Path) -> None:
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    for name in ("modern-1.json", "modern-3.json", "summary.json"):
        (metrics / name).write_text('{"run": {}}')
    (metrics / "my-own.json").write_text("{}")
    (runs / "my-notes").mkdir()
    repro._remove_stale(tmp_path, {f"{name}-{seed}" for name in ("original-tanh", "modern") for seed in (1, 2)})
    assert sorted(p.name for p in metrics.iterdir()) == ["modern-1.json", "my-own.json", "summary.json"]
    assert sorted(p.name for p in runs.iterdir()) == [
        "modern-1", "modern-2", "my-notes", "original-tanh-1", "original-tanh-2",
    ]  # fmt: skip


def test_png_bytes_hold_no_version_and_repeat(tmp_path: Path) -> None:
    counts = np.arange(100).reshape(10, 10)
    for name in ("a.png", "b.png"):
        figures.save(figures.confusion([("x", counts)]), tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert b"atplotlib" not in content


def test_results_before_any_run_are_one_line(tmp_path: Path) -> None:
    from conftest import ROOT

    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert "make repro" in run("lenet", "results", cwd=tmp_path, status=2).stderr
