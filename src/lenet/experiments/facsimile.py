"""Job facsimile: the paper's figures (LeCun, Bottou, Bengio and Haffner 1998) drawn from our networks, as a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from lenet.digits.data import Digits, load_digits, to_inputs
from lenet.digits.distortion import distort, paper_maps
from lenet.evaluation import confidence, recognition
from lenet.experiments import lecun1998
from lenet.experiments.paper import DISTORTED, PLAIN
from lenet.networks import codes
from lenet.networks.lenet5 import LeNet5, Subsampling
from lenet.params.schema import PaperDistortion, Params, Pixels, Variant
from lenet.report import figures, html, results_table
from lenet.report.comparison_page import percent, signed, with_interval
from lenet.report.figures import COLOURS, bare, clean, interval, label_ends, rows
from lenet.runtime import layout, processes
from lenet.runtime.files import json_of, reading, whole, write_text

OURS, TEST, PAPER = COLOURS[2], COLOURS[1], "#222222"
COPIES = 9  # of a digit, in the picture of distortions


def facsimile(params: Params, home: Path, train: Path, test: Path) -> None:
    """Write the page report.html, and beside it the picture of errors by pass as PNG.

    Args:
        params: all variants' blocks.
        home: the experiment's folder, with what `lenet publish paper` has written; the first seed's weights are drawn.
        train: the file of training digits.
        test: the file of test digits.

    Raises:
        InputError: a file is missing or faulty.
    """
    result = home / "result.json"
    with reading(result):
        content = json_of(result.read_bytes())
        run = home / layout.RUNS / f"{PLAIN}-{content['seeds'][0]}"
    network = recognition.load(run).network
    assert isinstance(network, LeNet5)
    pixels, tested = params.variant(PLAIN).pixels, load_digits(test)
    some = [int((tested.labels == digit).nonzero()[0]) for digit in range(10)]
    found = layers(network, to_inputs(tested.images[some], pixels))
    plain, variants = content["variants"][PLAIN], content["variants"]
    curve = passes(plain)
    pictures = {
        "seeds": seeds(variants),
        "passes": curve,
        "distorted-passes": passes(variants[DISTORTED]),
        "sizes": sizes(variants),
        "distortions": distortions(distorted(params.variant(DISTORTED), load_digits(train), pixels)),
        "missed": missed(tested, content["missed_by"], len(content["seeds"])),
        "kernels": figures.kernels(run / "weights.safetensors"),
        "states": states({name: state[4:5] for name, state in found.items()}),
        "codes": codes_and_states(tested.images[some], found["F6"]),
        "rejection": figures.rejection(
            {name: {"rejection": found} for name, found in content["rejection"].items()}, confidence.TARGETS[0]
        ),
    }
    text = html.template("paper.html", percent=percent, points=signed).render(
        content,
        lead=lead(content),
        former=results_table.FORMER if results_table.is_former(content) else "",
        plain=plain,
        distorted=variants[DISTORTED],
        published=lecun1998,
        pictures={name: html.inline("svg+xml", figures.svg(picture)) for name, picture in pictures.items()},
    )
    processes.check()
    write_text(home / "report.html", text)
    with whole(home / "report.png") as beside:
        figures.save(curve, beside)


def lead(content: Mapping[str, Any]) -> str:
    """What it comes to."""
    plain, distorted = (content["variants"][name] for name in (PLAIN, DISTORTED))
    said = (
        f"LeNet-5 by the recipe of 1998 has an error of {with_interval(plain, '')} on the test digits; the paper has "
        f"{percent(lecun1998.ERROR)}. With distorted digits it has {with_interval(distorted, '')}; the paper has "
        f"{percent(lecun1998.DISTORTED_ERROR)} (means over {len(content['seeds'])} seeds)."
    )
    if plain["low"] is None:
        return said
    theirs = ((plain, lecun1998.ERROR), (distorted, lecun1998.DISTORTED_ERROR))
    inside = sum(one["low"] <= error <= one["high"] for one, error in theirs)
    told = ("Neither of the paper's figures lies", "One of the paper's figures lies", "Both of the paper's figures lie")
    return f"{said} {told[inside]} within these intervals."


def layers(network: LeNet5, inputs: Float[Tensor, "n 1 32 32"]) -> dict[str, Tensor]:
    """The squashed states of every layer up to F6, by name; the input before them."""
    found = {"input": inputs}
    state = inputs
    with torch.no_grad():
        for name, layer in network.named_children():
            if name != "output":
                state = layer(state.flatten(1) if name == "C5" else state)
                trained = name[0] != "S" or isinstance(layer, Subsampling)
                found[name] = state = network.squash(state) if trained else state
    return found


def distorted(variant: Variant, digits: Digits, pixels: Pixels) -> Float[Tensor, "10 copies 32 32"]:
    """The ten digits of the paper's Fig. 7, each with copies distorted as a variant's are; the first is as it is."""
    assert isinstance(variant.distortion, PaperDistortion)
    places = [int((digits.index == index).nonzero()) for index in lecun1998.DISTORTED_DIGITS]
    fields = to_inputs(digits.images[places], pixels).repeat_interleave(COPIES, 0)
    maps = paper_maps(len(fields), variant.distortion, torch.Generator().manual_seed(7))
    moved = distort(fields, maps, pixels).view(10, COPIES, 32, 32)
    return torch.cat([fields.view(10, COPIES, 32, 32)[:, :1], moved], 1)


def missed(digits: Digits, by: Mapping[str, list[int]], of: int) -> Figure:
    """Fig. 8: the paper's 82 misses, each with the paper's answer and how many of our networks miss it."""
    captions = [
        f"{label}→{answer}\n{plain} · {distorted} of {of}"
        for (label, answer), plain, distorted in zip(lecun1998.MISSED.values(), by[PLAIN], by[DISTORTED], strict=True)
    ]
    return figures.gallery(digits.images[list(lecun1998.MISSED)].numpy(), captions, columns=14)


def passes(variant: Mapping[str, Any]) -> Figure:
    """Fig. 5: errors by pass, of training and test digits; seeds thin, their mean thick, the paper's as crosses."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    ends = []
    for part, colour in (("train", OURS), ("test", TEST)):
        runs = 100 * np.array(variant[f"{part}_errors"])
        epochs = np.arange(1, runs.shape[1] + 1)
        axes.plot(epochs, runs.T, color=colour, alpha=0.3, linewidth=0.8)
        axes.plot(epochs, runs.mean(0), color=colour, linewidth=2.2)
        theirs = 100 * np.array(lecun1998.TRAIN_ERROR if part == "train" else lecun1998.TEST_ERROR)
        axes.plot(range(1, lecun1998.PASSES + 1), theirs, "x", color=colour, markersize=6, markeredgewidth=1.6)
        ends.append((part, runs.mean(0)[-1], colour))
    axes.plot([], [], "x", color=PAPER, label="the paper's Fig. 5")
    axes.plot([], [], color=PAPER, linewidth=2.2, label="ours, mean over seeds")
    axes.set(xlabel="pass", ylabel="error, %", xticks=range(0, lecun1998.PASSES + 1, 2))
    clean(axes, log="y")
    axes.legend(frameon=False, fontsize=9)
    label_ends(axes, ends)
    return figure


def sizes(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Fig. 6: errors against the number of training digits; with distorted ones, at the right. Crosses: the paper's."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    plain = [variants[name] for name in (*(f"{PLAIN}-{count}" for count in list(lecun1998.SIZES)[:-1]), PLAIN)]
    places = [one["train_size"] for one in plain]
    ends = []
    for part, colour in (("train", OURS), ("test", TEST)):
        runs = [100 * np.array(one[f"{part}_errors"])[:, -1] for one in plain]
        for place, seeds in zip(places, runs, strict=True):
            axes.plot([place] * len(seeds), seeds, "o", color=colour, markersize=3, alpha=0.4)
        axes.plot(places, [seeds.mean() for seeds in runs], color=colour, linewidth=2.2, marker="o", markersize=5)
        theirs = lecun1998.SIZES_TRAIN if part == "train" else lecun1998.SIZES
        axes.plot(list(theirs), [100 * error for error in theirs.values()], "x", color=colour, markeredgewidth=1.6)
        ends.append((part, runs[-1].mean(), colour))
    one = variants[DISTORTED]
    errors = [100 * seed["error"] for seed in one["seeds"].values()]
    axes.plot([one["train_size"]] * len(errors), errors, "o", color=COLOURS[4], markersize=3, alpha=0.4)
    axes.plot([one["train_size"]], [100 * one["test_error"]], "D", color=COLOURS[4], label="test, distorted digits")
    axes.plot([one["train_size"]], [100 * lecun1998.DISTORTED_ERROR], "x", color=COLOURS[4], markeredgewidth=1.6)
    axes.plot([], [], "x", color=PAPER, label="the paper's Fig. 6")
    axes.set(xlabel="training digits", ylabel="error, %", ylim=(0, None), xticks=places)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    clean(axes)
    axes.legend(frameon=False, fontsize=9)
    label_ends(axes, ends)
    return figure


def seeds(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Each recipe's test errors: its seeds as dots, their mean with its interval, and the paper's figure as a cross."""
    figure = Figure(figsize=(8, 0.9 + 0.55 * len(variants)), layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(variants.values()):
        errors = [100 * seed["error"] for seed in one["seeds"].values()]
        axes.plot(errors, [row + 0.22] * len(errors), "o", color=OURS, markersize=4.5, alpha=0.6)
        interval(axes, row, one["test_error"], one["low"], one["high"], OURS)
        if one["published"] is not None:
            axes.plot([100 * one["published"]], [row], "x", color=PAPER, markersize=9, markeredgewidth=2, zorder=4)
    rows(axes, list(variants), "test error, %; ✕ the paper's", {})
    return figure


def distortions(fields: Float[Tensor, "digits copies 32 32"]) -> Figure:
    """Fig. 7: a row for each digit, which stands at the left, with distorted copies of it."""
    down, across = fields.shape[:2]
    figure = Figure(figsize=(0.72 * across, 0.72 * down), layout="constrained")
    axes = figure.subplots()
    axes.imshow(beside(fields.flatten(0, 1), across), cmap="gray_r", vmin=-0.1, vmax=1.175)
    axes.axis("off")
    return figure


def beside(maps: Float[Tensor, "n h w"], columns: int) -> np.ndarray:
    """Maps in rows of so many as one picture; what lies between them is not a number, which is drawn as nothing."""
    framed = F.pad(maps, (1, 1, 1, 1), value=float("nan")).unflatten(0, (-1, columns))
    return framed.permute(0, 2, 1, 3).flatten(2).flatten(0, 1).numpy()


def states(found: Mapping[str, Float[Tensor, "1 ..."]]) -> Figure:
    """What each layer makes of one digit: a row for a layer, white −1.7 … black +1.7."""
    heights = [1 if state.dim() == 4 else 0.3 for state in found.values()]
    rows = {name: state[0] if state.dim() == 4 else state[None] for name, state in found.items()}
    return lines(rows, 1.7159, heights, 6)


def codes_and_states(images: UInt8[Tensor, "10 28 28"], found: Float[Tensor, "10 84"]) -> Figure:
    """Fig. 13's way: a digit of each class, F6's 84 states as a picture, and below them the class's code (Fig. 3)."""
    shape = (codes.HEIGHT, codes.WIDTH)
    rows = {
        "digit": 2.4 * images / 255 - 1.2,
        "F6": found.unflatten(1, shape),
        "code": codes.codes().unflatten(1, shape),
    }
    return lines(rows, 1.2, (28, 17, 17), 3.4)


def lines(rows: Mapping[str, Float[Tensor, "n h w"]], most: float, heights: Sequence[float], height: float) -> Figure:
    """Named rows of maps, white −most … black +most."""
    figure = Figure(figsize=(10, height), layout="constrained")
    for axes, (name, maps) in zip(figure.subplots(len(rows), 1, height_ratios=heights), rows.items(), strict=True):
        axes.imshow(beside(maps, len(maps)), cmap="gray_r", vmin=-most, vmax=most)
        bare(axes, "")
        axes.spines[:].set_visible(False)
        axes.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
