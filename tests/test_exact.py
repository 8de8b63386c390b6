"""Rounding to grids beside fractions, sums beside Python's integers, and what is refused."""

from fractions import Fraction
from math import nextafter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lenet.arithmetic import exact
from lenet.arithmetic import nn as layers

FEW = settings(deadline=None, max_examples=60)
BITS = st.sampled_from([12, 20, 22])


def to_the_grid(x: float, e: int, bits: int) -> float:
    """A number rounded to a multiple of 2^(e − bits), ties to even, by fractions."""
    unit = Fraction(2) ** (e - bits)
    return float(round(Fraction(x) / unit) * unit)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# the grid


@FEW
@given(st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30), st.integers(-90, 100), BITS)
def test_two_additions_round_to_the_grid(parts: list[float], e: int, bits: int) -> None:
    x = torch.tensor(parts) * 2.0**e
    assert exact.on_grid(x, e, bits).tolist() == [to_the_grid(one, e, bits) for one in x.tolist()]


@FEW
@given(st.lists(st.integers(-(2**22), 2**22), min_size=1, max_size=30), st.integers(-90, 100), BITS)
def test_ties_go_to_even(halves: list[int], e: int, bits: int) -> None:
    """Odd numbers of half units, up to 2^e."""
    x = torch.tensor([(half | 1 if abs(half | 1) < 2 ** (bits + 1) else 1) * 2.0 ** (e - bits - 1) for half in halves])
    rounded = exact.on_grid(x, e, bits).tolist()
    assert rounded == [to_the_grid(one, e, bits) for one in x.tolist()]
    assert all(int(one / 2.0 ** (e - bits)) % 2 == 0 for one in rounded)


def test_an_exponent_is_the_smallest_that_is_above_a_magnitude() -> None:
    for largest, e in ((2.0**-120, -100), (2.0**-101, -100), (0.75, 0), (1.0, 1), (nextafter(4.0, 0), 2), (4.0, 3)):
        assert exact.exponent(largest, "x") == e
    assert exact.exponent(0.75, "x", least=6) == 6
    assert exact.exponent(64.0, "x", least=6) == 7
    assert exact.exponent(nextafter(2.0**100, 0), "x") == 100
    e = torch.arange(-126, 128, dtype=torch.int32)
    assert exact.power(e).tolist() == [2.0**one for one in e.tolist()]


@pytest.mark.parametrize("bad", [2.0**100, float("inf"), float("-inf"), float("nan")])
def test_what_has_no_place_on_a_grid_is_refused_by_its_name(bad: float) -> None:
    x = random(3, 4)
    x[1, 2] = bad
    for refuse in (
        lambda: exact.rounded(x, 20, "F6"),
        lambda: exact.rounded_each(x, 20, 1, "F6"),
        lambda: exact.total(x, 0, "F6"),
        lambda: exact.total_each(x, 1, "F6"),
        lambda: exact.mean(x[:, 2], "F6"),
    ):
        with pytest.raises(exact.NotFinite, match=r"^F6: a magnitude of (inf|nan|1\.26765)"):
            refuse()


@pytest.mark.parametrize(
    ("what", "place"), [("weight", "C3.weight"), ("input", "C3's inputs"), ("gradient", "the gradient at C3")]
)
def test_a_layer_s_message_names_the_place(what: str, place: str) -> None:
    layer = layers.Conv2d(2, 3, 3)
    layer.place = "C3"
    x = random(2, 2, 5, 5).requires_grad_()
    dy = torch.ones(2, 3, 3, 3)
    with torch.no_grad():
        {"weight": layer.weight, "input": x, "gradient": dy}[what][0, 1, 0, 0] = torch.inf
    with pytest.raises(exact.NotFinite, match=f"^{place}: a magnitude of inf"):
        layer(x).backward(dy)


@FEW
@given(st.lists(st.integers(-120, 90), min_size=2, max_size=5), st.integers(-3, 6))
def test_each_digit_s_grid_is_its_own(scales: list[int], least: int) -> None:
    x = random(len(scales), 3, 4) * torch.tensor([2.0**scale for scale in scales])[:, None, None]
    together = exact.rounded_each(x, 20, least, "x")
    for one, its in zip(x, together, strict=True):
        assert torch.equal(exact.rounded_each(one[None], 20, least, "x")[0], its)
        e = exact.exponent(float(one.abs().max()), "x", least)
        assert its.flatten().tolist() == [to_the_grid(part, e, 20) for part in one.flatten().tolist()]


# sums


def test_bits_are_as_many_as_fit_into_53() -> None:
    for terms, longer in ((1, 0), (2, 1), (2048, 11), (2049, 12)):
        assert exact.length(terms) == longer
        assert 2 ** exact.length(terms) >= terms
    assert exact.weight_bits(25, 150) == 22
    assert exact.weight_bits(2048) == 22
    assert exact.weight_bits(400, 2049) == 21  # the longer of two sums counts
    assert exact.weight_bits(2**21) == 12
    assert exact.gradient_bits(2**13) == (20, 20)
    assert exact.gradient_bits(2**13 + 1) == (19, 20)
    assert exact.gradient_bits(2**21) == (12, 20)
    assert exact.gradient_bits(2**21 + 1) == (12, 19)
    assert exact.gradient_bits(2**29) == (12, 12)


@given(st.integers(1, 2**29))
def test_no_sum_can_exceed_53_bits(terms: int) -> None:
    gradient, inputs = exact.gradient_bits(terms)
    assert terms * 2 ** (gradient + inputs) <= 2**53
    if terms <= 2**21:
        assert terms * 2 ** (exact.weight_bits(terms) + max(exact.INPUT_BITS, exact.GRADIENT_BITS)) <= 2**53


def test_one_term_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="a sum of 2097153 products is too long to be exact"):
        exact.weight_bits(2**21 + 1, 3)
    with pytest.raises(ValueError, match="a sum of 536870913 products is too long to be exact"):
        exact.gradient_bits(2**29 + 1)


@pytest.mark.parametrize(("terms", "bits", "its_bits"), [(2047, 22, 20), (8191, 20, 20), (2**19 - 1, 14, 20)])
def test_the_longest_products_are_those_of_integers(terms: int, bits: int, its_bits: int) -> None:
    """All bits of all operands are ones, then random; the first sum is odd, and next to 2^53."""
    generator = torch.Generator().manual_seed(terms)
    ones = torch.full((terms,), 2**bits - 1), torch.full((terms,), 2**its_bits - 1)
    drawn = [torch.randint(-(2**b) + 1, 2**b, (terms,), generator=generator) for b in (bits, its_bits)]
    for a, b in (ones, drawn):
        right = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
        order = torch.randperm(terms, generator=generator)
        a, b = a.double()[None], b.double()[:, None]
        assert (a @ b).item() == right
        assert (a[:, order] @ b[order]).item() == right
        assert sum(x @ y for x, y in zip(a.split(700, 1), b.split(700), strict=True)).item() == right
        assert (a * b.T).sum().item() == right
    assert 2**52 < terms * (2**bits - 1) * (2**its_bits - 1) < 2**53


def test_a_layer_is_the_sum_of_integers_rounded_once_then_the_bias() -> None:
    """2047 inputs: weights and inputs with all bits set, so that the sum has 53."""
    layer = layers.Linear(2047, 2, least=0)
    x = torch.full((1, 2047), 1 - 2.0**-20)
    with torch.no_grad():
        layer.weight.fill_(1 - 2.0**-22)
        layer.bias.copy_(torch.tensor([0.3, -2000.1]))
    total = torch.tensor(float(Fraction(2047 * (2**22 - 1) * (2**20 - 1), 2**42)), dtype=torch.float64).float()
    assert torch.equal(layer(x)[0], total + layer.bias)


@FEW
@given(st.integers(0, 2**31), st.integers(2, 400), st.integers(-30, 30))
def test_totals_are_those_of_fractions_in_any_order_and_any_slices(seed: int, n: int, scale: int) -> None:
    x = random(n, seed=seed) * 2.0**scale
    e = exact.exponent(float(x.abs().max()), "x")
    right = sum(Fraction(to_the_grid(one, e, 22)) for one in x.tolist())
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    assert Fraction(exact.total(x, 0).item()) == Fraction(exact.total(x[order], 0).item()) == right
    on_one_grid = exact.rounded(x, 22, "x").double()
    for size in (1, 7, n):
        assert Fraction(sum(part.sum() for part in on_one_grid.split(size)).item()) == right
    assert torch.equal(exact.mean(x), exact.mean(x[order]))
    assert exact.mean(x).item() == torch.tensor(float(right) / n, dtype=torch.float64).float().item()


def test_totals_of_digits_do_not_depend_on_other_digits() -> None:
    x = random(5, 7, 9) * 10.0 ** torch.arange(-2, 3)[:, None, None]
    together = exact.total_each(x, (1, 2))
    assert torch.equal(together, torch.cat([exact.total_each(one[None], (1, 2)) for one in x]))
    order = torch.tensor([3, 0, 4, 2, 1])
    assert torch.equal(exact.total_each(x[order], (1, 2)), together[order])


# gradients


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize(
    ("n", "maps_in", "maps_out", "size", "side", "padding"),
    [(16, 1, 6, 5, 32, 0), (16, 6, 16, 5, 14, 0), (7, 3, 4, 3, 9, 1), (64, 400, 12, 1, 1, 0), (3, 1, 2, 1, 900, 0)],
)
def test_a_gradient_is_the_same_from_any_slices_of_its_batch(
    n: int, maps_in: int, maps_out: int, size: int, side: int, padding: int, scale: float
) -> None:
    """Exponents are those of the whole batch; the parts of the sums are added in double precision.

    Digits are of different magnitudes, some beyond their common grid. The last case's sums are so long that the inputs
    have fewer bits than in the forward pass.
    """
    layer = layers.Conv2d(maps_in, maps_out, size, padding)
    x = random(n, maps_in, side, side, seed=1) * scale * torch.linspace(0.01, 3, n)[:, None, None, None]
    y = layer(x)
    dy = random(*y.shape, seed=2)
    dweight, dbias = torch.autograd.grad(y, (layer.weight, layer.bias), dy)
    bits, input_bits = exact.gradient_bits(dy[:, 0].numel())
    assert (input_bits < exact.INPUT_BITS) == (side == 900)
    e = exact.exponent(float(x.abs().max()), "x", layer.least)
    inputs = exact.on_grid(exact.rounded_each(x, exact.INPUT_BITS, layer.least, "x"), e, input_bits).double()
    at_sums = exact.rounded(dy, bits, "dy").double()
    for width in (1, 5, n):
        parts = [
            (torch.nn.grad.conv2d_weight(its, layer.weight.shape, at, padding=padding), at.sum((0, 2, 3)))
            for its, at in zip(inputs.split(width), at_sums.split(width), strict=True)
        ]
        assert torch.equal(sum(part for part, _ in parts).float(), dweight)
        assert torch.equal(sum(part for _, part in parts).float(), dbias)
