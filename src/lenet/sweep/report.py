"""What mattered in a study: tables for the terminal, and one page that needs nothing else."""

import base64
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import optuna
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from lenet import figures
from lenet.files import write_text
from lenet.sweep.result import Result
from lenet.sweep.study import STATES

SHOWN = 10  # of the best trials
ENOUGH = 4  # complete trials, to tell what mattered
COLOURS = {"complete": "#2f6f9f", "pruned": "#c9c9c9", "failed": "#b03a2e"}


def best_table(result: Result) -> Table:
    """The best trials; of several objectives, the front."""
    names = list(dict.fromkeys(name for trial in _best(result) for name in result.tried(trial)))
    table = Table("Trial", *result.plan.objectives, "Epochs", *names, title=f"{result.name}: {_counts(result)}")
    for row in _rows(result, names):
        table.add_row(*row)
    return table


def importance_table(result: Result) -> Table:
    """How much of the differences between trials each value accounts for."""
    table = Table("Value", "Importance")
    for name, share in importances(result).items():
        table.add_row(name, f"{share:.0%}")
    return table


def importances(result: Result) -> dict[str, float]:
    """Shares of 1, the largest first, by Optuna's default; of values that every complete trial has. May be empty."""
    if len(result.plan.objectives) > 1 or len({trial.value for trial in result.complete}) < ENOUGH:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few trials
        return optuna.importance.get_param_importances(result.study)


def write(result: Result, path: Path) -> None:
    """Write the page."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where there are few trials, the page shows it
        write_text(path, _page(result))


def _page(result: Result) -> str:
    environment = Environment(
        loader=PackageLoader("lenet", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = list(dict.fromkeys(name for trial in _best(result) for name in result.tried(trial)))
    return environment.get_template("study.html").render(
        name=result.name,
        counts=_counts(result),
        plan=result.plan,
        columns=["Trial", *result.plan.objectives, "Epochs", *names],
        rows=_rows(result, names),
        importances={name: f"{share:.0%}" for name, share in importances(result).items()},
        failed=[(t.number, t.user_attrs.get("reason", "")) for t in result.trials if t.state == TrialState.FAIL],
        pictures=dict(_pictures(result)),
    )


def _pictures(result: Result) -> Iterator[tuple[str, str]]:
    """Titles with pictures as data addresses."""
    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as drawn

    study, several = result.study, len(result.plan.objectives) > 1
    wanted: list[tuple[str, Any]] = []
    if several:
        wanted += [("Pareto front", lambda: drawn.plot_pareto_front(study))]
    if len(result.complete) >= ENOUGH:
        first: dict[str, Any] = {}
        if several:
            first = {"target": lambda trial: trial.values[0], "target_name": result.plan.objectives[0]}
        wanted += [
            ("Errors in the order of trials", lambda: drawn.plot_optimization_history(study, **first)),
            ("Each value by itself", lambda: drawn.plot_slice(study, **first)),
            ("All values of a trial together", lambda: drawn.plot_parallel_coordinate(study, **first)),
        ]
        if importances(result):
            wanted += [("Importances", lambda: drawn.plot_param_importances(study))]
    if not several and any(trial.intermediate_values for trial in result.trials):
        wanted += [("Validation errors by epoch", lambda: drawn.plot_intermediate_values(study))]
    for title, draw in wanted:
        axes = draw()
        figure = (axes if hasattr(axes, "figure") else axes.flat[0]).figure
        yield title, _inline(figure)
        pyplot.close(figure)
    if result.trials:
        yield "How far each trial went", _inline(timeline(result))


def timeline(result: Result) -> Figure:
    """A bar of epochs for each trial, in the colour of how it ended."""
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    for state, colour in COLOURS.items():
        some = [trial for trial in result.trials if STATES[trial.state] == state]
        axes.bar([t.number for t in some], [len(t.intermediate_values) for t in some], color=colour, label=state)
    axes.set(xlabel="trial", ylabel="epochs")
    axes.legend(loc="upper right", ncols=3, frameon=False)
    return figure


def _inline(figure: Figure) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(figures.svg(figure)).decode()}"


def _best(result: Result) -> list[FrozenTrial]:
    if len(result.plan.objectives) > 1:
        return result.best
    return sorted(result.complete, key=lambda trial: (trial.value, trial.number))[:SHOWN]


def _rows(result: Result, names: list[str]) -> list[list[str]]:
    rows = []
    for trial in _best(result):
        tried = result.tried(trial)
        values = [f"{value:.2%}" if i == 0 else f"{value:,.0f}" for i, value in enumerate(trial.values)]
        shown = [str(tried.get(name, "–")) for name in names]
        rows.append([str(trial.number), *values, str(len(trial.intermediate_values)), *shown])
    return rows


def _counts(result: Result) -> str:
    states = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    return f"{len(result.trials)} trials ({states or 'none has ended'}), {result.epochs} epochs"
