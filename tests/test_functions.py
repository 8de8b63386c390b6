"""Functions beside mpmath at 40 digits: the errors that their module's table states, and their ends."""

import math
import re
from collections.abc import Callable
from fractions import Fraction

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lenet.arithmetic import exact, functions, scalars

TINY, LEAST = 2.0**-126, 2.0**-149  # the smallest normal and subnormal numbers
STATED = dict(re.findall(r"^``(\w+)`` .*  (\S.*)$", functions.__doc__ or "", re.MULTILINE))
"""Each function's largest error in units in the last place, as the docstring's table has it."""
TRUTH: dict[str, Callable] = {
    "exp": lambda x: mpmath.exp(min(max(x, -87), 88)),
    "log": mpmath.log,
    "tanh": mpmath.tanh,
    "logistic": lambda x: 1 / (1 + mpmath.exp(-min(max(x, -87), 87))),
    "sqrt": mpmath.sqrt,
}
RANGES = {"exp": (-40, 7), "log": (-126, 127), "tanh": (-126, 7), "logistic": (-40, 7), "sqrt": (-149, 127)}
"""Of random magnitudes, as exponents."""


WORST = {
    "exp": [45.046695709228516, -44.36466979980469, 84.47608947753906],
    "log": [0.6999768018722534],
    "tanh": [0.06210833787918091],
    "logistic": [-44.3697624206543],
}
"""Where errors are largest, of all numbers of a magnitude from 2^−9, by trial in double precision."""
ZEROS = [0.0, -0.0, LEAST, -LEAST, 3 * LEAST, TINY]
ENDS = [-87.0, 87.0, 88.0, -87.5, 89.0, 1e30, -1e30, 9.1, -9.1, 9.2]
ROOTS = [TINY, 1.0, 2.0, 0.5, math.sqrt(0.5), math.sqrt(2), 2.0**127 * 1.99]


def numbers(name: str, count: int = 3000) -> Tensor:
    """Random numbers of all magnitudes, and special ones."""
    chance = torch.Generator().manual_seed(1998)
    low, high = RANGES[name]
    sizes = 2.0 ** (torch.rand(count, generator=chance, dtype=torch.float64) * (high - low) + low)
    around = torch.rand(count // 3, generator=chance, dtype=torch.float64) - 0.5
    if name in ("log", "sqrt"):
        special, parts = ROOTS + (ZEROS[:3] + ZEROS[4:] if name == "sqrt" else []), [sizes, 1 + around * 0.01]
    else:
        signs = torch.randint(2, (count,), generator=chance) * 2 - 1
        special, parts = ZEROS + ENDS, [sizes * signs, around * 20]
    return torch.cat([*parts, torch.tensor(special + WORST.get(name, []), dtype=torch.float64)]).float()


def error(ours: float, truth: mpmath.mpf) -> float:
    """In units in the last place of the truth in single precision."""
    if not truth:
        return 0.0 if ours == 0 else math.inf
    exponent = max(int(mpmath.floor(mpmath.log(abs(truth), 2))), -126)
    return float(abs(ours - truth) / mpmath.mpf(2) ** (exponent - 23))


def stated(name: str, x: float) -> float:
    """The table's bound at a number."""
    return 2 + 1.2 * min(abs(x), 88) if STATED[name] == "2 + 1.2 |x|" else float(STATED[name])


def test_the_table_states_an_error_of_every_function() -> None:
    assert set(STATED) == set(TRUTH)


@pytest.mark.parametrize("name", TRUTH)
def test_errors_are_those_of_the_table(name: str) -> None:
    """None is larger, and some are nearly as large."""
    x = numbers(name)
    ours = getattr(functions, name)(x.clone()).tolist()
    with mpmath.workdps(40):
        errors = [error(y, TRUTH[name](mpmath.mpf(one))) for one, y in zip(x.tolist(), ours, strict=True)]
    shares = [its / stated(name, one) for one, its in zip(x.tolist(), errors, strict=True)]
    largest = max(shares)
    assert largest <= 1, x[shares.index(largest)].item()
    assert largest > 0.96


def test_beyond_their_ends_functions_are_as_the_table_says() -> None:
    inf, nan = torch.inf, torch.nan

    def at(name: str, *x: float) -> list[float]:
        return getattr(functions, name)(torch.tensor(x)).tolist()

    assert at("exp", -inf, -1e30, inf, 89.0) == at("exp", -87.0, -87.0, 88.0, 88.0)
    assert at("exp", 0.0, -0.0) == [1, 1]
    assert at("tanh", -inf, inf, 9.1, -9.1, 0.0) == [-1, 1, 1, -1, 0]
    assert at("logistic", -inf, inf, 0.0) == [*at("logistic", -87.0), 1, 0.5]
    assert at("logistic", -87.0)[0] > 0
    assert at("sqrt", 0.0, -0.0, inf, 2.0**-148) == [0, 0, inf, 2.0**-74]
    for name in ("exp", "tanh", "logistic", "sqrt"):
        assert math.isnan(*at(name, nan)), name
    assert math.isnan(*at("sqrt", -1.0))
    for bad in (0.0, -0.0, -1.0, LEAST, TINY - LEAST, inf, nan):
        with pytest.raises(exact.NotFinite, match="a logarithm of a number that is not positive, normal and finite"):
            at("log", 1.0, bad)
    assert at("log", 1.0) == [0]


@pytest.mark.parametrize("name", TRUTH)
def test_a_value_depends_on_its_argument_alone(name: str) -> None:
    """Not on how many there are, where they lie, or how: chunks, vectors and their remainders."""
    x = numbers(name, functions.CHUNK + 5000)
    function = getattr(functions, name)
    together = function(x.clone())
    for count in (1, 3, 17, functions.CHUNK, functions.CHUNK + 1):
        assert torch.equal(function(x[-count:].clone()), together[-count:])
    square = x[: 150 * 150].view(150, 150)
    assert torch.equal(
        function(square.T.clone(memory_format=torch.preserve_format)).T, together[: 150 * 150].view(150, 150)
    )
    assert torch.equal(function(torch.empty(0)), torch.empty(0))


@pytest.mark.parametrize("name", ["tanh", "logistic"])
def test_in_place_is_the_same(name: str) -> None:
    x = numbers(name)
    kept = x.clone()
    value = getattr(functions, name)(x)
    assert torch.equal(x, kept)
    assert getattr(functions, f"{name}_")(x) is x
    assert torch.equal(x, value)


# sums of powers


def rows() -> Tensor:
    x = torch.randn(40, 10, generator=torch.Generator().manual_seed(2)) * torch.logspace(-2, 2, 40)[:, None]
    return torch.cat([x, torch.zeros(1, 10), torch.full((1, 10), 1e4), torch.eye(10)[:1] * 1e30])


def test_softmax_and_its_logarithm_are_near_the_truth() -> None:
    x = rows()
    places = torch.arange(len(x)) % 10
    logs = functions.minus_log_softmax(x, places).tolist()
    with mpmath.workdps(40):
        for row, shares, place, log in zip(x.tolist(), functions.softmax(x), places.tolist(), logs, strict=True):
            powers = [mpmath.exp(mpmath.mpf(one) - max(row)) for one in row]
            truth = mpmath.log(sum(powers)) - (mpmath.mpf(row[place]) - max(row))
            assert abs(log - truth) <= 2.0**-22 * max(1, abs(truth))
            for share, power in zip(shares.tolist(), powers, strict=True):
                assert abs(share - power / sum(powers)) < 2.0**-22


def test_a_small_loss_is_not_lost_in_a_large_logit() -> None:
    x = torch.zeros(1, 10)
    x[0, 3] = 16.0
    truth = math.log1p(9 * math.exp(-16.0))
    assert functions.minus_log_softmax(x, torch.tensor([3])).item() == pytest.approx(truth, abs=2.0**-24)


def test_softmax_knows_no_order_and_no_other_row() -> None:
    x = rows()
    columns, lines = (torch.randperm(n, generator=torch.Generator().manual_seed(4)) for n in (10, len(x)))
    places = torch.arange(len(x)) % 10
    shares, logs = functions.softmax(x), functions.minus_log_softmax(x, places)
    assert torch.equal(functions.softmax(x[:, columns]), shares[:, columns])
    assert torch.equal(functions.minus_log_softmax(x[:, columns], columns.argsort()[places]), logs)
    assert torch.equal(functions.softmax(x[lines]), shares[lines])
    assert torch.equal(torch.cat([functions.softmax(one[None]) for one in x]), shares)
    assert torch.equal(functions.minus_log_softmax(x[lines], places[lines]), logs[lines])


# double precision and Python's numbers


def test_sines_and_cosines_are_within_their_bound() -> None:
    x = (torch.rand(2000, generator=torch.Generator().manual_seed(6), dtype=torch.float64) * 2 - 1) * math.pi
    x = torch.cat([x, torch.tensor([0.0, -0.0, math.pi, -math.pi, math.pi / 2, 1e-300], dtype=torch.float64)])
    sines, cosines = functions.sine_and_cosine(x)
    with mpmath.workdps(40):
        for one, sine, cosine in zip(x.tolist(), sines.tolist(), cosines.tolist(), strict=True):
            assert abs(sine - mpmath.sin(one)) < 1e-14
            assert abs(cosine - mpmath.cos(one)) < 1e-14


def nearest(value: mpmath.mpf) -> float:
    """The double next to a number of many digits, by fractions."""
    mantissa, exponent = value.man_exp
    return float(Fraction(int(mantissa)) * Fraction(2) ** exponent) * (-1 if value < 0 else 1)


@settings(deadline=None)
@given(st.one_of(st.integers(1, 10_000), st.floats(1e-6, 1e6)), st.floats(-3, 3))
def test_powers_are_correctly_rounded(base: float, exponent: float) -> None:
    with mpmath.workdps(60):
        assert scalars.power(base, exponent) == nearest(mpmath.power(mpmath.mpf(base), mpmath.mpf(exponent)))


@settings(deadline=None)
@given(st.floats(0, 1))
def test_cosines_of_half_turns_are_correctly_rounded(x: float) -> None:
    with mpmath.workdps(60):
        truth = mpmath.cos(mpmath.pi * mpmath.mpf(x))
        ours = scalars.cosine_of_half_turns(x)
        assert ours == nearest(truth) or abs(ours - truth) < 1e-45  # next to a zero


@settings(deadline=None)
@given(st.floats(0.5, 1.0), st.integers(0, 5000))
def test_whole_powers_are_near_the_truth_and_exact_for_integers(base: float, exponent: int) -> None:
    with mpmath.workdps(60):
        truth = mpmath.power(mpmath.mpf(base), exponent)
        if truth > 2.0**-1000:
            assert abs(scalars.whole_power(base, exponent) - truth) <= truth * 2.0**-53 * max(1, 2 * exponent)
    assert scalars.whole_power(3.0, 30) == 3**30
    assert scalars.whole_power(base, 0) == 1


@pytest.mark.parametrize("name", ["exp", "tanh", "logistic"])
def test_torch_s_steps_are_numpy_s(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As on a device that NumPy does not know."""
    x = numbers(name, functions.CHUNK + 5000)
    by_numpy = getattr(functions, name)(x)
    monkeypatch.setattr(functions, "BY_NUMPY", ())
    assert torch.equal(getattr(functions, name)(x), by_numpy)
