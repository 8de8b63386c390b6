"""Files that appear whole or not at all: written beside their place, then renamed."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path``; rename it to ``path`` if the block ends well, else remove it.

    A killed process may leave the hidden ``.NAME.partial`` behind. Git and DVC ignore it; the next writer replaces it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, whole or not at all. NaN and infinity raise ValueError: they are no JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
