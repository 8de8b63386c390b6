"""The steps of functions.py and exact.py on single numbers, and squashing functions over stretches of numbers."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lenet.arithmetic import exact, functions
from lenet.kernels.compiling import exactly, inlined, rounding

TANH, LOGISTIC, RELU, LINEAR = range(4)
f32 = np.float32
ZERO, ONE, TWO = f32(0), f32(1), f32(2)
LEAST, INPUT_BITS, GRID_BITS = (np.int32(n) for n in (exact.SMALLEST, exact.INPUT_BITS, exact.GRID_BITS))


def _of_bits(to: Any, change: Callable[[Any, Any], Any]) -> Any:
    """A function on a number's 32 bits; wider integers lose their upper ones."""

    def typed(_: Any, its: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (value,) = arguments
            if isinstance(its, types.Integer) and cast(Any, its).bitwidth > 32:
                value = builder.trunc(value, ir.IntType(32))
            return builder.bitcast(change(builder, value), context.get_value_type(to))

        return to(its), generate

    return intrinsic(typed)


bits_of = _of_bits(types.int32, lambda builder, value: value)
number_of = _of_bits(types.float32, lambda builder, value: value)
moved_up = _of_bits(types.int32, lambda builder, value: builder.shl(value, ir.Constant(ir.IntType(32), 23)))


# functions.py's steps

_POWER = tuple(f32(c) for c in functions._POWER)
_BIASED = f32(1.5 * 2.0**23 + 127)
_ENDS = {name: tuple(map(f32, ends)) for name, ends in functions._ENDS.items()}
_TANH_LOW, _TANH_HIGH = _ENDS["tanh"]
_LOGISTIC_LOW, _LOGISTIC_HIGH = _ENDS["logistic"]
_TWICE_LOG2_E, _MINUS_LOG2_E = f32(2 * functions.LOG2_E), f32(-functions.LOG2_E)


@inlined
def _power_less_1(t):
    """2^t − 1."""
    a = t + _BIASED
    b = a - _BIASED
    t = t - b
    power = number_of(moved_up(bits_of(a)))
    b = t * _POWER[0]
    b = (b + _POWER[1]) * t
    b = (b + _POWER[2]) * t
    b = (b + _POWER[3]) * t
    b = (b + _POWER[4]) * t
    b = (b + _POWER[5]) * t
    return b * power + (power - ONE)


@inlined
def _tanh(x):
    x = _TANH_LOW if x < _TANH_LOW else x
    x = _TANH_HIGH if x > _TANH_HIGH else x
    b = _power_less_1(x * _TWICE_LOG2_E)
    return b / (b + TWO)


@inlined
def _logistic(x):
    x = _LOGISTIC_LOW if x < _LOGISTIC_LOW else x
    x = _LOGISTIC_HIGH if x > _LOGISTIC_HIGH else x
    return ONE / (_power_less_1(x * _MINUS_LOG2_E) + TWO)


@rounding
def squash(kind, inner, x):
    """f(inner · x) in place."""
    if kind == TANH:
        for p in range(x.size):
            x[p] = _tanh(x[p] * inner)
    elif kind == LOGISTIC:
        for p in range(x.size):
            x[p] = _logistic(x[p])
    elif kind == RELU:
        for p in range(x.size):
            x[p] = ZERO if x[p] < ZERO else x[p]


@rounding
def pull(kind, factor, grad, value):
    """From gradients at f's values and these, in place those at its arguments. Returns their largest magnitude."""
    if kind == TANH:
        for p in range(grad.size):
            grad[p] = (grad[p] * factor) * (ONE - value[p] * value[p])
    elif kind == LOGISTIC:
        for p in range(grad.size):
            grad[p] = grad[p] * ((ONE - value[p]) * value[p])
    elif kind == RELU:
        for p in range(grad.size):
            grad[p] = grad[p] if value[p] > ZERO else ZERO
    return largest(grad)


# exact.py's grids


@inlined
def magnitude(x):
    """|x| as bits, which order as numbers do; infinity and what is no number are the largest."""
    return bits_of(x) & np.int32(0x7FFFFFFF)


@rounding
def largest(x):
    """The largest magnitude, as bits."""
    most = np.int32(0)
    for p in range(x.size):
        its = magnitude(x[p])
        most = its if its > most else most
    return most


@inlined
def constant(most, least, bits):
    """exact.constant for magnitudes up to one that is given as bits, which counts as 2^least at least."""
    e = (most >> 23) - 126
    e = least if e < least else e
    return number_of(((e + 150 - bits) << 23) | 0x400000)


@exactly
def total(x):
    """The sum of numbers on a grid."""
    total = 0.0
    for p in range(x.size):
        total += x[p]
    return total


@rounding
def on_grid(x, most, bits, out):
    """Numbers on the grid of their largest magnitude, in double precision. Returns their sum."""
    c = constant(most, LEAST, bits)
    for p in range(x.size):
        out[p] = (x[p] + c) - c
    return total(out)
