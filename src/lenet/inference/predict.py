"""What a trained network answers to pictures, how sure it is, and how often such answers were right in its test."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import floor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lenet.evaluation import confidence, scoring
from lenet.evaluation.confidence import BINS, OUTPUTS, Bin
from lenet.inference import model, trained
from lenet.inference.files import Item
from lenet.params.schema import Params, Variant
from lenet.runs import readers
from lenet.runs.record import Record
from lenet.runtime import layout

BATCH = 64  # pictures answered at once
COLUMNS = ["file", "image", "digit", "confidence", "tested", "right", *OUTPUTS]
"""Of the answers as CSV."""


@dataclass(frozen=True)
class Network:
    """A trained network that answers.

    Attributes:
        name: its run, or the model's address.
        variant: the block of its training.
        predict: uint8 images (n, 28, 28) → ``digit`` (n,) and ``scores`` (n, 10), as the packaged model has them.
        tested: its test answers by their place among ``confidence.BINS`` bins of confidence, from 1; empty if unknown.
    """

    name: str
    variant: Variant
    predict: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    tested: Mapping[int, Bin]

    @property
    def outputs(self) -> str:
        """What the ten outputs are."""
        kind = self.variant.network.output
        return "probabilities" if kind == "softmax" else "squared distances" if kind.endswith("rbf") else "outputs"

    @property
    def sureness(self) -> str:
        """What a confidence is called: a softmax output is a probability."""
        return "probability" if self.outputs == "probabilities" else "confidence"


@dataclass(frozen=True)
class Answer:
    """What a network answers to a picture.

    Attributes:
        item: the picture.
        digit: the class.
        confidence: an estimate of the probability that it is right (evaluation/confidence.py).
        outputs: float32 (10,), as in predictions.csv.
        bin: the test answers of like confidence; None if unknown.
        warning: what is doubtful about the picture.
    """

    item: Item
    digit: int
    confidence: float
    outputs: np.ndarray
    bin: Bin | None
    warning: str = ""


def default(params: Params) -> str:
    """The variant that answers unless another is named: the first compared one whose outputs are probabilities."""
    softmax = (name for name in params.compare if params.variant(name).network.output == "softmax")
    return next(softmax, params.compare[0])


def of_run(folder: Path) -> Network:
    """The network of a run's folder, with what its test has shown, if that is here.

    Raises:
        InputError: a missing or faulty file, or weights that are not the record's.
    """
    network = model.Model(trained.load(folder))
    record = network.recogniser.record
    return Network(record.name, record.parameters, network.predict, _tested(folder, record))


def _tested(folder: Path, record: Record) -> dict[int, Bin]:
    table, metrics = folder / "predictions.csv", folder.absolute().parents[1] / layout.METRICS / f"{record.name}.json"
    if not (table.exists() and metrics.exists()):
        return {}
    predictions = readers.read(table, readers.predictions)
    content = readers.read(metrics, readers.metrics)
    answers = scoring.answers_sha256(predictions["answer"].to_numpy())
    same = content["run"]["weights.sha256"] == record.weights and content["test"].get("answers.sha256") == answers
    return reliability(predictions, record.parameters) if same else {}


def reliability(predictions: pd.DataFrame, variant: Variant) -> dict[int, Bin]:
    """A run's test answers, as in predictions.csv, in the bins of its reliability diagram, by their place from 1."""
    if not {*OUTPUTS} <= {*predictions.columns}:
        return {}
    sure = confidence.of(predictions[OUTPUTS].to_numpy(), variant)
    right = (predictions["answer"] == predictions["label"]).to_numpy()
    return dict(zip(np.unique(_places(sure)).tolist(), confidence.reliability(sure, right), strict=True))


def _places(sure: np.ndarray) -> np.ndarray:
    return np.ceil(sure * BINS).clip(1, BINS).astype(int)


def answers(network: Network, items: Iterable[Item]) -> Iterator[Answer | Item]:
    """A network's answers to pictures in their order, some at a time; a refused picture stays itself."""
    items = iter(items)
    while batch := list(islice(items, BATCH)):
        images = [item.image for item in batch if item.image is not None]
        found = iter(_answers(network, np.stack(images)) if images else [])
        for item in batch:
            yield item if item.image is None else Answer(item, *next(found))


def _answers(network: Network, images: np.ndarray) -> Iterator[tuple[int, float, np.ndarray, Bin | None, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dark on light: each picture is told below
        found = network.predict(images)
    sure = confidence.of(found["scores"].astype(np.float64), network.variant)
    warned = ["it looks dark on light, and is taken as it is" * bool(one) for one in model.inverted(images)]
    bins = [network.tested.get(place) for place in _places(sure).tolist()]
    return zip(found["digit"].tolist(), sure.tolist(), found["scores"], bins, warned, strict=True)


def text(answer: Answer, network: Network) -> str:
    """An answer in a line; the confidence is rounded down, as hardly one is certain."""
    words = f"{answer.item.name}: {answer.digit}, {network.sureness} {floor(1000 * answer.confidence) / 1000:.3f}"
    if answer.bin:
        low, high = _bounds(answer.confidence)
        right, count = 100 * answer.bin.accuracy, answer.bin.count
        words += f"; {right:.2f} % of the {count:,} test answers with {low:.2f} to {high:.2f} were right"
    if network.outputs == "squared distances":
        words += f"; squared distances to the codes of 0 … 9: {' '.join(f'{one:.1f}' for one in answer.outputs)}"
    return words


def _bounds(sure: float) -> tuple[float, float]:
    place = int(_places(np.array([sure]))[0])
    return (place - 1) / BINS, place / BINS


def row(answer: Answer) -> list[Any]:
    """An answer as a row of ``COLUMNS``; empty is what is not known."""
    tested = (answer.bin.count, answer.bin.accuracy) if answer.bin else ("", "")
    place = "" if answer.item.index is None else answer.item.index
    return [str(answer.item.file), place, answer.digit, _short(answer.confidence), *tested, *map(str, answer.outputs)]


def as_json(answer: Answer, network: Network) -> dict[str, Any]:
    """An answer as plain values."""
    tested = None
    if answer.bin:
        low, high = _bounds(answer.confidence)
        tested = {"from": low, "to": high, "digits": answer.bin.count, "right": answer.bin.accuracy}
    return {
        "file": str(answer.item.file), "image": answer.item.index, "model": network.name, "digit": answer.digit,
        network.sureness: _short(answer.confidence), "tested": tested,
        network.outputs.replace(" ", "_"): [float(str(one)) for one in answer.outputs],
    }  # fmt: skip


def _short(sure: float) -> float:
    """Without digits that float32 has not."""
    return round(sure, 7)
