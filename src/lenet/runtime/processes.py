"""How long a stage may live: no longer than the command that started it, alone on its outputs, in its own folder."""

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType

import psutil
from filelock import FileLock, Timeout

from lenet.runtime import layout
from lenet.runtime.errors import InputError

PATIENCE = 15.0  # seconds that an orphan gets to notice and end
GRACE = 5.0  # seconds between asking a process to end and ending it
_ENGINES = {"dvc", "make", "gmake", "lenet"}
_INITS = {"init", "systemd", "launchd"}
_orphaned = threading.Event()


def locks() -> Path:
    """The folder of locks and logs: in DVC's temporary folder, or the user's own where there is no DVC project."""
    folder = Path(".dvc/tmp/lenet") if Path(".dvc").is_dir() else layout.private()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def follow_parents(poll: float = 0.2) -> None:
    """End this process soon after the `dvc`, `make` or `lenet` above it is gone, however that was killed.

    SIGKILL of DVC leaves its stage running; a later `dvc repro` would then start a second one on the same outputs.
    SIGTERM, too, ends this process as an exception does, so that ``finally`` blocks run.
    """
    signal.signal(signal.SIGTERM, _stop)
    ancestors = [p for p in _ancestors() if not _is_init(p)]
    watched = [p for p in ancestors if _is_engine(p)]
    if not watched and "DVC_STAGE" in os.environ:  # DVC called from a program; or it is gone already
        watched = [p for p in ancestors if not _is_own_shell(p)][:1]
        if not watched:
            raise SystemExit("lenet: the command that started this has ended; stopping")
    if watched:
        threading.Thread(target=_watch, args=(watched, poll), daemon=True, name="follow-parents").start()


def check() -> None:
    """Raise SystemExit if the command that started this process is gone: nothing may be written any more."""
    if _orphaned.is_set():
        raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Hold the lock on an output folder. Raises InputError if another living process keeps it."""
    with _hold(layout.named(out), PATIENCE, f"{out} is being written"):
        yield


@contextmanager
def sole_pipeline() -> Iterator[None]:
    """Hold the lock on the whole pipeline. Raises InputError if another run of it is under way."""
    with _hold("repro", 0, "the pipeline is being run"):
        yield


@contextmanager
def _hold(name: str, patience: float, what: str) -> Iterator[None]:
    owner = locks() / f"{name}.pid"
    try:
        with FileLock(locks() / f"{name}.lock", timeout=patience):
            owner.write_text(str(os.getpid()))
            yield
    except Timeout:
        raise InputError(f"{what} by process {owner.read_text()}; wait for it, or end it") from None


@contextmanager
def own_folder(home: Path) -> Iterator[Path]:
    """A new folder of this process's in ``home``, removed at the end; what a SIGKILL leaves, the next one removes."""
    orphans(home, remove=True)
    with alone(home):
        folder = next(place for number in count(1) if not (place := home / str(number)).exists())
        folder.mkdir(mode=0o700)
        lock = FileLock(folder / ".lock")
        lock.acquire()
    try:
        yield folder
    finally:
        _remove(folder)
        lock.release()


def orphans(home: Path, remove: bool) -> list[Path]:
    """The folders in ``home`` whose process is gone; removed, if asked for."""
    found = []
    with alone(home):
        for folder in sorted(home.glob("*/")):
            try:
                with FileLock(folder / ".lock", timeout=0):
                    found.append(folder)
                    if remove:
                        _remove(folder)
            except (Timeout, OSError):
                continue
    return found


def alone(home: Path) -> FileLock:
    """A lock on a folder of folders: one that is being made is not whole yet, and no orphan."""
    home.mkdir(parents=True, exist_ok=True)
    return FileLock(home.with_suffix(".lock"))


def _remove(folder: Path) -> None:
    """Remove a folder; DVC makes some of its files read-only."""
    for _ in range(3):  # a process that is just ending may still write there
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _ancestors() -> list[psutil.Process]:
    try:
        return psutil.Process().parents()
    except psutil.Error:
        return []


def _is_init(process: psutil.Process) -> bool:
    """Whether it takes in the children of processes that are gone. In a container the first one may be `dvc` itself."""
    name = Path((_words(process) or [""])[0]).name
    return name in _INITS or (process.pid == 1 and not name.startswith("python") and not _is_engine(process))


def _is_engine(process: psutil.Process) -> bool:
    return any(Path(word).name in _ENGINES for word in _words(process)[:3])


def _is_own_shell(process: psutil.Process) -> bool:
    """Whether this is the shell that DVC started for this stage's command."""
    return any("-m lenet" in word for word in _words(process))


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _watch(engines: list[psutil.Process], poll: float) -> None:
    while all(map(_alive, engines)):
        time.sleep(poll)
    _orphaned.set()
    print("lenet: the command that started this has ended; stopping", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGKILL)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)
