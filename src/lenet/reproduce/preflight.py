"""What can be had of a run's sources, data, parameters and arithmetic here, and the best grade it allows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lenet.evaluation import judge
from lenet.evaluation.judge import Account, Part
from lenet.params.loading import flatten
from lenet.reproduce import evidence
from lenet.reproduce.sources import Snapshot, Sources
from lenet.reproduce.workplace import RAW, Workplace, raw_is_whole, resolved
from lenet.runtime.files import read_json
from lenet.tracking import Tracked
from lenet.training import fingerprint

PORTABLE = "its bits are the same on every machine: if the rerun is not bitwise, something is broken"
DECIDE = ("code", "data", "parameters", "signature", "conformance")
AROUND = ("packages", "threads", "processor")


@dataclass(frozen=True)
class Preflight:
    """What a rerun needs and finds, and the best grade that it can get.

    Attributes:
        parts: what it needs.
        portable: whether the run's bits are the same on every machine: of all runs that have a signature.
        off: the operations that do not conform here, for a portable run: with one, nothing is trained.
        untrusted: whether a rerun asks for ``--trust-sources``, which was not given.
    """

    parts: Sequence[Part]
    portable: bool
    off: str
    untrusted: bool

    @property
    def bitwise(self) -> bool:
        """Whether the same command without ``--preflight`` would run, and may end bitwise."""
        return self.best == "bitwise" and not self.untrusted

    @property
    def best(self) -> str:
        """One of GRADES: bitwise where nothing differs that decides; else predictions."""
        return "predictions" if any(part.decides and part.same is False for part in self.parts) else "bitwise"

    @property
    def condition(self) -> str:
        """What has yet to come out the same for that grade."""
        open_ones = [part.what for part in self.parts if part.decides and part.same is None]
        return f", if its {' and '.join(open_ones)} come out the same" if open_ones and self.best == "bitwise" else ""

    @property
    def note(self) -> str:
        """What has to be given for the grade, or what it will mean, in a line."""
        if self.untrusted:
            return "no commit here has these sources: a rerun executes them only with --trust-sources"
        if not self.portable:
            return evidence.FORMER
        return PORTABLE if self.best == "bitwise" else ""

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        told = {"best": self.best, "note": self.note, "untrusted": self.untrusted}
        return told | {"parts": [asdict(part) for part in self.parts]}


def examine(run: Tracked, sources: Sources, place: Workplace, found: Account, trust: bool) -> tuple[Preflight, Account]:
    """Compare what the run had with what its rerun will have.

    Args:
        run: the run.
        sources: where its sources come from.
        place: where they are unpacked, with the run's parameters in their params.yaml.
        found: the account of probe.py there.
        trust: whether sources are executed though no commit here vouches for them.

    Returns:
        The parts, and all that is known of what the run was made of.
    """
    variant = run.tags["variant"]
    then = evidence.inputs(run)
    block = flatten(resolved(place.project)[variant])
    here = {**found, "parameters": {name: str(value) for name, value in block.items()}}
    signed = place.project / "signatures" / f"{variant}.json"
    if signed.exists() and fingerprint.json_sha256(read_json(signed)) == then.get("signature"):
        here["signature"] = then.get("signature")
    portable = then.get("signature") is not None
    decide = DECIDE if portable else (*DECIDE[:3], *AROUND)
    parts = {part.what: part for part in judge.compare(then, here, dict.fromkeys((*decide, *AROUND)))}
    parts["code"] = replace(parts["code"], here=f"{parts['code'].here} ({sources})")
    data = "MNIST's files" if raw_is_whole() else f"not in {RAW}: to be fetched"
    parts["data"] = replace(parts["data"], here=data)
    if portable and parts["signature"].same is None:  # the sources' file is of other parameters, or of an edit
        parts["signature"] = replace(parts["signature"], here="to be computed")
    told = [replace(part, decides=part.what in decide) for part in parts.values()]
    off = found["conformance"] if portable and found["conformance"] != "right" else None
    return Preflight(told, portable, off or "", isinstance(sources, Snapshot) and not trust), then
