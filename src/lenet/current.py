"""Which runs are behind the present outputs, and whether MLflow has been told. Light: it waits for no torch."""

import os
from pathlib import Path

from lenet import lifetime
from lenet.config import Params
from lenet.files import write_text
from lenet.record import Record

Runs = frozenset[tuple[str, str]]
"""Pairs of a run's name and its ``run.key``."""


def present(params: Params, runs: Path) -> Runs:
    """The compared runs that have outputs in the folder ``runs``."""
    paths = (runs / f"{name}-{seed}" / "run.json" for name, seed in params.runs())
    records = [Record.read(path) for path in paths if path.exists()]
    return frozenset((record.name, record.key) for record in records)


def mark_of(found: Runs) -> str:
    """What stands in ``path()`` once these runs are marked in the store in use."""
    return "\n".join([os.environ.get("MLFLOW_TRACKING_URI", "default"), *(" ".join(pair) for pair in sorted(found))])


def note(mark: str) -> None:
    """Remember that the runs of this mark are marked in MLflow."""
    write_text(_path(), mark)


def is_noted(mark: str) -> bool:
    """Whether the runs of this mark are known to be marked."""
    return _path().exists() and _path().read_text(encoding="utf-8") == mark


def _path() -> Path:
    return lifetime.locks() / "current"
