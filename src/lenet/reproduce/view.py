"""Reruns as tables and as JSON."""

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lenet.params.schema import Params
from lenet.reproduce.many import Result, rerun_all, worst
from lenet.reproduce.preflight import Preflight
from lenet.reproduce.rerun import Report, rerun
from lenet.reproduce.verdict import Verdict
from lenet.runtime.screen import Screen

SAME: dict[bool | None, str | Text] = {True: "yes", False: Text("NO", "red"), None: "not known"}


def show(params: Params, reference: str, accepted: str, as_json: bool, **how: bool) -> int:
    """Rerun a run and print what there is to know; return the exit status. ``how`` is what ``rerun`` takes."""
    console = Screen()

    def tell(what: object) -> None:
        if isinstance(what, str):
            print(what, file=sys.stderr, flush=True)
        elif isinstance(what, Preflight) and not as_json:
            console.print(preflight_table(what))
            console.print(Text.assemble("best possible grade here: ", (what.best, "bold"), what.condition))
            if what.note:
                console.print(what.note)

    report = rerun(reference, params, tell, **how)
    if as_json:
        print(json.dumps(report.to_json() | {"seconds": round(report.seconds, 1)}, indent=2))
    elif report.verdict:
        console.print(verdict_table(report.verdict))
        console.print(f"{report.run.name}: {report.verdict.summary}", style="bold")
        _print_place(report, console)
    return report.exit_status(accepted)


def _print_place(report: Report, console: Console) -> None:
    where = f", MLflow run {report.id}" if report.id else ""
    console.print(f"from {report.sources} in {report.seconds:.0f} s{where}")


def show_all(params: Params, condition: str | None, options: Sequence[str], jobs: int, as_json: bool) -> int:
    """Rerun many and print a line of each; return the worst exit status."""

    def tell(result: Result) -> None:
        print(f"{result.name}: {_grade(result)}", file=sys.stderr, flush=True)

    results = sorted(rerun_all(params, condition, options, jobs, tell), key=lambda result: result.name)
    if as_json:
        print(json.dumps([vars(result) for result in results], indent=2))
    else:
        table = Table("Run", "Sources", "Grade", "First to differ", "Because of", "Seconds")
        for result in results:
            report = result.report or {}
            found = report.get("verdict") or {}
            where = "" if found.get("epoch") is None else f"epoch {found['epoch']}"
            where = f"step {found['step'][1]} in epoch {found['step'][0]}" if found.get("step") else where
            causes = "; ".join(cause["kind"] for cause in found.get("causes", []))
            sources = report.get("sources", "")
            cells = result.name, sources, _grade(result), where, causes, str(report.get("seconds", ""))
            table.add_row(*cells)
        Screen().print(table)
    return worst(results)


def _grade(result: Result) -> str:
    if result.report is None:
        return result.fault or f"ended with status {result.status}"
    verdict = result.report["verdict"]
    return str(verdict["grade"] if verdict else f"possible: {result.report['preflight']['best']}")


def preflight_table(preflight: Preflight) -> Table:
    """What a rerun has and finds."""
    table = Table("", "Then", "Here", "Same")
    for line in preflight.lines:
        same = SAME[line.same]
        if line.same is None:
            same = "seen when it has run"
        elif not line.same and not line.decides:
            same = "no; it need not be"
        table.add_row(line.what, line.then, line.here, same)
    return table


def verdict_table(verdict: Verdict) -> Table:
    """What each stage has reproduced."""
    table = Table("Stage", "Reproduced", "Same", "")
    for stage in verdict.stages:
        table.add_row(stage.name, stage.reproduced, SAME[stage.same], stage.note)
    return table
