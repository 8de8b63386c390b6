"""exp, log, tanh, the logistic function, square roots and softmax, made of single IEEE operations.

A library's own functions differ in their last bits between processors, and so does a multiply-add between those that
round once and those that round twice. Here each step is one operation of torch or NumPy in single precision, which IEEE
754 rounds correctly: +, −, ×, ÷, comparisons, conversions, and shifts of bits. Polynomials go by Horner's rule.

Errors against mpmath at 40 digits, in units in the last place (``tests/test_functions.py`` holds them):

=============  ================================================  ===========
function       where                                             error, ulp
=============  ================================================  ===========
``exp``        −87 … 88; below it is e^−87, above e^88           2 + 1.2 |x|
``log``        2^−126 … 2^128                                    0.83
``tanh``       everywhere                                        3.82
``logistic``   −87 … 87; beyond, it is as at these ends          2 + 1.2 |x|
``sqrt``       from 0                                            0.5
=============  ================================================  ===========
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from lenet.arithmetic.exact import NotFinite

LOG2_E = 1.4426950408889634
CHUNK = 65536  # numbers at a time in functions of many steps: with their scratch they stay in the second cache

# (2^r − 1) / r on −½ … ½, the best polynomial of degree 5, the highest power first; its error is 7e−9
_POWER = (1.5453163e-4, 1.3390863e-3, 9.6180830e-3, 5.5503570e-2, 2.4022651e-1, 6.9314718e-1)
# (ln(1 + m) − m + m²/2) / m³ on 1/√2 … √2 less 1 (Cephes, Moshier 1992)
_LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # their sum is ln 2; multiples of the first by integers are exact


class _Steps:
    """The steps of exp, tanh and the logistic function, by torch or by NumPy, which name them alike.

    Each takes a part of an array and two buffers for as many numbers. Constants are arrays of no dimension: they cost
    less than Python's numbers.
    """

    def __init__(self, library: Any, number: Callable[[Any], Any]) -> None:
        self.library = library
        self.power = [number(c) for c in _POWER]
        self.one, self.two, self.log2_e, self.minus_log2_e, self.twice_log2_e = map(
            number, (1.0, 2.0, LOG2_E, -LOG2_E, 2 * LOG2_E)
        )
        # x + this − this: x rounded; the last 9 bits of x + this: the exponent of 2^x, biased
        self.biased = number(1.5 * 2.0**23 + 127)
        self.shift = number(23)
        self.ends = {name: tuple(map(number, ends)) for name, ends in _ENDS.items()}

    def tanh(self, x: Any, a: Any, b: Any) -> None:
        """(e^2x − 1) / (e^2x + 1) into ``x``."""
        self._cut(x, "tanh", self.twice_log2_e)
        self._power_less_1(x, a, b)
        self.library.add(b, self.two, out=x)
        self.library.divide(b, x, out=x)

    def logistic(self, x: Any, a: Any, b: Any) -> None:
        """1 / (1 + e^−x) into ``x``."""
        self._cut(x, "logistic", self.minus_log2_e)
        self._power_less_1(x, a, b)
        self.library.add(b, self.two, out=b)
        self.library.divide(self.one, b, out=x)

    def exp(self, x: Any, a: Any, b: Any) -> None:
        """e^x into ``x``."""
        self._cut(x, "exp", self.log2_e)
        power = self._fraction(x, a, b)
        self.library.multiply(b, power, out=b)
        self.library.add(b, power, out=x)

    def _cut(self, x: Any, name: str, factor: Any) -> None:
        low, high = self.ends[name]
        self.library.maximum(x, low, out=x)
        self.library.minimum(x, high, out=x)
        self.library.multiply(x, factor, out=x)

    def _power_less_1(self, t: Any, a: Any, b: Any) -> None:
        """2^t − 1 for −126 < t < 127, into ``b``. ``t`` and ``a`` are used up."""
        power = self._fraction(t, a, b)
        self.library.multiply(b, power, out=b)
        self.library.subtract(power, self.one, out=power)
        self.library.add(b, power, out=b)

    def _fraction(self, t: Any, a: Any, b: Any) -> Any:
        """With k = t rounded and r = t − k: 2^r − 1 into ``b``, and 2^k, which lies in ``a``. ``t`` is used up."""
        add, multiply, subtract = self.library.add, self.library.multiply, self.library.subtract
        add(t, self.biased, out=a)
        subtract(a, self.biased, out=b)
        subtract(t, b, out=t)
        bits = a.view(self.library.int32)
        self.library.bitwise_left_shift(bits, self.shift, out=bits)
        multiply(t, self.power[0], out=b)
        for coefficient in self.power[1:]:
            add(b, coefficient, out=b)
            multiply(b, t, out=b)
        return a


_ENDS = {"tanh": (-9.1, 9.1), "logistic": (-87.0, 87.0), "exp": (-87.0, 88.0)}  # tanh is ±1 beyond, in single precision
BY_NUMPY = ("cpu",)  # devices on which NumPy takes the steps: there its calls cost a third of torch's
_TORCH = _Steps(torch, torch.tensor)
_NUMPY = _Steps(np, lambda number: torch.tensor(number).numpy())


def _in_place(name: str, x: Tensor) -> Tensor:
    """Run a function's steps over a contiguous tensor, a chunk at a time."""
    flat: Any = x.view(-1)
    buffers: Any = x.new_empty(2, min(CHUNK, len(flat)))
    steps = _TORCH
    if x.device.type in BY_NUMPY:
        flat, buffers, steps = flat.numpy(), buffers.numpy(), _NUMPY
    for at in range(0, len(flat), CHUNK):
        part = flat[at : at + CHUNK]
        getattr(steps, name)(part, buffers[0, : len(part)], buffers[1, : len(part)])
    return x


def tanh_(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The hyperbolic tangent, in place: (e^2x − 1) / (e^2x + 1)."""
    return _in_place("tanh", x)


def tanh(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The hyperbolic tangent."""
    return tanh_(x.clone(memory_format=torch.contiguous_format))


def logistic_(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logistic function 1 / (1 + e^−x), in place."""
    return _in_place("logistic", x)


def logistic(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The logistic function 1 / (1 + e^−x)."""
    return logistic_(x.clone(memory_format=torch.contiguous_format))


def exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The exponential function; its argument is cut to −87 … 88, so that the result is finite and normal."""
    return _in_place("exp", x.clone(memory_format=torch.contiguous_format))


def log(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The natural logarithm of normal positive numbers. Raises NotFinite for any other."""
    if x.numel() and not bool(((x >= 2.0**-126) & (x < torch.inf)).all()):
        raise NotFinite("a logarithm of a number that is not positive, normal and finite")
    bits = x.view(torch.int32)
    k = ((bits - 0x3F3504F3) >> 23).float()  # so that m + 1 lies between 1/√2 and √2
    m = (bits - (k.to(torch.int32) << 23)).view(torch.float32) - 1.0
    square = m * m
    value = _horner(m, _LOG) * m * square
    value = value + k * _LN2_LOW - square * 0.5 + m
    return value + k * _LN2_HIGH


def _horner(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """A polynomial, the highest power's coefficient first."""
    value = x * coefficients[0] + coefficients[1]
    for coefficient in coefficients[2:]:
        value = value * x + coefficient
    return value


def sqrt(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The square root, correctly rounded.

    torch's is in single precision a library's, which may be an ulp off. That of a double, rounded, is right all the
    same: no root of a number of 24 bits lies so near to the middle of two numbers of 24 bits that an ulp could matter.
    """
    if x.device.type in BY_NUMPY:
        with np.errstate(invalid="ignore"):
            return torch.from_numpy(np.sqrt(x.numpy()))
    return x.double().sqrt().float()


def softmax(x: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Each row's e^x as fractions of their sum."""
    powers, sums, _ = _powers(x)
    return powers.div_(sums)


def minus_log_softmax(x: Float[Tensor, "n k"], places: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Minus the logarithm of each row's softmax at a place of its own, without loss of small ones."""
    _, sums, largest = _powers(x)
    return (log(sums) - (x.gather(1, places[:, None]) - largest))[:, 0]


def _powers(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's e^(x − its largest number), their sum, and that number. The sum is exact on a grid of 2^−40."""
    largest = x.amax(1, keepdim=True)
    powers = exp(x - largest)
    grid = 1.5 * 2.0**12  # as in exact.py, in double precision; all are at most 1
    return powers, powers.double().add_(grid).sub_(grid).sum(1, keepdim=True).float(), largest


def sine_and_cosine(x: Float64[Tensor, "*shape"]) -> tuple[Float64[Tensor, "*shape"], Float64[Tensor, "*shape"]]:
    """Both of angles between −π and π, in double precision, by Taylor's series; the error is below 1e−14."""
    square = x * x
    sine, cosine = torch.ones_like(x), torch.ones_like(x)
    for n in range(28, 0, -2):  # 1 − x²/(2·3) (1 − x²/(4·5) (…
        sine = 1.0 - square * sine * (1.0 / (n * (n + 1)))
        cosine = 1.0 - square * cosine * (1.0 / (n * (n - 1)))
    return x * sine, cosine
