"""All runs side by side: the numbers of the comparison, from which its page is drawn, and the variants' summary."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lenet.evaluation import confidence, judge
from lenet.evaluation.scoring import confusion
from lenet.networks import layer_table
from lenet.report import mnist, statistics
from lenet.runs import readers
from lenet.runs.record import Record
from lenet.runtime.errors import FaultyFile, InputError

HARDEST = 36  # digits shown
CURVES = ("train/error", "validation/error")

ByVariant = Mapping[str, "list[Run]"]


@dataclass(frozen=True)
class Run:
    """What the comparison needs of one run."""

    record: Record
    history: pd.DataFrame
    predictions: pd.DataFrame
    missed: dict[int, np.ndarray]  # index in the MNIST test file → image (28, 28)
    robustness: dict[str, Any] | None  # disturbance → unit, levels, errors

    @property
    def wrong(self) -> np.ndarray:
        """Whether each test digit is missed."""
        return (self.predictions["answer"] != self.predictions["label"]).to_numpy()

    @property
    def labels(self) -> np.ndarray:
        return self.predictions["label"].to_numpy()

    @property
    def misses(self) -> int:
        return int(self.wrong.sum())

    @property
    def error(self) -> float:
        return self.misses / len(self.predictions)

    @property
    def confidence(self) -> np.ndarray:
        return confidence.of(self.predictions[confidence.OUTPUTS].to_numpy(), self.record.parameters)


def read(folder: Path, metrics: Path) -> Run:
    """Read a run's folder, and check it with its metrics file, if it is there: in the folder of the summary.

    Raises InputError if a file is missing or faulty, or contradicts another.
    """
    record = Record.read(folder / "run.json")
    history = readers.read(folder / "history.csv", readers.history)
    predictions = readers.read(folder / "predictions.csv", readers.predictions)
    missed = readers.read(folder / "missed.safetensors", readers.missed)
    curves, told = folder / "robustness.json", metrics / f"{folder.name}.json"
    robustness = readers.read(curves, readers.robustness) if curves.exists() else None
    tested = readers.read(told, readers.metrics) if told.exists() else None
    for fault in judge.contradictions(judge.files(folder.name, record, history, tested, predictions, missed)):
        raise FaultyFile(folder, fault)
    tables = ("history.csv", history, CURVES[:1]), ("predictions.csv", predictions, confidence.OUTPUTS)
    for file, table, needed in tables:
        if absent := [name for name in needed if name not in table]:
            raise FaultyFile(folder / file, f"line 1: no column {absent[0]}")
    return Run(record, history, predictions, missed, robustness)


def check_alike(by_variant: ByVariant) -> None:
    """Digits are compared one by one, and curves level by level."""
    runs = [run for group in by_variant.values() for run in group]
    first = runs[0]
    for run in runs:
        if not run.predictions[["index", "label"]].equals(first.predictions[["index", "label"]]):
            raise InputError(f"{run.record.name}: predictions.csv is of other digits than that of {first.record.name}")
        if _levels(run) != _levels(first):
            raise InputError(
                f"{run.record.name}: robustness.json has other levels than that of {first.record.name}; "
                "`dvc repro` makes them alike"
            )
    for name, group in by_variant.items():
        if len({(len(run.history), "validation/error" in run.history) for run in group}) > 1:
            raise InputError(f"{name}: the seeds' histories differ in length or columns; `dvc repro` makes them alike")


def _levels(run: Run) -> dict[str, list[float]] | None:
    return run.robustness and {kind: curve["levels"] for kind, curve in run.robustness.items()}


def describe(by_variant: ByVariant) -> dict[str, Any]:
    """All numbers that the report shows."""
    runs = [run for group in by_variant.values() for run in group]
    found = statistics.pairs({name: np.array([run.wrong for run in group]) for name, group in by_variant.items()})
    missed = np.sum([run.wrong for run in runs], axis=0)
    known = mnist.are_test_digits(runs[0].predictions["index"].to_numpy(), runs[0].labels)
    return {
        "seeds": [run.record.seed for run in next(iter(by_variant.values()))],
        "digits": len(missed),
        "variants": {name: describe_variant(group) for name, group in by_variant.items()},
        "pairs": [
            {"a": one.a, "b": one.b, **asdict(one.difference), "p_adjusted": one.p_adjusted, "verdict": one.verdict}
            for one in found
        ],
        "missed_by_any": int((missed > 0).sum()),
        "missed_by_all": int((missed == len(runs)).sum()),
        "hardest": hardest(by_variant),
        "labels": labels(by_variant) if known else None,
        "writers": writers(by_variant) if known else None,
    }


def describe_variant(group: list[Run]) -> dict[str, Any]:
    """The runs of one variant: per seed and on average. Standard deviations are the sample's (n − 1)."""
    estimate = statistics.estimate(np.array([run.wrong for run in group]))
    variant = group[0].record.parameters
    description: dict[str, Any] = {
        "seeds": {str(run.record.seed): {"misses": run.misses, "error": run.error} for run in group},
        "misses": float(np.mean([run.misses for run in group])),
        "count": estimate.digits,
        "test_error": estimate.error,
        "test_error_sd": estimate.sd,
        "test_error_low": estimate.low,
        "test_error_high": estimate.high,
        "network": layer_table.totals(variant.network),
        "what": layer_table.what(variant),
        "curves": {name: [run.history[name].tolist() for run in group] for name in CURVES if name in group[0].history},
        "confusion": np.sum([confusion(run.predictions["answer"].to_numpy(), run.labels) for run in group], 0).tolist(),
        "per_class": _over_seeds([_class_errors(run) for run in group]),
        "calibration": _calibration(group),
        "rejection": _rejection(group),
        "robustness": None,
    }
    if group[0].robustness:
        description["robustness"] = {
            kind: {
                "unit": curve["unit"],
                "levels": curve["levels"],
                **_over_seeds([run.robustness[kind]["errors"] for run in group if run.robustness]),
            }
            for kind, curve in group[0].robustness.items()
        }
    if "validation/error" in description["curves"]:
        description["validation_error"] = float(np.mean([run.history["validation/error"].iloc[-1] for run in group]))
    return description


def _over_seeds(values: Sequence[float] | Sequence[Sequence[float]]) -> dict[str, Any]:
    """Each seed's number or list of numbers, with their mean and standard deviation (None for one seed)."""
    table = np.array(values)
    sd = table.std(0, ddof=1).tolist() if len(table) > 1 else None
    return {"seeds": table.tolist(), "mean": table.mean(0).tolist(), "sd": sd}


def _class_errors(run: Run) -> list[float]:
    counts = np.bincount(run.labels, minlength=10)
    return (np.bincount(run.labels, run.wrong, 10) / np.maximum(counts, 1)).tolist()


def _calibration(group: list[Run]) -> dict[str, Any]:
    """Expected calibration error per seed; the diagram's bins are of all seeds' answers together."""
    errors = [confidence.calibration_error(confidence.reliability(run.confidence, ~run.wrong)) for run in group]
    sure, wrong = (np.concatenate([getattr(run, name) for run in group]) for name in ("confidence", "wrong"))
    together = [asdict(one) for one in confidence.reliability(sure, ~wrong)]
    return {**_over_seeds(errors), "bins": together, "confidence": float(sure.mean())}


def _rejection(group: list[Run]) -> dict[str, Any]:
    curves = [confidence.rejection(run.confidence, ~run.wrong, confidence.REJECTED).tolist() for run in group]
    needed = {
        str(target): _over_seeds([confidence.rejected_for(run.confidence, ~run.wrong, target) for run in group])
        for target in confidence.TARGETS
    }
    return {"shares": confidence.REJECTED.tolist(), **_over_seeds(curves), "needed": needed}


def summarise(content: dict[str, Any]) -> dict[str, Any]:
    """The few numbers a variant that `dvc metrics` and `dvc exp show` list.

    None may be called "error": DVC takes a metric of that name for a failure to read the file.
    """
    names = ("misses", "test_error", "test_error_sd", "test_error_low", "test_error_high", "validation_error")
    return {
        variant: {name: found[name] for name in names if found.get(name) is not None}
        for variant, found in content["variants"].items()
    }


def hardest(by_variant: ByVariant) -> list[dict[str, Any]]:
    """The digits that most runs miss; ties in file order."""
    missed = Counter(index for group in by_variant.values() for run in group for index in run.missed)
    order = sorted(missed.items(), key=lambda item: (-item[1], item[0]))
    return [_shown(by_variant, index) for index, _ in order[:HARDEST]]


def _shown(by_variant: ByVariant, index: int) -> dict[str, Any]:
    """A digit, with each variant's most frequent answer.

    ``image`` is its 28 lines of 28 grey levels, a byte each, in base64. It is None of a digit that no run misses: runs
    keep those that they miss.
    """
    runs = [run for group in by_variant.values() for run in group]
    answers = {}
    for variant, group in by_variant.items():
        given = Counter(int(run.predictions["answer"][index]) for run in group)
        answers[variant] = given.most_common(1)[0][0]
    images = [run.missed[index] for run in runs if index in run.missed]
    return {
        "index": index,
        "label": int(runs[0].predictions["label"][index]),
        "missed_by": len(images),
        "of": len(runs),
        "answers": answers,
        "image": base64.b64encode(images[-1].tobytes()).decode() if images else None,
    }


def labels(by_variant: ByVariant) -> dict[str, Any]:
    """MNIST's doubted labels: the digits, each run's misses among them, and its error on the other digits."""
    doubted = [one.index for one in mnist.DOUBTS]
    return {
        "people": mnist.PEOPLE,
        "candidates": mnist.CANDIDATES,
        "digits": [_shown(by_variant, one.index) | {"other": one.other, "votes": one.votes} for one in mnist.DOUBTS],
        "variants": {
            name: {
                "misses": _over_seeds([int(run.wrong[doubted].sum()) for run in group]),
                "error_without": _over_seeds([float(np.delete(run.wrong, doubted).mean()) for run in group]),
            }
            for name, group in by_variant.items()
        },
    }


def writers(by_variant: ByVariant) -> dict[str, Any]:
    """The errors on the test digits of each of MNIST's two groups of writers, and how far misses cluster by writer."""
    means = {name: np.mean([run.wrong for run in group], 0) for name, group in by_variant.items()}
    outcomes = [*means.items(), *((f"{a} − {b}", means[a] - means[b]) for a, b in combinations(means, 2))]
    in_order = mnist.WRITERS[mnist.IN_ORDER]
    found = {name: statistics.clustering(values[in_order], mnist.PER_WRITER) for name, values in outcomes}
    return {
        "groups": {
            who: {
                "digits": part.stop - part.start,
                "variants": {
                    name: _over_seeds([float(run.wrong[part].mean()) for run in group])
                    for name, group in by_variant.items()
                },
            }
            for who, part in mnist.WRITERS.items()
        },
        "in_order": mnist.IN_ORDER,
        "block": mnist.PER_WRITER,
        "clustering": {name: asdict(one) if one else None for name, one in found.items()},
    }
