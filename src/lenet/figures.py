"""Figures of runs, as matplotlib figures and as PNG files whose bytes depend on their content alone."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from safetensors.numpy import load_file

COLOURS = ("#7a5195", "#ef5675", "#2f7ebc", "#ffa600", "#3a9d5d", "#555555")
"""One a variant, in the order of comparison."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG without the library's version in it."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


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
    """The six 5×5 kernels of C1; blue is negative, red positive, on one scale."""
    kernels = load_file(weights)["C1.weight"][:, 0]
    figure = Figure(figsize=(9, 1.9), layout="constrained")
    limit = float(np.abs(kernels).max())
    for i, axes in enumerate(figure.subplots(1, 6)):
        axes.imshow(kernels[i], cmap="RdBu_r", vmin=-limit, vmax=limit)
        _bare(axes, f"C1 map {i}")
    return figure


def confusion(named: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """For each name: misclassified digits (10, 10) by true class (rows) and answer; the diagonal is left out."""
    figure = Figure(figsize=(4.4 * len(named), 5.2), layout="constrained")
    for axes, (name, counts) in zip(figure.subplots(1, len(named), squeeze=False).flat, named, strict=True):
        wrong = np.where(np.eye(len(counts), dtype=bool), np.nan, counts)
        axes.imshow(wrong, cmap="Reds", vmin=0)
        for digit, answer in np.argwhere(np.nan_to_num(wrong) > 0):
            count = wrong[digit, answer]
            colour = "white" if count > np.nanmax(wrong) / 2 else "black"
            axes.text(answer, digit, f"{count:.2g}", ha="center", va="center", color=colour, fontsize=8)
        axes.set(xticks=range(10), yticks=range(10), xlabel="answer", ylabel="digit", title=name)
    return figure


def error_curves(histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> Figure:
    """Errors over epochs: each run thin, each variant's mean thick. Losses of variants differ in kind: none here."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    titles = {"train/error": "training error, on the fly", "validation/error": "validation error"}
    for axes, (quantity, title) in zip(figure.subplots(1, 2, sharey=True), titles.items(), strict=True):
        for colour, (variant, runs) in zip(cycle(COLOURS), histories.items(), strict=False):
            curves = [[100 * row[quantity] for row in run] for run in runs if quantity in run[0]]
            for curve in curves:
                axes.plot(range(1, len(curve) + 1), curve, color=colour, alpha=0.35, linewidth=0.8)
            if curves:
                mean = np.mean(curves, axis=0)
                axes.plot(range(1, len(mean) + 1), mean, color=colour, linewidth=2.2, label=variant)
        axes.set(xlabel="epoch", ylabel="error, %", yscale="log", title=title)
        axes.grid(alpha=0.3, which="both")
        if axes.lines:
            axes.legend()
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


def _bare(axes: Axes, title: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=8)
