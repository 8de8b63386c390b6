"""Odd machines: users without names, other encodings, narrow terminals, no Git."""

import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.table import Table

from conftest import ROOT, Checkout, lenet_command, run
from lenet.cli import results
from lenet.runtime.screen import Screen

NAMELESS = """
import pwd
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
"""


def test_dvc_answers_a_user_without_a_name_and_git_init_suffices(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "sitecustomize.py").write_text(NAMELESS)
    folder = checkout()
    shutil.rmtree(folder / ".git")
    words = ["env", f"PYTHONPATH=src:{tmp_path}", *lenet_command("repro", "modern-99")[2:]]
    assert "`git init` makes it one" in run(*words, cwd=folder, status=2).stderr
    run("git", "init", "-q", cwd=folder)
    assert "modern-99: no such run" in run(*words, cwd=folder, status=2).stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_encoding_with_few_characters_is_no_fault(encoding: str) -> None:
    for words in (["sweep", "--help"], ["summary", "original-tanh"]):
        command = ["env", f"PYTHONIOENCODING={encoding}", *lenet_command(*words)]
        shown = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    assert b"?" not in shown  # each character has a like one
    assert "| 5x5/1 " in shown.decode(encoding).replace("×", "x")


@pytest.mark.parametrize("width", [40, 80])
def test_no_name_or_number_of_a_table_is_cut_short(width: int, params) -> None:
    table = Table("variant", "what", *map(str, range(8)))
    table.add_row("original-sigmoid-with-a-long-name", "some words", *(f"−0.12345{i}" for i in range(8)))
    for one in (table, results.layer_table("original-tanh", params.variant("original-tanh"))):
        narrow, wide = (io.StringIO() for _ in range(2))
        for file, columns in ((narrow, width), (wide, 1000)):
            Screen(width=columns, file=file).print(one)
        words = (set(re.findall(r"[^\s│┃─━┏┓┳┡┩╇└┘┴]+", file.getvalue())) for file in (narrow, wide))
        assert next(words) == next(words)
