"""Job draw: reports/comparison.json → the page and the pictures beside it.

They are functions of that file and of the builds of matplotlib and freetype that draw them, so that no DVC stage has
them as outputs. The page names the digest of the file it was drawn from.
"""

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lenet.evaluation import confidence
from lenet.report import comparison_page, figures, results_table
from lenet.runtime.files import reading, whole, write_text


def draw(reports: Path) -> None:
    """Draw comparison.html and the pictures into the folder of comparison.json.

    Raises:
        InputError: there is no comparison.json, or it is not of this version of the code.
    """
    content, digest = results_table.load(reports), results_table.digest(reports)
    with reading(reports / "comparison.json", "of this version"):
        images = {one["index"]: image(one) for one in _shown(content) if one["image"]}
        drawn = pictures(content) | {"hardest": _gallery(content["hardest"], images)}
        page = comparison_page.render(content, drawn, images, digest)
    for name, figure in drawn.items():
        with whole(reports / f"{name}.png") as beside:
            figures.save(figure, beside)
    write_text(reports / "comparison.html", page)


def image(digit: dict[str, Any]) -> np.ndarray:
    """A digit that is shown, (28, 28)."""
    return np.frombuffer(base64.b64decode(digit["image"]), np.uint8).reshape(28, 28)


def _shown(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The digits that the page shows."""
    yield from content["hardest"]
    if content["labels"]:
        yield from content["labels"]["digits"]


def pictures(content: dict[str, Any]) -> dict[str, Figure]:
    """The report's figures by name. One of what is not there yet says so: `dvc plots` expects every file."""
    variants, known = content["variants"], figures.colours(list(content["variants"]))
    return {
        "estimates": figures.estimates(variants),
        "differences": figures.differences(content["pairs"]) if content["pairs"] else figures.nothing("one variant"),
        "learning-curves": figures.error_curves({name: one["curves"] for name, one in variants.items()}),
        "class-errors": figures.class_errors(variants),
        "confusion": figures.confusion(
            [(name, np.array(one["confusion"]) / len(one["seeds"])) for name, one in variants.items()]
        ),
        "reliability": figures.reliability(variants),
        "rejection": figures.rejection(variants, confidence.TARGETS[0]),
        "robustness": figures.robustness(variants) if comparison_page.has_robustness(content) else figures.nothing(),
        "ladder": figures.ladder(content["ladder"], known) if content["ladder"] else figures.nothing(),
        "sizes": figures.size_curves(content["sizes"], known) if content["sizes"] else figures.nothing(),
        "then-and-now": then_and_now(content["frontier"], variants) if content["frontier"] else figures.nothing(),
    }


def then_and_now(frontier: dict[str, Any], compared: Iterable[str]) -> Figure:
    """The frontier's chain, with the paper's two results (LeCun 1998, Fig. 9); colours as in the comparison's."""
    known = figures.colours(list(dict.fromkeys([*compared, *frontier["variants"]])))
    return figures.ladder(frontier, known, {"1998": 0.0095, "1998, distorted digits": 0.008})


def _gallery(hard: list[dict[str, Any]], images: dict[int, np.ndarray]) -> Figure:
    captions = [
        f"#{one['index']}: {one['label']}\n{' · '.join(str(a) for a in one['answers'].values())}\n"
        f"{one['missed_by']} of {one['of']}"
        for one in hard
    ]
    return figures.gallery(np.array([images[one["index"]] for one in hard]).reshape(-1, 28, 28), captions)
