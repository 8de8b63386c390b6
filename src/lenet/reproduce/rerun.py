"""Runs again, from beginning to end."""

import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lenet import tracking
from lenet.evaluation import judge
from lenet.evaluation.judge import Account
from lenet.params.loading import flatten
from lenet.params.schema import Params
from lenet.reproduce import evidence, preflight, probe, sources, verdict, workplace
from lenet.reproduce.evidence import Outcome
from lenet.reproduce.preflight import Preflight
from lenet.reproduce.sources import Snapshot, Sources
from lenet.reproduce.verdict import Verdict
from lenet.reproduce.workplace import Workplace
from lenet.runs import readers
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, json_of, reason
from lenet.tracking import Tracked

AHEAD = "src/lenet/pipeline/ahead.py"
"""Sources with this file train several seeds side by side."""


@dataclass(frozen=True)
class Rerun:
    """What a rerun has to tell.

    Attributes:
        run: the run.
        sources: where its sources came from.
        preflight: what was known beforehand.
        verdict: what came out; None if it was asked for the preflight alone.
        seconds: that the stages took.
        id: MLflow's, of the rerun; None where it could not be recorded.
    """

    run: Tracked
    sources: str
    preflight: Preflight
    verdict: Verdict | None
    seconds: float
    id: str | None

    def exit_status(self, accepted: str) -> int:
        """0 for this grade or a better one; else 4, or 1 for ``different``. Of a preflight: 0 bitwise, else 3."""
        if self.verdict is None:
            return 0 if self.preflight.bitwise else 3
        if verdict.GRADES.index(self.verdict.grade) <= verdict.GRADES.index(accepted):
            return 0
        return 1 if self.verdict.grade == "different" else 4

    def to_json(self) -> dict[str, Any]:
        """All of it, for ``--json`` and the run's artifact."""
        return {
            "run": {"name": self.run.name, "id": self.run.id, "key": self.run.key},
            "sources": self.sources,
            "preflight": self.preflight.to_json(),
            "verdict": asdict(self.verdict) if self.verdict else None,
            "rerun": self.id,
        }


def rerun(reference: str, params: Params, tell: Callable[[object], None], **how: bool) -> Rerun:
    """Build a run's sources, parameters and data again, execute its stages, and compare what comes out.

    Args:
        reference: an MLflow run id, a ``run.key``, or ``<variant>-<seed>``.
        params: the whole of params.yaml, for a run of which the metrics file alone is there.
        tell: called with what there is to see on the way: the preflight, and lines of progress.
        how: as ``together`` has it.

    Raises:
        InputError: no such run, nothing to compare with, sources that are not trusted, an operation that does not
            conform, a result that contradicts itself, or it cannot be built or executed here.
    """
    (found,) = together([reference], params, tell, 1, **how)
    if isinstance(found, InputError):
        raise found
    return found


def together(
    references: Sequence[str],
    params: Params,
    tell: Callable[[object], None],
    jobs: int,
    *,
    only_preflight: bool = False,
    build_environment: bool = False,
    track: bool = False,
    trust: bool = False,
) -> list[Rerun | InputError]:
    """Rerun several seeds of one block by the same sources in one folder. What one of them ends with is no other's.

    Args:
        references: of runs that ``kin`` says the same of; each as ``rerun`` has it.
        params: the whole of params.yaml.
        tell: called with what there is to see on the way.
        jobs: how many stages may run side by side.
        only_preflight: stop before any stage. Sources that no commit here vouches for are not executed at all.
        build_environment: run in a new virtual environment of the run's own lock.
        track: record the reruns in MLflow.
        trust: execute the runs' sources though no commit here vouches for them.

    Returns:
        What each has to tell, or why it could not be rerun.
    """
    results: dict[str, Rerun | InputError] = {}
    runs: dict[str, _Known] = {}
    for reference in references:
        with _caught(reference, results):
            runs[reference] = _known(reference, params, tell, only_preflight, trust)
    try:
        if runs:
            _rerun(runs, results, tell, jobs, only_preflight, build_environment, track, trust)
    except InputError as error:  # of what they share
        for reference in runs:
            results.setdefault(reference, error)
    return [results[reference] for reference in references]


@dataclass(frozen=True)
class _Known:
    """What is known of a run before it is repeated: of itself, of what came of it, and where its sources are from."""

    run: Tracked
    then: Outcome
    sources: Sources


@contextmanager
def _caught(reference: str, results: dict[str, Rerun | InputError]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        results[reference] = error


def _known(reference: str, params: Params, tell: Callable[[object], None], only_preflight: bool, trust: bool) -> _Known:
    run = tracking.lookup(reference, params)
    then = evidence.outcome(run)
    if then.weights is None:
        raise InputError(f"{run.name}: it has no weights.sha256, so there is nothing to compare a rerun with")
    found = sources.of(run)
    if isinstance(found, Snapshot):
        if not trust and not only_preflight:
            raise InputError(
                f"{run.name}: its sources are in no commit of this repository, and they would be executed: "
                f"{found.origin}. `lenet diff` shows them; --trust-sources runs them"
            )
        tell(f"{run.name}: {'not executed' if only_preflight else 'executed, as asked for'}: {found.origin}")
    return _Known(run, then, found)


def kin(reference: str, params: Params) -> Hashable:
    """What runs have in common that can be rerun together: variant, block, and sources that train seeds side by side.

    Of a run that has to be rerun alone None. Raises InputError as ``rerun`` does.
    """
    run = tracking.lookup(reference, params)
    found = sources.of(run)
    return (run.tags["variant"], repr(_block(run)), found.digest) if found.has(AHEAD) else None


def _rerun(
    runs: Mapping[str, _Known], results: dict[str, Rerun | InputError], tell: Callable[[object], None], jobs: int,
    only_preflight: bool, build_environment: bool, track: bool, trust: bool,
) -> None:  # fmt: skip
    """Rerun what is known, and add what each comes to. Raises InputError for a fault of what they share."""
    first = next(iter(runs.values()))
    executed = not (only_preflight and isinstance(first.sources, Snapshot))
    with workplace.of(first.sources, build_environment and executed) as place:
        seeds = sorted({int(one.run.tags["seed"]) for one in runs.values()})
        workplace.select(place.project, first.run.tags["variant"], seeds, _block(first.run))
        probed = workplace.probe(place) if executed else probe.found() | {"code": None}
        flights: dict[str, tuple[Preflight, Account]] = {}
        for reference, known in runs.items():
            with _caught(reference, results):
                flight, inputs = preflight.examine(known.run, known.sources, place, probed, trust)
                tell(flight)
                if flight.off:
                    raise InputError(
                        f"{known.run.name}: it cannot be rerun here: off on this machine (conformance check): "
                        f"{flight.off}; so its weights could not be the same, and nothing is trained"
                    )
                flights[reference] = flight, inputs
        if only_preflight:
            results |= {one: Rerun(runs[one].run, str(runs[one].sources), flights[one][0], None, 0.0, None)
                        for one in flights}  # fmt: skip
            return
        began = time.monotonic()
        whole = len(flights) > 1 and _executed(place, [runs[one].run.name for one in flights], jobs)
        for reference, (flight, inputs) in flights.items():
            with _caught(reference, results):
                known = runs[reference]
                if not whole:
                    _execute(place, known.run.name, tell)
                seconds = time.monotonic() - began
                results[reference] = _judged(place, known, flight, inputs, probed, seconds, track)


def _judged(
    place: Workplace, known: _Known, flight: Preflight, inputs: Account, probed: Account, seconds: float, track: bool
) -> Rerun:
    """Compare what a rerun's stages have made with its run, and record it."""
    run = known.run
    files = _outputs(place.project, run.name)
    again = _read(run.name, files)
    now = {**probed, **evidence.recorded(again)}, evidence.outcome(again)
    judged = verdict.judge_rerun((inputs, known.then), now, _misses_of_seeds(run))
    report = Rerun(run, str(known.sources), flight, judged, seconds, None)
    if track:
        tags = {"grade": judged.grade, "how": judged.summary}
        report = replace(report, id=tracking.reran(run, again, tags, report.to_json(), files))
    return report


def _block(run: Tracked) -> dict[str, Any] | None:
    """The variant's parameters as the run recorded them; None where it did not."""
    return run.parse("run.json", lambda content: dict(json_of(content)["parameters"]))


def _executed(place: Workplace, names: Sequence[str], jobs: int) -> bool:
    """Whether the sources' own `lenet repro` has made these runs; else each is to be tried alone, and says why."""
    try:
        place.run("-m", "lenet", "repro", "--jobs", str(jobs), "--no-track", *names, tell=None, **_variables(place))
    except InputError:
        return False
    return True


def _execute(place: Workplace, name: str, tell: Callable[[object], None]) -> None:
    def progress(line: str) -> None:
        if re.match(rf"{re.escape(name)}: epoch ", line):
            tell(line)

    place.run("-m", "dvc", "repro", f"evaluate@{name}", tell=progress, **_variables(place))


def _variables(place: Workplace) -> dict[str, str]:
    # older sources refuse other packages than their lock's; the preflight has named them, and it is to run
    return {"LENET_ALLOW_OTHER_NUMERICS": "1", "LENET_DATA_DIR": str(place.digits())}


def _outputs(project: Path, name: str) -> dict[str, Path]:
    """The files that the stages have made, by their names as artifacts."""
    files = {path.name: path for path in sorted((project / "runs" / name).iterdir()) if not path.name.startswith(".")}
    return files | {f"{name}.json": project / "metrics" / f"{name}.json"}


def _read(name: str, files: Mapping[str, Path]) -> Tracked:
    """A rerun's files as a run. Raises InputError where they tell of other weights than there are."""
    try:
        record = json_of(files["run.json"].read_bytes())
        parameters, tags = flatten(record["parameters"]), tracking.digest_tags(record["run"])
        rows = readers.history(files["history.csv"].read_bytes()).to_dict("records")
        told = judge.weights_told(files)
    except FAULTY as error:
        raise InputError(
            f"{name}: the rerun's files are not whole ({reason(error)}); its sources are at fault"
        ) from None
    for fault in judge.contradictions(told):
        raise InputError(f"{name}: the rerun contradicts itself: {fault}")
    return Tracked(
        name=name,
        id=None,
        parameters={key: str(value) for key, value in parameters.items()},
        tags=tags,
        metrics={},
        history=rows,
        notes=(),
        read=lambda path: files[path].read_bytes() if path in files else None,
    )


def _misses_of_seeds(run: Tracked) -> list[int]:
    """The test misses of the variant's published seeds."""
    variant = run.tags["variant"]
    found = []
    for path in (path for home in layout.homes() for path in (home / "metrics").glob(f"{variant}-*.json")):
        if re.fullmatch(rf"{re.escape(variant)}-\d+", path.stem):
            found.append(readers.read(path, readers.metrics)["test"]["misses"])
    return found
