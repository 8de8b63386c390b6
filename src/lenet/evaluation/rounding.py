"""Numbers as they are published: six significant digits, the same on every machine."""

from collections.abc import Mapping
from typing import Any

DIGITS = 6
ZERO = 1e-10  # what is smaller is 0: a millionth of one digit in 10,000


def rounded(content: Any) -> Any:
    """JSON's values with every float rounded to six significant digits, and to 0 below 1e-10 in size.

    For what passes through a C library's logarithm, LAPACK, scipy or an order of sums: intervals, p values, standard
    deviations, means, calibration and likelihood. No reader misses the seventh digit. What is exact everywhere (scores,
    training losses, counts) need not pass here, and a fraction of 10,000 comes out as it went in.

    Measured on 1,080 numbers of report/statistics.py: numpy's and BLAS's kernels of a processor without AVX move 66 of
    them, by 4e-15 of themselves at most; another numpy and scipy (2.2 and 1.14 for 2.4 and 1.17) 373, by 6e-11 at most.
    Rounded, all were equal. A number that lies that near to an edge between two roundings, which are 1e-6 to 1e-5 of it
    apart, would still come out as either:
    on another processor 1e-8 of these 1,080 are expected to, with those versions 0.0002.

    A difference of equal numbers is 1e-17 on one machine and 0 on another: hence the smallest size.

    Python's own formatting rounds: exactly, half to even, from the float's binary value, on every machine.
    """
    if isinstance(content, float):
        return 0.0 if abs(content) < ZERO else float(f"{content:.{DIGITS}g}")
    if isinstance(content, Mapping):
        return {name: rounded(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded(value) for value in content]
    return content
