"""Reruns on a terminal and as JSON."""

import json
import sys
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from lenet.evaluation.judge import Part
from lenet.params.schema import Params
from lenet.reproduce.many import How, OneOfMany, Run, rerun_all, worst
from lenet.reproduce.preflight import Preflight
from lenet.reproduce.rerun import rerun
from lenet.runtime.screen import Screen

SAME: dict[bool | None, str | Text] = {True: "yes", False: Text("NO", "red"), None: "not known"}


def show(params: Params, reference: str, how: How, as_json: bool) -> int:
    """Rerun a run and print what there is to know; return the exit status."""
    console = Screen()

    def tell(what: object) -> None:
        if isinstance(what, str):
            print(what, file=sys.stderr, flush=True)
        elif isinstance(what, Preflight) and not as_json:
            console.print(table(what.parts, unknown="seen when it has run"))
            console.print(Text.assemble("best possible grade here: ", (what.best, "bold"), what.condition))
            if what.note:
                console.print(what.note)

    report = rerun(reference, params, tell, **how.switches())
    if as_json:
        print(json.dumps(report.to_json() | {"seconds": round(report.seconds, 1)}, indent=2))
    elif report.verdict:
        console.print(table(report.verdict.stages))
        console.print(f"{report.run.name}: {report.verdict.summary}", style="bold")
        where = f", MLflow run {report.id}" if report.id else ""
        console.print(f"from {report.sources} in {report.seconds:.0f} s{where}")
    return report.exit_status(how.accept)


def show_all(params: Params, runs: Sequence[Run], how: How, jobs: int, as_json: bool) -> int:
    """Rerun many and print a line of each; return the worst exit status."""

    def tell(result: OneOfMany) -> None:
        print(f"{result.name}: {result.grade}", file=sys.stderr, flush=True)

    results = rerun_all(params, runs, how, jobs, tell)
    if as_json:
        print(json.dumps([vars(result) for result in results], indent=2))
        return worst(results)
    rows = Table("Run", "Sources", "Grade", "First to differ", "Because of", "Seconds")
    for result in results:
        report = result.report or {}
        found = report.get("verdict") or {}
        where = "" if found.get("epoch") is None else f"epoch {found['epoch']}"
        where = f"step {found['step'][1]} in epoch {found['step'][0]}" if found.get("step") else where
        causes = "; ".join(cause["kind"] for cause in found.get("causes", []))
        rows.add_row(
            result.name, report.get("sources", ""), result.grade, where, causes, str(report.get("seconds", ""))
        )
    Screen().print(rows)
    return worst(results)


def table(parts: Sequence[Part], unknown: str | Text = SAME[None]) -> Table:
    """What a run has, or its stages made, and what its rerun has or made; and what is said where one is ``unknown``."""
    rows = Table("", "Then", "Here", "Same")
    for part in parts:
        same = unknown if part.same is None else SAME[part.same]
        if part.same is False and not part.decides:
            same = "no; it need not be"
        rows.add_row(part.what, part.then, part.here, same)
    return rows
