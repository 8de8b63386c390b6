"""The check of what a test session leaves in the checkout (leftovers.py), in a small one."""

import shutil
import sys
from pathlib import Path

import pytest

from conftest import ROOT, commit, run

CHANGES = {
    "Path('ignored/known/new').touch()": "!! ignored/known/new",
    "Path('ignored/known/old').unlink()": "!! ignored/known/old",
    "Path('new').touch()": "?? new",
    "Path('committed').write_text('changed')": " M committed",
}
TEST = """from pathlib import Path

def test_it():
    Path(".mypy_cache").mkdir()
    Path(".mypy_cache/new").touch()
"""


@pytest.mark.parametrize(("changes", "processes"), [({}, "0"), (CHANGES, "0"), (CHANGES, "1")])
def test_what_a_session_leaves_but_caches_fails_it(tmp_path: Path, changes: dict[str, str], processes: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / ".gitignore").write_text("ignored/\n.mypy_cache\n")
    (tmp_path / "committed").touch()
    shutil.copy(ROOT / "tests" / "leftovers.py", tmp_path / "tests" / "conftest.py")
    (tmp_path / "tests" / "test_it.py").write_text(TEST + "".join(f"    {change}\n" for change in changes))
    run("git", "init", "-q", cwd=tmp_path)
    commit(tmp_path, "start")
    (tmp_path / "ignored" / "known").mkdir(parents=True)
    (tmp_path / "ignored" / "known" / "old").touch()
    words = sys.executable, "-m", "pytest", "-q", "-n", processes, "tests"
    done = run(*words, cwd=tmp_path, status=1 if changes else 0)
    assert "1 passed" in done.stdout
    told = [line.partition("while the tests ran: ")[2] for line in done.stdout.splitlines()]
    assert list(filter(None, told)) == sorted(changes.values())
