"""What brings damaged results back: also where DVC's cache is damaged, and would bring the damage back."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lenet.runtime import layout
from lenet.runtime.errors import FaultyFile, InputError

RESULTS = ("dvc.lock", "*.json", "metrics/*.json", "signatures/*.json", "reports/*.json")
"""What commits hold of results, and a merge may leave in conflict; in the folders of experiments, too."""


def of(error: FaultyFile) -> str:
    """What is wrong with a file; and what removes the damaged objects of DVC's cache behind it, if there are any."""
    objects = behind(error.path)
    return f"{error}; {remove(objects)}" if objects else str(error)


def of_dvc(error: Exception) -> str:
    """What DVC says, in a line, and what brings back a file of its own that it cannot read.

    Of a file in use it names the process once for each lock that this process has.
    """
    said = f"DVC: {' '.join(' '.join(dict.fromkeys(str(error).splitlines())).split())}"
    file = re.search(r"'(?:\./)?([\w/-]*dvc\.(?:lock|yaml))'", said)
    return said + (f"; `git checkout HEAD -- {file[1]}` brings it back" if file else "")


def behind(path: Path) -> list[Path]:
    """The damaged objects of DVC's cache behind a file of results, or behind those of a folder."""
    return [found for out in _outs(path) for found in damaged(out)]


def remove(objects: list[Path]) -> str:
    """What is to be done with damaged objects, in a clause."""
    here = Path().resolve()
    names = " ".join(str(path.relative_to(here) if path.is_relative_to(here) else path) for path in objects)
    return f"what DVC's cache has of it is damaged: `rm -f {names}`, then `lenet repro` or `dvc pull` brings it back"


def damaged(out: Any) -> list[Path]:
    """The objects of DVC's cache behind an output whose content is not what their names say."""
    if not (out.hash_info and out.use_cache):
        return []
    found = [Path(out.cache.oid_to_path(oid)) for oid in (out.hash_info.value, *_entries(out).values())]
    return [path for path in found if path.is_file() and _md5(path) != path.parent.name + path.stem]


def differs(out: Any) -> bool:
    """Whether an output's content is another than dvc.lock says: by itself, whatever DVC remembers of the file."""
    path = Path(out.fs_path)
    files = {path / name: oid for name, oid in _entries(out).items()} if path.is_dir() else {path: out.hash_info.value}
    return any(file.is_file() and _md5(file) != oid for file, oid in files.items())


def _entries(out: Any) -> dict[str, str]:
    """The files of a folder with their digests, as far as its object in the cache can be read; of a file none."""
    if not out.hash_info.isdir:
        return {}
    try:
        listed = json.loads(Path(out.cache.oid_to_path(out.hash_info.value)).read_bytes())
        return {entry["relpath"]: entry["md5"] for entry in listed}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _outs(path: Path) -> list[Any]:
    """DVC's outputs that a file or a folder is, is in, or has in it; none where DVC cannot tell."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(layout.home_around(path))) as repo:
            return list(repo.find_outs_by_path(str(path.resolve()), recursive=True, strict=False))
    except (DvcException, OSError):
        return []


def refuse_conflicts() -> None:
    """Raise InputError for the first file of results in which a merge has left both sides."""
    for path in _results():
        found = re.search(rb"^<<<<<<< ", path.read_bytes(), re.MULTILINE)
        if found:
            line = found.string.count(b"\n", 0, found.start()) + 1
            raise InputError(
                f"{path}: line {line}: a merge has left both sides in it; `git checkout HEAD -- {path}` takes this "
                "branch's (delete it if Git has none), then `lenet repro`"
            )


def _results() -> Iterator[Path]:
    for home in layout.homes():
        for pattern in RESULTS:
            yield from sorted(path for path in home.glob(pattern) if path.is_file())
