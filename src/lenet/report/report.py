"""The comparison as one page: sentences computed from its numbers, tables, and pictures inside the file."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lenet.report import figures, page, results
from lenet.report.statistics import LEVEL, points

Content = Mapping[str, Any]
STUDIES = ("ladder", "frontier", "sizes")


def render(content: Content, pictures: Mapping[str, Figure], images: Mapping[int, np.ndarray], digest: str) -> str:
    """The page, HTML that needs nothing else.

    Args:
        content: reports/comparison.json's.
        pictures: the figures by name.
        images: the hardest digits' (28, 28) by index.
        digest: that of the file that the content is from.
    """
    frontier_s = (content["frontier"] or {"variants": {}})["variants"]
    template = page.template("comparison.html", percent=percent, points=signed, p=p_value, unbroken=unbroken)
    return template.render(
        content,
        digest=digest,
        colours=figures.colours(list(results.with_frontier(content))),
        cells={name: results.cells(found) for name, found in content["variants"].items()},
        beyond={name: results.cells(found) for name, found in frontier_s.items()},
        pictures={
            name: page.inline("svg+xml", figures.svg(figure)) for name, figure in pictures.items() if name != "hardest"
        },
        images={one["index"]: page.inline("png", figures.digit(images[one["index"]])) for one in content["hardest"]},
        said={
            "lead": lead(content),
            "classes": list(classes(content)),
            "confusions": list(confusions(content)),
            "curves": list(curves(content)),
            "certainty": list(certainty(content)),
            "rejections": rejections(content),
            "robustness": robustness(content) if has_robustness(content) else "",
            "frontier": frontier(content["frontier"]) if content["frontier"] else "",
            "ladder": ladder(content["ladder"]) if content["ladder"] else "",
            "sizes": list(sizes(content["sizes"])) if content["sizes"] else [],
        },
        former={name: results.FORMER for name in STUDIES if content[name] and results.is_former(content[name])},
        has_robustness=has_robustness(content),
        hardest_levels=hardest_levels(content) if has_robustness(content) else [],
        distorted=any("distorted" in found["what"] for found in content["variants"].values()),
        level=LEVEL,
    )


def has_robustness(content: Content) -> bool:
    """Whether every run's robustness was measured."""
    return all(found["robustness"] for found in content["variants"].values())


def lead(content: Content) -> str:
    """What the comparison comes to."""
    variants, pairs = content["variants"], content["pairs"]
    best = min(variants, key=lambda name: variants[name]["test_error"])
    shown = [pair for pair in pairs if pair["p_adjusted"] is not None and pair["p_adjusted"] < LEVEL]
    start = f"{best} has the lowest mean error, {with_interval(variants[best])}"
    if len(variants) == 1:
        return f"{best} errs on {with_interval(variants[best])} of the test digits."
    if len(content["seeds"]) == 1:
        return f"{start}; with one seed each, that may be chance."
    if not shown:
        return f"{start}, but {len(content['seeds'])} seeds do not show any two variants to differ."
    if len(shown) == len(pairs):
        return f"{start}; the difference is shown for every pair." if len(pairs) > 1 else f"{start}, and that is shown."
    return f"{start}; {len(shown)} of {len(pairs)} differences are shown."


def curves(content: Content) -> Iterator[str]:
    """The last epoch's errors."""
    for name, found in content["variants"].items():
        last = {part: np.mean([run[-1] for run in runs]) for part, runs in found["curves"].items()}
        held = last.get("validation/error")
        text = f"{name} ends at {percent(last['train/error'])} on its training digits as it meets them"
        yield text + (f" and {percent(held)} on validation digits" if held is not None else "")


def classes(content: Content) -> Iterator[str]:
    """Each variant's hardest and easiest digit."""
    for name, found in content["variants"].items():
        mean = np.array(found["per_class"]["mean"])
        worst, easiest = int(mean.argmax()), int(mean.argmin())
        if mean[worst]:
            yield f"{name} errs most on {worst} ({percent(mean[worst])}), least on {easiest} ({percent(mean[easiest])})"


def confusions(content: Content) -> Iterator[str]:
    """Each variant's most frequent confusion."""
    for name, found in content["variants"].items():
        counts = np.array(found["confusion"]) * (1 - np.eye(10, dtype=int))
        digit, answer = np.unravel_index(counts.argmax(), counts.shape)
        if counts.max():
            yield f"{name} most often takes {digit} for {answer}, {counts.max() / len(found['seeds']):.1f} times a run"


def certainty(content: Content) -> Iterator[str]:
    """Whether each variant is as sure as it should be."""
    for name, found in content["variants"].items():
        excess = found["calibration"]["confidence"] - (1 - found["test_error"])
        yield f"{name} is on average {points(abs(excess))} points {'too' if excess > 0 else 'less'} sure" + (
            "" if excess > 0 else " than right"
        )


def rejections(content: Content) -> str:
    """Which variant needs to reject least for the first target."""
    variants = content["variants"]
    target = next(iter(next(iter(variants.values()))["rejection"]["needed"]))
    shares = {name: found["rejection"]["needed"][target]["mean"] for name, found in variants.items()}
    least = min(shares, key=lambda name: shares[name])
    return f"{least} gets to {percent(float(target))} error by rejecting least, {percent(shares[least])} of the digits"


def hardest_levels(content: Content) -> list[tuple[str, str, str, list[float]]]:
    """Each disturbance at the level where the variants err most: kind, level, unit and every variant's mean error."""
    variants = content["variants"].values()
    rows = []
    for kind, curve in next(iter(variants))["robustness"].items():
        means = np.array([found["robustness"][kind]["mean"] for found in variants])
        level = int(means.mean(0).argmax())
        rows.append((kind.replace("-", " "), f"{curve['levels'][level]:g}", curve["unit"], means[:, level].tolist()))
    return rows


def robustness(content: Content) -> str:
    """Which variant bears most."""
    names, rows = list(content["variants"]), hardest_levels(content)
    best = Counter(names[int(np.argmin(errors))] for *_, errors in rows)
    told = ", ".join(f"{name}’s in {count}" for name, count in best.most_common())
    return f"At the hardest level of each, the lowest mean error is {told} of {len(rows)} disturbances."


def frontier(content: Content) -> str:
    """From the first of a chain to the last."""
    first, *_, last = content["chains"][0]
    before, after = (with_interval(content["variants"][name], "") for name in (first, last))
    return f"The error is {before} for {first} and {after} for {last}. {ladder(content)}"


def ladder(content: Content) -> str:
    """Which single changes are shown to matter."""
    shown = [step for step in content["steps"] if step["p_adjusted"] is not None and step["p_adjusted"] < LEVEL]
    if not shown:
        return f"None of the {len(content['steps'])} steps alone is shown to change the error."
    told = "; ".join(f"{step['change']} ({signed(step['difference'])} points)" for step in shown)
    is_are = "is" if len(shown) == 1 else "are"
    return f"{len(shown)} of {len(content['steps'])} steps {is_are} shown to change the error: {told}."


def sizes(content: Content) -> Iterator[str]:
    """Each variant's error with the fewest and with the most digits."""
    for name, found in content["variants"].items():
        few, many = (pick(found, key=lambda one: one["train_size"]) for pick in (min, max))
        yield (
            f"{name} errs on {percent(few['test_error'])} after {few['train_size']:,} digits, "
            f"on {percent(many['test_error'])} after {many['train_size']:,}"
        )


def percent(fraction: float) -> str:
    """A fraction as per cent."""
    return f"{points(fraction)}\N{NO-BREAK SPACE}%"


def signed(fraction: float) -> str:
    """A difference of fractions in points, with its sign."""
    return f"{'+' if fraction > 0 else ''}{points(fraction)}"


def p_value(p: float | None) -> str:
    """A p value as journals print it."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def with_interval(found: Content, prefix: str = "test_error_") -> str:
    """A variant's error, with its interval where there is one, whose ends have names that begin with ``prefix``."""
    low, high = found[f"{prefix}low"], found[f"{prefix}high"]
    return percent(found["test_error"]) + ("" if low is None else f" (95 % {points(low)}…{points(high)})")


def unbroken(text: str) -> str:
    """A sentence whose intervals stay on one line: word joiners around their ellipses."""
    return text.replace("…", "\N{WORD JOINER}…\N{WORD JOINER}")
