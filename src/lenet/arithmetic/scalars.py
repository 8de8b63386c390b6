"""Functions of Python's numbers that are the same everywhere: the C library's differ in last bits, decimals do not."""

from decimal import Context, Decimal

_CONTEXT = Context(prec=50)
_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494")


def power(base: int | float, exponent: float) -> float:
    """``base`` > 0 to a power, correctly rounded but for ties that 50 digits do not tell apart."""
    return float(_CONTEXT.power(Decimal(base), Decimal(exponent)))


def cosine_of_half_turns(x: float) -> float:
    """The cosine of π · x, for x between 0 and 1, likewise."""
    square = _CONTEXT.power(_CONTEXT.multiply(_PI, Decimal(x)), 2)
    value = Decimal(1)
    for n in range(60, 0, -2):
        value = _CONTEXT.subtract(1, _CONTEXT.divide(_CONTEXT.multiply(square, value), Decimal(n * (n - 1))))
    return float(value)


def whole_power(base: float, exponent: int) -> float:
    """``base`` to a power from 0, by squaring: products in a fixed order."""
    value = 1.0
    while exponent:
        if exponent & 1:
            value *= base
        base *= base
        exponent >>= 1
    return value
