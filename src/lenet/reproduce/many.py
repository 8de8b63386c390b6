"""Several reruns side by side."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lenet import tracking
from lenet.params.schema import Params
from lenet.runtime.errors import InputError


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
        verdict = self.report["verdict"]
        return str(verdict["grade"] if verdict else f"possible: {self.report['preflight']['best']}")


def rerun_all(
    params: Params, condition: str | None, options: Sequence[str], jobs: int, tell: Callable[[OneOfMany], None]
) -> list[OneOfMany]:
    """Rerun all finished trainings that meet a condition, each in a process of its own.

    Args:
        params: the whole of params.yaml; its compared runs are meant where there is no store and no condition.
        condition: in MLflow's filter language.
        options: of each `lenet rerun`.
        jobs: how many at once.
        tell: called with each result as it comes.

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
    results, under_way = [], list[subprocess.Popen[str]]()
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(_one, name, reference, options, under_way) for name, reference in runs]
        try:
            for done in as_completed(waiting):
                results.append(done.result())
                tell(results[-1])
        finally:  # interrupted, none is left and none begins
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(under_way):
                process.terminate()
    return sorted(results, key=lambda result: result.name)


def _one(name: str, reference: str, options: Sequence[str], under_way: "list[subprocess.Popen[str]]") -> OneOfMany:
    command = [sys.executable, "-m", "lenet", "rerun", "--json", *options, "--", reference]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        under_way.append(process)
        output, said = process.communicate()
        under_way.remove(process)
    try:
        report = json.loads(output)
    except ValueError:
        report = None
    return OneOfMany(name, reference, process.returncode, report, said.strip().splitlines()[-1] if said else "")


def worst(results: Sequence[OneOfMany]) -> int:
    """The exit status of all: the worst of them."""
    order = (0, 3, 4, 1, 2)
    return max((result.status for result in results), key=lambda status: order.index(status) if status in order else 5)
