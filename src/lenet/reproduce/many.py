"""Several reruns side by side."""

import json
import subprocess
import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet import tracking
from lenet.params.schema import Params
from lenet.reproduce import rerun
from lenet.runtime.errors import InputError


@dataclass(frozen=True)
class How:
    """How runs are to be rerun, as the command line says it.

    Attributes:
        accept: the grade for exit status 0.
        only_preflight, build_environment, track, trust: as ``rerun.together`` has them.
    """

    accept: str
    only_preflight: bool
    build_environment: bool
    track: bool
    trust: bool

    def switches(self) -> dict[str, bool]:
        """The arguments of ``rerun.together``."""
        return {name: value for name, value in vars(self).items() if name != "accept"}

    def words(self) -> list[str]:
        """The options of `lenet rerun`."""
        words = ["--preflight"] * self.only_preflight + ["--env"] * self.build_environment
        words += ["--no-track"] * (not self.track) + ["--trust-sources"] * self.trust
        return [*words, "--accept", self.accept]


@dataclass(frozen=True)
class OneOfMany:
    """One of several reruns.

    Attributes:
        name: the run's.
        reference: its id, or ``<variant>-<seed>``.
        status: the exit status of its rerun.
        report: what it tells; None if it could not be rerun.
        fault: why not.
    """

    name: str
    reference: str
    status: int
    report: dict[str, Any] | None
    fault: str

    @property
    def grade(self) -> str:
        """The grade, the best possible one, or why there is none."""
        if self.report is None:
            return self.fault or f"ended with status {self.status}"
        verdict, preflight = self.report["verdict"], self.report["preflight"]
        if verdict:
            return str(verdict["grade"])
        return f"possible: {preflight['best']}{' with --trust-sources' if preflight['untrusted'] else ''}"


Run = tuple[str, str]
"""A run's name, and a reference to it."""


def all_runs(params: Params, condition: str | None) -> list[Run]:
    """All finished trainings that meet a condition, the oldest first.

    Args:
        params: the whole of params.yaml; its compared runs are meant where there is no store and no condition.
        condition: in MLflow's filter language.

    Raises:
        InputError: no run meets the condition.
    """
    runs = tracking.trainings(condition)
    if not runs and condition is None:
        runs = [
            (name, name) for name in (f"{v}-{s}" for v, s in params.runs()) if Path("metrics", f"{name}.json").exists()
        ]
    if not runs:
        raise InputError(f"no finished run meets {condition!r} in {tracking.shown()}")
    return runs


def rerun_all(
    params: Params, runs: Sequence[Run], how: How, jobs: int, tell: Callable[[OneOfMany], None]
) -> list[OneOfMany]:
    """Rerun several runs: seeds of one block by the same sources together, each other group in a process of its own.

    Args:
        params: the whole of params.yaml.
        runs: which.
        how: as the command line says it.
        jobs: how many stages or reruns at once.
        tell: called with each result as it comes.
    """
    kins: dict[Hashable, list[Run]] = {}
    for name, reference in runs:
        try:
            kin = rerun.kin(reference, params)
        except InputError:  # its own rerun says it
            kin = None
        kins.setdefault(kin or reference, []).append((name, reference))
    together = [group for group in kins.values() if len(group) > 1]
    if together == [[*runs]]:
        results = _together(params, together[0], how, jobs)
        for result in results:
            tell(result)
    else:
        alone = [group for group in kins.values() if len(group) == 1]
        results = _apart(together, how, 1, jobs, tell) + _apart(alone, how, jobs, 1, tell)
    return sorted(results, key=lambda result: result.name)


def _together(params: Params, group: Sequence[Run], how: How, jobs: int) -> list[OneOfMany]:
    def tell(what: object) -> None:
        if isinstance(what, str):
            print(what, file=sys.stderr, flush=True)

    found = rerun.together([reference for _, reference in group], params, tell, jobs, **how.switches())
    results = []
    for (name, reference), one in zip(group, found, strict=True):
        if isinstance(one, InputError):
            results.append(OneOfMany(name, reference, 2, None, str(one)))
        else:
            report = one.to_json() | {"seconds": round(one.seconds, 1)}
            results.append(OneOfMany(one.run.name, reference, one.exit_status(how.accept), report, ""))
    return results


def _apart(
    groups: Sequence[Sequence[Run]], how: How, workers: int, jobs: int, tell: Callable[[OneOfMany], None]
) -> list[OneOfMany]:
    """Rerun groups in processes, so many at once, each with so many jobs."""
    results, under_way = [], list[subprocess.Popen[str]]()
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(_process, group, how, jobs, under_way) for group in groups]
        try:
            for done in as_completed(waiting):
                results += done.result()
                for result in done.result():
                    tell(result)
        finally:  # interrupted, none is left and none begins
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(under_way):
                process.terminate()
    return results


def _process(group: Sequence[Run], how: How, jobs: int, under_way: "list[subprocess.Popen[str]]") -> list[OneOfMany]:
    names = {reference: name for name, reference in group}
    command = [sys.executable, "-m", "lenet", "rerun", "--json", *how.words(), "--jobs", str(jobs), "--", *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        under_way.append(process)
        output, said = process.communicate()
        under_way.remove(process)
    try:
        report = json.loads(output)
    except ValueError:
        report = None
    if isinstance(report, list):
        return [OneOfMany(**one | {"name": names[one["reference"]]}) for one in report]
    fault = said.strip().splitlines()[-1] if said else ""
    return [OneOfMany(name, reference, process.returncode, report, fault) for name, reference in group]


def worst(results: Sequence[OneOfMany]) -> int:
    """The exit status of all: the worst of them."""
    order = (0, 3, 4, 1, 2)
    return max((result.status for result in results), key=lambda status: order.index(status) if status in order else 5)
