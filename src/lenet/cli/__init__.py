"""The console command `lenet`. A job's module is imported only when that job runs: help needs no torch."""

import atexit
import codecs
import errno
import gc
import getpass
import io
import os
import sys

from lenet.cli import inference, reproduction, results, stages, sweeps
from lenet.cli.base import cli, cores
from lenet.runtime.errors import FaultyFile, InputError, visible

__all__ = ["cli", "cores", "inference", "main", "reproduction", "results", "stages", "sweeps"]

LIKE = {"−": "-", "–": "-", "—": "-", "·": ".", "…": "~", "×": "x", "±": "~", "→": ">", "’": "'"}


def main() -> None:
    """Run the command line; a fault of the input is one line and exit status 2."""
    # PyTorch, Lightning and MLflow make half a million objects that live on: whole collections while they are imported,
    # and one at the end, cost a stage two seconds
    gc.set_threshold(700, 10, 1000)
    atexit.register(gc.freeze)
    _name_the_user()
    codecs.register_error("plain", _plain)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plain")
    try:
        cli(prog_name="lenet")
    except (InputError, OSError) as error:
        for line in _said(error).splitlines():
            print(f"lenet: error: {visible(line)}", file=sys.stderr)
        raise SystemExit(2) from None


def _plain(error: UnicodeError) -> tuple[str, int]:
    """For an output whose encoding lacks some characters: a like one, so that tables stay in line."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(LIKE.get(one, "?") for one in error.object[error.start : error.end]), error.end


def _name_the_user() -> None:
    """A container may run under a user id without a name; DVC and what is started here ask for one, and end without."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def _said(error: InputError | OSError) -> str:
    if isinstance(error, FaultyFile):
        from lenet.runtime import remedies

        return remedies.of(error)
    return str(error) if isinstance(error, InputError) else of_system(error)


def of_system(error: OSError) -> str:
    """What the system refuses, in a line: a disk that is full, a folder that is read-only."""
    what = f"{error.filename}: {error.strerror}" if error.filename else " ".join(str(error).split())
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    denied = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return what + ("; make room there, and repeat it" if full else "; make it writable, or work in a copy" * denied)
