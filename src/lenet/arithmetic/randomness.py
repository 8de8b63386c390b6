"""What is random: a function of what it is for, never of what was drawn before, and made of integers."""

import hashlib

import torch
from jaxtyping import Float
from torch import Tensor


def derive(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose, for example ``derive(seed, "order", epoch)``.

    The words are hashed with SHA-256, so that neighbouring seeds and epochs give unrelated streams.
    """
    digest = hashlib.sha256(":".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def either_way(shape: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Numbers between −1 and 1, multiples of 2^−23, on the CPU."""
    return torch.rand(shape, generator=generator) * 2.0 - 1.0
