"""What can be had of a run's sources, data, parameters and arithmetic here, and the best grade it allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from packaging.version import InvalidVersion, Version

from lenet.arithmetic import conformance
from lenet.params.loading import flatten
from lenet.reproduce.evidence import Inputs
from lenet.reproduce.sources import Sources
from lenet.reproduce.verdict import RIGHT
from lenet.reproduce.workplace import RAW, Workplace, raw_is_whole, resolved
from lenet.runtime.files import read_json
from lenet.runtime.requirements import pins
from lenet.tracking import Tracked
from lenet.training import fingerprint

SHORT = 16
"""Characters shown of a digest."""
SHOWN = 6
"""Values shown of those that differ."""
PORTABLE = "its bits are the same on every machine: if the rerun is not bitwise, something is broken"
OLDER = (
    "recorded by an older arithmetic, whose bits depend on the processor: "
    "other bits are to be expected here unless the processor is alike"
)


@dataclass(frozen=True)
class Line:
    """One thing that a rerun needs.

    Attributes:
        what: its name.
        then: what the run had.
        here: what a rerun here will have.
        same: whether they are the same; None if that is not known before it has run.
        decides: whether the bits depend on it; else it is there to be known.
    """

    what: str
    then: str
    here: str
    same: bool | None
    decides: bool = True


@dataclass(frozen=True)
class Preflight:
    """What a rerun needs and finds, and the best grade that it can get.

    Attributes:
        lines: what it needs.
        portable: whether the run's bits are the same on every machine.
        faults: the operations that do not conform here: with one, nothing is trained.
    """

    lines: Sequence[Line]
    portable: bool
    faults: Sequence[str]

    @property
    def best(self) -> str:
        """One of GRADES: bitwise where nothing differs that decides; else predictions.

        Of an older run the instruction set must be known to be the same, too: necessary, if not sufficient.
        """
        alike = self.portable or next(line.same for line in self.lines if line.what == "processor")
        return (
            "bitwise" if alike and all(line.same is not False for line in self.lines if line.decides) else "predictions"
        )

    @property
    def condition(self) -> str:
        """What has yet to come out the same for that grade."""
        open_ones = [line.what for line in self.lines if line.decides and line.same is None]
        return f", if its {' and '.join(open_ones)} come out the same" if open_ones and self.best == "bitwise" else ""

    @property
    def note(self) -> str:
        """What the grade will mean, in a line."""
        if not self.portable:
            return OLDER
        return PORTABLE if self.best == "bitwise" else ""


def examine(run: Tracked, sources: Sources, place: Workplace, found: Mapping[str, Any]) -> tuple[Preflight, Inputs]:
    """Compare what the run had with what its rerun will have.

    Args:
        run: the run.
        sources: where its sources come from.
        place: where they are unpacked, with the run's parameters in their params.yaml.
        found: what probe.py has found there.

    Returns:
        The lines, and all that is known of what the run was made of.
    """
    then = inputs(run, place.project)
    here = inputs_again(run, found)
    block = {name: str(value) for name, value in flatten(resolved(place.project)[run.tags["variant"]]).items()}
    code = f"{_short(found['source'])} ({sources})"
    lines = [
        Line("code", _short(then.source), code, _same(then.source, found["source"])),
        Line("data", _short(then.data), "MNIST's files" if raw_is_whole() else f"not in {RAW}: to be fetched", None),
        Line("parameters", *_beside(then.parameters, block)),
    ]
    if then.portable:
        lines += [
            _signature(then, place.project / "signatures" / f"{run.tags['variant']}.json"),
            _conformance(then, here),
        ]
    older = not then.portable
    lines += [
        Line("packages", *_beside(then.packages, here.packages), older),
        Line("build of torch", then.build or "unknown", found["build"], _same(then.build, found["build"]), older),
        Line(
            "threads",
            then.threads or "unknown",
            str(found["threads"]),
            _same(then.threads, str(found["threads"])),
            older,
        ),
        Line(
            "processor",
            then.processor or "unknown",
            found["processor"],
            _same(then.processor, found["processor"]),
            older,
        ),
    ]
    return Preflight(lines, then.portable, (found["conformance"] or []) if then.portable else []), then


def _signature(then: Inputs, path: Path) -> Line:
    """The sources' file holds it unless their stage has to make it anew, for other parameters or an edit."""
    signed = fingerprint.json_sha256(read_json(path)) if path.exists() else None
    if signed == then.signature:
        return Line("signature", _short(then.signature), _short(signed), True)
    return Line("signature", _short(then.signature), "to be computed", None)


def _conformance(then: Inputs, here: Inputs) -> Line:
    known = here.conformance is not None
    return Line(
        "conformance",
        then.conformance or "unknown",
        here.conformance or "unknown",
        here.conformance == RIGHT if known else None,
    )


def inputs(run: Tracked, project: Path) -> Inputs:
    """What is known of what a tracked run was made of; of packages, else what the sources' lock pins."""
    tags = run.tags
    installed = run.parse(
        "source/environment.txt", lambda text: dict(line.split("==", 1) for line in text.decode().split())
    )
    numeric = project / "requirements-numeric.lock"  # older sources have one
    pinned = pins(numeric) if numeric.exists() else {}
    names = pinned or installed or {}
    packages = {name: _public(installed[name]) for name in names if name in installed} if installed else pinned
    return Inputs(
        key=run.key,
        data=tags.get("data.sha256"),
        source=tags.get("source.sha256"),
        parameters=_parameters(run),
        signature=tags.get("signature"),
        conformance=tags.get("conformance"),
        packages=packages,
        threads=tags.get("threads"),
        build=installed.get("torch") if installed else None,
        processor=tags.get("processor"),
        canary=tags.get("canary"),
    )


def here() -> dict[str, Any]:
    """What probe.py would tell, but of today's code: for sources that are not executed."""
    return {
        "conformance": conformance.faults(),
        "source": None,
        "numerics": None,
        "environment": dict(line.split("==", 1) for line in fingerprint.environment()),
        "threads": torch.get_num_threads(),
        "processor": fingerprint.processor(),
        "build": torch.__version__,
    }


def inputs_again(run: Tracked, found: Mapping[str, Any]) -> Inputs:
    """The same of a rerun: what its record says, and what probe.py has found."""
    packages = found["numerics"] or {name: _public(version) for name, version in (found["environment"] or {}).items()}
    return Inputs(
        key=run.key,
        data=run.tags.get("data.sha256"),
        source=run.tags.get("source.sha256", found["source"]),
        parameters=_parameters(run),
        signature=run.tags.get("signature"),
        conformance=None if found["conformance"] is None else ", ".join(found["conformance"]) or RIGHT,
        packages=packages,
        threads=run.tags.get("threads", str(found["threads"])),
        build=found["build"],
        processor=found["processor"],
        canary=run.tags.get("canary"),
    )


def _parameters(run: Tracked) -> dict[str, str]:
    return {name: value for name, value in run.parameters.items() if name not in ("variant", "seed")}


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
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    before, after = (", ".join(f"{n} {side.get(n, 'absent')}" for n in names[:SHOWN]) + more for side in (then, here))
    return before, after, False


def _same(then: str | None, here: str | None) -> bool | None:
    return None if then is None or here is None else then == here


def _short(digest: str | None) -> str:
    return digest[:SHORT] if digest else "unknown"


def to_json(preflight: Preflight) -> dict[str, Any]:
    """For ``--json``."""
    return {"best": preflight.best, "note": preflight.note, "lines": [vars(line) for line in preflight.lines]}
