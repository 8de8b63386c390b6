"""Numbers as they are published: six significant digits, the same on every machine."""

from collections.abc import Mapping
from typing import Any

DIGITS = 6
ZERO = 1e-10  # what is smaller is 0: a millionth of one digit in 10,000


def rounded(content: Any) -> Any:
    """JSON's values with every float rounded to six significant digits, and to 0 below 1e-10 in size.

    For what passes through a C library's logarithm, LAPACK, scipy or an order of sums: intervals, p values, standard
    deviations, means, calibration and likelihood. Another library moves them by 1e-13 of themselves at most (measured:
    1e-15); no reader misses the seventh digit. What is exact everywhere (scores, training losses, counts and single
    fractions of counts) need not pass here, and a fraction of 10,000 comes out as it went in.

    A value that lies at an edge between two roundings could still come out as either: of 1,000 such values, each moved
    by 1e-13 where edges are 1e-6 apart, one does with a chance of 1 in 10,000 at most. A difference of equal numbers,
    1e-17 on one machine and 0 on another, is why there is a smallest size.

    Python's own formatting rounds: exactly, half to even, from the float's binary value, on every machine.
    """
    if isinstance(content, float):
        return 0.0 if abs(content) < ZERO else float(f"{content:.{DIGITS}g}")
    if isinstance(content, Mapping):
        return {name: rounded(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    return content
