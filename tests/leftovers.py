"""Hooks of a test session: what it leaves in this checkout, but caches, fails it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CACHES = (".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".venv", "__pycache__")
BEFORE = pytest.StashKey[set[str]]()


def found() -> set[str]:
    """Git's line for each file that is not as committed, ignored ones included."""
    names = *(f"**/{name}/**" for name in CACHES), ".dvc/tmp/btime", "*.db-shm", "*.db-wal"  # the last: of who reads
    but = [f":(exclude,glob){name}" for name in names]
    words = "git", "status", "--porcelain", "--ignored", "--untracked-files=all", "--no-renames", "--", ".", *but
    return {*subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()}


def is_worker(session: pytest.Session) -> bool:
    return hasattr(session.config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    if not is_worker(session):
        session.config.stash[BEFORE] = found()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session):
        return
    for line in sorted(found() ^ session.config.stash[BEFORE]):
        print(f"\nchanged in this checkout while the tests ran: {line}", end="")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
