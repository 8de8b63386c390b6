"""The sources behind a run: a commit of this repository, or what the run has kept of them.

Sources are executed. What a commit of this repository has, whoever works in it has chosen to have; what a tracking
store has, anybody may have put there. So an archive from a store counts for nothing until Git vouches for each of its
files: then it is that commit. One that no commit vouches for is told apart, and runs only where that is asked for.
"""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lenet.runtime import snapshot
from lenet.runtime.errors import InputError
from lenet.runtime.snapshot import git
from lenet.tracking import Tracked
from lenet.training.fingerprint import json_sha256

SHOWN = 5
"""Files named of those that differ."""


@dataclass(frozen=True)
class Commit:
    """A commit of this repository."""

    hash: str

    def __str__(self) -> str:
        return f"commit {self.hash[:12]}"

    @property
    def digest(self) -> str:
        """The same of the same sources alone."""
        return self.hash

    def has(self, name: str) -> bool:
        """Whether a file is among them."""
        return bool(git("ls-tree", "--name-only", self.hash, name, missing=""))

    def unpack(self, folder: Path) -> None:
        """Write its files into a folder. Of a larger repository Git gives the part of the present folder alone."""
        with tarfile.open(fileobj=io.BytesIO(git("archive", "--format=tar", self.hash))) as archive:
            try:
                archive.extractall(folder, filter="data")
            except tarfile.FilterError as error:
                raise InputError(f"{self}: {error}; a rerun takes no such file from a commit") from None


@dataclass(frozen=True)
class Snapshot:
    """The sources that the run has kept, for which no commit here vouches.

    Attributes:
        files: their content, by name.
        origin: what is known of them, in a line: how many, what differs from the commit, from whom and when.
    """

    files: Mapping[str, bytes]
    origin: str

    def __str__(self) -> str:
        return "the run's own snapshot"

    @property
    def digest(self) -> str:
        """The same of the same sources alone."""
        return json_sha256({name: _blob(content) for name, content in self.files.items()})

    def has(self, name: str) -> bool:
        """Whether a file is among them."""
        return name in self.files

    def unpack(self, folder: Path) -> None:
        """Write its files into a folder."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


Sources = Commit | Snapshot


def of(run: Tracked) -> Sources:
    """Where a run's sources are to be had: a commit of this repository, else the archive that the run has kept.

    For a run of which only the metrics file is known, it is the last commit that has this file with this ``run.key``.

    Raises:
        InputError: nowhere, or the archive is faulty.
    """
    at, dirty = run.tags.get("git.commit", "none"), run.tags.get("git.dirty")
    if dirty == "false" and at in _commits():
        return Commit(at)
    if files := run.parse("source/source.zip", snapshot.read):
        commits = _commits(first=at) if _all_known(files) else []
        vouching = next((commit for commit in commits if not _others(files, commit)), None)
        return Commit(vouching) if vouching else Snapshot(files, _origin(run, files, at))
    if dirty is None and (published := _publisher(run)):
        return published
    if dirty is None:
        raise InputError(
            f"{run.name}: no commit here publishes metrics with its run.key, and there is no snapshot of it"
        )
    state = "with uncommitted changes" if dirty == "true" else "and that commit is not in this repository"
    raise InputError(f"{run.name}: it ran at commit {at[:12]}, {state}, and there is no snapshot of its sources")


def commit(revision: str) -> Commit:
    """The commit that a revision names. Raises InputError if there is none."""
    return Commit(git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}").decode().strip())


def _publisher(run: Tracked) -> Commit | None:
    """The newest commit that has a metrics file with the run's key, in whatever folder it lay then."""
    words = (
        "log",
        "--format=%H",
        "--name-only",
        "--relative",
        "--diff-filter=d",
        "--",
        f":(glob)**/metrics/{run.name}.json",
    )
    one = ""
    for line in git(*words, missing="").decode().split():
        if re.fullmatch(r"[0-9a-f]{40,}", line):
            one = line
        elif json.loads(git("show", f"{one}:./{line}", missing="{}")).get("run", {}).get("key") == run.key:
            return Commit(one)
    return None


def _commits(first: str = "") -> list[str]:
    """The commits that branches, tags and DVC experiments of this repository lead to, the newest first, or ``first``.

    What was only fetched is not among them: nobody has chosen to have it.
    """
    chosen = "HEAD", "--branches", "--tags", "--glob=refs/exps"
    found = git("log", *chosen, "--format=%H", missing="").decode().split()
    return sorted(found, key=lambda commit: commit != first)


def _others(files: Mapping[str, bytes], commit: str) -> list[str]:
    """The files that are not in a commit, or not as they are there, by Git's digests, from the present folder on."""
    tree = git("ls-tree", "-r", "-z", commit, missing="").decode().split("\0")
    entries = (entry.partition("\t") for entry in tree if entry.startswith("100"))  # files; not links, not submodules
    known = {name: head.split()[2] for head, _, name in entries}
    return sorted(name for name, content in files.items() if known.get(name) != _blob(content))


def _all_known(files: Mapping[str, bytes]) -> bool:
    """Whether this repository has each content at all: quick to tell, and then commits are worth looking at."""
    digests = "\n".join(map(_blob, files.values()))
    found = git("cat-file", "--batch-check", missing="", given=digests.encode())
    return bool(found) and b"missing" not in found


def _blob(content: bytes) -> str:
    """Git's digest of a file's content."""
    digest = hashlib.new(_digest_name(), b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


@cache
def _digest_name() -> str:
    return git("rev-parse", "--show-object-format", missing="sha1").decode().strip()


def _origin(run: Tracked, files: Mapping[str, bytes], at: str) -> str:
    others = _others(files, at) if at in _commits() else []
    named = ", ".join(others[:SHOWN]) + (f" and {len(others) - SHOWN} more" if len(others) > SHOWN else "")
    beside = f"{len(others)} of them not as in commit {at[:12]}: {named}" if others else "of no commit here"
    return f"{len(files)} files, {beside}; {run.origin}"
