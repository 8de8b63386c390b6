"""What may be said about variants: known answers, and intervals that hold the truth as often as they claim."""

import json
import math
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
from scipy import stats

from lenet.report import statistics
from lenet.runtime.errors import InputError

DIGITS = 10_000


def study(generator: np.random.Generator, seeds: int, errors: tuple[float, float], seed_effect: float) -> list:
    """Two variants whose true errors, over all seeds and digits, are known: a probit model.

    A digit is missed where its difficulty, the variant's own difficulty with it, the seed's effect and the seed's own
    difficulty with it add up to more than a threshold; a sum of normal variables is normal.
    """
    own, interaction = 0.3, 0.3  # standard deviations; that of the shared difficulty is 1
    shared = generator.standard_normal(DIGITS, np.float32)
    threshold = math.sqrt(1 + own**2 + seed_effect**2 + interaction**2) * stats.norm.isf(errors)
    return [
        shared
        + own * generator.standard_normal(DIGITS, np.float32)
        + seed_effect * generator.standard_normal((seeds, 1), np.float32)
        + interaction * generator.standard_normal((seeds, DIGITS), np.float32)
        > one
        for one in threshold
    ]


@cache
def coverage(seeds: int, errors: tuple[float, float], studies: int, seed_effect: float = 0.03) -> tuple[float, float]:
    """The share of studies whose intervals hold the true difference, and the true error of the second variant."""
    generator = np.random.default_rng(round(1e4 * errors[1]) + seeds)
    held, inside = [], []
    for _ in range(studies):
        a, b = study(generator, seeds, errors, seed_effect)
        found, one = statistics.difference(a, b), statistics.estimate(b)
        held.append(found.low <= errors[0] - errors[1] <= found.high)
        inside.append(one.low <= errors[1] <= one.high)
    return float(np.mean(held)), float(np.mean(inside))


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_claim() -> None:
    """2,000 studies: three and five seeds, with and without a difference; a share's standard error is 0.35 points."""
    cases = [(seeds, errors) for seeds in (3, 5) for errors in ((0.01, 0.01), (0.01, 0.007))]
    shares = np.array([coverage(*case, studies=500) for case in cases])
    assert ((shares.mean(0) >= 0.93) & (shares.mean(0) <= 0.98)).all(), shares
    assert (shares >= 0.93).all(), shares


def test_intervals_hold_the_truth_about_as_often_as_they_claim() -> None:
    assert all(0.9 <= share <= 1 for share in coverage(3, (0.01, 0.008), 60))


def wrong(*rows: set[int], digits: int = DIGITS) -> np.ndarray:
    """Seeds that miss exactly these digits."""
    found = np.zeros((len(rows), digits), bool)
    for row, missed in zip(found, rows, strict=True):
        row[list(missed)] = True
    return found


def test_mean_and_deviation_are_those_of_the_seeds() -> None:
    found = statistics.estimate(wrong({1}, {1, 2}, {1, 2, 3}, digits=200))
    assert (found.error, found.sd) == pytest.approx((0.01, 0.005))
    assert (found.seeds, found.digits) == (3, 200)
    assert 0 < found.low < 0.01 < found.high < 0.1


def test_equal_seeds_leave_wilson_s_interval_of_the_digits_alone() -> None:
    """100 of 10,000 missed by every seed: Wilson's 95 % interval is 0.823 … 1.215 %."""
    found = statistics.estimate(wrong(*[set(range(100))] * 4))
    assert (100 * found.low, 100 * found.high) == pytest.approx((0.823, 1.215), abs=0.01)


def test_no_miss_is_not_a_certain_zero() -> None:
    """Wilson's upper limit of 0 in n is z² / (n + z²)."""
    found = statistics.estimate(wrong(set(), set(), set()))
    assert (found.error, found.sd, found.low) == (0, 0, 0)
    assert found.high == pytest.approx(1.96**2 / (DIGITS + 1.96**2), rel=1e-3)
    nothing = statistics.difference(wrong(set(), set()), wrong(set(), set()))
    assert nothing.low < 0 < nothing.high
    assert nothing.high == pytest.approx(1.96 / DIGITS, rel=0.05)
    assert (nothing.points, nothing.effect, nothing.seeds_needed) == (0, 0, None)
    assert nothing.p > 0.9


def test_equal_seeds_leave_the_paired_test_of_digits_alone() -> None:
    """Every seed: a alone misses 40 digits, b alone 10. sd = √(40 + 10 − 30²/n)/n, half a digit each adds 1."""
    a, b = wrong(*[set(range(40))] * 3), wrong(*[set(range(100, 110))] * 3)
    found = statistics.difference(a, b)
    half = 1.96 * math.sqrt(50 - 900 / DIGITS + 1) / DIGITS
    assert (found.points, found.high - found.low) == pytest.approx((0.003, 2 * half), rel=0.03)
    assert found.effect == pytest.approx(40 / 50 - 0.5)  # Cohen's g
    assert found.mcnemar == pytest.approx([2 * stats.binom.cdf(10, 50, 0.5)] * 3)


def test_seeds_that_differ_by_chance_leave_student_s_t() -> None:
    """Digits that only one network ever misses, so many by each seed that seeds are all that matters: t with 2."""
    a = wrong(set(range(0, 100)), set(range(100, 900)), set(range(900, 1300)), digits=100_000)
    found = statistics.difference(a, np.zeros_like(a))
    counts = np.array([100, 800, 400]) / 100_000
    half = 4.303 * counts.std(ddof=1) / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((counts.mean() - half, counts.mean() + half), rel=0.02)


def test_independent_misses_are_counted_once() -> None:
    """No digit is harder than another: all variance is the seeds', and digits add nothing to it."""
    a = np.random.default_rng(4).random((30, DIGITS)) < 0.2
    found = statistics.difference(a, np.zeros_like(a))
    half = 2.045 * a.mean(1).std(ddof=1) / math.sqrt(30)
    assert found.high - found.low == pytest.approx(2 * half, rel=0.06)


@pytest.mark.parametrize("true", [0.010, 0.0085, 0.007])
def test_p_is_below_a_twentieth_exactly_where_the_interval_excludes_no_difference(true: float) -> None:
    generator = np.random.default_rng(5)
    seen = set()
    for _ in range(8):
        found = statistics.difference(*study(generator, 3, (0.01, true), 0.02))
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
        assert 0 < found.p <= 1
        seen.add(found.p)
    assert len(seen) == 8


def test_order_changes_the_sign_alone() -> None:
    a, b = study(np.random.default_rng(2), 5, (0.01, 0.008), 0.03)
    one, two = statistics.difference(a, b), statistics.difference(b, a)
    assert (one.points, one.effect, one.mcnemar) == (-two.points, pytest.approx(-two.effect), two.mcnemar)
    assert (one.low, one.high) == pytest.approx((-two.high, -two.low), abs=0.05 * (one.high - one.low))
    assert statistics.difference(a, b) == one  # the same random numbers in every call


def test_one_seed_has_no_interval() -> None:
    one = statistics.estimate(wrong({1, 2}))
    assert (one.error, one.sd, one.low, one.high) == (0.0002, None, None, None)
    (found,) = statistics.pairs({"a": wrong({1, 2}), "b": wrong({3})})
    assert (found.difference.low, found.difference.high, found.difference.p, found.p_adjusted) == (None,) * 4
    assert found.difference.mcnemar == (1.0,)
    assert found.verdict == "a and b: one seed each, so no interval (0.01 points)"


def test_the_planned_number_of_seeds_has_the_power_it_promises() -> None:
    """Studies with as many seeds as one study asks for find its difference, were it the true one, in about 80 %."""
    generator = np.random.default_rng(3)
    a, b = study(generator, 60, (0.01, 0.0072), 0.06)
    needed = statistics.difference(a, b).seeds_needed  # from 60 seeds, so that the components are well known
    assert 3 < needed < 60
    found = [
        statistics.difference(*(one[generator.choice(60, needed, replace=False)] for one in (a, b))).p < 0.05
        for _ in range(60)
    ]
    assert 0.6 <= np.mean(found) <= 1


def test_where_digits_alone_hide_a_difference_no_number_of_seeds_helps() -> None:
    """Every seed alike: 11 digits against 9 is chance, and more seeds bring no more digits."""
    a, b = wrong(*[set(range(11))] * 3), wrong(*[set(range(20, 29))] * 3)
    assert statistics.difference(a, b).seeds_needed is None
    (found,) = statistics.pairs({"a": a, "b": b})
    assert found.verdict.endswith(f"; {statistics.NO_USE}")


def test_the_verdict_follows_the_corrected_p() -> None:
    generator = np.random.default_rng(11)
    common, best = study(generator, 5, (0.012, 0.005), 0.0)
    near = [study(generator, 5, (0.012, 0.011), 0.02)[1] for _ in range(3)]
    found = statistics.pairs({"common": common, "best": best, **{f"near-{i}": one for i, one in enumerate(near)}})
    assert [(one.a, one.b) for one in found[:2]] == [("common", "best"), ("common", "near-0")]
    assert len(found) == 10
    p = sorted(one.difference.p for one in found)
    worst, expected = 0.0, []
    for rank, value in enumerate(p):  # Holm 1979
        worst = max(worst, min(1, value * (len(p) - rank)))
        expected.append(worst)
    assert sorted(one.p_adjusted for one in found) == pytest.approx(expected)
    for one in found:
        assert (" beats " in one.verdict) == (one.p_adjusted < 0.05)
        if one.p_adjusted >= 0.05:
            assert "no significant difference" in one.verdict
            assert one.difference.seeds_needed is None or one.difference.seeds_needed > 5
            assert ("after correction for 10 comparisons" in one.verdict) == (one.difference.p < 0.05)
    assert found[0].verdict.startswith("best beats common by 0.")
    assert "−" not in found[0].verdict


def test_a_verdict_turns_the_difference_to_the_winner_s_side() -> None:
    a, b = wrong(*[set(range(40))] * 3), wrong(*[set(range(100, 110))] * 3)
    for named in ({"a": a, "b": b}, {"b": b, "a": a}):
        (found,) = statistics.pairs(named)
        assert found.verdict.startswith("b beats a by 0.30 points (95 % CI 0.1")
    assert json.dumps(asdict(found), allow_nan=False)


@pytest.mark.parametrize(
    "bad",
    [np.zeros(5), np.zeros((0, 5)), np.full((2, 5), np.nan), np.full((2, 5), 2), [["x"]], [[True], [True, False]]],
)
def test_what_is_no_table_of_misses_is_one_line(bad: object) -> None:
    for call in (statistics.estimate, lambda one: statistics.pairs({"a": one, "b": one})):
        with pytest.raises(InputError, match=r"legal: .*\(seeds, digits\)") as caught:
            call(bad)
        assert "\n" not in str(caught.value)


def test_variants_that_do_not_share_seeds_and_digits_are_named() -> None:
    with pytest.raises(InputError, match=r"modern \(3, 10000\), old \(2, 10000\)"):
        statistics.pairs({"modern": wrong({1}, {1}, {1}), "old": wrong({1}, {2})})
    with pytest.raises(InputError, match="same shape"):
        statistics.difference(wrong({1}, digits=5), wrong({1}, digits=6))


def test_clustering_is_the_variance_of_blocks_against_that_of_digits() -> None:
    # means of two: 1 and 0, variance ½; of digits ⅓; the fifth digit fills no block
    assert statistics.clustering(np.array([1.0, 1, 0, 0, 1]), 2).effect == pytest.approx(2 * (1 / 2) / (1 / 3))
    assert statistics.clustering(np.array([1.0, 0, 0, 1, 0]), 2).effect == 0
    assert statistics.clustering(np.ones(100), 10) is None


def test_clustering_shows_writers_that_follow_each_other_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a writer's size see 1 + (2m/3 − 1)·ρ; digits in random order 1, and 5 % of them fall outside."""
    generator = np.random.default_rng(2)
    size, rho, p = 100, 0.05, 0.1
    found, outside = [], 0
    for trial in range(200):
        monkeypatch.setattr(statistics, "ORDERS", 1)
        chances = generator.beta(p * (1 / rho - 1), (1 - p) * (1 / rho - 1), 51)
        digits = generator.random(size * 51) < np.repeat(chances, size)
        cut = generator.integers(size)
        found.append(statistics.clustering(digits[cut : cut + 5000].astype(float), size).effect)
        monkeypatch.setattr(statistics, "ORDERS", 200)
        if trial < 100:
            one = statistics.clustering((generator.random(5000) < p).astype(float), size)
            outside += not one.low <= one.effect <= one.high
    assert np.mean(found) == pytest.approx(1 + (2 * size / 3 - 1) * rho, rel=0.1)
    assert 1 <= outside <= 13
