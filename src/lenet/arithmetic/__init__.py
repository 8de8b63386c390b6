"""torch's arithmetic as every training and evaluation has it, whatever the process around it has set."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lenet import THREADS


@contextmanager
def fixed() -> Iterator[None]:
    """For a while: one thread, and subnormal numbers (below 1.2e-38) become 0 where the processor can do that.

    Saturated units are full of them, and they take a processor ten times as long.
    """
    threads, flushed = torch.get_num_threads(), flushes()
    torch.set_num_threads(THREADS)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flushed)


def flushes() -> bool:
    """Whether subnormal numbers are 0 now."""
    return not torch.tensor(1e-30).mul(1e-10)
