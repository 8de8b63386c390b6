"""`make environment`: made once, and anew where it would run another folder's code; and `lenet doctor` on it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from lenet.reproduce import doctor
from lenet.reproduce.workplace import Workplace, _build_environment
from lenet.runtime.errors import InputError
from lenet.runtime.requirements import LOCKS

STUB = """#!/bin/sh
# stands for an interpreter: it says its version, makes environments with itself in them, and notes what else it does
case "$*" in
*version_info\\ \\>=*) case $(cat "{home}/version") in 3.[0-9]) echo "it is too old" >&2; exit 1;; esac;;
*version_info*) cat "{home}/version";;
"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; echo "executable = {home}/python" >.venv/pyvenv.cfg;;
"-m pip --version") test -f .venv/bin/python && ! test -f "{home}/no-pip";;
*) echo "$*" >>"{home}/done"; for n in $(seq 60); do echo "Collecting $n"; done; echo "Installing collected packages: …"
   test ! -f "{home}/interrupt";;
esac
"""


def interpreter(home: Path, name: str, version: str) -> Path:
    """A folder with a stub of that name and version."""
    home.mkdir()
    (home / name).write_text(STUB.format(home=home))
    (home / name).chmod(0o755)
    (home / "version").write_text(f"{version}\n")
    return home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with such an interpreter, and a checkout beside it."""
    home = interpreter(tmp_path / "home", "python", "3.11")
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    for name in ("Makefile", *map(str, LOCKS), "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    return home


def made(home: Path, checkout: str = "a checkout", status: int = 0, path: Path | None = None) -> bool:
    """Whether `make environment` has installed anything there; given a path instead of PYTHON, it goes first."""
    (home / "done").unlink(missing_ok=True)
    done = subprocess.run(
        ["make", "environment", *([] if path else [f"PYTHON={home}/python"])], cwd=home.parent / checkout,
        env={"PATH": f"{path or home}{os.pathsep}{os.environ['PATH']}"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode != 0) == bool(status), done.stderr
    assert ("  50 packages of " in done.stderr) == (home / "done").exists()  # where pip has something to do
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


def test_it_keeps_the_python_it_was_made_with_as_long_as_there_is_one(home: Path) -> None:
    old = interpreter(home.parent / "old", "python3", "3.9")
    assert not made(home, status=2, path=old)
    assert made(home)
    assert not made(home, path=old)
    shutil.move(home / "python", home / "python3")
    (home / "version").write_text("3.13\n")
    assert made(home, path=home)


def test_one_that_was_interrupted_is_made_anew(home: Path) -> None:
    (home / "interrupt").touch()
    assert made(home, status=2)
    (home.parent / "a checkout" / ".venv" / "half").touch()
    (home / "interrupt").unlink()
    assert made(home)
    assert not (home.parent / "a checkout" / ".venv" / "half").exists()
    assert not made(home)


def test_what_a_lock_pins_is_installed_and_what_it_does_not_pin_is_nobody_s_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another build of torch, for example, brings libraries of its own."""
    locks = [tmp_path / str(path) for path in LOCKS]
    hashed = f"SymPy==1.14.0 \\\n    --hash=sha256:{'0' * 64}\n"
    locks[0].write_text(f"{hashed}appnope==1.0 ; sys_platform == 'none'\nabsent-one==1.0\n")
    locks[1].write_text("torch==2.13.0\n")
    installed = ["nvidia-cublas==13.1.0.3", "sympy==1.14.0", "torch==2.13.0+cu130"]
    monkeypatch.setattr(doctor.fingerprint, "environment", lambda: installed)
    assert list(doctor.environment(locks)) == ["absent-one: missing installed, 1.0 locked"]
    installed[2] = "torch==2.12.0"
    assert list(doctor.environment(locks))[1:] == ["torch: 2.12.0 installed, 2.13.0 locked"]
    locks[0].write_text("torch==2.13.0  # and more\n")
    with pytest.raises(InputError, match=r"^.*requirements\.lock: .*$"):
        list(doctor.environment(locks))
