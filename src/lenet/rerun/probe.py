"""What the sources and the interpreter of a rerun are like, as JSON. Run by that interpreter on these sources.

It imports nothing of today's package, only what the sources of then have: hence the questions one by one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lenet import fingerprint


def answer(question: Callable[[], Any]) -> Any:
    """Its answer; None where these sources do not know it."""
    try:
        return question()
    except (AttributeError, TypeError, OSError):
        return None


print(
    json.dumps(
        {
            "canary": answer(lambda: getattr(fingerprint, "canary")()),  # noqa: B009  sources from before have it
            "source": answer(lambda: fingerprint.source_sha256()),
            "packages": answer(lambda: getattr(fingerprint, "numerics")(Path("requirements-numeric.lock"))),  # noqa: B009
            "threads": torch.get_num_threads(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "build": torch.__version__,
        }
    )
)
