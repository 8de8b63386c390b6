"""One training's run in MLflow, brought up to what its journal and its outputs say. What is there already stays."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lenet.inference import model as packaged
from lenet.params.loading import flatten
from lenet.params.schema import Variant
from lenet.runs import readers
from lenet.runs.record import Record
from lenet.runtime import layout, snapshot
from lenet.runtime.files import FAULTY, json_of
from lenet.tracking import journal, store
from lenet.tracking.journal import Entry, Point
from lenet.training import fingerprint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

TRAINED = (*packaged.FILES, "history.csv", "trace")
"""What a training leaves in its folder."""
EVALUATED = ("predictions.csv", "missed.safetensors", "robustness.json")
"""What evaluate adds to it; its metrics file lies elsewhere."""

T = TypeVar("T")


def outputs(record: Record, folder: Path, metrics: Path | None = None) -> dict[str, Path]:
    """The present output files of a training, by name; none if the folder holds another training's.

    Args:
        record: the training.
        folder: its folder.
        metrics: its metrics file, if that is not where the layout has it.

    Raises:
        InputError: the folder's run.json is faulty.
    """
    if not (folder / "run.json").exists() or Record.read(folder / "run.json").key != record.key:
        return {}
    found = {name: folder / name for name in (*TRAINED, *EVALUATED) if (folder / name).exists()}
    metrics = metrics or folder.parent.parent / layout.METRICS / f"{record.name}.json"
    if metrics.exists() and readers.read(metrics, readers.metrics)["run"].get("key") == record.key:
        found[metrics.name] = metrics
    return found


def expected_tags(record: Record) -> dict[str, str]:
    """The tags that say which training it is."""
    identity = {"kind": "training", "variant": record.variant, "seed": str(record.seed)}
    return identity | digest_tags(record.fingerprints)


def digest_tags(fingerprints: Mapping[str, str]) -> dict[str, str]:
    """A record's or a metrics file's fingerprints, under the tags' names."""
    return {("run.key" if name == "key" else name): digest for name, digest in fingerprints.items()}


def expected_params(variant: str, seed: int | str, block: Variant) -> dict[str, str]:
    """MLflow's parameters: the resolved block by dotted names."""
    given = {"variant": variant, "seed": seed, **flatten(block)}
    return {name: str(value) for name, value in given.items()}


def test_numbers(metrics: Path) -> dict[str, float]:
    """The test metrics of a metrics file, under MLflow's names."""
    return numbers_of(readers.read(metrics, readers.metrics), "test")


def numbers_of(content: Mapping[str, Any], *parts: str) -> dict[str, float]:
    """The numbers in these parts of a metrics file, under MLflow's names."""
    found = ((f"{part}/{name}", value) for part in parts for name, value in content.get(part, {}).items())
    return {name: float(value) for name, value in found if isinstance(value, int | float)}


class Mirror:
    """The MLflow run of a training.

    Attributes:
        id: MLflow's.
        added: how many things ``update`` has added so far.
    """

    def __init__(self, client: "MlflowClient", entry: Entry, patience: float) -> None:
        """Find the run of this training, or create it. So many seconds to wait for another process that adds to it."""
        self.client, self.entry = client, entry
        self.added = 0
        self.lock = journal.lock(entry.folder.name, patience)
        with self.lock:
            found, is_new = store.run_of(
                client,
                entry.experiment,
                store.training_of(entry.record),
                start_time=entry.started,
                tags={"current": "false"} | entry.tags | expected_tags(entry.record),
                run_name=entry.record.name,
            )
            self.added += is_new
            self.id: str = found.info.run_id
            self.status: str = found.info.status
            self._begin(found)

    def update(self, files: Mapping[str, Path]) -> None:
        """Add what the run lacks of the journal and of these outputs, by name; then its end, if it has ended."""
        with self.lock:
            self._update(files)

    def _update(self, files: Mapping[str, Path]) -> None:
        self._log_points(self.entry.points)
        if files.keys() >= {*TRAINED}:
            self._add_tags(expected_tags(Record.read(files["run.json"])))
            history = readers.read(files["history.csv"], readers.history)
            names = [name for name in history if "/" in name or name == "learning_rate"]
            rows = history.to_dict("records")
            self._log_points([Point(self.entry.started, row["epoch"], {n: row[n] for n in names}) for row in rows])
            self._add_files(files)
            self._add_model(files)
            metrics = files.get(f"{self.entry.record.name}.json")
            if metrics:
                self._log_test(test_numbers(metrics), step=len(history))
        if self.entry.ended and self.status != self.entry.status:
            self.client.set_terminated(self.id, self.entry.status, self.entry.ended)
            self.status = self.entry.status
            self.added += 1

    def _begin(self, run: "MlflowRun") -> None:
        self.tags = dict(run.data.tags)
        self.latest: dict[str, float] = dict(run.data.metrics)
        self.logged = {
            (name, metric.step) for name in self.latest for metric in self.client.get_metric_history(self.id, name)
        }
        if self.entry.status == "RUNNING" and self.status != "RUNNING":  # a training that was killed goes on
            self.client.update_run(self.id, "RUNNING")
            self.status = "RUNNING"
        if "rebuilt" not in self.entry.tags:  # or these surroundings are not the training's
            self._add_tags(self.entry.tags, renew=self.entry.status == "RUNNING")
        record = self.entry.record
        given = expected_params(record.variant, record.seed, record.parameters)
        missing = {name: value for name, value in given.items() if name not in run.data.params}
        self.added += store.add(self.client, self.id, params=missing)
        if not (run.inputs and run.inputs.dataset_inputs):
            self._add_dataset()
        self.artifacts = _Artifacts(self.client, self.id, ("", "figures", "source"))
        self._upload({f"source/{name}": path for name, path in self.entry.sources().items()})

    def _add_tags(self, tags: Mapping[str, str], renew: bool = False) -> None:
        missing = {n: v for n, v in tags.items() if n not in self.tags or (renew and self.tags[n] != v)}
        self.added += store.add(self.client, self.id, missing)
        self.tags |= missing

    def _add_dataset(self) -> None:
        """The digits as an input. Its digest field holds 36 characters; the tag ``data.sha256`` has them all."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"tags": {"stage": "prepare", "data.sha256": self.entry.record.data}})
        dataset = Dataset("mnist-train", self.entry.record.data[:36], "code", source)
        self.client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        self.added += 1

    def _log_points(self, points: list[Point]) -> None:
        missing = {
            (name, point.step): (name, float(value), point.time, point.step)
            for point in reversed(points)  # the first of two
            for name, value in point.metrics.items()
            if (name, point.step) not in self.logged
        }
        self.added += store.add(self.client, self.id, points=reversed(missing.values()))
        self.logged |= missing.keys()

    def _log_test(self, numbers: Mapping[str, float], step: int) -> None:
        """The test metrics; a value that another evaluation has changed is logged anew."""
        changed = _changed(numbers, self.latest)
        first = not self.latest.keys() & changed.keys()
        time = (self.entry.ended or self.entry.started) if first else _later(self.client, self.id, changed)
        self.added += store.add(self.client, self.id, points=[(n, v, time, step) for n, v in changed.items()])
        self.latest |= changed

    def _add_files(self, files: Mapping[str, Path]) -> None:
        """The files themselves, and the figures drawn from them where these or their sources are new."""
        from lenet.tracking import drawing  # matplotlib: half a second, at a training's end

        fresh = self._upload(dict(files))
        with tempfile.TemporaryDirectory() as scratch:
            paths = {}
            for name, (sources, draw) in drawing.FIGURES.items():
                place = f"figures/{name}.png"
                if files.keys() >= {*sources} and (place not in self.artifacts.sizes or fresh & {*sources}):
                    paths[place] = Path(scratch) / f"{name}.png"
                    drawing.save(draw(self.entry.record.name, files), paths[place])
            self._upload(paths)

    def _upload(self, paths: Mapping[str, Path]) -> set[str]:
        saved = self.artifacts.save(paths)
        self.added += len(saved)
        return saved

    def _add_model(self, files: Mapping[str, Path]) -> None:
        """Log the model, unless there is a whole one."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus

        experiment = self.client.get_run(self.id).info.experiment_id
        for model in self.client.search_logged_models([experiment], f"source_run_id = '{self.id}'"):
            if model.status == LoggedModelStatus.READY:
                return
            self.client.delete_logged_model(model.model_id)
        model = self.client.create_logged_model(experiment, "model", self.id)
        with tempfile.TemporaryDirectory() as scratch:
            _save_model(Path(scratch), model.model_id, self.id, files)
            self.client.log_model_artifacts(model.model_id, f"{scratch}/model")
        self.client.log_outputs(self.id, [LoggedModelOutput(model.model_id, step=0)])
        self.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        self.added += 1


def _save_model(folder: Path, model_id: str, run_id: str, files: Mapping[str, Path]) -> None:
    """Write an MLflow model into ``folder``/model: weights as safetensors, and the modules that run them; no pickle."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    data, code = folder / "run", folder / "lenet"
    data.mkdir()
    for name in packaged.FILES:
        shutil.copyfile(files[name], data / name)
    for place in packaged.SOURCES:
        source = fingerprint.PACKAGE / place
        for path in source.rglob("*.py") if source.is_dir() else (source,):
            target = code / path.relative_to(fingerprint.PACKAGE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(snapshot.content(path))
    example = packaged.example()
    answers = packaged.load(data).predict(example)
    signature = ModelSignature(
        Schema([TensorSpec(example.dtype, (-1, 28, 28))]),
        Schema([TensorSpec(array.dtype, (-1, *array.shape[1:]), name) for name, array in answers.items()]),
    )
    # what the model is given is checked by the model itself: MLflow's own refusal prints the whole array
    signature._is_signature_from_type_hint = True
    mlflow.pyfunc.save_model(
        folder / "model",
        loader_module=packaged.__name__,
        data_path=str(data),
        code_paths=[str(code)],
        mlflow_model=Model(run_id=run_id, model_id=model_id),
        signature=signature,
        input_example=example,
        pip_requirements=packaged.requirements(),
        metadata=Record.read(files["run.json"]).fingerprints,
    )


class _Artifacts:
    """The artifacts of a run, by path.

    Attributes:
        sizes: in bytes, of those that are there.
    """

    def __init__(self, client: "MlflowClient", run_id: str, folders: Sequence[str]) -> None:
        self.client, self.run_id = client, run_id
        listed = [item for folder in folders for item in client.list_artifacts(run_id, folder or None)]
        self.sizes: dict[str, int] = {item.path: item.file_size or 0 for item in listed if not item.is_dir}

    def save(self, paths: Mapping[str, Path]) -> set[str]:
        """Save files, by their path there, unless they are there byte for byte; return the saved ones."""
        changed = {place: path for place, path in paths.items() if not self._has(place, path)}
        folders: dict[str, list[str]] = {}
        for place in changed:
            folders.setdefault(str(Path(place).parent), []).append(place)
        for folder, places in folders.items():
            with tempfile.TemporaryDirectory() as scratch:
                for place in places:
                    shutil.copyfile(changed[place], Path(scratch) / Path(place).name)
                self.client.log_artifacts(self.run_id, scratch, None if folder == "." else folder)
            self.sizes |= {place: changed[place].stat().st_size for place in places}
        return set(changed)

    def _has(self, place: str, path: Path) -> bool:
        if self.sizes.get(place) != path.stat().st_size:
            return False
        with tempfile.TemporaryDirectory() as scratch:
            there = Path(self.client.download_artifacts(self.run_id, place, scratch)).read_bytes()
        return there == path.read_bytes()


def _changed(wanted: Mapping[str, T], there: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in wanted.items() if there.get(name) != value}


def _later(client: "MlflowClient", run_id: str, names: Iterable[str]) -> int:
    """A time after all points of these metrics, ms: MLflow shows the later of two values, and clocks are set back."""
    times = [point.timestamp for name in names for point in client.get_metric_history(run_id, name)]
    return max([journal.now(), *(time + 1 for time in times)])


def is_of(reports: Path, metrics: Path, records: Sequence[Record]) -> bool:
    """Whether the comparison in a folder of reports is there, and of exactly these runs and their present metrics."""
    found = {}
    try:
        for name, variant in json_of((reports / "comparison.json").read_bytes())["variants"].items():
            for seed, tested in variant["seeds"].items():
                content = readers.metrics((metrics / f"{name}-{seed}.json").read_bytes())
                if content["test"]["misses"] != tested["misses"]:
                    return False
                found[f"{name}-{seed}"] = content["run"]["key"]
    except FAULTY:
        return False
    return found == {record.name: record.key for record in records}


def means_of(summary: Path) -> dict[str, float]:
    """The variants' means by MLflow's names."""
    found = readers.read(summary, readers.summary)
    return {f"{variant}/{name}": value for variant, means in found.items() for name, value in means.items()}


def identity_of(records: Sequence[Record]) -> str:
    """The identity of a comparison of these runs."""
    return hashlib.sha256(json.dumps(sorted((record.name, record.key) for record in records)).encode()).hexdigest()


def mirror_comparison(
    client: "MlflowClient",
    records: Sequence[Record],
    summary: Path,
    reports: Path,
) -> int:
    """Record a comparison as a run of its own that links the runs it compares; return how many things were added.

    It is the same run as long as the same trainings are compared. Raises LookupError if MLflow lacks one of them, or
    the comparison is of others.
    """
    if not is_of(reports, summary.parent, records):
        raise LookupError("it is of other runs than there are by now")
    found = {record.name: store.find(client, record) for record in records}
    runs = {name: run for name, run in found.items() if run}
    if missing := found.keys() - runs.keys():
        raise LookupError(f"of its runs MLflow lacks {', '.join(sorted(missing))}")
    key = identity_of(records)
    tags = {
        "compares": " ".join(run.info.run_id for run in runs.values()),
        "mlflow.note.content": "Compares " + ", ".join(store.link(run, name) for name, run in runs.items()),
    }
    run, is_new = store.run_of(
        client,
        store.EXPERIMENT,
        f"tags.kind = 'comparison' and tags.`run.key` = '{key}'",
        tags={"kind": "comparison", "run.key": key} | tags,
        run_name="comparison",
    )
    params = {
        "variants": ", ".join(dict.fromkeys(record.variant for record in records)),
        "seeds": ", ".join(dict.fromkeys(str(record.seed) for record in records)),
    }
    means = _changed(means_of(summary), run.data.metrics)
    time = _later(client, run.info.run_id, means)
    added = is_new + store.add(
        client,
        run.info.run_id,
        _changed(tags, run.data.tags),
        {name: value for name, value in params.items() if name not in run.data.params},
        [(name, value, time, 0) for name, value in means.items()],
    )
    artifacts = _Artifacts(client, run.info.run_id, ("report",))
    files = artifacts.save({f"report/{path.name}": path for path in sorted(reports.iterdir()) if path.is_file()})
    if run.info.status != "FINISHED":
        client.set_terminated(run.info.run_id, "FINISHED")
    return added + len(files)
