"""What mattered in a study: tables for the terminal, and one page that needs nothing else."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from lenet.report import figures, html
from lenet.runtime.files import whole, write_text
from lenet.sweep.result import Result
from lenet.sweep.study import STATES

SHOWN = 10  # of the best trials
ENOUGH = 4  # complete trials, to draw what was tried
WEIGHABLE = 10  # complete trials, to tell what mattered: the best tenth is one of them
BEST = 4  # one in so many of the complete trials is among the best
COLOURS = {"complete": "#2f6f9f", "pruned": "#b5b5b5", "failed": "#b03a2e"}
COLUMNS = 3  # of pictures of single values
NOTES = {
    "Each value by itself": "Grey: pruned trials, with their errors when they were stopped.",
    "All values of a trial together": "Complete trials.",
    "Validation errors by epoch": "Blue: complete trials. Grey: pruned ones. Red: failed ones.",
}
"""What is to be said of pictures, by their titles."""


def best_table(result: Result) -> Table:
    """The best trials; of several objectives, the front."""
    columns, rows = _best_rows(result)
    table = Table(*columns, title=f"{result.name}: {_counts(result)}")
    for row in rows:
        table.add_row(*row)
    return table


def importance_table(result: Result) -> Table:
    """How much of the differences between trials each value accounts for."""
    table = Table("Value", "Importance", title=f"from {len(result.complete)} complete trials")
    for name, share in importances(result).items():
        table.add_row(name, f"{share:.0%}")
    return table


def importances(result: Result) -> dict[str, float]:
    """Shares of 1, the largest first, by Optuna's default, PED-ANOVA. Empty where too few trials are complete."""
    if not _enough(result) or len(result.complete) < WEIGHABLE:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few trials
        found = optuna.importance.get_param_importances(result.study, params=_names(result.complete))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _enough(result: Result) -> bool:
    """Whether there are errors enough, of one objective, to tell what mattered."""
    return len(result.plan.objectives) == 1 and len({trial.value for trial in result.complete}) >= ENOUGH


def choices(result: Result) -> dict[str, dict[str, str]]:
    """Of each value: what was tried, what the best quarter of the complete trials have of it, its importance."""
    best = sorted(result.complete, key=lambda trial: (trial.value, trial.number))[: -(-len(result.complete) // BEST)]
    shares = importances(result)
    rows = {}
    for name, distribution in result.plan.domains.distributions().items():
        having = [trial.params[name] for trial in best if name in trial.params]
        if isinstance(distribution, CategoricalDistribution):
            tried = ", ".join(map(str, distribution.choices))
            found = ", ".join(
                f"{choice} ({having.count(choice)})" for choice in distribution.choices if choice in having
            )
        else:
            assert isinstance(distribution, FloatDistribution | IntDistribution)
            tried = f"{distribution.low:g} … {distribution.high:g}"
            found = " … ".join(f"{end(having):g}" for end in (min, max)) if having else ""
        share = f"{shares[name]:.0%}" if name in shares else "–"
        rows[name] = {"tried": tried, f"the best {len(best)}": found or "–", "importance": share}
    return rows


def write(result: Result, path: Path) -> None:
    """Write the page, and beside it the errors in the order of trials as PNG, which `dvc plots` shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where there are few trials, the page shows it
        write_text(path, _page(result))
    with whole(path.with_suffix(".png")) as beside:
        figures.save(history(result), beside)


def _page(result: Result) -> str:
    columns, rows = _best_rows(result)
    return html.template("study.html").render(
        name=result.name,
        counts=_counts(result),
        plan=result.plan,
        columns=columns,
        rows=rows,
        failed=[(t.number, t.user_attrs.get("reason", "")) for t in result.trials if t.state == TrialState.FAIL],
        choices=choices(result) if _enough(result) else {},
        pictures=dict(_pictures(result)),
        notes=NOTES,
        complete=len(result.complete),
    )


def _pictures(result: Result) -> Iterator[tuple[str, str]]:
    """Titles with pictures as data addresses."""
    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as drawn

    study, several = result.study, len(result.plan.objectives) > 1
    first: dict[str, Any] = {"target_name": result.plan.objectives[0]}
    if several:
        first["target"] = lambda trial: trial.values[0]
        if result.complete:
            yield "Pareto front", _of_optuna(lambda: drawn.plot_pareto_front(study))
    if len(result.complete) >= ENOUGH:
        yield "Errors in the order of trials", _inline(history(result))
        yield "Each value by itself", _inline(slices(result))
        together = _of_optuna(lambda: drawn.plot_parallel_coordinate(study, **first))
        yield "All values of a trial together", together
    if any(trial.intermediate_values for trial in result.trials):
        yield "Validation errors by epoch", _inline(curves(result))


def history(result: Result) -> Figure:
    """The error of each trial when it ended, in their order, and the smallest one of complete trials so far."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    _points(axes, [trial.number for trial in result.trials], result.trials)
    if result.complete:
        numbers = [trial.number for trial in result.complete]
        best = np.minimum.accumulate([100 * trial.values[0] for trial in result.complete])
        last = result.trials[-1].number
        axes.step([*numbers, last], [*best, best[-1]], where="post", color=COLOURS["complete"], label="best so far")
    axes.set(xlabel="trial", ylabel="validation error, %")
    figures.clean(axes, log="y")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def bars(result: Result) -> Figure:
    """The importances, for the notebook; the page has them in its table."""
    found = importances(result)
    figure = Figure(figsize=(8, 0.6 + 0.28 * len(found)), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(found), [100 * share for share in found.values()], color=COLOURS["complete"])
    axes.invert_yaxis()
    axes.set(xlabel="importance, %")
    figures.clean(axes)
    return figure


def slices(result: Result, names: Sequence[str] | None = None) -> Figure:
    """Errors at the end of trials against each value that was tried, or some of them."""
    chosen = list(names or _names(result.trials))
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(10, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, COLUMNS, sharey=True, squeeze=False).flat
    known = result.plan.domains.distributions()
    for name, axes in zip(chosen, panels, strict=False):
        trials = [trial for trial in result.trials if name in trial.params]
        places, distribution = [trial.params[name] for trial in trials], known[name]
        if isinstance(distribution, CategoricalDistribution):
            axes.set_xticks(range(len(distribution.choices)), map(str, distribution.choices))
            axes.set_xlim(-0.5, len(distribution.choices) - 0.5)
            places = [distribution.choices.index(place) for place in places]
        _points(axes, places, trials)
        axes.set_title(name, fontsize=9)
        if is_log := getattr(distribution, "log", False):
            axes.set_xscale("log")
        figures.clean(axes, log="xy" if is_log else "y")
    for axes in panels:  # the rest of the last row
        axes.set_visible(False)
    figure.supylabel("validation error, %", fontsize=9)
    return figure


def curves(result: Result) -> Figure:
    """Validation errors by epoch, in the colour of how a trial ended."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for state, colour in reversed(COLOURS.items()):
        for trial in _of_state(result.trials, state):
            epochs = sorted(trial.intermediate_values)
            errors = [100 * trial.intermediate_values[epoch] for epoch in epochs]
            axes.plot(epochs, errors, color=colour, linewidth=1, marker="." if len(epochs) == 1 else "")
    axes.set(xlabel="epoch", ylabel="validation error, %")
    figures.clean(axes, log="y")
    return figure


def _points(axes: Axes, places: Sequence[float], trials: Sequence[FrozenTrial]) -> None:
    """The errors of complete and of pruned trials when they ended, at places."""
    for state in ("pruned", "complete"):
        of = [(place, _error(t)) for place, t in zip(places, trials, strict=True) if STATES[t.state] == state]
        if of:
            axes.plot(*zip(*of, strict=True), ".", color=COLOURS[state], label=state)


def _error(trial: FrozenTrial) -> float:
    """Per cent, after a trial's last epoch."""
    return 100 * trial.intermediate_values[max(trial.intermediate_values)]


def _of_state(trials: Sequence[FrozenTrial], state: str) -> list[FrozenTrial]:
    return [trial for trial in trials if STATES[trial.state] == state]


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _of_optuna(draw: Callable[[], Axes]) -> str:
    """A picture of Optuna's, whole; its style stays with it."""
    from matplotlib import pyplot

    with matplotlib.rc_context({"savefig.bbox": "tight"}):
        figure = cast(Figure, draw().figure)
        figure.set_size_inches(11, 5)
        picture = _inline(figure)
    pyplot.close(figure)
    return picture


def _inline(figure: Figure) -> str:
    return html.inline("svg+xml", figures.svg(figure))


def _best(result: Result) -> list[FrozenTrial]:
    if len(result.plan.objectives) > 1:
        return result.best
    return sorted(result.complete, key=lambda trial: (trial.value, trial.number))[:SHOWN]


def _best_rows(result: Result) -> tuple[list[str], list[list[str]]]:
    """The columns' names, and a row for each of the best trials."""
    chosen = [(trial, result.tried(trial)) for trial in _best(result)]
    names = list(dict.fromkeys(name for _, tried in chosen for name in tried))
    rows = []
    for trial, tried in chosen:
        values = [f"{value:.2%}" if i == 0 else f"{value:,.0f}" for i, value in enumerate(trial.values)]
        shown = [str(tried.get(name, "–")) for name in names]
        rows.append([str(trial.number), *values, str(len(trial.intermediate_values)), *shown])
    return ["Trial", *result.plan.objectives, "Epochs", *names], rows


def _counts(result: Result) -> str:
    states = ", ".join(f"{count} {state}" for state, count in result.counts.items() if count)
    return f"{len(result.trials)} trials ({states or 'none has ended'}), {result.epochs} epochs"
