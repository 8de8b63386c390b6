"""The same bits with any vector instructions, any number of threads, and on a GPU: tests/probe.py, set otherwise."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import PROBE, ROOT, run
from lenet.params.schema import Params
from lenet.pipeline.train import train
from lenet.reproduce import verify
from lenet.runtime.errors import InputError

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_training_on_a_gpu_leaves_the_same_files(prepared: Path, tmp_path: Path) -> None:
    for device in ("cpu", "cuda"):
        words = "train", "modern-100", "1", "--data", str(prepared / "train.safetensors"), "--no-track"
        out = str(tmp_path / device)
        run(sys.executable, "-m", "lenet", *words, "--out", out, "--device", device, cwd=ROOT)
    here, there = ({path.name: path.read_bytes() for path in (tmp_path / d).iterdir()} for d in ("cpu", "cuda"))
    assert here == there


def test_a_device_that_is_unfit_or_not_here_is_one_line(params: Params, prepared: Path, tmp_path: Path) -> None:
    told = {"mps": "--device mps: it has no double precision, in which sums are exact; legal: cpu, cuda"}
    if not torch.cuda.is_available():
        told["cuda"] = "--device cuda: torch finds none here; legal: cpu"
    for device, line in told.items():
        with pytest.raises(InputError, match=line):
            train(params, "modern", {1: tmp_path / "out"}, prepared / "train.safetensors", None, None, device=device)
