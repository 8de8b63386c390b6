"""What is still known of runs from before there were signatures: their bits depend on processor, threads and packages.

Their sources run as they are; only what their reruns are compared in, and what is said of it, is here.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from lenet.evaluation.judge import Account
from lenet.runtime.requirements import pins

LOCK = "requirements-numeric.lock"
"""Of the packages that could change bits, in sources of then; probe.py knows it, too."""
DECIDE = ("data", "code", "parameters", "packages", "build of torch", "threads", "processor", "canary")
"""What their bits depend on. The canary is a digest of the processor's arithmetic."""
NOTE = (
    "recorded by an older arithmetic, whose bits depend on the processor: "
    "other bits are to be expected here unless the processor is alike"
)


def is_former(account: Account) -> bool:
    """Whether a run is of before."""
    return account.get("signature") is None


def packages(installed: Mapping[str, str] | None, project: Path) -> dict[str, str] | None:
    """The versions to be compared: of sources that have a lock of them, those that could change bits; else all."""
    if not (project / LOCK).exists():
        return public(installed)
    pinned = pins(project / LOCK)
    return public({name: installed[name] for name in pinned if name in installed}) if installed else pinned


def public(installed: Mapping[str, str] | None) -> dict[str, str] | None:
    """Versions without the labels of builds."""
    return {name: _public(version) for name, version in installed.items()} if installed else None


def _public(version: str) -> str:
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def causes(changes: Mapping[str, str]) -> dict[str, Any]:
    """Those of the changes between two accounts that may have changed the bits."""
    threads = "threads" in changes  # which stood in a source file
    return {name: changes[name] for name in DECIDE if name in changes and not (threads and name == "code")}
