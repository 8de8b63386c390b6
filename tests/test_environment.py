"""`make environment`: made once, and anew where it would run another folder's code; and `lenet doctor` on it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
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
"-m venv"*) mkdir -p .venv/bin; cp "{home}/python" .venv/bin/python;;
"-m pip --version") test -f .venv/bin/python && ! test -f "{home}/no-pip";;
*) echo "$*" >>"{home}/done"; for n in $(seq 60); do echo "Collecting $n"; done; echo "Installing collected packages: …"
   test ! -f "{home}/interrupt";;
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


def test_one_that_was_interrupted_is_made_anew(home: Path) -> None:
    (home / "interrupt").touch()
    assert made(home, status=2)
    (home.parent / "a checkout" / ".venv" / "half").touch()
    (home / "interrupt").unlink()
    assert made(home)
    assert not (home.parent / "a checkout" / ".venv" / "half").exists()
    assert not made(home)


INSTALLED = {
    "torch 2.13.0+cu130": [
        "sympy", 'cuda-toolkit[cublas,nvtx]==13.0.2; platform_system == "Linux" or platform_system == "Darwin"',
        'triton==3.7.1; platform_system == "elsewhere"', 'opt-einsum; extra == "opt-einsum"',
    ],
    "sympy 1.14.0": [],
    "cuda_toolkit 13.0.2": ['nvidia-cublas==13.1.*; extra == "cublas"', 'nvidia-curand; extra == "curand"'],
    "nvidia-cublas 13.1.0.3": ["cuda.toolkit[cublas]"],
}  # fmt: skip
STRANGE = {f"{name} 1.0": [] for name in ("triton", "opt-einsum", "nvidia-curand", "rich")}
"""None of them is what this torch asks for here."""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, list[str]]], list[Path]]:
    """Makes these, and no others, the installed distributions; returns locks that pin sympy and torch."""

    def install(distributions: dict[str, list[str]]) -> list[Path]:
        for title, needs in distributions.items():
            name, version = title.split()
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in needs)]
            (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]) + "\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        contents = (
            f"SymPy==1.14.0 \\\n    --hash=sha256:{'0' * 64}\nappnope==1.0 ; sys_platform == 'none'\n",
            "torch==2.13.0\n",
        )
        locks = [tmp_path / str(path) for path in LOCKS]
        for path, text in zip(locks, contents, strict=True):
            path.write_text(text)
        return locks

    return install


def examined(locks: list[Path]) -> tuple[list[str], list[str]]:
    """Faults, and notes."""
    notes: list[str] = []
    return list(doctor.environment(locks, notes.append)), notes


def test_what_another_build_of_the_locked_torch_needs_is_a_note_and_no_fault(installed) -> None:
    note = "torch 2.13.0+cu130: 2 packages of this build are in no lock: cuda-toolkit, nvidia-cublas"
    assert examined(installed(INSTALLED)) == ([], [note])


def test_what_no_build_needs_is_one(installed) -> None:
    faults, (note,) = examined(installed(INSTALLED | STRANGE))
    assert faults == [
        f"{name}: 1.0 installed, nothing locked" for name in ("nvidia-curand", "opt-einsum", "rich", "triton")
    ]
    assert "2 packages" in note


def test_another_torch_excuses_nothing(installed) -> None:
    other = {title.replace("torch 2.13.0", "torch 2.12.0"): needs for title, needs in INSTALLED.items()}
    faults = [
        "cuda-toolkit: 13.0.2 installed, nothing locked", "nvidia-cublas: 13.1.0.3 installed, nothing locked",
        "torch: 2.12.0 installed, 2.13.0 locked",
    ]  # fmt: skip
    assert examined(installed(other)) == (faults, [])


def test_a_lock_that_cannot_be_read_is_one_line(installed) -> None:
    locks = installed({})
    locks[0].write_text("torch==2.13.0  # and more\n")
    with pytest.raises(InputError, match=r"^.*requirements\.lock: .*$"):
        examined(locks)
