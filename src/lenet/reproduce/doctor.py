"""`lenet doctor`: do dvc.lock, files, MLflow's record, environment and arithmetic agree? Each disagreement is named."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lenet import tracking
from lenet.arithmetic import conformance
from lenet.digits.data import load_digits
from lenet.evaluation import recognition
from lenet.params.schema import Params
from lenet.report import results_table
from lenet.reproduce import verify
from lenet.runs import current, readers
from lenet.runs.record import Record
from lenet.runtime import layout, remedies, requirements, snapshot
from lenet.runtime.errors import InputError
from lenet.runtime.files import read_json, reading
from lenet.training import fingerprint

T = TypeVar("T")
INSTALLERS = frozenset({"lenet", "pip", "setuptools", "wheel"})
"""In every environment, and in no lock."""


@dataclass(frozen=True)
class Places:
    """Where things are, as dvc.yaml has it."""

    runs: Path = Path("runs")
    metrics: Path = Path("metrics")
    reports: Path = Path("reports")
    experiments: Path = layout.EXPERIMENTS
    train: Path = Path("data/train.safetensors")
    test: Path = Path("data/test.safetensors")
    locks: tuple[Path, ...] = requirements.LOCKS
    signatures: Path = Path("signatures")


def examine(params: Params, names: Sequence[str], deep: bool, places: Places) -> Iterator[tuple[str, list[str]]]:
    """Examine one thing after the other.

    Args:
        params: the whole of params.yaml.
        names: compared runs, as ``<variant>-<seed>``, to look at these alone and not at the comparison; none for all.
        deep: also compute metrics, answers and the comparison again, from the weights and the test digits.
        places: where things are.

    Yields:
        What was examined, and its disagreements, a line each.

    Raises:
        InputError: there is nothing to examine.
    """
    if not current.folders(params, places.runs):
        raise InputError(f"{places.runs}: no run here; `make repro` makes them")
    examinations: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("installed packages and requirements.lock", lambda: environment(places.locks)),
        ("dvc.lock and files", lambda: pipeline(params, names, places)),
        ("files among each other", lambda: files(params, names, places)),
        ("arithmetic of this machine", arithmetic),
        ("MLflow's record and files", lambda: tracking.check(params, places.runs, places.metrics, places.reports)),
    ]
    if deep:
        examinations.append(("results computed again and files", lambda: again(params, names, places)))
    for name, examination in examinations:
        found: list[str] = []
        try:
            found += examination()
        except InputError as error:
            found += str(error).splitlines()
        yield name, found


def environment(locks: Sequence[Path]) -> Iterator[str]:
    """Installed distributions that differ from the locks, are missing, or are in none."""
    pinned, installed = _pinned(locks), _installed()
    for name in sorted(pinned.keys() | installed.keys() - INSTALLERS - _of_build(pinned, installed)):
        here = Version(installed[name]).public if name in installed else "missing"
        if here != pinned.get(name):
            yield f"{name}: {here} installed, {pinned.get(name, 'nothing')} locked"


def build(locks: Sequence[Path]) -> str:
    """What the installed build of the locked torch has brought with it and no lock pins; empty if nothing."""
    try:
        found = sorted(_of_build(_pinned(locks), installed := _installed()))
    except InputError:  # ``environment`` names it
        return ""
    if not found:
        return ""
    return f"torch {installed['torch']}: {len(found)} packages of this build are in no lock: {', '.join(found)}"


def _pinned(locks: Sequence[Path]) -> dict[str, str]:
    return {name: version for path in locks for name, version in requirements.pins(path).items()}


def _installed() -> dict[str, str]:
    return dict(line.split("==") for line in fingerprint.environment())


def _of_build(pinned: Mapping[str, str], installed: Mapping[str, str]) -> set[str]:
    """What the locked torch needs here, directly or not, and no lock pins: builds differ in that, as for CUDA."""
    if "torch" not in installed or Version(installed["torch"]).public != pinned.get("torch"):
        return set()
    needs: dict[str, list[str]] = {
        canonicalize_name(one.metadata["Name"]): one.requires or [] for one in metadata.distributions()
    }
    needed, waiting = set[tuple[str, str]](), [("torch", "")]
    while waiting:
        name, extra = waiting.pop()
        needed.add((name, extra))
        for requirement in map(Requirement, needs[name]):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                pairs = product([canonicalize_name(requirement.name)], ["", *requirement.extras])
                waiting += [pair for pair in pairs if pair not in needed and pair[0] in needs]
    return {name for name, _ in needed} - pinned.keys()


def pipeline(params: Params, names: Sequence[str], places: Places) -> Iterator[str]:
    """What is changed against dvc.lock, in every pipeline that has outputs here, or for some runs.

    DVC believes what it remembers of files that it has brought: so contents are compared here, too, and those of its
    cache with their names.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    pipelines = {folder.parent.parent / "dvc.yaml" for folder in current.folders(params, places.runs)}
    try:
        with Repo() as repo:
            stages = [stage for stage in repo.index.stages if Path(stage.path_in_repo) in pipelines]
            if names:
                wanted = verify.stages_of(params, names)
                stages = [stage for stage in stages if stage.addressing in wanted]
            new = {stage.addressing for stage in stages if not any(out.hash_info for out in stage.outs)}
            status = repo.status(targets=[stage.addressing for stage in stages])
            outs = [(stage.addressing, out) for stage in stages for out in stage.outs if out.hash_info]
            unlike = {f"{name}: {out}" for name, out in outs if remedies.differs(out)}
            damaged = {f"{name}: {out}": found for name, out in outs if (found := remedies.damaged(out))}
    except DvcException as error:
        yield remedies.of_dvc(error)
        return
    for stage, changes in status.items():
        if stage in new:
            yield f"{stage}: has not been run yet; `make repro` runs it"
            continue
        for change in changes:
            if isinstance(change, str):
                yield f"{stage}: {change}"
            else:
                for kind, entries in change.items():
                    yield from (f"{stage}: {kind}: {name} {how}" for name, how in entries.items())
                    unlike -= {f"{stage}: {name}" for name in entries}
    yield from (f"{name} is not what dvc.lock says" for name in sorted(unlike))
    yield from (f"{name}: {remedies.remove(found)}" for name, found in damaged.items())


def files(params: Params, names: Sequence[str], places: Places) -> Iterator[str]:
    """A run's files that contradict each other, params.yaml or the data."""
    if why := snapshot.silence():
        yield f"runs are recorded without their commit: {why}"
    if why := snapshot.withheld():
        yield f"runs are recorded without their sources: {why}"
    faults: list[str] = []

    def read(how: Callable[..., T], *words: Any) -> T | None:
        """What could be read; else that is a fault, and the rest goes on."""
        try:
            return how(*words)
        except InputError as error:
            faults.extend(str(error).splitlines())
            return None

    digits = read(load_digits, places.train)
    for folder in _folders(params, names, places):
        pipeline, name = folder.parent.parent, folder.name
        record = read(Record.read, folder / "run.json")
        history = read(readers.read, folder / "history.csv", readers.history)
        metrics = read(readers.read, pipeline / places.metrics / f"{name}.json", readers.metrics)
        predictions = read(readers.read, folder / "predictions.csv", readers.predictions)
        missed = read(readers.read, folder / "missed.safetensors", readers.missed)
        read(readers.read, folder / "robustness.json", readers.robustness)
        if record:
            signed = pipeline / places.signatures / f"{record.variant}.json"
            network, signature = read(recognition.load, folder), read(read_json, signed)
            data = fingerprint.data_sha256(*digits.split(record.parameters)) if digits else record.data
            faults += (f"{folder}: {fault}" for fault in _identity(params, record, name, data))
            if network and fingerprint.tensors_sha256(network.network.state_dict()) != record.weights:
                faults.append(f"{folder}: weights.safetensors: not the weights.sha256 of run.json")
            if signature is not None and fingerprint.json_sha256(signature) != record.signature:
                faults.append(f"{folder}: run.json: signature is not that of {signed}")
        contradictions = readers.disagreements(name, record, history, metrics, predictions, missed)
        faults += (f"{folder}: {fault}" for fault in contradictions)
    if not names:
        summary = read(readers.read, places.metrics / "summary.json", readers.summary)
        for variant in params.compare:
            paths = (places.metrics / f"{variant}-{seed}.json" for seed in params.seeds)
            misses = [one["test"]["misses"] for path in paths if (one := read(readers.read, path, readers.metrics))]
            told = summary.get(variant, {}).get("misses") if summary else None
            if summary and len(misses) == len(params.seeds) and told != np.mean(misses):
                faults.append(f"{places.metrics}/summary.json: {variant}.misses is not the mean of {misses}")
        read(results_table.load, places.reports)
    yield from dict.fromkeys(faults)


def _folders(params: Params, names: Sequence[str], places: Places) -> list[Path]:
    return [places.runs / name for name in names] or current.folders(params, places.runs)


def _identity(params: Params, record: Record, name: str, data: str) -> Iterator[str]:
    """What a run.json says of itself that is not so; ``data``: the digest of the digits that are here."""
    variant = record.parameters
    if name != record.name:
        yield f"run.json is of {record.name}"
    if params.variants.get(record.variant) != variant:
        yield f"run.json: its parameters are not those of variants.{record.variant} in params.yaml"
    if data != record.data:
        yield "run.json: data.sha256 is not that of the present digits"
    if fingerprint.run_key(variant, record.seed, record.data, record.signature) != record.key:
        yield "run.json: run.key is not that of its parameters, seed, data.sha256 and signature"


def arithmetic() -> Iterator[str]:
    """Operations that do not give the bits that they give on every other machine."""
    for name in conformance.faults():
        yield f"{name} is off here (conformance check): nothing can be trained with the published bits"


def again(params: Params, names: Sequence[str], places: Places) -> Iterator[str]:
    """Results that the weights and the test digits do not give: evaluate and compare, into a scratch folder."""
    from lenet.pipeline import compare, evaluate

    with tempfile.TemporaryDirectory() as scratch:
        copies = Path(scratch)
        for folder in _folders(params, names, places):
            pipeline = folder.parent.parent
            copy = copies / folder
            copy.mkdir(parents=True)
            metrics = pipeline / places.metrics / f"{folder.name}.json"
            try:
                for name in tracking.TRAINED:
                    with reading(folder / name):
                        shutil.copyfile(folder / name, copy / name)
                evaluate.evaluate(copy, places.test, copies / metrics, track=False)
            except InputError as error:
                yield str(error)
                continue
            made = sorted(path.relative_to(copies) for path in copy.iterdir() if path.name not in tracking.TRAINED)
            yield from _other((metrics, *made), copies)
        if names:
            return
        summary = places.metrics / "summary.json"
        try:
            compare.write(params, copies / places.runs, places.experiments, copies / summary, copies / places.reports)
        except InputError as error:
            yield str(error)
        else:
            yield from _other((summary, places.reports / "comparison.json"), copies)


def _other(paths: tuple[Path, ...], computed: Path) -> Iterator[str]:
    for path in paths:
        if not path.exists():
            yield f"{path} is missing"
        elif path.read_bytes() != (computed / path).read_bytes():
            try:
                yield f"{path}: {_first_difference(path, computed / path)}"
            except InputError as error:
                yield str(error)


def _first_difference(file: Path, computed: Path) -> str:
    """What differs, where it can be said."""
    if file.suffix == ".json":
        ours, theirs = (dict(_leaves(read_json(path))) for path in (file, computed))
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                return f"{name} is {ours.get(name, 'missing')}, and {theirs.get(name, 'nothing')} when computed again"
    return "other content when computed again"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name)
    else:
        yield path, value
