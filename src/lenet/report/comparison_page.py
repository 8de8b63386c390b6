"""The comparison as one page: sentences computed from its numbers, tables, and pictures inside the file."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lenet.report import figures, html, results_table
from lenet.report.statistics import LEVEL, confidence_interval, points

Content = Mapping[str, Any]
STUDIES = ("ladder", "frontier", "sizes")


def render(content: Content, pictures: Mapping[str, Figure], images: Mapping[int, np.ndarray], digest: str) -> str:
    """The page, HTML that needs nothing else.

    Args:
        content: reports/comparison.json's.
        pictures: the figures by name.
        images: those (28, 28) of the digits that are shown, by index.
        digest: that of the file that the content is from.
    """
    frontier_s = (content["frontier"] or {"variants": {}})["variants"]
    template = html.template(
        "comparison.html", percent=percent, points=signed, p=p_value, unbroken=unbroken, spread=spread
    )
    return template.render(
        content,
        digest=digest,
        colours=figures.colours(list(results_table.with_frontier(content))),
        cells={name: results_table.cells(found) for name, found in content["variants"].items()},
        beyond={name: results_table.cells(found) for name, found in frontier_s.items()},
        pictures={
            name: html.inline("svg+xml", figures.svg(figure)) for name, figure in pictures.items() if name != "hardest"
        },
        images={index: html.inline("png", figures.digit(image)) for index, image in images.items()},
        said={
            "lead": lead(content),
            "beyond": beyond(content),
            "classes": list(classes(content)),
            "confusions": list(confusions(content)),
            "curves": list(curves(content)),
            "certainty": list(certainty(content)),
            "rejections": rejections(content),
            "robustness": robustness(content) if has_robustness(content) else "",
            "labels": list(labels(content)) if content["labels"] else [],
            "writers": writers(content) if content["writers"] else "",
            "frontier": frontier(content["frontier"]) if content["frontier"] else "",
            "ladder": ladder(content["ladder"]) if content["ladder"] else "",
            "sizes": list(sizes(content["sizes"])) if content["sizes"] else [],
        },
        former={
            name: results_table.FORMER for name in STUDIES if content[name] and results_table.is_former(content[name])
        },
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
    start = f"Of the {number(len(variants))} compared variants, {best} has the lowest mean error, "
    start += with_interval(variants[best])
    if len(variants) == 1:
        return f"{best} has an error of {with_interval(variants[best])} on the test digits."
    if len(content["seeds"]) == 1:
        return f"{start}; with one seed each, that may be chance."
    if not shown:
        return f"{start}, but with {len(content['seeds'])} seeds no two variants differ significantly."
    some = f"{number(len(shown))} of the {number(len(pairs))} differences {'is' if len(shown) == 1 else 'are'}"
    every = "the difference is" if len(pairs) == 1 else "all differences are"
    return f"{start}; {every if len(shown) == len(pairs) else some} significant."


def beyond(content: Content) -> str:
    """The best error on this page that is of no compared variant."""
    others = {
        name: found for name, found in results_table.with_frontier(content).items() if name not in content["variants"]
    }
    if not others:
        return ""
    best = min(others, key=lambda name: others[name]["test_error"])
    how = ", computed with the former arithmetic" if results_table.is_former(content["frontier"]) else ""
    return f"A small network of today that is not among them, {best}, has {with_interval(others[best], '')}{how}"


def curves(content: Content) -> Iterator[str]:
    """The last epoch's errors."""
    for name, found in content["variants"].items():
        last = {part: np.mean([run[-1] for run in runs]) for part, runs in found["curves"].items()}
        held = last.get("validation/error")
        text = f"{name} ends with an error of {percent(last['train/error'])} on training digits, before each update"
        yield text + (f", and of {percent(held)} on validation digits" if held is not None else "")


def classes(content: Content) -> Iterator[str]:
    """Each variant's hardest and easiest digit."""
    for name, found in content["variants"].items():
        mean = np.array(found["per_class"]["mean"])
        worst, easiest = int(mean.argmax()), int(mean.argmin())
        if mean[worst]:
            hardest = f"{worst} is the hardest digit for {name} ({percent(mean[worst])} error)"
            yield f"{hardest}, and {easiest} is the easiest ({percent(mean[easiest])})"


def confusions(content: Content) -> Iterator[str]:
    """Each variant's most frequent confusion."""
    for name, found in content["variants"].items():
        counts = np.array(found["confusion"]) * (1 - np.eye(10, dtype=int))
        digit, answer = np.unravel_index(counts.argmax(), counts.shape)
        if counts.max():
            times = counts.max() / len(found["seeds"])
            yield f"{name} most often mistakes {digit} for {answer} ({times:.1f} times per run)"


def certainty(content: Content) -> Iterator[str]:
    """Whether each variant is as sure as it should be."""
    for name, found in content["variants"].items():
        excess = found["calibration"]["confidence"] - (1 - found["test_error"])
        above_below = "above" if excess > 0 else "below"
        yield f"the mean confidence of {name} is {points(abs(excess))} points {above_below} its accuracy"


def rejections(content: Content) -> str:
    """Which variant needs to reject least for the first target."""
    variants = content["variants"]
    target = next(iter(next(iter(variants.values()))["rejection"]["needed"]))
    shares = {name: found["rejection"]["needed"][target]["mean"] for name, found in variants.items()}
    least = min(shares, key=lambda name: shares[name])
    return f"to reach an error of {percent(float(target))}, {least} rejects the fewest digits, {percent(shares[least])}"


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
    return f"At the hardest level of each disturbance, the lowest mean error is {told} of {len(rows)} cases."


def labels(content: Content) -> Iterator[str]:
    """How many of each variant's misses are of doubted labels."""
    for name, found in content["labels"]["variants"].items():
        yield f"of {content['variants'][name]['misses']:g} misses of {name}, {found['misses']['mean']:g} are among them"


def writers(content: Content) -> str:
    """Whether misses cluster by writer, and whether differences between variants do."""
    found = content["writers"]["clustering"]
    told = []
    for what, names in (
        ("errors of single variants", [name for name in found if name in content["variants"]]),
        ("differences between variants", [name for name in found if name not in content["variants"]]),
    ):
        beyond = sum(found[name] is not None and found[name]["effect"] > found[name]["high"] for name in names)
        if names:
            told.append(
                f"{ {0: 'none', len(names): 'all'}.get(beyond, number(beyond)) } of the {number(len(names))} {what}"
            )
    return f"Beyond chance, the design effect exceeds 1 in {' and in '.join(told)}."


def frontier(content: Content) -> str:
    """From the first of a chain to the last."""
    first, *_, last = content["chains"][0]
    before, after = (with_interval(content["variants"][name], "") for name in (first, last))
    return f"The error is {before} for {first} and {after} for {last}. {ladder(content)}"


def ladder(content: Content) -> str:
    """Which single changes have a significant effect."""
    shown = [step for step in content["steps"] if step["p_adjusted"] is not None and step["p_adjusted"] < LEVEL]
    if not shown:
        return f"None of the {number(len(content['steps']))} changes has a statistically significant effect on its own."
    told = "; ".join(f"{step['change']} ({signed(step['difference'])} points)" for step in shown)
    count = "Only one" if len(shown) == 1 else number(len(shown)).capitalize()
    has_have = "has" if len(shown) == 1 else "have"
    of_all = f"{count} of the {number(len(content['steps']))} changes {has_have}"
    return f"{of_all} a statistically significant effect: {told}."


def sizes(content: Content) -> Iterator[str]:
    """Each variant's error with the fewest and with the most digits."""
    for name, found in content["variants"].items():
        few, many = (pick(found, key=lambda one: one["train_size"]) for pick in (min, max))
        yield (
            f"{name} has an error of {percent(few['test_error'])} with {few['train_size']:,} training digits "
            f"and of {percent(many['test_error'])} with {many['train_size']:,}"
        )


def number(count: int) -> str:
    """A number in words, up to twelve."""
    words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    return words[count] if count < len(words) else str(count)


def percent(fraction: float) -> str:
    """A fraction as per cent."""
    return f"{points(fraction)}\N{NO-BREAK SPACE}%"


def spread(found: Content) -> str:
    """Errors of seeds in per cent, mean ± standard deviation, as the tables show them without the unit."""
    return f"{100 * found['mean']:.2f}" + ("" if found["sd"] is None else f" ± {100 * found['sd']:.2f}")


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
    return percent(found["test_error"]) + ("" if low is None else f" ({confidence_interval(low, high)})")


def unbroken(text: str) -> str:
    """A sentence whose intervals stay on one line."""
    return re.sub(r"95 % CI \S+ to \S+", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), text)
