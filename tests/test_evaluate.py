"""Test metrics worked out with a pencil, and the stage's files."""

import json
import math
from dataclasses import replace
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from lenet.digits.data import load_digits
from lenet.evaluation import recognition, robustness, scoring
from lenet.params.schema import Params
from lenet.pipeline import evaluate
from lenet.pipeline.train import train
from lenet.runtime.errors import InputError
from test_train import small_params

pytestmark = pytest.mark.usefixtures("unsigned")


def answers(probabilities: list[list[float]]) -> scoring.Answers:
    p = torch.zeros(len(probabilities), 10)
    for row, values in enumerate(probabilities):
        p[row, : len(values)] = torch.tensor(values)
    return scoring.Answers(p.argmax(1), p.log(), p)


def test_metrics_of_four_digits() -> None:
    found = scoring.test_metrics(
        answers([[0.5, 0.5 - 1e-6], [0.25, 0.75], [1.0], [0.0, 0.125, 0.875]]), torch.tensor([0, 1, 1, 2])
    )
    assert (found["misses"], found["count"], found["error"]) == (1, 4, 0.25)
    assert found["error.per_class"][:3] == [0.0, 0.5, 0.0]
    tiny = math.log(torch.finfo(torch.float32).tiny)  # the third's right class has probability 0
    nll = -(math.log(0.5) + math.log(0.75) + tiny + math.log(0.875)) / 4
    assert found["negative_log_likelihood"] == float(f"{nll:.6g}")  # as it is published
    # each stands in a bin of its own: |1 − 0.5|, |1 − 0.75|, |0 − 1|, |1 − 0.875|
    assert found["calibration_error"] == pytest.approx((0.5 + 0.25 + 1 + 0.125) / 4, abs=1e-6)


def test_likelihood_and_calibration_are_the_same_in_any_order() -> None:
    """Float sums in two orders differ in their last bits, if not by `sum` (from Python 3.12 on); exact ones do not."""
    generator = torch.Generator().manual_seed(5)
    probabilities = torch.softmax(3 * torch.randn(2000, 10, generator=generator), 1)
    labels = torch.randint(10, (2000,), generator=generator)
    right = probabilities.gather(1, labels[:, None])[:, 0].double().log()
    orders = [torch.randperm(2000, generator=generator) for _ in range(5)]
    assert len({reduce(add, right[order].tolist()) for order in orders}) > 1
    for measure in (scoring.negative_log_likelihood, scoring.calibration_error):
        assert len({measure(probabilities[order], labels[order]) for order in orders}) == 1


def test_outputs_that_are_no_probabilities_have_no_likelihood() -> None:
    found = scoring.test_metrics(scoring.Answers(torch.tensor([1]), torch.zeros(1, 10), None), torch.tensor([1]))
    assert set(found) == {"misses", "count", "error", "answers.sha256", "error.per_class"}


def test_confusion_counts_digit_by_answer() -> None:
    counts = scoring.confusion(np.array([1, 1, 7]), np.array([1, 7, 7]))
    assert counts[1, 1] == counts[7, 1] == counts[7, 7] == 1
    assert counts.sum() == 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, prepared: Path, params: Params) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("modern", "original-tanh", "frontier", "lecun1998"):
        outs, data = {1: folder / f"{name}-1"}, prepared / "train.safetensors"
        train(small_params(params, train_size=600), name, outs, data, None, None, snapshots=name == "lecun1998")
    return folder


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """A file of 500 of the test digits."""
    path = tmp_path_factory.mktemp("test") / "some.safetensors"
    digits = load_digits(prepared / "test.safetensors")[:500]
    save_file({part: getattr(digits, part).clone() for part in ("images", "labels", "index")}, path)
    return path


@pytest.mark.parametrize("name", ["modern", "original-tanh", "frontier", "lecun1998"])
def test_the_stage_s_files_agree_with_the_model(
    trained: Path, some: Path, tmp_path: Path, name: str, monkeypatch
) -> None:
    two = {kind: replace(one, levels=(one.none, one.levels[-1])) for kind, one in robustness.DISTURBANCES.items()}
    monkeypatch.setattr(robustness, "DISTURBANCES", two)  # fewer levels take less time
    run, out = trained / f"{name}-1", tmp_path / "metrics.json"
    evaluate.evaluate(run, some, out, track=False)
    metrics = json.loads(out.read_text())
    record = json.loads((run / "run.json").read_text())
    test = load_digits(some)
    predicted = recognition.load(run).predict(test.images.numpy())
    table = pd.read_csv(run / "predictions.csv")
    assert table["answer"].tolist() == predicted["digit"].tolist()
    assert table["label"].tolist() == test.labels.tolist()
    outputs = table[[f"output {digit}" for digit in range(10)]].to_numpy(np.float32)
    np.testing.assert_array_equal(outputs, predicted["scores"])
    wrong = np.flatnonzero(table["answer"] != table["label"])
    assert metrics["run"] == record["run"]
    assert metrics["digits"] == {"trained_on": 600, "held_out": record["parameters"]["validation_size"]}
    assert metrics["test"]["misses"] == len(wrong) < 400
    assert metrics["test"]["count"] == 500
    assert metrics["test"]["error"] == len(wrong) / 500
    by_class = [(table["answer"] != digit)[table["label"] == digit].mean() for digit in range(10)]
    assert metrics["test"]["error.per_class"] == pytest.approx(by_class)
    history = pd.read_csv(run / "history.csv")
    assert metrics["validation"]["error"] == history["validation/error"].iloc[-1]
    parameters = {"modern": 61_706, "original-tanh": 60_850, "frontier": 52_146, "lecun1998": 60_000}
    assert metrics["network"]["parameters"] == parameters[name]
    assert ("calibration_error" in metrics["test"]) == (name in ("modern", "frontier"))
    assert ("epochs" in metrics) == (name == "lecun1998")
    if name == "lecun1998":
        of_epochs = metrics["epochs"]["misses"]
        assert len(of_epochs) == len(history)
        assert of_epochs[-1] == len(wrong)
    missed = load_file(run / "missed.safetensors")
    assert missed["index"].tolist() == wrong.tolist()
    assert torch.equal(missed["images"], test.images[wrong])
    curves = json.loads((run / "robustness.json").read_text())
    assert list(curves) == ["translation", "rotation", "scale", "shear", "salt-and-pepper"]
    assert curves["translation"]["unit"] == "pixels"
    assert curves["translation"]["levels"] == [0, 5]
    for kind, curve in curves.items():
        assert metrics["robustness"][kind] == dict(zip(map(str, curve["levels"]), curve["errors"], strict=True))
        assert metrics["test"]["error"] == curve["errors"][0] < curve["errors"][1] < 1
    files = out, run / "predictions.csv", run / "robustness.json"
    first = [file.read_bytes() for file in files]
    evaluate.evaluate(run, some, out, track=False)
    assert [file.read_bytes() for file in files] == first


def test_faulty_weights_are_refused_and_nothing_is_written(trained: Path, prepared: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "modern-1", tmp_path / "metrics.json"
    run.mkdir()
    for name in ("run.json", "history.csv"):
        (run / name).write_bytes((trained / "modern-1" / name).read_bytes())
    with pytest.raises(InputError, match=r"weights\.safetensors: No such file or directory; `lenet repro` makes"):
        evaluate.evaluate(run, prepared / "test.safetensors", out, track=False)
    weights = load_file(trained / "modern-1" / "weights.safetensors")
    weights["C1.bias"][0] += 1e-3
    save_file(weights, run / "weights.safetensors")
    with pytest.raises(InputError, match=r"not those of run\.json"):
        evaluate.evaluate(run, prepared / "test.safetensors", out, track=False)
    (run / "run.json").write_text('{"variant": 3}')
    with pytest.raises(InputError, match="not a run record"):
        evaluate.evaluate(run, prepared / "test.safetensors", out, track=False)
    assert not out.exists()
    assert not (run / "predictions.csv").exists()
    assert not (run / "robustness.json").exists()
