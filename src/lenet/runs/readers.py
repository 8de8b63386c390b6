"""What is kept of a run beside run.json and its weights, read back and checked: each kind of file has one reader.

The functions of bytes raise what is in FAULTY (files.py), with the place; ``read`` makes one line of that.
"""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator
from safetensors.numpy import load

from lenet.runtime.files import json_of, reading

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
WEIGHTS = "weights.sha256"  # of each epoch's end, the one column of the history that holds no numbers
COUNTS = ["index", "label", "answer"]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class RunPart(_Part):
    """The part of a metrics file that tells of which training it is."""

    key: str
    weights: str = Field(alias="weights.sha256")
    __pydantic_extra__: dict[str, str]
    model_config = ConfigDict(extra="allow")


class TestPart(_Part):
    """The part of a metrics file that tells of the test digits. Older ones have less."""

    __pydantic_extra__: dict[str, float | str | list[float]]
    model_config = ConfigDict(extra="allow")
    misses: int = Field(ge=0)
    count: int | None = None
    error: float | None = None
    answers: str | None = Field(None, alias="answers.sha256")


class Metrics(_Part):
    """A run's metrics file."""

    run: RunPart
    test: TestPart
    validation: dict[str, float] = {}


class Curve(_Part):
    """The error under one kind of disturbance."""

    unit: str
    levels: list[float]
    errors: list[float]

    @model_validator(mode="after")
    def _of_one_length(self) -> "Curve":
        if len(self.levels) != len(self.errors):
            raise ValueError("other numbers of levels and errors")
        return self


class Robustness(RootModel[dict[str, Curve]]):
    """robustness.json: disturbance → unit, levels, errors."""


class Summary(RootModel[dict[str, dict[str, float]]]):
    """metrics/summary.json: variant → its few numbers."""


def read(path: Path, how: Callable[[bytes], T]) -> T:
    """Read a file by one of the functions below. Raises InputError if it is missing or damaged."""
    with reading(path):
        return how(path.read_bytes())


metrics = partial(json_of, kind=Metrics)
summary = partial(json_of, kind=Summary)
robustness = partial(json_of, kind=Robustness)


def history(content: bytes) -> "pd.DataFrame":
    """history.csv: a row an epoch."""
    table = _table(content)
    _refuse(table, "epoch", table["epoch"] != np.arange(1, len(table) + 1), "not the epoch of this line")
    return table


def predictions(content: bytes) -> "pd.DataFrame":
    """predictions.csv: index, label, answer and, where they were kept, outputs of each test digit."""
    table = _table(content)
    for name in COUNTS:
        legal = table[name].mod(1).eq(0) & table[name].between(0, np.inf if name == "index" else 9)
        _refuse(table, name, ~legal, "no place in MNIST's file" if name == "index" else "no digit")
    _refuse(table, "index", table["index"].duplicated(), "a second time")
    return table.astype(dict.fromkeys(COUNTS, np.int64))


def missed(content: bytes) -> dict[int, np.ndarray]:
    """missed.safetensors: index in MNIST's test file → image (28, 28)."""
    found = load(content)
    index, images = found["index"], found["images"]
    for name, array, kind, shape in (
        ("index", index, np.int64, (index.size,)), ("images", images, np.uint8, (index.size, 28, 28)),
    ):  # fmt: skip
        if array.dtype != kind or array.shape != shape:
            raise ValueError(f"{name}: {array.dtype} {array.shape}, expected {np.dtype(kind)} {shape}")
    return dict(zip(index.tolist(), images, strict=True))


def _table(content: bytes) -> "pd.DataFrame":
    """A CSV file with one line at least, in which each cell is a finite number, but for the weights' digests."""
    import pandas as pd  # takes a third of a second, and most stages read no table

    if not content.endswith(b"\n"):
        raise ValueError(f"line {len(content.splitlines()) or 1}: cut off")
    table = pd.read_csv(io.BytesIO(content), float_precision="round_trip", skip_blank_lines=False)
    if table.empty or not isinstance(table.index, pd.RangeIndex):
        raise ValueError("line 2: there is none" if table.empty else "line 1: fewer columns than below")
    for name in table.columns.drop(WEIGHTS, errors="ignore"):
        cells = table[name]
        numbers = cells if cells.dtype.kind in "iuf" else pd.to_numeric(cells.astype(str), errors="coerce")
        _refuse(table, name, ~np.isfinite(numbers), "no finite number")
    return table


def _refuse(table: "pd.DataFrame", column: str, faulty: "pd.Series", what: str) -> None:
    """Raise ValueError for the first faulty line."""
    if faulty.any():
        row = int(faulty.to_numpy().argmax())
        raise ValueError(f"line {row + 2}: {column} {table[column].iloc[row]} is {what}")
