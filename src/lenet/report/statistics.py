"""What a comparison may say about variants: intervals, tests and verdicts from which test digits each seed misses.

Every function takes ``wrong``, a boolean array (seeds, digits): whether a seed's network misses a test digit. Seeds and
digits are aligned between variants. Plain numpy, scipy and statsmodels.

An error depends on two samples, the seeds and the test digits, and they cross: every seed meets every digit. An
interval is therefore one over *other seeds and other test digits of the same kind*, by a crossed bootstrap:

- digits are resampled. The mean over seeds of a digit's outcome has few values, so that the multinomial weights of
  10,000 digits come down to those of 2 × seeds + 1 groups;
- three seeds show no shape, and resampling them misses a third of their variance. The seeds' part is drawn from their
  standard error times Student's t with seeds − 1 degrees of freedom: as in the Behrens-Fisher problem, the two parts'
  errors add up, each with its own degrees of freedom;
- the interaction of seed and digit is in both parts' variances. It is taken out of the digits' part, once (Owen 2007,
  "The pigeonhole bootstrap": resampling both ways counts it three times);
- half a digit is won by each side (Agresti & Min 2005), so that no observed difference is not a certain one.

Measured coverage of the nominal 95 %: 1,000 synthetic comparisons of 10,000 digits a cell, 1 % errors, without a true
difference / with one of 0.3 points (the probit model of ``tests/test_statistics.py``; the shares' standard error is
0.5 points). As the Behrens-Fisher interval does, it errs towards caution where seeds hardly differ:

======================  =============  =============  =============  =============
sd of the seeds'        difference,    difference,    one variant,   one variant,
effect (difficulty: 1)  3 seeds        5 seeds        3 seeds        5 seeds
======================  =============  =============  =============  =============
0                       97.8 / 98.4 %  96.8 / 96.6 %  97.5 / 97.5 %  96.7 / 96.4 %
0.03                    97.7 / 97.2 %  96.3 / 97.6 %  97.5 / 97.3 %  96.8 / 97.1 %
0.1                     96.2 / 96.7 %  96.3 / 95.8 %  97.0 / 95.9 %  96.2 / 96.8 %
======================  =============  =============  =============  =============
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from lenet.runtime.errors import InputError

LEVEL = 0.05
POWER = 0.8
RESAMPLES = 10_000
ORDERS = 1000  # random ones
MOST_SEEDS = 1000  # more are no advice
NO_USE = "more seeds would not help with this test set"
_SEED = 1998


@dataclass(frozen=True)
class Estimate:
    """A variant's error, as fractions of 1; ``sd``, ``low`` and ``high`` are None for one seed.

    Attributes:
        error: the mean over seeds and digits.
        sd: the sample standard deviation (n − 1) of the seeds' errors, all on the same digits.
        low, high: the 95 % interval of the mean, for other seeds and other test digits of the same kind.
        seeds, digits: how many.
    """

    error: float
    sd: float | None
    low: float | None
    high: float | None
    seeds: int
    digits: int


@dataclass(frozen=True)
class Difference:
    """The error of a minus that of b, as fractions of 1; ``low``, ``high`` and ``p`` are None for one seed.

    Attributes:
        points: the paired difference of the mean errors; positive when b is better.
        low, high: its 95 % interval, for other seeds and other test digits of the same kind.
        p: of no difference, two-sided, from the same bootstrap: below 0.05 exactly where the interval excludes 0.
        mcnemar: for each seed the exact McNemar p of its two networks on these digits; it says nothing of other seeds.
        effect: Cohen's g, McNemar's own effect size: among the digits that only one of two networks misses, a's share
            less ½ (0.05 is small, 0.15 medium, 0.25 large). It compares where the variants differ, while Cohen's h is
            diluted by the 99 % of digits that both get right, and Cohen's d divides by the deviation of three seeds.
        seeds_needed: about how many seeds would show a difference of this size with 80 % power, from the variance
            components; None where it is zero or the digits' sampling error alone hides it, and for one seed.
    """

    points: float
    low: float | None
    high: float | None
    p: float | None
    mcnemar: tuple[float, ...]
    effect: float
    seeds_needed: int | None


@dataclass(frozen=True)
class Comparison:
    """Two variants; ``p_adjusted`` is Holm's over all pairs, and the verdict rests on it."""

    a: str
    b: str
    difference: Difference
    p_adjusted: float | None
    verdict: str


@dataclass(frozen=True)
class Clustering:
    """How far neighbouring digits have like outcomes.

    Attributes:
        effect: the variance of means of consecutive digits, as a multiple of what independent digits would have: their
            design effect.
        low, high: where 95 % of random orders of the same digits have it.
    """

    effect: float
    low: float
    high: float


def estimate(wrong: Any) -> Estimate:
    """A variant's mean error with its spread over seeds and its interval.

    The interval is Wilson's, which respects 0 and 1, with as many digits as a simple sample would need to be as
    uncertain as the crossed bootstrap finds the mean. Raises InputError for an array that is empty or not of 0 and 1.
    """
    values = _checked(wrong, "wrong")
    seeds, digits = values.shape
    error = float(values.sum(1).mean()) / digits
    if seeds == 1:
        return Estimate(error, None, None, None, seeds, digits)
    low, high = np.quantile(_Components.of(values).resampled(), (LEVEL / 2, 1 - LEVEL / 2))
    effective = error * (1 - error) * (2 * stats.norm.isf(LEVEL / 2) / (high - low)) ** 2 or digits
    low, high = proportion_confint(error * effective, effective, LEVEL, "wilson")
    return Estimate(error, float(values.sum(1).std(ddof=1)) / digits, float(low), float(high), seeds, digits)


def difference(a: Any, b: Any, level: float = LEVEL) -> Difference:
    """The paired difference of two variants' errors, a minus b.

    ``level`` is that of the two-sided test that ``seeds_needed`` plans. Raises InputError if an array is empty or not
    of 0 and 1, or if their shapes differ.
    """
    first, second = _checked(a, "a"), _checked(b, "b")
    if first.shape != second.shape:
        raise InputError(f"a {first.shape} and b {second.shape} must have the same shape (seeds, digits)")
    values = first - second
    lost, won = int((values > 0).sum()), int((values < 0).sum())
    effect = lost / (lost + won) - 0.5 if lost + won else 0.0
    tests = tuple(_mcnemar(one, two) for one, two in zip(first, second, strict=True))
    if len(values) == 1:
        return Difference(float(values.mean()), None, None, None, tests, effect, None)
    parts = _Components.of(values)
    draws = np.sort(parts.resampled())
    low, high = np.quantile(draws, (LEVEL / 2, 1 - LEVEL / 2))
    below = float(np.interp(0, draws, np.linspace(0, 1, RESAMPLES)))
    p = max(2 * min(below, 1 - below), 2 / RESAMPLES)
    return Difference(parts.mean, float(low), float(high), p, tests, effect, parts.seeds_needed(level))


def pairs(named: Mapping[str, Any], chosen: Sequence[tuple[str, str]] | None = None) -> list[Comparison]:
    """Chosen pairs of variants, or every two in their order, with Holm's correction over them and a verdict each.

    The verdict speaks of a difference where the corrected p is below 0.05. ``seeds_needed`` is planned at 0.05 / pairs,
    so that it exceeds the present number wherever no difference is shown. Raises InputError as ``difference`` does.
    """
    arrays = {name: _checked(wrong, name) for name, wrong in named.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(f"variants must share their seeds and digits; (seeds, digits) are {told}")
    two = list(combinations(arrays, 2) if chosen is None else chosen)
    found = [difference(arrays[a], arrays[b], LEVEL / len(two)) for a, b in two]
    p = [one.p for one in found]
    adjusted = multipletests(p, LEVEL, "holm")[1].tolist() if p and None not in p else [None] * len(p)
    return [
        Comparison(a, b, one, corrected, _verdict(a, b, one, corrected, len(two)))
        for (a, b), one, corrected in zip(two, found, adjusted, strict=True)
    ]


def clustering(outcomes: np.ndarray, block: int) -> Clustering | None:
    """The design effect of blocks of consecutive digits; None if all outcomes are equal.

    Where m digits of each writer follow each other and the outcomes of two of them correlate by rho, blocks of m digits
    have 1 + (2m/3 − 1)·rho on average: most cut across two writers. Means over whole writers have 1 + (m − 1)·rho.

    Args:
        outcomes: of each digit (digits,) in order, such as its mean over seeds.
        block: how many digits a mean is of; those that fill no block at the end are left out.
    """
    whole = outcomes[: len(outcomes) // block * block]
    variance = whole.var(ddof=1)
    if not variance:
        return None

    def effect(order: np.ndarray) -> float:
        return float(block * order.reshape(-1, block).mean(1).var(ddof=1) / variance)

    generator = np.random.RandomState(_SEED)  # as for the intervals
    low, high = np.quantile([effect(generator.permutation(whole)) for _ in range(ORDERS)], (LEVEL / 2, 1 - LEVEL / 2))
    return Clustering(effect(whole), float(low), float(high))


def points(fraction: float) -> str:
    """A fraction in percentage points for prose: two decimals, more where they would show 0."""
    value = 100 * fraction
    return (f"{value:.2f}" if abs(value) >= 0.01 or value == 0 else f"{value:.1g}").replace("-", "−")


def confidence_interval(low: float, high: float) -> str:
    """An interval in percentage points for prose."""
    return f"95 % CI {points(low)} to {points(high)}"


@dataclass(frozen=True)
class _Components:
    """What a table (seeds, digits) of outcomes varies by.

    Attributes:
        mean: over the whole table.
        groups: the digits' deviations from the mean, each value once.
        sizes: how many digits have each.
        seeds: how many.
        by_seed: the variance of the mean due to seeds, interaction included.
        by_digit: the same due to digits, interaction excluded.
    """

    mean: float
    groups: np.ndarray
    sizes: np.ndarray
    seeds: int
    by_seed: float
    by_digit: float

    @classmethod
    def of(cls, values: np.ndarray) -> "_Components":
        seeds, digits = values.shape
        sums, sizes = np.unique(values.sum(0), return_counts=True)
        order = np.argsort(sizes, kind="stable")  # the many digits that all agree on last: their weight is the rest
        sums, sizes = sums[order], sizes[order]
        mean = float(values.mean())
        groups = sums / seeds - mean
        squares_by_seed = digits * float(np.square(values.mean(1) - mean).sum())
        squares_by_digit = seeds * float(sizes @ groups**2)
        rest = max(0.0, float(np.square(values).sum()) - values.size * mean**2 - squares_by_seed - squares_by_digit)
        free = max(digits - 1, 1)
        interaction = rest / ((seeds - 1) * free) / values.size
        by_seed = squares_by_seed / (seeds - 1) / values.size
        by_digit = squares_by_digit / free / values.size
        return cls(mean, groups, sizes, seeds, by_seed, max(0.0, by_digit - interaction))

    @property
    def digits(self) -> int:
        return int(self.sizes.sum())

    def resampled(self) -> np.ndarray:
        """RESAMPLES means of other seeds and digits, the same ones in every call.

        From the generator whose numbers no version of numpy may change (NEP 19). A C library's logarithm can move its
        normal numbers by a last bit, which rounding takes away (``significant``), and its multinomial ones, which are
        integers, only where one of some 100,000 decisions lies within a last bit of its edge: 1 analysis in 1e10.
        """
        generator = np.random.RandomState(_SEED)
        weights = generator.multinomial(self.digits, self.sizes / self.digits, RESAMPLES)
        spread = float(self.sizes @ self.groups**2) / self.digits**2  # of the next line
        of_digits = weights @ self.groups / self.digits
        of_digits *= np.sqrt(self.by_digit / spread) if spread else 0
        ranks = (generator.permutation(RESAMPLES) + 0.5) / RESAMPLES  # every part of t's tails once
        of_seeds = np.sqrt(self.by_seed) * stats.t.ppf(ranks, self.seeds - 1)
        half_a_digit_each = generator.standard_normal(RESAMPLES) / self.digits
        return self.mean + of_digits + of_seeds + half_a_digit_each

    def seeds_needed(self, level: float) -> int | None:
        """How many seeds show the mean as different from 0 with 80 % power; None if not even MOST_SEEDS."""
        seeds = np.arange(2, MOST_SEEDS + 1)
        by_seed = self.by_seed * self.seeds / seeds
        variance = by_seed + self.by_digit + 1 / self.digits**2
        freedom = np.minimum(variance**2 / np.maximum(by_seed**2 / (seeds - 1), 1e-300), 1e6)  # Satterthwaite
        power = stats.nct.sf(stats.t.isf(level / 2, freedom), freedom, abs(self.mean) / np.sqrt(variance))
        enough = np.flatnonzero(power >= POWER)
        return int(seeds[enough[0]]) if len(enough) else None


def _checked(wrong: Any, name: str) -> np.ndarray:
    """The array as 0.0 and 1.0."""
    try:
        values = np.asarray(wrong, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{name}: not an array of numbers; legal: booleans (seeds, digits)") from None
    if values.ndim != 2 or not values.size:
        raise InputError(f"{name}: shape {values.shape}; legal: (seeds, digits), at least one of each")
    if not np.isin(values, (0, 1)).all():
        raise InputError(f"{name}: a value that is neither true nor false; legal: booleans (seeds, digits)")
    return values


def _mcnemar(a: np.ndarray, b: np.ndarray) -> float:
    table = np.bincount((2 * a + b).astype(int), minlength=4).reshape(2, 2)
    return float(mcnemar(table, exact=True).pvalue)


def _verdict(a: str, b: str, found: Difference, p: float | None, tests: int) -> str:
    if p is None or found.low is None or found.high is None:
        return f"{a} and {b}: one seed each, so no interval ({points(found.points)} points)"
    if p < LEVEL:
        winner, loser = (b, a) if found.points > 0 else (a, b)
        low, high = sorted((abs(found.low), abs(found.high)))
        return f"{winner} beats {loser} by {points(abs(found.points))} points ({confidence_interval(low, high)})"
    corrected = f" after correction for {tests} comparisons" if found.p is not None and found.p < LEVEL else ""
    needed = f"about {found.seeds_needed} seeds would be needed" if found.seeds_needed else NO_USE
    return (
        f"{a} and {b}: no significant difference{corrected} "
        f"({points(found.points)} points, {confidence_interval(found.low, found.high)}); {needed}"
    )
