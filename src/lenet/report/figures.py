"""Figures of runs, as matplotlib figures and as files whose bytes depend on their content alone."""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle, pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from safetensors.numpy import load_file

from lenet.runtime.files import reading

COLOURS = ("#7a5195", "#ef5675", "#2f7ebc", "#ffa600", "#3a9d5d", "#555555")
"""One a variant, in the order of comparison."""

FEW = 20  # answers, in a bin of a reliability diagram

_UNSIGNED: dict[str, Any] = {"Software": None}  # PNG
_UNDATED: dict[str, Any] = {"Date": None, "Creator": None}  # SVG
_INK, _FAINT = "#333333", "#d9d9d9"


def colours(names: Sequence[str]) -> dict[str, str]:
    """The colour of each variant, by its place in the comparison."""
    return dict(zip(names, cycle(COLOURS), strict=False))


def save(figure: Figure, path: Path, source: str | None = None) -> None:
    """Write a figure as PNG without the library's version in it; with a digest of what it shows, if given one."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=150, metadata=_UNSIGNED | ({"Source": source} if source else {}))


def svg(figure: Figure) -> bytes:
    """A figure as SVG without the library's version and the time in it; text is drawn, so that it needs no font."""
    content = io.BytesIO()
    with rc_context({"svg.hashsalt": "lenet", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", metadata=_UNDATED)
    figure.set_layout_engine("none")  # found; a PNG need not find it again, which takes as long as drawing
    return content.getvalue()


def digit(pixels: np.ndarray) -> bytes:
    """A digit (28, 28) as PNG, ink black."""
    content = io.BytesIO()
    imsave(content, pixels, format="png", cmap="gray_r", vmin=0, vmax=255, metadata=_UNSIGNED)
    return content.getvalue()


def learning_curve(history: Sequence[Mapping[str, Any]]) -> Figure:
    """A run's loss and error over its epochs; the training's are taken on the fly, before each update."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "error"), strict=True):
        for part, colour in (("train", COLOURS[2]), ("validation", COLOURS[1])):
            name = f"{part}/{quantity}"
            if name in history[0]:
                scale = 100 if quantity == "error" else 1
                values = [scale * row[name] for row in history]
                axes.plot([row["epoch"] for row in history], values, color=colour, label=part, marker=".")
        axes.set(xlabel="epoch", ylabel="error, %" if quantity == "error" else "loss", yscale="log")
        axes.legend()
    return figure


def kernels(weights: Path) -> Figure:
    """The kernels of C1; blue is negative, red positive, on one scale."""
    with reading(weights):
        kernels = load_file(weights)["C1.weight"][:, 0]
    across, down = 6, -(-len(kernels) // 6)
    figure = Figure(figsize=(9, 1.9 * down), layout="constrained")
    limit = float(np.abs(kernels).max())
    panels = figure.subplots(down, across).flat
    for axes in panels[len(kernels) :]:
        axes.axis("off")
    for i, axes in enumerate(panels[: len(kernels)]):
        axes.imshow(kernels[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
        bare(axes, f"C1 map {i}")
    return figure


def confusion(named: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """For each name: misclassified digits (10, 10) by true class (rows) and answer, on one scale of colour.

    The diagonal is left out; counts below one have a shade and no number.
    """
    figure = Figure(figsize=(3.5 * len(named), 4.1), layout="constrained")
    most = max(1.0, *(float(np.where(np.eye(len(counts)), 0, counts).max()) for _, counts in named))
    for i, (axes, (name, counts)) in enumerate(
        zip(figure.subplots(1, len(named), squeeze=False).flat, named, strict=True)
    ):
        wrong = np.where(np.eye(len(counts), dtype=bool), np.nan, counts)
        axes.set_facecolor("#f2f2f2")
        axes.imshow(wrong, cmap="Reds", vmin=0, vmax=most)
        for digit, answer in np.argwhere(np.nan_to_num(wrong) >= 1):
            count = wrong[digit, answer]
            colour = "white" if count > most / 2 else "black"
            axes.text(answer, digit, f"{count:.2g}", ha="center", va="center", color=colour, fontsize=8)
        axes.set(xticks=range(10), yticks=range(10), xlabel="answer", ylabel="digit" if i == 0 else "")
        axes.set_title(name, fontsize=10.5)
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
    return figure


def error_curves(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> Figure:
    """Errors over epochs: each run thin, each variant's mean thick. Losses of variants differ in kind: none here.

    ``curves`` is variant → ``train/error`` and ``validation/error`` (absent where none were held out) → runs → epochs.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    titles = {"train/error": "training error, on the fly", "validation/error": "validation error"}
    for axes, (quantity, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        ends = []
        for (variant, found), colour in zip(curves.items(), colours(list(curves)).values(), strict=True):
            runs = 100 * np.array(found.get(quantity, []))
            if runs.size:
                epochs = np.arange(1, runs.shape[1] + 1)
                axes.plot(epochs, runs.T, color=colour, alpha=0.35, linewidth=0.8)
                axes.plot(epochs, runs.mean(0), color=colour, linewidth=2.2)
                ends.append((variant, runs.mean(0)[-1], colour))
        axes.set(xlabel="epoch", title=title)
        axes.set_ylabel("error, %" if quantity == "train/error" else "")
        clean(axes, log="y")
        axes.tick_params(labelleft=True)
        label_ends(axes, ends)
    return figure


def estimates(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Each variant's test error: its runs as dots, the mean with its 95 % interval where there is one."""
    figure = Figure(figsize=(8, 0.9 + 0.5 * len(variants)), layout="constrained")
    axes = figure.subplots()
    for row, ((_, found), colour) in enumerate(zip(variants.items(), colours(list(variants)).values(), strict=True)):
        runs = [100 * seed["error"] for seed in found["seeds"].values()]
        axes.plot(runs, [row + 0.2] * len(runs), "o", color=colour, markersize=4, alpha=0.6, clip_on=False)
        interval(axes, row, found["test_error"], found["test_error_low"], found["test_error_high"], colour)
    rows(axes, list(variants), "test error, %", colours(list(variants)))
    return figure


def differences(pairs: Sequence[Mapping[str, Any]]) -> Figure:
    """A forest plot: each pair's difference of errors with its 95 % interval; black where corrected p shows it."""
    figure = Figure(figsize=(8, 1.1 + 0.42 * max(1, len(pairs))), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color=_INK, linewidth=0.8)
    for row, pair in enumerate(pairs):
        shown = pair["p_adjusted"] is not None and pair["p_adjusted"] < 0.05
        interval(axes, row, pair["points"], pair["low"], pair["high"], _INK if shown else "#9a9a9a")
        text = f"{_points(pair['points'])}"
        if pair["low"] is not None:
            text += f"   ({_points(pair['low'])} … {_points(pair['high'])})"
        axes.annotate(
            text, (1.02, row), xycoords=("axes fraction", "data"), va="center", fontsize=9, color=_INK,
            fontweight="bold" if shown else "normal",
        )  # fmt: skip
    rows(axes, [f"{pair['a']} − {pair['b']}" for pair in pairs], "difference of the test errors, percentage points", {})
    axes.set_title("← the first is better        the second is better →", fontsize=9, color="#666666")
    widest = max(
        (abs(value) for pair in pairs for value in (pair["points"], pair["low"], pair["high"]) if value), default=0
    )
    axes.set_xlim(-115 * widest or -1, 115 * widest or 1)
    return figure


def class_errors(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The error of each class: runs as faint dots, means as marks with one standard deviation over seeds."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots()
    step = 0.72 / max(1, len(variants))
    for i, ((name, found), colour) in enumerate(zip(variants.items(), colours(list(variants)).values(), strict=True)):
        places = np.arange(10) + (i - (len(variants) - 1) / 2) * step
        runs = 100 * np.array(found["per_class"]["seeds"])
        mean, sd = 100 * np.array(found["per_class"]["mean"]), found["per_class"]["sd"]
        axes.bar(places, mean, width=0.86 * step, color=colour, alpha=0.35, label=name)
        axes.plot(places, runs.T, "o", color=colour, markersize=2.5, alpha=0.7)
        if sd is not None:
            axes.errorbar(places, mean, 100 * np.array(sd), fmt="none", ecolor=colour, elinewidth=1.4)
    axes.set(xticks=range(10), xlabel="digit", ylabel="error, %", ylim=(0, None), xlim=(-0.5, 9.5))
    clean(axes)
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="x", length=0)
    figure.legend(loc="outside upper left", ncols=len(variants), frameon=False, fontsize=9)
    return figure


def reliability(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Accuracy against confidence, all seeds' answers together.

    A mark grows with the number of answers; bins of less than FEW are small rings off the line.
    """
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="#9a9a9a", linewidth=0.9)
    axes.annotate("calibrated", (0.03, 0.05), rotation=41, fontsize=8, color="#777777", rotation_mode="anchor")
    for (name, found), colour in zip(variants.items(), colours(list(variants)).values(), strict=True):
        bins = found["calibration"]["bins"]
        x, y, n = (np.array([one[key] for one in bins]) for key in ("confidence", "accuracy", "count"))
        many = n >= FEW
        axes.plot(x[many], y[many], color=colour, linewidth=1.4, label=name)
        axes.scatter(x[many], y[many], s=6 * np.log10(1 + n[many]) ** 2, color=colour, zorder=3, clip_on=False)
        axes.scatter(x[~many], y[~many], s=9, facecolors="none", edgecolors=colour, alpha=0.6, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="fraction right", title="reliability")
    clean(axes)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    return figure


def rejection(variants: Mapping[str, Mapping[str, Any]], target: float) -> Figure:
    """Error among the accepted digits against the share rejected; the target is drawn as a line."""
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(100 * target, color="#9a9a9a", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(f"{100 * target:g} %", (1, 100 * target), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                  fontsize=8, color="#777777")  # fmt: skip
    for (name, found), colour in zip(variants.items(), colours(list(variants)).values(), strict=True):
        shares, runs = 100 * np.array(found["rejection"]["shares"]), 100 * np.array(found["rejection"]["seeds"])
        axes.plot(shares, runs.T, color=colour, alpha=0.35, linewidth=0.8)
        axes.plot(shares, runs.mean(0), color=colour, linewidth=2.2, label=name)
    axes.set(xlabel="digits rejected, %", ylabel="error among the accepted, %", title="rejection by confidence")
    axes.set(xlim=(0, shares[-1]), ylim=(0, None))
    clean(axes)
    axes.legend(frameon=False, fontsize=8.5, loc="upper right")
    return figure


def robustness(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """A panel a disturbance: mean error against its strength, the band from the best to the worst seed."""
    kinds = list(next(iter(variants.values()))["robustness"])
    across = min(3, len(kinds))
    down = -(-len(kinds) // across)
    figure = Figure(figsize=(10, 0.6 + 3 * down), layout=ConstrainedLayoutEngine(hspace=0.08))
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    for i, (axes, kind) in enumerate(zip(panels.flat, kinds, strict=False)):
        for (name, found), colour in zip(variants.items(), colours(list(variants)).values(), strict=True):
            curve = found["robustness"][kind]
            runs = 100 * np.array(curve["seeds"])
            axes.fill_between(curve["levels"], runs.min(0), runs.max(0), color=colour, alpha=0.18, linewidth=0)
            axes.plot(
                curve["levels"], runs.mean(0), color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name
            )
        axes.set(xlabel=curve["unit"], title=kind.replace("-", " "))
        axes.set_ylabel("error, %" if i % across == 0 else "")
        clean(axes, log="y")
        axes.tick_params(labelleft=True)
    for axes in panels.flat[len(kinds) :]:
        axes.axis("off")
    handles, labels = panels.flat[0].get_legend_handles_labels()
    if len(kinds) < panels.size:
        panels.flat[-1].legend(handles, labels, frameon=False, loc="center left", fontsize=10)
    else:
        figure.legend(handles, labels, frameon=False, loc="outside upper left", ncols=len(labels))
    return figure


def ladder(
    content: Mapping[str, Any], known: Mapping[str, str], marks: Mapping[str, float] = MappingProxyType({})
) -> Figure:
    """Each chain from top to bottom: a rung's error with its interval, and beside each step what changed.

    ``known`` is the colour of each variant that the comparison has; the other rungs are grey. ``marks`` are errors to
    compare with, by what stands at them.
    """
    chains, variants = content["chains"], content["variants"]
    steps = {(step["from"], step["to"]): step for step in content["steps"]}
    engine = ConstrainedLayoutEngine(w_pad=0.2)  # inches: bold labels turn out wider than it finds
    figure = Figure(figsize=(10, 0.8 + 0.62 * sum(map(len, chains))), layout=engine)
    panels = figure.subplots(
        len(chains), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [len(chain) for chain in chains]}
    )
    for axes, chain in zip(panels.flat, chains, strict=True):
        errors = [100 * variants[name]["test_error"] for name in chain]
        axes.plot(errors, range(len(chain)), color="#bbbbbb", linewidth=1, zorder=1)
        for row, name in enumerate(chain):
            rung = variants[name]
            colour = known.get(name, "#777777")
            runs = [100 * seed["error"] for seed in rung["seeds"].values()]
            axes.plot(runs, [row + 0.18] * len(runs), "o", color=colour, markersize=3, alpha=0.5)
            interval(axes, row, rung["test_error"], rung["low"], rung["high"], colour)
        for row, step in enumerate(steps.get(pair) for pair in pairwise(chain)):
            if step:
                shown = step["p_adjusted"] is not None and step["p_adjusted"] < 0.05
                axes.annotate(
                    f"{step['change']}:  {_points(step['difference'])}", (1.02, row + 0.5),
                    xycoords=("axes fraction", "data"), va="center", fontsize=9, color=_INK if shown else "#777777",
                    fontweight="bold" if shown else "normal",
                )  # fmt: skip
        rows(axes, chain, "", known)
        for name, error in marks.items():
            axes.axvline(100 * error, color="#9a9a9a", linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate(name, (100 * error, 1), xycoords=("data", "axes fraction"), va="bottom", fontsize=8,
                          ha="left" if error == max(marks.values()) else "right", color="#777777")  # fmt: skip
    axes.set_xlabel("test error, %; next to each step its change in points, bold if significant")
    return figure


def size_curves(content: Mapping[str, Any], known: Mapping[str, str]) -> Figure:
    """Test error against the number of training digits, both on logarithmic scales, with 95 % intervals."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.subplots()
    ends = []
    others = iter(colour for colour in COLOURS if colour not in known.values())
    for name, found in content["variants"].items():
        colour = known.get(name) or next(others, _INK)
        found = sorted(found, key=lambda one: one["train_size"])
        sizes, errors = ([one[key] for one in found] for key in ("train_size", "test_error"))
        for one in found:
            runs = [100 * seed["error"] for seed in one["seeds"].values()]
            axes.plot([one["train_size"]] * len(runs), runs, "o", color=colour, markersize=3, alpha=0.4)
            if one["low"] is not None:
                axes.plot([one["train_size"]] * 2, [100 * one["low"], 100 * one["high"]], color=colour, linewidth=1.2)
        axes.plot(sizes, 100 * np.array(errors), color=colour, linewidth=2, marker="o", markersize=5)
        ends.append((name, 100 * errors[-1], colour))
    axes.set(xscale="log", xlabel="training digits", ylabel="test error, %")
    clean(axes, log="xy")
    label_ends(axes, ends)
    return figure


def nothing(what: str = "not computed yet") -> Figure:
    """What stands in a figure's place."""
    figure = Figure(figsize=(5, 1), layout="constrained")
    figure.text(0.5, 0.5, what, ha="center", va="center", color="#777777")
    return figure


def gallery(images: np.ndarray, captions: Sequence[str], columns: int = 12) -> Figure:
    """Digits (n, 28, 28), ink black, each under its caption, drawn as one picture."""
    lines = max((caption.count("\n") + 1 for caption in captions), default=1)
    side, head = 28 + 6, 28 + 6 + 5 * lines  # pixels of a cell: across, and down with its caption
    rows = max(1, -(-len(images) // columns))
    field = np.zeros((rows * head, columns * side))
    figure = Figure(figsize=(columns * 0.85, rows * 0.85 * head / side), layout="constrained")
    axes = figure.subplots()
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        top, left = head * (i // columns), side * (i % columns)
        field[top + head - 31 : top + head - 3, left + 3 : left + 31] = image
        axes.text(left + side / 2, top + head - 33, caption, ha="center", va="bottom", fontsize=7)
    axes.imshow(field, cmap="gray_r", vmin=0, vmax=255)
    axes.axis("off")
    return figure


def interval(axes: Axes, row: float, value: float, low: float | None, high: float | None, colour: str) -> None:
    """A mean on its row, of fractions drawn as per cent."""
    if low is not None and high is not None:
        axes.plot([100 * low, 100 * high], [row, row], color=colour, linewidth=2.4, solid_capstyle="butt", alpha=0.75)
    axes.plot([100 * value], [row], "D", color=colour, markersize=6.5, zorder=3)


def rows(axes: Axes, names: Sequence[str], xlabel: str, known: Mapping[str, str]) -> None:
    """Named rows from top to bottom."""
    axes.set(yticks=range(len(names)), xlabel=xlabel, ylim=(len(names) - 0.4, -0.6))
    axes.set_yticklabels(names)
    clean(axes)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(known.get(name, _INK))
        label.set_fontweight("bold" if name in known else "normal")


def clean(axes: Axes, log: str = "") -> None:
    """Little ink, and plain numbers on logarithmic scales; an axis y without positive values stays linear."""
    if "y" in log:
        if any((np.asarray(line.get_ydata()) > 0).any() for line in axes.lines):
            axes.set_yscale("log")
        else:
            log = log.replace("y", "")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, color="#999999", which="both")
    axes.title.set(fontsize=10.5, color=_INK)
    for name in log:
        axis = axes.yaxis if name == "y" else axes.xaxis
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if name == "y" else (1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """Name lines to the right of their last values, moved apart where they would overlap."""
    axes.autoscale_view()
    low, high = axes.transData.inverted().transform(axes.transAxes.transform([(0, 0), (0, 1)]))[:, 1]
    scale = np.log if axes.get_yscale() == "log" else np.asarray
    place, least = -1.0, 0.07
    for name, value, colour in sorted(ends, key=lambda end: end[1]):
        value = max(value, low)  # a logarithmic scale has no 0
        place = max(place + least, float((scale(value) - scale(low)) / (scale(high) - scale(low))))
        axes.annotate(
            name, (1.02, place), xycoords="axes fraction", color=colour, va="center", fontsize=9, fontweight="bold"
        )


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}".replace("-", "−")


def bare(axes: Axes, title: str) -> None:
    """A picture without scales."""
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)
