"""`make environment`: made once, and anew where it would run another folder's code or another Python."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from lenet.lock import LOCKS
from lenet.rerun.workplace import Workplace, _build_environment

STUB = """#!/bin/sh
# stands for an interpreter: it says its version, makes environments with itself in them, and notes what else it does
case "$*" in
*version_info\\ \\>=*) case $(cat "{home}/version") in 3.[0-9]) echo "it is too old" >&2; exit 1;; esac;;
*version_info*) cat "{home}/version";;
"-m venv"*) mkdir -p .venv/bin; cp "{home}/python" .venv/bin/python;;
"-m pip --version") test -f .venv/bin/python && ! test -f "{home}/no-pip";;
*) echo "$*" >>"{home}/done"; test ! -f "{home}/interrupt";;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with such an interpreter, and a checkout beside it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "python").write_text(STUB.format(home=home))
    (home / "python").chmod(0o755)
    (home / "version").write_text("3.11\n")
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    for name in ("Makefile", *map(str, LOCKS), "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    return home


def made(home: Path, checkout: str = "a checkout", status: int = 0) -> bool:
    """Whether `make environment` has installed anything there."""
    (home / "done").unlink(missing_ok=True)
    done = subprocess.run(
        ["make", "environment", f"PYTHON={home}/python"], cwd=home.parent / checkout, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert (done.returncode != 0) == bool(status), done.stderr
    return (home / "done").exists()


@pytest.mark.parametrize("lock", LOCKS)
def test_it_is_made_once_and_again_when_a_lock_is_new(home: Path, lock: Path) -> None:
    assert made(home)
    assert not made(home)
    lock = home.parent / "a checkout" / lock
    later = lock.stat().st_mtime + 60
    os.utime(lock, (later, later))
    own = home.parent / "a checkout" / ".venv" / "own"
    own.touch()
    assert made(home)
    assert own.exists()  # it is the same one


FIRST, SECOND = "--require-hashes --no-deps -r requirements.lock", "-r requirements-torch.lock"


def test_files_are_checked_by_their_hashes_but_torch_s(home: Path) -> None:
    """Pip takes either no hash or all: hence two calls."""
    assert made(home)
    installed = [words.partition("check ")[2] for words in (home / "done").read_text().splitlines()]
    assert installed == [FIRST, SECOND, "--no-deps --no-build-isolation -e ."]


@pytest.mark.parametrize(("locks", "calls"), [(LOCKS[:1], ["-r requirements.lock"]), (LOCKS, [FIRST, SECOND])])
def test_a_rerun_installs_what_its_sources_lock(tmp_path: Path, monkeypatch, locks, calls: list[str]) -> None:
    """Older ones have one file, without hashes."""
    told = []
    monkeypatch.setattr(Workplace, "run", lambda self, *words, **_: told.append(" ".join(words)))
    (tmp_path / "project").mkdir()
    for path in locks:
        (tmp_path / "project" / path).touch()
    _build_environment(Workplace(tmp_path / "project", Path(sys.executable)))
    assert [words.partition("check ")[2] for words in told[1:]] == calls


@pytest.mark.parametrize("how", [shutil.copytree, shutil.move])
def test_a_copied_or_moved_checkout_gets_one_of_its_own(home: Path, how) -> None:
    assert made(home)
    how(str(home.parent / "a checkout"), str(home.parent / "b"))
    (home.parent / "b" / ".venv" / "own").touch()
    assert made(home, "b")
    assert not (home.parent / "b" / ".venv" / "own").exists()
    assert not made(home, "b")


def test_another_python_gets_another_one_and_one_that_is_too_old_none(home: Path) -> None:
    assert made(home)
    (home / "version").write_text("3.12\n")
    assert made(home)
    assert not made(home)
    (home / "version").write_text("3.9\n")
    assert not made(home, status=2)


def test_one_that_was_interrupted_is_made_anew(home: Path) -> None:
    (home / "interrupt").touch()
    assert made(home, status=2)
    (home.parent / "a checkout" / ".venv" / "half").touch()
    (home / "interrupt").unlink()
    assert made(home)
    assert not (home.parent / "a checkout" / ".venv" / "half").exists()
    assert not made(home)
