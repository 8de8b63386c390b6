"""The sources behind a run: a commit, or what the run has kept of them."""

import io
import json
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from lenet.errors import InputError
from lenet.tracking import Tracked


@dataclass(frozen=True)
class Commit:
    """A commit of this repository."""

    hash: str

    def __str__(self) -> str:
        return f"commit {self.hash[:12]}"

    def unpack(self, folder: Path) -> None:
        """Write its files into a folder. The project may be a folder of a larger repository: its part alone."""
        prefix = _git("rev-parse", "--show-prefix").decode().strip()
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", f"{self.hash}:{prefix}"))) as archive:
            archive.extractall(folder, filter="data")


@dataclass(frozen=True)
class Snapshot:
    """The archive of the sources that the run has kept."""

    content: bytes

    def __str__(self) -> str:
        return "the run's own snapshot"

    def unpack(self, folder: Path) -> None:
        """Write its files into a folder. Raises InputError if the archive is damaged."""
        try:
            with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
                archive.extractall(folder)  # which leads nowhere else, whatever the names in it are
        except zipfile.BadZipFile as error:
            raise InputError(f"source/source.zip is damaged ({error})") from None


Sources = Commit | Snapshot


def of(run: Tracked) -> Sources:
    """Where a run's sources are to be had: its commit if that was all, else its snapshot.

    For a run of which only the metrics file is known, it is the last commit that has this file with this ``run.key``.

    Raises:
        InputError: nowhere.
    """
    at, dirty = run.tags.get("git.commit", "none"), run.tags.get("git.dirty")
    if dirty == "false" and _has(at):
        return Commit(at)
    if archive := run.read("source/source.zip"):
        return Snapshot(archive)
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
    return Commit(_git("rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip())


def _publisher(run: Tracked) -> Commit | None:
    paths = [Path("metrics") / f"{run.name}.json", *sorted(Path().glob(f"*/metrics/{run.name}.json"))]
    for path in paths:
        for one in _git("log", "--format=%H", "--", str(path), missing="").decode().split():
            text = _git("show", f"{one}:./{path}", missing="")
            if text and json.loads(text).get("run", {}).get("key") == run.key:
                return Commit(one)
    return None


def _has(commit: str) -> bool:
    return subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True).returncode == 0


def _git(*words: str, missing: str | None = None) -> bytes:
    done = subprocess.run(["git", *words], capture_output=True)
    if done.returncode and missing is not None:
        return missing.encode()
    if done.returncode:
        raise InputError(f"git {words[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
