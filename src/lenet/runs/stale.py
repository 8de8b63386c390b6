"""Results of before there were signatures: told apart, named, and compared with nothing that is computed now.

Their bits are those of one kind of processor.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lenet.runtime import layout
from lenet.runtime.files import FAULTY, json_of
from lenet.runtime.snapshot import git

HASH = 12  # characters of a commit's shown


def is_stale(run: Mapping[str, Any]) -> bool:
    """Whether a run's digests, as run.json and metrics/*.json have them under ``run``, are of before signatures."""
    return "key" in run and "signature" not in run


def file_is_stale(path: Path) -> bool:
    """Whether such a file is of before signatures. One that is faulty is not: who reads it says what the fault is."""
    try:
        run = json_of(path.read_bytes())["run"]
    except FAULTY:
        return False
    return isinstance(run, dict) and is_stale(run)


def pipelines() -> Iterator[str]:
    """A line for each pipeline here whose published results are of before signatures."""
    for folder in (home / layout.METRICS for home in layout.homes()):
        runs = [path for path in folder.glob("*.json") if re.search(r"-\d+$", path.stem)]
        if any(map(file_is_stale, runs)):
            where = "this pipeline" if folder == layout.METRICS else folder.parent
            yield f"{where}: skipped, its results use the arithmetic of {_commit(folder)}, not recomputed yet"


def _commit(folder: Path) -> str:
    """The commit that published a folder."""
    said = git("log", "-1", f"--abbrev={HASH}", "--format=commit %h", "--", str(folder), missing="")
    return said.decode().strip() or "an earlier commit"
