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


def conformance() -> str:
    """The operations that do not conform here, as in a run's tag. Sources of an older arithmetic have no such check."""
    from lenet.arithmetic import conformance

    return ", ".join(conformance.faults()) or "right"


def found() -> dict[str, Any]:
    """An account of these sources and this machine."""
    return {
        "code": answer(lambda: fingerprint.source_sha256()),
        "conformance": answer(conformance),
        "packages": answer(lambda: dict(line.split("==", 1) for line in fingerprint.environment())),
        "threads": str(torch.get_num_threads()),
        "processor": torch.backends.cpu.get_cpu_capability(),
    }


if __name__ == "__main__":
    print(json.dumps(found()))
