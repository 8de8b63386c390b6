"""Is what was computed what a commit says?

dvc.lock, parsed (the order of its entries varies), every metrics file, and the weights by their digest must be equal:
the arithmetic gives the same bits on every machine. What has not been computed is not judged, and neither is what a
commit from before there were signatures publishes.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from rich.table import Table
from rich.text import Text
from safetensors.torch import load_file

from lenet.evaluation import judge
from lenet.evaluation.judge import Part
from lenet.params import loading
from lenet.params.schema import Params
from lenet.reproduce import sources, workplace
from lenet.runs import readers, stale
from lenet.runtime import remedies
from lenet.runtime.errors import InputError, ParamsError
from lenet.runtime.files import FAULTY, reading, reason
from lenet.runtime.layout import METRICS, RUNS, SIGNATURES, TRAIN
from lenet.runtime.snapshot import git
from lenet.training import fingerprint

T = TypeVar("T")
LARGEST = 2**23  # characters, or values, of a dvc.lock; a run takes 4,000
INSTRUCTIONS = {"DEFAULT": ("default",), "AVX2": ("default", "avx2"), "AVX512": ("default", "avx2", "avx512")}
"""Values of ATEN_CPU_CAPABILITY by what torch can use here; on another kind of processor it has its default alone."""
MKL = ("SSE4_2", "AVX2", "AVX512")
OPENBLAS = {"default": "Nehalem", "avx2": "Haswell", "avx512": "SkylakeX"}
"""NumPy's library of matrix products has the like by names of processors."""
THREADS = ("1", "2")


def verify(params: Params, revision: str, folder: Path, names: Sequence[str] = ()) -> list[Part]:
    """Judge a project's dvc.lock, metrics and weights against those of a Git revision.

    Args:
        params: what is compared.
        revision: of the repository that this process works in.
        folder: the project that has computed.
        names: runs, as ``<variant>-<seed>``, if not all of it is to be judged.

    Raises:
        InputError: the revision or one of its files is missing, or nothing has been computed in ``folder``.
    """
    before = published(params, revision, names)
    weights = {name: folder / RUNS / name / "weights.safetensors" for name in before}
    if absent := [name for name, path in weights.items() if not path.exists()]:
        raise InputError(f"{', '.join(absent)}: not computed here; `lenet repro {' '.join(absent[:3])}` does it")
    paths = {name: METRICS / f"{name}.json" for name in before}
    metrics = {str(path): readers.read(folder / path, readers.metrics) for path in paths.values()}
    then, here = _at(revision, Path("dvc.lock"), _stages), readers.read(folder / "dvc.lock", _stages)
    wanted = stages_of(params, names) if names else {*then, *here}
    found = judge.compare(then, here, sorted(wanted & {*then, *here}))
    found += judge.compare({str(paths[name]): content for name, content in before.items()}, metrics)
    for name, path in weights.items():
        with reading(path):
            digest = fingerprint.tensors_sha256(load_file(path))
        part, *_ = judge.compare(
            *({str(path.relative_to(folder)): its} for its in (before[name]["run"]["weights.sha256"], digest))
        )
        if not part.same and (objects := remedies.behind(path)):
            part = replace(part, change=remedies.remove(objects))
        found.append(part)
    return found


def compute(revision: str, names: Sequence[str], jobs: int, tell: Callable[[str], None]) -> list[Part]:
    """Execute a commit's pipeline in a clean copy of it, and judge what comes out by what the commit says.

    Args:
        revision: the commit.
        names: runs, as ``<variant>-<seed>``; none for all of the pipeline.
        jobs: stages at once.
        tell: called with each line of progress.

    Raises:
        InputError: no such commit or run, or its stages fail here.
    """
    commit = sources.commit(revision)
    with workplace.of(commit, build_environment=False) as place:
        params = loading.load(place.project / "params.yaml")
        published(params, revision, names)
        (place.project / "dvc.lock").unlink(missing_ok=True)  # what is there afterwards was computed
        for folder in (METRICS, SIGNATURES):
            for path in (place.project / folder).glob("*.json"):
                path.unlink()
        stages = ["-m", "dvc", "repro", "--force", *(f"evaluate@{name}" for name in names)]
        whole = ["-m", "lenet", "repro", "--jobs", str(jobs), "--no-track"]
        place.run(*(stages if names else whole), tell=tell, LENET_DATA_DIR=str(place.digits()))
        return verify(params, revision, place.project, names)


def published(params: Params, revision: str, names: Sequence[str] = ()) -> dict[str, Any]:
    """The metrics of these runs, or of all compared ones, at a revision.

    Raises:
        InputError: it does not publish one of them, or not with today's arithmetic.
    """
    runs = check_names(params, names)
    if new := [name for name in runs if not _is_at(revision, METRICS / f"{name}.json")]:
        raise InputError(f"{', '.join(new)}: not published at {revision}; name the runs that are to be judged")
    found = {name: _at(revision, METRICS / f"{name}.json", readers.metrics) for name in sorted(runs)}
    if before := [name for name, content in found.items() if stale.is_stale(content["run"])]:
        raise InputError(
            f"{', '.join(before)}: {revision} has results of the former arithmetic, whose bits depend on the "
            "processor; `lenet rerun` judges a run of then"
        )
    return found


def stages_of(params: Params, names: Sequence[str]) -> set[str]:
    """The stages that make these runs and their data. Raises InputError for one that is not compared."""
    runs = check_names(params, names)
    own = ({f"signature@{variant}", f"train@{name}", f"evaluate@{name}"} for name, (variant, _) in runs.items())
    return {"fetch", "prepare"}.union(*own)


def check_names(params: Params, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Variant and seed of these runs, or of all compared ones. Raises InputError for one that is not compared."""
    runs = {f"{variant}-{seed}": (variant, seed) for variant, seed in params.runs()}
    if unknown := [name for name in names if name not in runs]:
        raise InputError(f"{', '.join(unknown)}: not compared; legal: {', '.join(runs)}")
    return {name: run for name, run in runs.items() if name in (names or runs)}


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
    if not TRAIN.exists():
        raise InputError(f"{TRAIN} is missing; `dvc repro prepare` makes it")
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
            [sys.executable, "-m", "lenet", "signature", variant, "--data", str(TRAIN), "--out", str(out)],
            env=os.environ | {"PYTHONPATH": "src", **environment}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            return f"ended with {done.returncode}: {' '.join(done.stderr.strip().splitlines()[-1:])}"
        return "" if out.read_bytes() == committed else "another signature"


def table(parts: Sequence[Part]) -> Table:
    """What was judged, for a terminal."""
    view = Table("stage or file", "same", "judged")
    for part in parts:
        change = part.change or f"{part.then} → {part.here}"
        view.add_row(part.what, "yes" if part.same else Text("NO", "red"), "bitwise" if part.same else change)
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
