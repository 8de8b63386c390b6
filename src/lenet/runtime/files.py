"""Files that appear whole or not at all, and are read with what is wrong in a line."""

import hashlib
import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from lenet.runtime.errors import FaultyFile, InputError

FAULTY = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, SafetensorError)
"""What reading a missing or damaged file may raise. A RuntimeError, too, is that blocks are nested too deeply."""


def sha256_of(*parts: bytes) -> str:
    """SHA-256 of length-prefixed parts, so that no two different lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


@contextmanager
def reading(path: Path, what: str = "whole") -> Iterator[None]:
    """Whatever a missing or damaged file makes its reader raise is one line: file, place, and what brings it back.

    ``what`` it should be, for example ``a digits file``.
    """
    try:
        yield
    except FAULTY as error:
        said = reason(error) if isinstance(error, OSError) else f"not {what} ({reason(error)})"
        raise FaultyFile(path, said) from None


def reason(error: Exception) -> str:
    """What is wrong, in a line; of a part of JSON, with its place."""
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'content'}: {fault['msg']}"
    if isinstance(error, FileNotFoundError):
        return "No such file or directory"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return textwrap.shorten(text, 200, placeholder=" …")


def json_of(content: bytes, kind: type[BaseModel] | None = None) -> Any:
    """The content of a JSON file, checked to be of a kind. What it raises is of FAULTY."""
    found = json.loads(content)
    if kind:
        kind.model_validate(found)
    return found


def read_json(path: Path, kind: type[BaseModel] | None = None, what: str = "whole") -> Any:
    """Read a JSON file, checked to be of a kind. Raises InputError if it is missing or not one."""
    with reading(path, what):
        return json_of(path.read_bytes(), kind)


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
    except SafetensorError as error:  # so it tells of a full disk
        raise InputError(f"{path}: {error}") from None
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, whole or not at all. NaN and infinity raise ValueError: they are no JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
