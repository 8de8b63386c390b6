"""What a training does, as files outside DVC's outputs: from them MLflow's record is made, while it runs or later.

A folder per training (``layout.kept``), with:

- ``entry.json``: experiment, tags, beginning, end and status;
- ``points.jsonl``: a line for each time that numbers were taken;
- ``source.zip``, ``uncommitted.diff``, ``environment.txt``: the sources and the installed packages at its beginning;
- ``outputs/``: copies of its outputs, as long as MLflow does not have them.
"""

import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from lenet.params.schema import Variant
from lenet.runs.record import Record
from lenet.runtime import layout, snapshot
from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, whole, write_json, write_text
from lenet.training import fingerprint


def home() -> Path:
    """The folder of all journals."""
    return layout.kept("journal")


def folder_of(name: str, key: str) -> Path:
    """A training's folder, by its name and ``run.key``. Raises InputError if they could lead elsewhere."""
    if not re.fullmatch(r"[a-z][a-z0-9-]*-\d+", name) or not re.fullmatch("[0-9a-f]+", key):
        raise InputError(f"{name!r} with run.key {key!r} names no training; remove its run.json, or train it again")
    return home() / f"{name}-{key[:16]}"


def lock(name: str, patience: float) -> FileLock:
    """A lock among the processes that work on these journals; waiting longer than so many seconds raises Timeout."""
    return FileLock(_private_home() / f"{name}.lock", timeout=patience)


def _private_home() -> Path:
    """``home``, made, which nobody else can enter: in it are sources that may not be published yet."""
    home().mkdir(parents=True, exist_ok=True)
    with suppress(OSError):  # somebody else's
        home().chmod(0o700)
    return home()


@dataclass(frozen=True)
class Point:
    """Numbers taken at one time.

    Attributes:
        time: milliseconds since 1970, as MLflow counts.
        step: an epoch, or the number of a sample of the system's metrics.
        metrics: by name.
    """

    time: int
    step: int
    metrics: Mapping[str, float]


@dataclass
class Entry:
    """One training's journal.

    Attributes:
        record: the training.
        experiment: the MLflow experiment that it belongs to.
        store: where MLflow's record of it was meant to go.
        tags: what was true around it: commit, environment, process.
        started: milliseconds since 1970.
        points: what was measured, in order.
        status: RUNNING, FINISHED, FAILED or KILLED.
        ended: milliseconds since 1970; None while it runs.
    """

    record: Record
    experiment: str
    store: str
    tags: dict[str, str]
    started: int
    points: list[Point] = field(default_factory=list)
    status: str = "RUNNING"
    ended: int | None = None

    @property
    def folder(self) -> Path:
        return folder_of(self.record.name, self.record.key)

    @property
    def latest(self) -> int:
        """When something was last noted."""
        return max([self.started, *(point.time for point in self.points)])

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def begin(self) -> "Entry":
        """Write the beginning, with the sources; a training that was begun before goes on with its points."""
        _private_home()  # before the first byte
        if before := read(self.folder):
            self.started, self.points = before.started, before.points
        self._write()
        write_text(self.folder / "points.jsonl", "".join(map(_line, self.points)))  # without what a kill cut off
        write_text(self.folder / "environment.txt", "".join(f"{line}\n" for line in fingerprint.environment()))
        for name, content in (("source.zip", snapshot.archive()), ("uncommitted.diff", snapshot.diff())):
            if content:
                with whole(self.folder / name) as beside:
                    beside.write_bytes(content)
            else:
                (self.folder / name).unlink(missing_ok=True)
        return self

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add numbers, unless these have been taken at this step before."""
        name = next(iter(metrics))
        if not any(point.step == step and name in point.metrics for point in self.points):
            self.points.append(Point(now(), step, dict(metrics)))
            with (self.folder / "points.jsonl").open("a", encoding="utf-8") as file:
                file.write(_line(self.points[-1]))

    def end(self, status: str) -> None:
        """Write the end."""
        self.status, self.ended = status, now()
        self._write()

    def keep(self, files: Mapping[str, Path]) -> None:
        """Copy outputs, by name, until MLflow has them: the next training may replace them."""
        _private_home()
        self.outputs.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            if path.parent != self.outputs:
                shutil.copyfile(path, self.outputs / name)
        self._write()  # one made from outputs has not been written yet

    def forget_outputs(self) -> None:
        """MLflow has them."""
        shutil.rmtree(self.outputs, ignore_errors=True)

    def kept(self) -> dict[str, Path]:
        """The kept outputs, by name."""
        return {path.name: path for path in self.outputs.glob("*")}

    def sources(self) -> dict[str, Path]:
        """The snapshot's files that there are, by name."""
        paths = (self.folder / name for name in ("source.zip", "uncommitted.diff", "environment.txt"))
        return {path.name: path for path in paths if path.exists()}

    def _write(self) -> None:
        record = self.record
        content = {
            "variant": record.variant,
            "seed": record.seed,
            "parameters": record.parameters.model_dump(),
            "key": record.key,
            "data": record.data,
            "signature": record.signature,
            "experiment": self.experiment,
            "store": self.store,
            "tags": self.tags,
            "started": self.started,
            "status": self.status,
            "ended": self.ended,
        }
        write_json(self.folder / "entry.json", content)


def _line(point: Point) -> str:
    return json.dumps([point.time, point.step, point.metrics]) + "\n"


def now() -> int:
    """Milliseconds since 1970."""
    return int(1000 * time.time())


def read(folder: Path) -> Entry | None:
    """Read a training's journal; None if there is none that can be read."""
    try:
        content = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
        parameters = Variant.model_validate(content["parameters"])
        identity = {name: content[name] for name in ("variant", "seed", "key", "data")}
        identity["signature"] = content.get("signature", "")  # none of a training from before there were any
        around = {name: content[name] for name in ("experiment", "store", "tags", "started", "status", "ended")}
        return Entry(Record(parameters=parameters, **identity), points=list(_points(folder)), **around)
    except FAULTY:  # absent, or cut off by a full disk
        return None


def _points(folder: Path) -> Iterator[Point]:
    try:
        lines = (folder / "points.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield Point(*json.loads(line))
        except FAULTY:  # a line that a kill cut off
            continue


def entries() -> list[Entry]:
    """All journals, the oldest first."""
    found = [entry for folder in home().glob("*") if (entry := read(folder))]
    return sorted(found, key=lambda entry: entry.started)


def of(record: Record) -> Entry | None:
    """The journal of a training, if this machine has one."""
    return read(folder_of(record.name, record.key))
