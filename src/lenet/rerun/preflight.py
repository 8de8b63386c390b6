"""What can be had of a run's sources, data, parameters, packages and arithmetic here, and the best grade it allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from lenet.config import flatten
from lenet.rerun.evidence import Inputs
from lenet.rerun.sources import Sources
from lenet.rerun.workplace import RAW, Workplace, raw_is_whole, resolved
from lenet.tracking import Tracked

SHORT = 16
"""Characters shown of a digest."""


@dataclass(frozen=True)
class Line:
    """One thing that a rerun needs.

    Attributes:
        what: its name.
        then: what the run had.
        here: what a rerun here will have.
        same: whether they are the same; None if that is not known before it has run.
    """

    what: str
    then: str
    here: str
    same: bool | None


@dataclass(frozen=True)
class Preflight:
    """What a rerun needs and finds, and the best grade that it can get."""

    lines: Sequence[Line]

    @property
    def best(self) -> str:
        """One of GRADES: bitwise where nothing differs and the arithmetic is known to be the same; else predictions."""
        canary = next(line for line in self.lines if line.what == "canary")
        return "bitwise" if canary.same and all(line.same is not False for line in self.lines) else "predictions"


def examine(run: Tracked, sources: Sources, place: Workplace, found: Mapping[str, Any]) -> tuple[Preflight, Inputs]:
    """Compare what the run had with what its rerun will have.

    Args:
        run: the run.
        sources: where its sources come from.
        place: where they are unpacked.
        found: what probe.py has found there.

    Returns:
        The lines, and all that is known of what the run was made of.
    """
    then = inputs(run, place.project)
    block = {name: str(value) for name, value in flatten(resolved(place.project)[run.tags["variant"]]).items()}
    lines = [
        Line(
            "code", _short(then.source), f"{_short(found['source'])} ({sources})", _same(then.source, found["source"])
        ),
        Line("data", _short(then.data), "MNIST's files" if raw_is_whole() else f"not in {RAW}: to be fetched", None),
        Line("parameters", *_beside(then.parameters, block)),
        Line("packages", *_beside(then.packages, found["packages"] or {})),
        Line("build of torch", then.build or "unknown", found["build"], _same(then.build, found["build"])),
        Line("threads", then.threads or "unknown", str(found["threads"]), _same(then.threads, str(found["threads"]))),
        Line("processor", then.processor or "unknown", found["processor"], _same(then.processor, found["processor"])),
        Line("canary", _short(then.canary), _short(found["canary"]), _same(then.canary, found["canary"])),
    ]
    return Preflight(lines), then


def inputs(run: Tracked, project: Path) -> Inputs:
    """What is known of what a tracked run was made of; of packages, else what the sources' lock pins."""
    tags = run.tags
    installed = run.parse(
        "source/environment.txt", lambda text: dict(line.split("==", 1) for line in text.decode().split())
    )
    pinned = _pins(project / "requirements-numeric.lock")
    packages = {name: _public(installed[name]) for name in pinned if name in installed} if installed else pinned
    return Inputs(
        key=run.key,
        data=tags.get("data.sha256"),
        source=tags.get("source.sha256"),
        parameters={name: value for name, value in run.parameters.items() if name not in ("variant", "seed")},
        packages=packages,
        threads=tags.get("threads"),
        build=installed.get("torch") if installed else None,
        processor=tags.get("processor"),
        canary=tags.get("canary"),
    )


def inputs_again(run: Tracked, found: Mapping[str, Any]) -> Inputs:
    """The same of a rerun: what its record says, and what probe.py has found."""
    return Inputs(
        key=run.key,
        data=run.tags.get("data.sha256"),
        source=run.tags.get("source.sha256", found["source"]),
        parameters={name: value for name, value in run.parameters.items() if name not in ("variant", "seed")},
        packages=found["packages"] or {},
        threads=run.tags.get("threads", str(found["threads"])),
        build=found["build"],
        processor=found["processor"],
        canary=run.tags.get("canary"),
    )


def _pins(lock: Path) -> dict[str, str]:
    """The versions that a lock pins; none if there is no lock that can be read."""
    pins = {}
    try:
        for line in lock.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                requirement = Requirement(line)
                pins[requirement.name] = str(requirement.specifier).removeprefix("==")
    except (OSError, InvalidRequirement):
        return {}
    return pins


def _public(version: str) -> str:
    try:
        return Version(version).public
    except InvalidVersion:
        return version


def _beside(then: Mapping[str, str], here: Mapping[str, str]) -> tuple[str, str, bool | None]:
    """What differs of both."""
    if not then or not here:
        return "unknown" if not then else f"{len(then)} values", "the sources' own", None
    names = sorted(name for name in {*then, *here} if then.get(name) != here.get(name))
    if not names:
        return f"{len(then)} values", f"{len(here)} values", True
    before, after = (", ".join(f"{n} {side.get(n, 'absent')}" for n in names) for side in (then, here))
    return before, after, False


def _same(then: str | None, here: str | None) -> bool | None:
    return None if then is None or here is None else then == here


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else "unknown"


def to_json(preflight: Preflight) -> dict[str, Any]:
    """For ``--json``."""
    return {"best": preflight.best, "lines": [vars(line) for line in preflight.lines]}
