"""Seeds for everything random: a function of what it is for, never of what was drawn before."""

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose, for example ``derive(seed, "order", epoch)``.

    The words are hashed with SHA-256, so that neighbouring seeds and epochs give unrelated streams.
    """
    digest = hashlib.sha256(":".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
