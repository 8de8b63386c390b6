"""Which runs are behind the present outputs, and whether MLflow has been told. Light: it waits for no torch."""

import hashlib
import os
import sys
from pathlib import Path

from lenet.params.schema import Params
from lenet.runs import stale
from lenet.runs.record import Record
from lenet.runtime import layout, processes
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_text

Runs = frozenset[tuple[str, str]]
"""Pairs of a run's name and its ``run.key``."""


def folders(params: Params, runs: Path = layout.RUNS) -> list[Path]:
    """The folders with outputs: of the compared runs, then of of experiments.

    Outputs of before there were signatures (stale.py) are no present ones.
    """
    compared = [runs / f"{name}-{seed}" for name, seed in params.runs()]
    others = [path.parent for home in layout.homes()[1:] for path in sorted((home / runs).glob("*/run.json"))]
    return [folder for folder in (*compared, *others) if _is_present(folder / "run.json")]


def records(params: Params, runs: Path = layout.RUNS) -> list[Record]:
    """The compared runs that have outputs."""
    found = (runs / f"{name}-{seed}" / "run.json" for name, seed in params.runs())
    return [Record.read(path) for path in found if _is_present(path)]


def _is_present(path: Path) -> bool:
    return path.exists() and not stale.file_is_stale(path)


def present(params: Params, runs: Path = layout.RUNS) -> Runs:
    """All runs that have outputs."""
    found = set()
    for folder in folders(params, runs):
        try:
            record = Record.read(folder / "run.json")
        except InputError as error:  # of an experiment, from before its blocks had all that they have now
            print(f"lenet: warning: {error}", file=sys.stderr)
        else:
            found.add((record.name, record.key))
    return frozenset(found)


def note(found: Runs) -> None:
    """Remember that these runs are marked in the store in use, as runs of this checkout."""
    write_text(_path(), _mark(found))


def is_noted(found: Runs) -> bool:
    """Whether these runs are known to be marked."""
    return _path().exists() and _path().read_text(encoding="utf-8") == _mark(found)


def _mark(found: Runs) -> str:
    address = layout.absolute(os.environ.get("MLFLOW_TRACKING_URI") or layout.STORE)  # which may hold a password
    where = f"{address}\n{layout.root()}"
    return "\n".join([hashlib.sha256(where.encode()).hexdigest(), *(" ".join(pair) for pair in sorted(found))])


def _path() -> Path:
    return processes.locks() / "current"
