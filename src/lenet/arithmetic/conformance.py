"""Whether this machine's operations are as the arithmetic needs them."""

from lenet.errors import InputError


def faults() -> list[str]:
    """The names of operations that are off."""
    return []


def check() -> None:
    """Raise InputError if an operation is off, with its name."""
    if found := faults():
        raise InputError(f"{', '.join(found)}: off on this machine (conformance check)")
