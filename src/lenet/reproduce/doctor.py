"""`lenet doctor`: do dvc.lock, files, MLflow's record, environment and arithmetic agree? Each disagreement is named."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from packaging.version import Version

from lenet import tracking
from lenet.arithmetic import conformance
from lenet.digits.data import Digits, load_digits
from lenet.evaluation import judge, recognition
from lenet.params.schema import Params
from lenet.report import results_table
from lenet.reproduce import verify
from lenet.runs import current, readers
from lenet.runs.record import Record
from lenet.runtime import layout, remedies, requirements, snapshot
from lenet.runtime.errors import InputError
from lenet.runtime.files import read_json, reading
from lenet.runtime.layout import EXPERIMENTS, METRICS, REPORTS, RUNS, SIGNATURES, TEST, TRAIN
from lenet.training import fingerprint

T = TypeVar("T")


def examine(params: Params, names: Sequence[str], deep: bool) -> Iterator[tuple[str, list[str]]]:
    """Examine one thing after the other.

    Args:
        params: the whole of params.yaml.
        names: compared runs, as ``<variant>-<seed>``, to look at these alone and not at the comparison; none for all.
        deep: also compute metrics, answers and the comparison again, from the weights and the test digits.

    Yields:
        What was examined, and its disagreements, a line each.

    Raises:
        InputError: there is nothing to examine.
    """
    if not current.folders(params):
        raise InputError(f"{RUNS}: no run here; `make repro` makes them")
    examinations: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("installed packages and requirements.lock", lambda: environment(requirements.LOCKS)),
        ("dvc.lock and files", lambda: pipeline(params, names)),
        ("files among each other", lambda: files(params, names)),
        ("arithmetic of this machine", arithmetic),
        ("MLflow's record and files", lambda: tracking.check(params)),
    ]
    if deep:
        examinations.append(("results computed again and files", lambda: again(params, names)))
    for name, examination in examinations:
        found: list[str] = []
        try:
            found += examination()
        except InputError as error:
            found += str(error).splitlines()
        yield name, found


def environment(locks: Sequence[Path]) -> Iterator[str]:
    """What the locks pin and is missing, or of another version here. What they do not pin decides nothing."""
    installed = dict(line.split("==") for line in fingerprint.environment())
    for name, version in sorted(pin for path in locks for pin in requirements.pins(path).items()):
        here = Version(installed[name]).public if name in installed else "missing"
        if here != version:
            yield f"{name}: {here} installed, {version} locked"


def pipeline(params: Params, names: Sequence[str]) -> Iterator[str]:
    """What is changed against dvc.lock, in every pipeline that has outputs here, or for some runs.

    DVC believes what it remembers of files that it has brought: so contents are compared here, too, and those of its
    cache with their names.
    """
    wanted = verify.stages_of(params, names) if names else None  # which are the root's
    homes = {Path(), *(layout.home_around(folder) for folder in current.folders(params) if not names)}
    for home in sorted(homes):
        yield from _project(home, wanted)


def _project(home: Path, wanted: set[str] | None) -> Iterator[str]:
    """The same of one DVC project, of these stages or all."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(home)) as repo:
            stages = [stage for stage in repo.index.stages if wanted is None or stage.addressing in wanted]
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


def files(params: Params, names: Sequence[str]) -> Iterator[str]:
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

    digits = read(load_digits, TRAIN)
    metrics: dict[Path, Any] = {}
    for folder in _folders(params, names):
        pipeline, name = folder.parent.parent, folder.name
        record = read(Record.read, folder / "run.json")
        history = read(readers.read, folder / "history.csv", readers.history)
        tested = pipeline / METRICS / f"{name}.json"
        metrics[tested] = read(readers.read, tested, readers.metrics)
        predictions = read(readers.read, folder / "predictions.csv", readers.predictions)
        missed = read(readers.read, folder / "missed.safetensors", readers.missed)
        read(readers.read, folder / "robustness.json", readers.robustness)
        told: dict[str, judge.Account] = {}
        if record:
            network = read(recognition.load, folder)
            signature = read(read_json, signed := pipeline / SIGNATURES / f"{record.variant}.json")
            told = _right(params, record, name, digits)
            if network:
                told["weights.safetensors"] = {
                    "run.weights.sha256": fingerprint.tensors_sha256(network.network.state_dict())
                }
            if signature is not None:
                told[str(signed)] = {"run.signature": fingerprint.json_sha256(signature)}
        by_file = judge.files(name, record, history, metrics[tested], predictions, missed)
        faults += (f"{folder}: {fault}" for fault in judge.contradictions(told | by_file))
    if not names:
        summary = read(readers.read, METRICS / "summary.json", readers.summary)
        for variant in params.compare:
            of_seeds = [metrics.get(METRICS / f"{variant}-{seed}.json") for seed in params.seeds]
            misses = [one["test"]["misses"] for one in of_seeds if one]
            if summary and len(misses) == len(params.seeds):
                right = {variant: {"misses": float(np.mean(misses))}}
                told_otherwise = judge.disagreements(summary, right, f"is the mean of {misses}")
                faults += (f"{METRICS}/summary.json: {fault}" for fault in told_otherwise)
        read(results_table.load, REPORTS)
    yield from dict.fromkeys(faults)


def _folders(params: Params, names: Sequence[str]) -> list[Path]:
    return [RUNS / name for name in names] or current.folders(params)


def _right(params: Params, record: Record, name: str, digits: Digits | None) -> dict[str, judge.Account]:
    """What a run.json has to say, by the places that decide it."""
    block = params.variants.get(record.variant)
    key = fingerprint.run_key(record.parameters, record.seed, record.data, record.signature)
    found: dict[str, judge.Account] = {
        "its folder": {"name": name},
        "params.yaml": {"parameters": block.model_dump()} if block else {"variant": "none of this name"},
        "its parameters, seed, data.sha256 and signature": {"run.key": key},
    }
    if digits:
        found["the present digits"] = {"run.data.sha256": fingerprint.data_sha256(*digits.split(record.parameters))}
    return found


def arithmetic() -> Iterator[str]:
    """Operations that do not give the bits that they give on every other machine."""
    for name in conformance.faults():
        yield f"{name} is off here (conformance check): nothing can be trained with the published bits"


def again(params: Params, names: Sequence[str]) -> Iterator[str]:
    """Results that the weights and the test digits do not give: evaluate and compare, into a scratch folder."""
    from lenet.pipeline import compare, evaluate

    with tempfile.TemporaryDirectory() as scratch:
        copies = Path(scratch)
        for folder in _folders(params, names):
            pipeline = folder.parent.parent
            copy = copies / folder
            copy.mkdir(parents=True)
            metrics = pipeline / METRICS / f"{folder.name}.json"
            try:
                for name in tracking.TRAINED:
                    with reading(folder / name):
                        shutil.copyfile(folder / name, copy / name)
                evaluate.evaluate(copy, TEST, copies / metrics, track=False)
            except InputError as error:
                yield str(error)
                continue
            made = sorted(path.relative_to(copies) for path in copy.iterdir() if path.name not in tracking.TRAINED)
            yield from _other((metrics, *made), copies)
        if names:
            return
        summary = METRICS / "summary.json"
        try:
            compare.write(params, copies / RUNS, EXPERIMENTS, copies / summary, copies / REPORTS)
        except InputError as error:
            yield str(error)
        else:
            yield from _other((summary, REPORTS / "comparison.json"), copies)


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
    other = "other content when computed again"
    if file.suffix != ".json":
        return other
    return next(judge.disagreements(read_json(file), read_json(computed), "when computed again"), other)
