"""Groups of alternating measurements in processes of their own, as JSON; ratios; and what a later sitting lost."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HIGHER_IS_BETTER = {"images/s", "trials/h", "updates/s"}
TOLERANCE = 0.15  # of a ratio; two sittings on one machine differ so much


@dataclass(frozen=True)
class Row:
    """One way's measurements, a value per repetition.

    Attributes:
        beside: the name of a row that this one is put beside.
        target: how many times that row's value this one's is meant to be, at least or, of times, at most.
    """

    name: str
    values: list[float]
    note: str = ""
    beside: str = ""
    target: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Group:
    """Ways that were measured in turn; the first is what the others are compared with."""

    name: str
    unit: str
    rows: list[Row]

    def ratio(self, row: Row) -> float:
        """How many times as fast the first way is as this one: the median over repetitions, which pairs the two."""
        pairs = zip(self.rows[0].values, row.values, strict=False)
        if self.unit in HIGHER_IS_BETTER:
            return statistics.median(first / this for first, this in pairs)
        return statistics.median(this / first for first, this in pairs)

    def multiple(self, row: Row) -> float | None:
        """This way's value in those of the row that it is put beside: the median over repetitions, which pairs them."""
        others = [other for other in self.rows if other.name == row.beside]
        if not others:
            return None
        return statistics.median(this / other for this, other in zip(row.values, others[0].values, strict=False))

    def verdict(self, row: Row) -> str:
        """The same in words, with the target, if there is one."""
        found = self.multiple(row)
        if found is None:
            return ""
        words = f"{found:.2f} × {row.beside}"
        if row.target is None:
            return words
        sign, met = ("≥", found >= row.target) if self.unit in HIGHER_IS_BETTER else ("≤", found <= row.target)
        return f"{words}, target {sign} {row.target:g}: {'met' if met else 'missed'}"


@dataclass
class Results:
    """A sitting."""

    machine: dict[str, Any]
    groups: list[Group] = field(default_factory=list)
    timeline: list[dict[str, Any]] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def merge(self, other: "Results") -> None:
        """Take over another sitting's groups and timeline; groups that are not in it stay."""
        self.machine = other.machine
        new = {group.name: group for group in other.groups}
        self.groups = [new.pop(group.name, group) for group in self.groups] + list(new.values())
        self.timeline = other.timeline or self.timeline


def read(path: Path) -> Results:
    """Read what ``Results.write`` wrote."""
    content = json.loads(path.read_text(encoding="utf-8"))
    groups = [Group(g["name"], g["unit"], [Row(**row) for row in g["rows"]]) for g in content["groups"]]
    return Results(content["machine"], groups, content["timeline"])


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line] if (
        cpuinfo.exists()
    ) else [platform.processor()]  # fmt: skip
    packages = ("torch", "pytorch-lightning", "mlflow", "dvc", "optuna")
    return {
        "processor": names[0],
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: metadata.version(name).partition("+")[0] for name in packages},
    }


Way = tuple[Callable[..., float], tuple[Any, ...]]
"""A function of a module, for it runs in another process, and its arguments; it returns the measurement."""


class Workers:
    """A process for each way, so that no way inherits another's memory."""

    def __init__(self, ways: Mapping[str, Way]) -> None:
        self.ways = ways
        self.stack = ExitStack()

    def __enter__(self) -> "Workers":
        context = get_context("spawn")
        self.pools = {
            name: self.stack.enter_context(ProcessPoolExecutor(1, mp_context=context)) for name in self.ways
        }  # fmt: skip
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def start(self, name: str) -> Future[float]:
        function, arguments = self.ways[name]
        return self.pools[name].submit(function, *arguments)

    def measure(self, name: str) -> float:
        return self.start(name).result()


Beside = Mapping[str, tuple[str, float | None]]
"""Of some ways, the one that each is put beside, and its target."""


def alternate(
    name: str,
    unit: str,
    ways: Mapping[str, Way],
    repetitions: int,
    notes: Mapping[str, str] | None = None,
    beside: Beside | None = None,
) -> Group:
    """Measure each way ``repetitions`` times in turn, after a round to warm up."""
    values: dict[str, list[float]] = {way: [] for way in ways}
    with Workers(ways) as workers:
        for repetition in range(repetitions + 1):
            for way in ways:
                value = workers.measure(way)
                if repetition:
                    values[way].append(value)
    rows = [
        Row(way, found, (notes or {}).get(way, ""), *(beside or {}).get(way, ("", None)))
        for way, found in values.items()
    ]
    return Group(name, unit, rows)


def losses(now: Results, before: Results) -> list[str]:
    """Ratios that are worse than in an earlier sitting by more than noise, a line each."""
    earlier = {group.name: _ratios(group) for group in before.groups}
    found = []
    for group in now.groups:
        for name, (ratio, more_is_better) in _ratios(group).items():
            known, _ = earlier.get(group.name, {}).get(name, (None, True))
            if known and (ratio < known * (1 - TOLERANCE) if more_is_better else ratio > known * (1 + TOLERANCE)):
                found.append(f"{group.name}: {name} is {ratio:.2f}, was {known:.2f}")
    return found


def _ratios(group: Group) -> dict[str, tuple[float, bool]]:
    """What a group compares, in words: how large it is, and whether more is better."""
    first = group.rows[0].name
    found = {f"{first} ÷ {row.name}": (group.ratio(row), True) for row in group.rows[1:] if not row.beside}
    for row in group.rows:
        multiple = group.multiple(row)
        if multiple is not None:
            found[f"{row.name} ÷ {row.beside}"] = multiple, group.unit in HIGHER_IS_BETTER
    return found
