"""What the sources and the interpreter of a rerun are like, as JSON. Run by that interpreter on these sources.

It imports nothing of today's package, only what the sources of then have: hence the questions one by one.
"""

import json
from collections.abc import Callable
from typing import Any

import torch

try:
    from lenet.training import fingerprint
except ImportError:  # sources from before it was in a package
    from lenet import fingerprint  # type: ignore[no-redef]


def answer(question: Callable[[], Any]) -> Any:
    """Its answer; None where these sources do not know it."""
    try:
        return question()
    except (AttributeError, ImportError, TypeError):
        return None


def faults() -> list[str]:
    """The operations that do not conform here. The arithmetic of sources before it has no such check."""
    from lenet.arithmetic import conformance

    return list(conformance.faults())


def found() -> dict[str, Any]:
    """All answers, by name."""
    return {
        "conformance": answer(faults),
        "source": answer(lambda: fingerprint.source_sha256()),
        "packages": answer(lambda: dict(line.split("==", 1) for line in fingerprint.environment())),
        "threads": torch.get_num_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


if __name__ == "__main__":
    print(json.dumps(found()))
