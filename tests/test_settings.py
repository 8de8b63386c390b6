"""The same bits with any vector instructions, any number of threads, and on a GPU: tests/probe.py, set otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import PROBE, ROOT, run
from lenet.reproduce import verify

INSTRUCTIONS = ("default", "avx2", "avx512")  # of torch, each including those before
SETTINGS = [("default", "SSE4_2", 2), ("avx2", "AVX512", 1), ("avx512", "AVX2", 2)]
"""ATEN_CPU_CAPABILITY, MKL_ENABLE_INSTRUCTIONS and threads. All values of each are here; none is the usual one.

OpenBLAS takes the instructions of the first.
"""
HERE = torch.backends.cpu.get_cpu_capability().lower()
POSSIBLE = [setting for setting in SETTINGS if HERE in INSTRUCTIONS[INSTRUCTIONS.index(setting[0]) :]]


def probe(few: Path, torchs: str, mkls: str, threads: int) -> dict[str, Any]:
    """What tests/probe.py finds with these settings."""
    done = run(
        *PROBE, str(few), "--threads", str(threads), cwd=ROOT, LENET_THREADS=str(threads),
        ATEN_CPU_CAPABILITY=torchs, MKL_ENABLE_INSTRUCTIONS=mkls, OPENBLAS_CORETYPE=verify.OPENBLAS[torchs],
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert (found["capability"].lower(), found["threads"]) == (torchs, threads)
    return found


@pytest.mark.parametrize(
    ("torchs", "mkls", "threads"), [SETTINGS[0], *(pytest.param(*one, marks=pytest.mark.slow) for one in SETTINGS[1:])]
)
def test_settings_do_not_change_bits(torchs: str, mkls: str, threads: int, few: Path, probed: dict[str, Any]) -> None:
    if (torchs, mkls, threads) not in POSSIBLE:
        pytest.skip(f"torch takes {HERE} here: this processor has no {torchs}")
    found = probe(few, torchs, mkls, threads)
    assert (found["faults"], found["digests"]) == ([], probed["digests"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_bits(few: Path, probed: dict[str, Any]) -> None:
    found = json.loads(run(*PROBE, str(few), "--device", "cuda", cwd=ROOT).stdout)
    assert (found["faults"], found["digests"]) == ([], probed["digests"])
