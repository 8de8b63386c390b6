"""Is what was computed what a commit says?

dvc.lock, parsed (the order of its entries varies), every metrics file, and the weights by their digest must be equal:
the arithmetic gives the same bits on every machine. What has not been computed is not judged.

Only what a commit from before there were signatures publishes, and the sources of then compute again, is judged as
then: equal where the canaries are; elsewhere the data must be equal, and each variant's misses must lie within what its
seeds' spread allows.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.table import Table
from rich.text import Text
from safetensors.torch import load_file
from scipy import stats

from lenet.params import loading
from lenet.params.schema import Params
from lenet.runs import readers
from lenet.runs.stale import is_stale
from lenet.runtime import remedies
from lenet.runtime.errors import InputError, ParamsError
from lenet.runtime.files import FAULTY, reading, reason
from lenet.runtime.snapshot import git
from lenet.training import fingerprint

T = TypeVar("T")
METRICS = Path("metrics")
RUNS = Path("runs")
SIGNATURES = Path("signatures")
DATA = Path("data/train.safetensors")
DATA_STAGES = frozenset({"fetch", "prepare"})
LARGEST = 2**23  # characters, or values, of a dvc.lock; a run takes 4,000
CONFIDENCE = 0.99
INSTRUCTIONS = {"DEFAULT": ("default",), "AVX2": ("default", "avx2"), "AVX512": ("default", "avx2", "avx512")}
"""Values of ATEN_CPU_CAPABILITY by what torch can use here; on another kind of processor it has its default alone."""
MKL = ("SSE4_2", "AVX2", "AVX512")
OPENBLAS = {"default": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX"}
"""NumPy's library of matrix products has the like by names of processors."""
THREADS = ("1", "2")


@dataclass(frozen=True)
class Verdict:
    """Whether one thing is the same, and how that was judged."""

    name: str
    same: bool
    how: str


def verify(params: Params, revision: str, folder: Path, names: Sequence[str] = ()) -> list[Verdict]:
    """Judge a project's dvc.lock and metrics against those of a Git revision.

    Args:
        params: what is compared.
        revision: of the repository that this process works in.
        folder: the project that has computed.
        names: runs, as ``<variant>-<seed>``, if not all of it is to be judged.

    Raises:
        InputError: the revision or one of its files is missing, or nothing has been computed in ``folder``.
    """
    runs = check_names(params, names)
    if new := [name for name in runs if not _is_at(revision, METRICS / f"{name}.json")]:
        raise InputError(f"{', '.join(new)}: not published at {revision}; name the runs that are to be judged")
    weights = {name: folder / RUNS / name / "weights.safetensors" for name in runs}
    if absent := [name for name, path in weights.items() if not path.exists()]:
        raise InputError(f"{', '.join(absent)}: not computed here; `lenet repro {' '.join(absent[:3])}` does it")
    before, after = {}, {}
    for name in runs:
        path = METRICS / f"{name}.json"
        before[name], after[name] = _at(revision, path, readers.metrics), readers.read(folder / path, readers.metrics)
    locks = [_at(revision, Path("dvc.lock"), _stages), readers.read(folder / "dvc.lock", _stages)]
    if names:
        wanted = stages_of(params, names)
        locks = [{name: stage for name, stage in lock.items() if name in wanted} for lock in locks]
    if not _of_another_processor(before, after):
        digests = {}
        for path in weights.values():
            with reading(path):
                digests[str(path)] = fingerprint.tensors_sha256(load_file(path))
        told = {str(weights[name]): before[name]["run"]["weights.sha256"] for name in runs}
        metrics = ({f"metrics/{name}.json": content[name] for name in runs} for content in (before, after))
        weighed = judge_bits(told, digests)
        for i, verdict in enumerate(weighed):
            if not verdict.same and (objects := remedies.behind(Path(verdict.name))):
                weighed[i] = replace(verdict, how=remedies.remove(objects))
        return judge_bits(*locks) + judge_bits(*metrics) + weighed
    # what neither lock has is not the same
    data = [{name: lock.get(name, side) for name in DATA_STAGES} for side, lock in enumerate(locks)]
    spread = []
    for variant in dict.fromkeys(variant for variant, _ in runs.values()):
        misses = (
            [by[name]["test"]["misses"] for name, (of, _) in runs.items() if of == variant] for by in (before, after)
        )
        spread.append(judge_spread(variant, *misses))
    return judge_bits(*data) + spread


def stages_of(params: Params, names: Sequence[str]) -> set[str]:
    """The stages that make these runs and their data. Raises InputError for one that is not compared."""
    runs = check_names(params, names)
    own = ({f"signature@{variant}", f"train@{name}", f"evaluate@{name}"} for name, (variant, _) in runs.items())
    return set(DATA_STAGES).union(*own)


def _of_another_processor(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether all of both is of before signatures, and one of them has another canary."""
    pairs = [(before[name]["run"], after[name]["run"]) for name in before]
    return all(is_stale(run) for pair in pairs for run in pair) and any(
        then.get("canary") != now.get("canary") for then, now in pairs
    )


def check_names(params: Params, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Variant and seed of these runs, or of all compared ones. Raises InputError for one that is not compared."""
    runs = {f"{variant}-{seed}": (variant, seed) for variant, seed in params.runs()}
    if unknown := [name for name in names if name not in runs]:
        raise InputError(f"{', '.join(unknown)}: not compared; legal: {', '.join(runs)}")
    return {name: run for name, run in runs.items() if name in (names or runs)}


def judge_bits(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Verdict]:
    """Equal, name by name; what only one side has is not."""
    return [
        Verdict(name, name in before and name in after and before[name] == after[name], "bitwise")
        for name in sorted({*before, *after})
    ]


def judge_spread(variant: str, before: Sequence[int], after: Sequence[int], seeds: Sequence[int] = ()) -> Verdict:
    """Within noise: the means differ by less than 2.58 standard errors (1 % level, normal).

    A side's variance is that of its seeds (where it is a single run: of ``seeds``), but at least its mean: what
    counting rare misses alone gives, so that few seeds that happen to agree do not make the judge too strict.
    """
    means, variances = [np.mean(misses) for misses in (before, after)], []
    for misses in (before, after):
        spread = misses if len(misses) > 1 else seeds
        sample = np.var(spread, ddof=1) if len(spread) > 1 else 0.0
        variances.append(max(float(sample), float(np.mean(misses))) / len(misses))
    limit = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * sum(variances) ** 0.5
    gap = float(abs(means[0] - means[1]))
    how = f"mean misses {means[0]:.1f} → {means[1]:.1f}, {gap:.1f} apart, at most {limit:.1f}"
    return Verdict(variant, gap <= limit, how)


def settings() -> list[dict[str, str]]:
    """Environments in which libraries take other instructions, of those that there are here, and other threads."""
    instructions = INSTRUCTIONS.get(fingerprint.processor(), INSTRUCTIONS["DEFAULT"])
    return [
        {
            "ATEN_CPU_CAPABILITY": aten,
            "OPENBLAS_CORETYPE": OPENBLAS[aten],
            "MKL_ENABLE_INSTRUCTIONS": mkl,
            "LENET_THREADS": threads,
        }
        for aten, mkl, threads in product(instructions, MKL, THREADS)
    ]


def signatures(
    params: Params, revision: str, variants: Sequence[str], environments: Sequence[Mapping[str, str]],
    tell: Callable[[str], None],
) -> Iterator[str]:  # fmt: skip
    """Sign variants in each environment, in processes of their own, and compare with the committed files, by bytes.

    Args:
        params: the whole of params.yaml.
        revision: of the repository, where the signatures are committed.
        variants: names of compared variants; none for all.
        environments: variables beside the present ones.
        tell: called with a line before each variant.

    Yields:
        A line for each variant and environment that gives another signature, or none.

    Raises:
        InputError: a variant that is not compared or whose signature is not committed, or the digits are missing.
    """
    if unknown := [name for name in variants if name not in params.compare]:
        raise InputError(f"{', '.join(unknown)}: not compared; legal: {', '.join(params.compare)}")
    chosen = variants or params.compare
    if missing := [name for name in chosen if not _is_at(revision, SIGNATURES / f"{name}.json")]:
        raise InputError(f"{', '.join(missing)}: no signature is committed at {revision}")
    if not DATA.exists():
        raise InputError(f"{DATA} is missing; `dvc repro prepare` makes it")
    for variant in chosen:
        committed = _at(revision, SIGNATURES / f"{variant}.json", bytes)
        tell(f"{variant}: {len(environments)} settings")
        for environment in environments:
            if fault := _sign(variant, environment, committed):
                yield f"{variant}: {' '.join(f'{name}={value}' for name, value in environment.items())}: {fault}"


def _sign(variant: str, environment: Mapping[str, str], committed: bytes) -> str:
    """What is wrong with a variant's signature in an environment; empty if nothing is."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"{variant}.json"
        done = subprocess.run(
            [sys.executable, "-m", "lenet", "signature", variant, "--data", str(DATA), "--out", str(out)],
            env=os.environ | {"PYTHONPATH": "src", **environment}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            return f"ended with {done.returncode}: {' '.join(done.stderr.strip().splitlines()[-1:])}"
        return "" if out.read_bytes() == committed else "another signature"


def table(verdicts: list[Verdict]) -> Table:
    """The verdicts for a terminal."""
    view = Table("stage or file", "same", "judged")
    for verdict in verdicts:
        view.add_row(verdict.name, "yes" if verdict.same else Text("NO", "red"), verdict.how)
    return view


def _is_at(revision: str, path: Path) -> bool:
    return bool(git("ls-tree", revision, str(path)))


def _at(revision: str, path: Path, how: Callable[[bytes], T]) -> T:
    try:
        return how(git("show", f"{revision}:./{path}"))
    except FAULTY as error:
        raise InputError(f"{path} at {revision}: {reason(error)}; --against names another commit") from None


def _stages(lock: bytes) -> dict[str, Any]:
    try:
        return dict(loading.parse(lock.decode(), "content", largest=LARGEST)["stages"])
    except ParamsError as error:
        raise ValueError(error) from None
