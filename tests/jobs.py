"""What the tests of clusters have workers compute: they import this module, and nothing else of the tests."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from lenet.digits.data import Digits
from lenet.runtime.errors import InputError
from lenet.training.fingerprint import tensors_sha256

Tell = Callable[[object], None]


def prove(digits: Digits) -> None:
    """Every worker is fit but those that say otherwise."""
    if "UNFIT" in os.environ:
        raise InputError("it computes otherwise\nand more")


def whose(digits: Digits, tell: Tell, *arguments: object) -> tuple[object, ...]:
    """The worker's process, what it has and what it was told."""
    tell({"arguments": arguments})
    return os.getpid(), tensors_sha256(vars(digits)), arguments


def die(digits: Digits, tell: Tell, marks: Path, times: int) -> int:
    """Be killed so many times; tell how often it was begun."""
    (marks / f"{time.monotonic_ns()}").touch()
    begun = len(list(marks.iterdir()))
    if begun <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return begun


def fail(digits: Digits, tell: Tell) -> None:
    raise ValueError("a fault of the job")


def go_on(digits: Digits, tell: Tell, mark: Path) -> None:
    """Without an end, but for the one that telling has."""
    try:
        while True:
            tell(os.getpid())
            time.sleep(0.05)
    finally:
        mark.touch()
