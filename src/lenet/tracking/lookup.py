"""Which run is meant, and all that is known of it: from MLflow where it has the run, filled from files. It only looks.

A run is named by its MLflow id, by its ``run.key``, by eight or more first characters of either, or as
``<variant>-<seed>``: then it is the one behind the present outputs, in a fresh clone the one of the committed metrics.
"""

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from zipfile import BadZipFile

from lenet.params.schema import Params
from lenet.runs import readers
from lenet.runs.record import History, Record
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, read_json, reason
from lenet.tracking import journal, store
from lenet.tracking.mirror import digest_tags, expected_params, numbers_of, outputs
from lenet.training import fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

LEGAL = "an MLflow run id, a run.key, the first 8 characters or more of either, or <variant>-<seed>"
NAME = r"[a-z][a-z0-9-]*-\d+"
SURROUNDINGS = (
    "git.commit", "git.dirty", "source.sha256", "environment.sha256", "processor", "threads", "conformance",
)  # fmt: skip
"""Tags of where a training ran."""
SHOWN = 5  # runs that an ambiguous reference names

Read = Callable[[str], bytes | None]
T = TypeVar("T")


@dataclass(frozen=True)
class Tracked:
    """What is known of one training.

    Attributes:
        name: ``<variant>-<seed>``.
        id: MLflow's; None where it does not have the run.
        parameters: the resolved block by dotted names, with ``variant`` and ``seed``; text, as MLflow holds it.
        tags: MLflow's, or what the files say of the same; no SURROUNDINGS if these are of another place.
        metrics: the last value of each, by MLflow's names.
        history: a row an epoch; empty where none is known.
        notes: what is uncertain about it, a sentence each.
        read: an artifact's bytes by its path in MLflow, for example ``predictions.csv`` or ``source/source.zip``; None
            where there is none. Raises InputError if there is one that cannot be had.
        origin: who has recorded it, when and where.
    """

    name: str
    id: str | None
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    history: History
    notes: tuple[str, ...]
    read: Read = field(repr=False, compare=False)
    origin: str = "known from files here"

    @property
    def key(self) -> str:
        """``run.key``."""
        return self.tags["run.key"]

    def parse(self, path: str, how: Callable[[bytes], T]) -> T | None:
        """An artifact, made into something; None where there is none. Raises InputError if it is faulty."""
        return _parse(self.name, self.read, path, how)

    def packages(self) -> dict[str, str] | None:
        """The versions of the installed distributions, by name; None where it kept no list."""
        return self.parse("source/environment.txt", lambda text: dict(map(_pin, text.decode().splitlines())))


def lookup(reference: str, params: Params) -> Tracked:
    """Find a run. Nothing is made or changed, and MLflow is not imported where there is no store.

    Args:
        reference: an MLflow run id, a ``run.key``, the beginning of one, or ``<variant>-<seed>``.
        params: the blocks of variants: a run of which the metrics file alone is there has that which gives its key.

    Raises:
        InputError: no such run, or several; not a training of this project; a store that does not answer; a faulty
            file.
    """
    if not re.fullmatch(rf"[0-9a-f]{{8,64}}|{NAME}", reference):
        raise InputError(f"{reference!r} names no run; legal: {LEGAL}")
    places = _places()
    with store.asking():
        client = store.look()
    by_name = "-" in reference
    name, key, run = (_by_name if by_name else _by_digest)(reference, client, places)
    found = _known(name, key, client, run, places.get((name, key), {}), params)
    published = _published(name, places)
    if by_name and published not in (None, key):
        note = f"the current run in MLflow ({key[:12]}…) is shown, not that of the files here ({published[:12]}…)"
        found = replace(found, notes=(*found.notes, note))
    return found


Places = Mapping[tuple[str, str], Mapping[str, Path]]
"""The files of runs here, by (name, ``run.key``), and then by their path as an artifact."""
Found = tuple[str, str, "MlflowRun | None"]
"""Name, key, and MLflow's run."""


def _places() -> Places:
    """All runs with files here; of each name the published one first."""
    found: dict[tuple[str, str], dict[str, Path]] = {}
    for home in layout.homes():
        for path in sorted((home / layout.METRICS).glob("*.json")):
            if key := _key_of(path):
                found.setdefault((path.stem, key), {})[path.name] = path
        for path in sorted((home / layout.RUNS).glob("*/run.json")):
            record = Record.read(path)
            found.setdefault((record.name, record.key), {}).update(outputs(record, path.parent))
    return found


def _key_of(path: Path) -> str | None:
    """The key in a metrics file of a run; None in a file of another kind."""
    content = read_json(path)
    run = content.get("run") if isinstance(content, dict) else None
    return run.get("key") if isinstance(run, dict) else None


def _published(name: str, places: Places) -> str | None:
    """The key of the run of this name that the files here are of."""
    return next((key for other, key in places if other == name), None)


def _by_name(name: str, client: "MlflowClient | None", places: Places) -> Found:
    """The run behind the present outputs, else the one of the files."""
    published = _published(name, places)
    variant, _, seed = name.rpartition("-")
    same = _search(client, f"tags.variant = '{variant}' and tags.seed = '{seed}' and tags.kind = 'training'")
    current = [run for run in same if store.is_current(run)]
    current = [run for run in current if _key(run) == published] or current
    if len({_key(run) for run in current}) > 1:
        raise _ambiguous(name, [(name, _key(run)) for run in current])
    if current:
        return name, _key(current[0]), current[0]
    if published is None:
        names = ", ".join(dict.fromkeys(other for other, _ in places)) or "none"
        raise InputError(f"{name}: no present run of this name, {_where(client)}; runs with files here: {names}")
    return name, published, next((run for run in same if _key(run) == published), None)


def _by_digest(start: str, client: "MlflowClient | None", places: Places) -> Found:
    """The run whose id or key starts so. Of several runs of one key, which are the same training, the present one."""
    by_id = _search(client, f"attributes.run_id LIKE '{start}%'")
    for run in by_id:
        if run.data.tags.get("kind") != "training" or not _key(run):
            kind = run.data.tags.get("kind") or "it has no tag run.key"
            raise InputError(f"{start}: the run {run.info.run_name!r} in {store.shown()} is no training ({kind})")
    by_key = _search(client, f"tags.`run.key` LIKE '{start}%' and tags.kind = 'training'")
    by_key.sort(key=lambda run: not store.is_current(run))
    here = [place for place in places if place[1].startswith(start)]
    fits = [store.identity(run) for run in by_id + by_key] + here
    if not fits:
        raise InputError(f"{start}: no run of this project with such an id or run.key, {_where(client)}")
    if len({key for _, key in fits}) > 1 or len(by_id) > 1:
        raise _ambiguous(start, fits)
    return *fits[0], next(iter(by_id + by_key), None)


def _known(
    name: str,
    key: str,
    client: "MlflowClient | None",
    run: "MlflowRun | None",
    files: Mapping[str, Path],
    params: Params,
) -> Tracked:
    """All that MLflow, the files here and the training's journal know of a run; MLflow first."""
    from lenet.evaluation import judge  # pandas and SciPy, which no training needs

    if not re.fullmatch(NAME, name):
        raise InputError(f"the run {name!r} has no name of a training; legal: <variant>-<seed>")
    entry = journal.read(journal.folder_of(name, key))
    if entry and entry.record.key == key:
        files = entry.kept() | {f"source/{path}": place for path, place in entry.sources().items()} | dict(files)
    else:
        entry = None
    read = _reader(name, client, run, files)
    variant, _, seed = name.rpartition("-")
    content = _parse(name, read, f"{name}.json", readers.metrics) or {}
    record = Record.read(files["run.json"]) if "run.json" in files else None
    notes = []
    if any(judge.contradictions(judge.files(name, record, metrics=content))):  # the same key, computed elsewhere
        content = {}
        notes.append(f"{name}.json is of other weights than run.json; its results are left out")
    history = _parse(name, read, "history.csv", _rows) or (_points(client, run) if client and run else [])
    tags = dict(digest_tags(content.get("run", {})))
    parameters: dict[str, str] = {}
    if record:
        tags |= digest_tags(record.fingerprints)
        parameters = expected_params(record.variant, record.seed, record.parameters)
    elif run is None:
        block = params.variants.get(variant)
        if (
            block
            and fingerprint.run_key(block, int(seed), tags.get("data.sha256", ""), tags.get("signature", "")) == key
        ):
            parameters = expected_params(variant, int(seed), block)
        else:
            notes.append("its parameters are not known: there is no run.json, and its run.key is not of params.yaml's")
    numbers = _last(history) | numbers_of(content, "validation", "test")
    if entry:
        tags = entry.tags | tags
    if run:
        tags, parameters, numbers = tags | run.data.tags, parameters | run.data.params, numbers | run.data.metrics
        if run.info.status != "FINISHED":
            notes.append(f"MLflow has it as {run.info.status}")
    tags |= {"variant": variant, "seed": seed, "run.key": key}  # whatever a store says
    if tags.get("rebuilt") == "true":
        tags = {tag: value for tag, value in tags.items() if tag not in SURROUNDINGS}
        notes.append("MLflow's record of it was rebuilt from files, elsewhere: where it was trained is unknown")
    run_id, origin = (run.info.run_id, _origin(run)) if run else (None, Tracked.origin)
    return Tracked(name, run_id, parameters, tags, numbers, history, tuple(notes), read, origin)


def _origin(run: "MlflowRun") -> str:
    """Who has recorded it, when and where."""
    user = run.data.tags.get("mlflow.user") or run.info.user_id or "unknown"
    began = datetime.fromtimestamp((run.info.start_time or 0) / 1000, UTC)
    return f"recorded by {user!r} on {began:%Y-%m-%d %H:%M} UTC in {store.shown()}"


def _reader(name: str, client: "MlflowClient | None", run: "MlflowRun | None", files: Mapping[str, Path]) -> Read:
    """Read artifacts from MLflow, else from files."""
    listed: dict[str, set[str]] = {}

    def read(path: str) -> bytes | None:
        if client and run:
            folder = str(Path(path).parent)
            with store.asking(), tempfile.TemporaryDirectory() as scratch:
                if folder not in listed:
                    items = client.list_artifacts(run.info.run_id, None if folder == "." else folder)
                    listed[folder] = {item.path for item in items}
                if path in listed[folder]:
                    return Path(client.download_artifacts(run.info.run_id, path, scratch)).read_bytes()
        try:
            return files[path].read_bytes() if path in files else None
        except OSError as error:
            raise InputError(f"{name}: {files[path]}: {error.strerror}") from None

    return read


def _points(client: "MlflowClient", run: "MlflowRun") -> History:
    """The history as far as MLflow has its points: of a training that left no file."""
    rows: dict[int, dict[str, float | int | str]] = {}
    for name in run.data.metrics:
        if name.startswith(("train/", "validation/")) or name == "learning_rate":
            with store.asking():
                points = client.get_metric_history(run.info.run_id, name)
            for point in points:
                rows.setdefault(point.step, {"epoch": point.step})[name] = point.value
    return [rows[epoch] for epoch in sorted(rows)]


def _pin(line: str) -> tuple[str, str]:
    name, found, version = line.partition("==")
    if not found:
        raise ValueError(f"{line!r} is not name==version")
    return name, version


def _rows(text: bytes) -> History:
    return readers.history(text).to_dict("records")


def _last(history: History) -> dict[str, float]:
    return {name: value for name, value in history[-1].items() if isinstance(value, float)} if history else {}


def _parse(name: str, read: Read, path: str, how: Callable[[bytes], T]) -> T | None:
    content = read(path)
    try:
        return None if content is None else how(content)
    except (*FAULTY, BadZipFile) as error:
        raise InputError(
            f"{name}: {path} is faulty ({store.masked(reason(error))}); `lenet doctor` tells whether the file here is"
        ) from None


def _search(client: "MlflowClient | None", condition: str) -> "list[MlflowRun]":
    with store.asking():
        return store.search(client, condition) if client else []


def _key(run: "MlflowRun") -> str:
    return str(run.data.tags.get("run.key", ""))


def _where(client: "MlflowClient | None") -> str:
    return f"neither in {store.shown()}{'' if client else ' (no runs there yet)'} nor in files here"


def _ambiguous(reference: str, fits: list[tuple[str, str]]) -> InputError:
    names = [f"{name} {key[:12]}…" for name, key in dict.fromkeys(fits)]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return InputError(f"{reference} fits several runs: {', '.join(names[:SHOWN])}{more}; name one by more of its key")
