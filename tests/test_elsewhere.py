"""The same bits on other processors, by emulation: tests/probe.py there and here."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import emulation
from conftest import PROBE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("processor", emulation.PROCESSORS)
def test_a_processor_gives_the_same_bits(processor: str, few: Path, probed: dict[str, Any]) -> None:
    try:
        python = emulation.python(processor)
    except emulation.Unavailable as reason:
        pytest.skip(f"{processor} is not emulated: {reason}")
    done = subprocess.run(
        [*python, *PROBE[1:], str(few)], capture_output=True, text=True, timeout=500, env=emulation.environment()
    )
    assert not done.returncode, done.stderr[-2000:]
    there = json.loads(done.stdout)
    assert there["capability"] == emulation.CAPABILITY[processor]  # it is another processor
    assert there["faults"] == probed["faults"] == []
    assert there["digests"] == probed["digests"]
