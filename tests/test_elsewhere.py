"""The same bits on other processors, by emulation: tests/probe.py there and here."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import emulation
from conftest import PROBE


@pytest.mark.slow
@pytest.mark.parametrize("processor", emulation.PROCESSORS)
def test_a_processor_gives_the_same_bits(processor: str, few: Path, probed: dict[str, Any]) -> None:
    try:
        python, settings = emulation.python(processor), emulation.compiled_for(processor)
    except emulation.Unavailable as reason:
        pytest.skip(f"{processor} is not emulated: {reason}")
    arguments = {"capture_output": True, "text": True, "timeout": 1500, "env": emulation.environment() | settings}
    if settings:  # the loops are compiled here, and taken from the cache there
        subprocess.run([*PROBE, str(few)], check=True, **arguments)
    done = subprocess.run([*python, *PROBE[1:], str(few)], **arguments)
    assert not done.returncode, done.stderr[-2000:]
    there = json.loads(done.stdout)
    assert there["capability"] == emulation.CAPABILITY[processor]  # it is another processor
    assert there["faults"] == probed["faults"] == []
    assert there["digests"] == probed["digests"]


@pytest.mark.parametrize("processor", emulation.PROCESSORS)
def test_what_is_missing_is_named(processor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(emulation.Unavailable, match=r"^no qemu-\w+ here; Debian has it in qemu-user$"):
        emulation.python(processor)


def test_registries_that_do_not_answer_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, ends in (("qemu-aarch64", "true"), ("apt-get", "echo 'E: no route to host' >&2; false")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{ends}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(emulation, "FOLDER", tmp_path / "emulation")
    for _ in range(2):  # what is half there does not count
        with pytest.raises(emulation.Unavailable, match=r"^apt-get .* E: no route to host$"):
            emulation.python(emulation.ARM64)
