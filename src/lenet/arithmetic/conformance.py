"""Whether this machine computes as the arithmetic needs it: every operation that it is made of, on telling inputs.

Numbers are patterns of bits from a fixed sequence, of magnitudes from 2^−20 to 2^20 and of subnormal ones, with ties
between roundings; there are so many that vectors and their remainders both occur. The sums are compared with those of
integers, the rest with digests that are right on every machine whose arithmetic is IEEE 754's, rounded to nearest, with
subnormal numbers, and without fused multiply-adds where two operations are written.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lenet.arithmetic import functions
from lenet.runtime.errors import InputError

COUNT = 1037  # no multiple of any vector's length


def check(device: str = "cpu") -> None:
    """Raise InputError with the operations that are off. It takes some milliseconds."""
    if off := faults(device):
        where = "this machine" if device == "cpu" else device
        raise InputError(
            f"{where}'s arithmetic is off: {', '.join(off)}; nothing is trained, for its weights would be others. "
            "`lenet doctor` tells more"
        )


def faults(device: str = "cpu") -> list[str]:
    """The names of the operations that do not give the right bits on a device; none where all is right."""
    with torch.device(device):
        return [name for name, (compute, digest) in OPERATIONS.items() if _digest(compute()) != digest] + [
            name for name, compute in SUMS.items() if not compute()
        ]


def _digest(*tensors: Tensor | tuple[Tensor, ...]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        for part in tensor if isinstance(tensor, tuple) else (tensor,):
            digest.update(part.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _integers(salt: int, count: int = COUNT, bits: int = 32) -> Tensor:
    """Integers (count,) of so many bits, from 0."""
    mixed = (torch.arange(count) + 1) * 2654435761 + salt * 40503 * 65537
    mixed = (mixed ^ (mixed >> 15)) * 2246822519 % 2**32
    return (mixed ^ (mixed >> 13)) % 2**bits


def _numbers(salt: int, least: int = -20, most: int = 20) -> Tensor:
    """Numbers of either sign with magnitudes from 2^least to 2^most."""
    exponents = _integers(salt + 1, bits=16) % (most - least) + least + 127
    bits = _integers(salt, bits=23) | exponents << 23 | _integers(salt + 2, bits=1) << 31
    return (bits - (bits >> 31 << 32)).to(torch.int32).view(torch.float32)


def _positive(salt: int, least: int = -20, most: int = 20) -> Tensor:
    return _numbers(salt, least, most).abs()


def _product_less_itself() -> Tensor:
    """The product less its rounded self, which is 0 unless the two operations are one, and other neighbours of it."""
    x, y, z = _numbers(1), _numbers(4), _numbers(7, -2, 2)
    return torch.stack([x * y - (x * y), x * y + z, (x * 0.1) + z])


def _product_in_place() -> Tensor:
    return _numbers(7, -2, 2).mul_(0.9).add_(_numbers(1, -2, 2) * 0.1).sub_(_numbers(4, -2, 2) * 0.7)


def _with_python_numbers() -> Tensor:
    x = _numbers(10)
    return ((x * 0.1 + 0.3) - 1 / 3) * 1.7159


def _rounded_to_grids() -> tuple[Tensor, ...]:
    x = _numbers(13, -24, 0)
    return tuple((x + 1.5 * 2.0 ** (23 - bits)) - 1.5 * 2.0 ** (23 - bits) for bits in (12, 20, 22))


def _subnormal() -> tuple[Tensor, ...]:
    tiny = _numbers(16, -126, -120)
    return tiny * 2.0**-10, tiny * 2.0**-10 * 2.0**20, (tiny - tiny * (1 - 2.0**-20)) * 0.5


def _conversions() -> tuple[Tensor, ...]:
    double = _numbers(19).double() * _numbers(22).double()
    ties = (_integers(23, bits=26) * 2 + 1).double()
    return double.float(), ties.float(), (double % 1000).to(torch.int32), _integers(24, bits=31).to(torch.int32).float()


def _bits() -> tuple[Tensor, ...]:
    x = _numbers(25)
    mantissa, exponent = torch.frexp(x)
    return (
        mantissa,
        exponent,
        x.view(torch.int32) >> 23,
        (x.view(torch.int32) & 511) << 23,
        x.floor(),
        x.double().floor(),
    )


def _selected() -> tuple[Tensor, ...]:
    x = _numbers(28, -110, -90)
    low, high = torch.aminmax(x)
    return (
        torch.hardshrink(x, 2.0**-100), x.clamp(-(2.0**-95), 2.0**-97), torch.relu(x), low, high, x.abs().amax(),
        torch.where(x > 0, x, x.new_zeros(())), torch.maximum(x, x.flip(0)),
    )  # fmt: skip


def _roots() -> tuple[Tensor, ...]:
    squares = _integers(31, bits=12).float()
    return functions.sqrt(_positive(32, -100, 100)), functions.sqrt(squares * squares)


def _drawn() -> tuple[Tensor, ...]:
    with torch.device("cpu"):
        generator = torch.Generator().manual_seed(1998)
        return torch.rand(COUNT, generator=generator), torch.randperm(COUNT, generator=generator)


OPERATIONS: dict[str, tuple[Callable[[], Tensor | tuple[Tensor, ...]], str]] = {
    "addition": (lambda: _numbers(40) + _numbers(43), "285eb211abf4"),
    "subtraction": (lambda: _numbers(46) - _numbers(49, -3, 3), "5efff2a94ac2"),
    "multiplication": (lambda: _numbers(52) * _numbers(55), "b503feed2ad0"),
    "division": (lambda: _numbers(58) / _numbers(61), "bdc375a141bf"),
    "division in double precision": (lambda: _numbers(64).double() / _numbers(67).double(), "0712512e7118"),
    "operations with Python's numbers": (_with_python_numbers, "dba0d70d6aa1"),
    "a product and a sum, not fused": (_product_less_itself, "c1b57cea8441"),
    "a product and a sum in place, not fused": (_product_in_place, "90dc835e9662"),
    "rounding to a grid by two additions": (_rounded_to_grids, "ae17c3a2df7c"),
    "subnormal numbers": (_subnormal, "11ec9c4a4439"),
    "conversions between precisions": (_conversions, "f1390c9f8a2f"),
    "exponents and bits": (_bits, "3d9ff77cd237"),
    "comparisons and largest numbers": (_selected, "745a68211a7b"),
    "square roots": (_roots, "2e8ef540db12"),
    "exp": (lambda: functions.exp(_numbers(70, -8, 7)), "f5b2a152a0fb"),
    "log": (lambda: functions.log(_positive(73, -100, 100)), "f5c63395c82d"),
    "tanh": (lambda: functions.tanh(_numbers(76, -12, 5)), "a273444a4611"),
    "logistic": (lambda: functions.logistic(_numbers(79, -8, 7)), "ea9c33c165a8"),
    "random numbers and orders": (_drawn, "2d7e51d74404"),
}
"""Operations by name: what computes some results, and the digest of the right ones."""


def _products_are_exact() -> bool:
    """Products of matrices as the networks have them: few rows, many columns, batches, either way round."""
    for m, k, n, batch in ((6, 25, 448, 3), (16, 150, 160, 2), (120, 400, 7, 1), (30, 80, 33, 2), (5, 1900, 3, 1)):
        a = (_integers(m, m * k, 22) - 2**21).view(m, k)
        b = (_integers(n, batch * k * n, 20) - 2**19).view(batch, k, n)
        right = (a.cpu() @ b.cpu()).to(a.device)
        a, b = a.double(), b.double()
        if not all(
            torch.equal(product, right.double())
            for product in (
                a @ b,
                torch.bmm(a.expand(batch, m, k), b),
                (b.mT @ a.T).mT,
                torch.from_numpy(np.matmul(a.cpu().numpy(), b.cpu().numpy())).to(a.device),
            )
        ):
            return False
    return True


def _sums_are_exact() -> bool:
    terms = _integers(90, 3 * 4 * 2500, 30).view(3, 4, 2500) - 2**29
    return all(torch.equal(terms.double().sum(dims), terms.sum(dims).double()) for dims in (0, 1, 2, (0, 2), (1, 2)))


SUMS: dict[str, Callable[[], bool]] = {
    "products of matrices in double precision": _products_are_exact,
    "sums in double precision": _sums_are_exact,
}
"""Sums by name: what tells whether they are those of integers."""
