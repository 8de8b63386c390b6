"""Compiled loops: the steps of functions.py and exact.py to the bit, and where what was compiled is kept."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import ROOT
from lenet.arithmetic import exact, functions
from lenet.kernels import compiling, steps
from test_house import IMPORTS, MODULES

SOME = np.concatenate([np.arange(0, 2**32, 4099, dtype=np.uint32), np.arange(2**16, dtype=np.uint32)])
NUMBERS = SOME.view(np.float32)[np.isfinite(SOME.view(np.float32))]
"""A million numbers of all magnitudes, subnormal ones among them."""


@pytest.mark.parametrize(("kind", "name"), [(steps.TANH, "tanh"), (steps.LOGISTIC, "logistic")])
def test_functions_are_those_of_the_arithmetic(kind: int, name: str) -> None:
    ours = NUMBERS.copy()
    steps.squash(kind, np.float32(1), ours)
    theirs = getattr(functions, name)(torch.from_numpy(NUMBERS)).numpy()
    assert np.array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("bits", [12, 20, 22])
def test_grids_are_those_of_the_arithmetic(bits: int) -> None:
    for scale in (1e-30, 1e-3, 1.0, 3e5):
        x = np.float32(scale) * NUMBERS[np.abs(NUMBERS) < 1]
        ours = np.zeros(len(x))
        total = steps.on_grid(x, steps.largest(x), np.int32(bits), ours)
        theirs = exact.rounded(torch.from_numpy(x), bits, "x").double()
        assert np.array_equal(ours, theirs.numpy())
        assert total == float(theirs.sum())


@pytest.mark.parametrize("worst", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_is_the_largest(worst: float) -> None:
    x = np.array([1.0, worst, -3.0], np.float32)
    found = np.array([steps.largest(x)], np.int32).view(np.float32)[0]
    assert not found < np.inf


def test_a_digest_is_of_all_code_that_is_compiled() -> None:
    """Else an edit would run what was compiled before it."""
    sources = {path for names in compiling.SOURCES for path in compiling.PACKAGE.glob(names)}
    compiled = {name for name in MODULES if name.startswith("kernels")}
    imported = {name.removeprefix("lenet.") for its in compiled for name in IMPORTS[its]} & {*MODULES} - {"arithmetic"}
    assert {MODULES[name] for name in compiled | imported} == sources


def test_what_is_compiled_is_kept_for_other_checkouts_and_runs_without_a_place(tmp_path: Path) -> None:
    code = (
        "import numpy as np; from lenet.kernels import steps; x = np.ones(3, np.float32)\n"
        "steps.largest(x); print(len(steps.largest.stats.cache_hits), len(steps.largest.stats.cache_misses))"
    )
    (tmp_path / "file").touch()
    compiled = tmp_path / "caches" / "lenet" / "compiled"
    for old in range(compiling.KEPT + 3):
        (compiled / str(old)).mkdir(parents=True)
    (tmp_path / "copy" / "lenet").mkdir(parents=True)
    (tmp_path / "copy" / "lenet" / "__init__.py").touch()
    for package in ("arithmetic", "kernels"):
        (tmp_path / "copy" / "lenet" / package).symlink_to(compiling.PACKAGE / package)
    told = []
    for caches, source in (("caches", ROOT / "src"), ("caches", tmp_path / "copy"), ("file", ROOT / "src")):
        environment = {"PATH": "/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / caches), "PYTHONPATH": str(source)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        told.append(done.stdout.split())
    assert told == [["0", "1"], ["1", "0"], ["0", "1"]]
    assert len([*compiled.iterdir()]) == compiling.KEPT
