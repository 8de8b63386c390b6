"""One run again, from beginning to end."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lenet import tracking
from lenet.evaluation import judge
from lenet.params.loading import flatten
from lenet.params.schema import Params
from lenet.reproduce import evidence, preflight, probe, sources, verdict, workplace
from lenet.reproduce.preflight import Preflight
from lenet.reproduce.sources import Snapshot
from lenet.reproduce.verdict import Verdict
from lenet.reproduce.workplace import Workplace
from lenet.runs import readers
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, json_of, reason
from lenet.tracking import Tracked


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
        """0 for this grade or a better one; else 4, or 1 for ``different``. Of a preflight: 0 bitwise, 3 weaker."""
        if self.verdict is None:
            return 0 if self.preflight.best == "bitwise" else 3
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


def rerun(
    reference: str,
    params: Params,
    tell: Callable[[object], None],
    *,
    only_preflight: bool = False,
    build_environment: bool = False,
    track: bool = False,
    trust: bool = False,
) -> Rerun:
    """Build a run's sources, parameters and data again, execute its stages, and compare what comes out.

    Args:
        reference: an MLflow run id, a ``run.key``, or ``<variant>-<seed>``.
        params: the whole of params.yaml, for a run of which the metrics file alone is there.
        tell: called with what there is to see on the way: the preflight, and lines of progress.
        only_preflight: stop before any stage. Sources that no commit here vouches for are not executed at all.
        build_environment: run in a new virtual environment of the run's own lock.
        track: record the rerun in MLflow.
        trust: execute the run's sources though no commit here vouches for them.

    Raises:
        InputError: no such run, nothing to compare with, sources that are not trusted, an operation that does not
            conform, a result that contradicts itself, or it cannot be built or executed here.
    """
    run = tracking.lookup(reference, params)
    then = evidence.outcome(run)
    if then.weights is None:
        raise InputError(f"{run.name}: it has no weights.sha256, so there is nothing to compare a rerun with")
    found = sources.of(run)
    executed = not (only_preflight and isinstance(found, Snapshot))
    if isinstance(found, Snapshot):
        if not trust and not only_preflight:
            raise InputError(
                f"{run.name}: its sources are in no commit of this repository, and they would be executed: "
                f"{found.origin}. `lenet diff` shows them; --trust-sources runs them"
            )
        tell(f"{run.name}: {'executed, as asked for' if executed else 'not executed'}: {found.origin}")
    with workplace.of(found, build_environment and executed) as place:
        workplace.select(place.project, run.tags["variant"], int(run.tags["seed"]), _block(run))
        probed = workplace.probe(place) if executed else probe.found() | {"code": None}
        flight, inputs = preflight.examine(run, found, place, probed)
        tell(flight)
        if flight.off:
            raise InputError(
                f"{run.name}: it cannot be rerun here: off on this machine (conformance check): {flight.off}; "
                "so its weights could not be the same, and nothing is trained"
            )
        if only_preflight:
            return Rerun(run, str(found), flight, None, 0.0, None)
        began = time.monotonic()
        _execute(place, run.name, tell)
        seconds = time.monotonic() - began
        files = _outputs(place.project, run.name)
        again = _read(run.name, files)
        now = probed | evidence.recorded(again), evidence.outcome(again)
        judged = verdict.judge_rerun((inputs, then), now, _misses_of_seeds(run))
        report = Rerun(run, str(found), flight, judged, seconds, None)
        if track:
            tags = {"grade": judged.grade, "how": judged.summary}
            report = replace(report, id=tracking.reran(run, again, tags, report.to_json(), files))
        return report


def _block(run: Tracked) -> dict[str, Any] | None:
    """The variant's parameters as the run recorded them; None where it did not."""
    return run.parse("run.json", lambda content: dict(json_of(content)["parameters"]))


def _execute(place: Workplace, name: str, tell: Callable[[object], None]) -> None:
    def progress(line: str) -> None:
        if re.match(rf"{re.escape(name)}: epoch ", line):
            tell(line)

    # older sources refuse other packages than their lock's; the preflight has named them, and it is to run
    variables = {"LENET_ALLOW_OTHER_NUMERICS": "1", "LENET_DATA_DIR": str(place.digits())}
    place.run("-m", "dvc", "repro", f"evaluate@{name}", tell=progress, **variables)


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
