"""Sums without rounding errors, and so without an order: the same bits from every machine.

A sum of floating-point numbers depends on its order because each addition rounds. It does not where nothing is
rounded. So numbers are first rounded to a *grid*, the multiples of 2^(e − b) for magnitudes up to 2^e: each then is an
integer of at most 2^b times a power of two that all share. Products of operands of b₁ and b₂ bits are integers up to
2^(b₁ + b₂), and the sum of k of them is at most k · 2^(b₁ + b₂). While that is no more than 2^53, every partial sum is
a double: a matrix product in double precision is exact, in any order, with or without fused multiply-adds, by any
library that multiplies before it adds, on any number of threads, in any slices. It is rounded once, when it becomes
single precision again.

Rounding to the grid is two additions in single precision, each correctly rounded by IEEE 754: with
C = 1.5 · 2^(e + 23 − b), the numbers from C − 2^e to C + 2^e have a unit in the last place of 2^(e − b), so that
(x + C) − C is x rounded to a multiple of it, ties to even. It holds for b ≤ 22 and finite, normal C.

The exponent e is that of the largest magnitude: a maximum has no order. Of which numbers, is a part of the result:

- of the operands of a forward pass, each digit's own, though at least ``least``, and each weight tensor's: a digit's
  scores do not depend on what else is in its batch;
- of a gradient, that of the whole batch, whatever slices compute it.

What rounding costs: an operand is off by at most 2^(e − b − 1), half a unit of the grid. With WEIGHT_BITS and
INPUT_BITS that is 2^−23 and 2^−21 of the bound of a tensor's magnitudes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import frexp, isfinite

import torch
from jaxtyping import Float, Float64, Int32
from torch import Tensor

SUM_BITS = 53  # of a double's significand
WEIGHT_BITS = 22  # at most
INPUT_BITS = 20  # of layers' inputs
GRADIENT_BITS = 20  # at most
FEWEST_BITS = 12  # of a gradient; for longer sums the inputs give way
GRID_BITS = 22  # the most that (x + C) − C rounds to
SMALLEST, LARGEST = -100, 100  # exponents; smaller magnitudes than 2^−100 lie below every grid


class NotFinite(ArithmeticError):
    """Numbers that are infinite, not a number, or beyond 2^100. The message says which.

    Attributes:
        place: of several things computed side by side, whose numbers they are.
    """

    place = 0


@contextmanager
def at(place: int) -> Iterator[None]:
    """A NotFinite raised in the block is of this one of several things computed side by side."""
    try:
        yield
    except NotFinite as error:
        error.place = place
        raise


def length(terms: int) -> int:
    """How many bits a sum of so many terms has more than a term: ⌈log₂ terms⌉."""
    return (terms - 1).bit_length()


def weight_bits(*terms: int) -> int:
    """The bits of a weight whose products with inputs, and with gradients, are summed in so many terms.

    Raises ValueError where none are left: the sums are too long.
    """
    bits = min(WEIGHT_BITS, SUM_BITS - max(INPUT_BITS, GRADIENT_BITS) - max(map(length, terms)))
    if bits < FEWEST_BITS:
        raise ValueError(f"a sum of {max(terms)} products is too long to be exact")
    return bits


def gradient_bits(terms: int) -> tuple[int, int]:
    """The bits of the gradients at a layer's outputs and of its inputs, for a sum of ``terms`` of their products.

    Raises ValueError where too few are left: the sums are too long.
    """
    most = SUM_BITS - length(terms)
    gradient = max(FEWEST_BITS, min(GRADIENT_BITS, most - INPUT_BITS))
    inputs = min(INPUT_BITS, most - gradient)
    if inputs < FEWEST_BITS:
        raise ValueError(f"a sum of {terms} products is too long to be exact")
    return gradient, inputs


def exponent(largest: float, what: str, least: int = SMALLEST) -> int:
    """The smallest e, at least ``least``, so that a magnitude of ``largest`` is below 2^e.

    Raises NotFinite, with the name ``what``, for one that has no place on a grid.
    """
    if not isfinite(largest) or (e := frexp(largest)[1]) > LARGEST:
        raise NotFinite(f"{what}: a magnitude of {largest}")
    return max(e, least)


@cache
def constant(e: int, bits: int) -> Float[Tensor, ""]:
    """C, by which magnitudes below 2^e are rounded to the grid. A tensor: it costs less than a number of Python's."""
    return torch.tensor(1.5 * 2.0 ** (e + 23 - bits))


def on_grid(x: Float[Tensor, "*shape"], e: int, bits: int) -> Float[Tensor, "*shape"]:
    """``x``, of magnitudes below 2^e, rounded to the multiples of 2^(e − bits)."""
    c = constant(e, bits)
    return (x + c) - c


def rounded(x: Float[Tensor, "*shape"], bits: int, what: str) -> Float[Tensor, "*shape"]:
    """``x`` on the grid of its own largest magnitude. Raises NotFinite with the name ``what``."""
    return on_grid(x, exponent(float(x.abs().max()), what), bits) if x.numel() else x


def rounded_each(x: Float[Tensor, "n *shape"], bits: int, least: int, what: str) -> Float[Tensor, "n *shape"]:
    """Each digit's ``x`` on the grid of its own largest magnitude, which counts as 2^least at least.

    Raises NotFinite with the name ``what``.
    """
    if not x.numel():
        return x
    largest = x.abs().amax(tuple(range(1, x.ndim)), keepdim=True)
    e = exponent(float(largest.max()), what, least)
    if e == least:
        return on_grid(x, e, bits)
    c = 1.5 * power(torch.frexp(largest).exponent.clamp(min=least) + (23 - bits))
    return (x + c) - c


def power(e: Int32[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """2^e for −126 ≤ e ≤ 127, from its bits."""
    return ((e + 127) << 23).view(torch.float32)


def total(x: Float[Tensor, "*shape"], dims: int | tuple[int, ...], what: str = "a sum") -> Float64[Tensor, "*rest"]:
    """The sums over some dimensions, exact once the terms are on one grid. Raises NotFinite with the name ``what``."""
    return rounded(x, GRID_BITS, what).double().sum(dims)


def total_each(
    x: Float[Tensor, "n *shape"], dims: int | tuple[int, ...], what: str = "a sum"
) -> Float64[Tensor, "n *rest"]:
    """The same, but each digit's terms, the first dimension's, are on a grid of their own."""
    return rounded_each(x, GRID_BITS, SMALLEST, what).double().sum(dims)


def mean(x: Float[Tensor, " n"], what: str = "a mean") -> Float[Tensor, ""]:
    """The mean over a batch. Raises NotFinite with the name ``what``."""
    return divided(total(x, 0, what), len(x))


def divided(sums: Float64[Tensor, "*shape"], count: int) -> Float[Tensor, "*shape"]:
    """Sums divided by a number of terms. (By a tensor: some devices multiply by the reciprocal of a Python number.)"""
    return (sums / sums.new_tensor(count)).float()
