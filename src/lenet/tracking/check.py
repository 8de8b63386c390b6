"""Whether MLflow's record says what the files say. Nothing is changed."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lenet.params.schema import Params
from lenet.runs import current, readers
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.runtime.layout import METRICS, REPORTS, SUMMARY
from lenet.tracking import store
from lenet.tracking.mirror import (
    TRAINED,
    expected_params,
    expected_tags,
    identity_of,
    is_of,
    means_of,
    outputs,
    test_numbers,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

FILES = "in the files"


def check(params: Params) -> Iterator[str]:
    """Compare each present run's record with its files: tags, parameters, metrics with steps, artifacts, model.

    And the comparison's, where it is of the present runs.

    Yields:
        Each disagreement, in a line.
    """
    try:
        client = store.look()
        if client is None:
            yield f"{store.shown()}: no runs there yet; `lenet sync` records them"
            return
        trainings = store.search(client, "tags.kind = 'training'")
    except Exception as error:
        yield f"{store.shown()}: {store.reason(error)}"
        return
    counts = Counter(map(store.identity, trainings))
    present = current.present(params)
    for run in trainings:
        if store.identity(run) in present:
            if run.data.tags.get("current") != "true":
                yield f"{_name(run)} is not tagged current"
        elif store.is_current(run):
            yield f"{_name(run)} is tagged current, and is no run of params.yaml here"
    for folder in current.folders(params):
        try:
            record = Record.read(folder / "run.json")
            files = outputs(record, folder)
        except InputError as error:
            yield str(error)
            continue
        count = counts[record.name, record.key]
        found = store.find(client, record)
        if found is None:
            yield f"{record.name} is not there; `lenet sync` records it"
        else:
            if count > 1:
                yield f"{record.name} is there {count} times"
            try:
                yield from (f"{_name(found)}: {fault}" for fault in _compare(client, found, record, files))
            except InputError as error:
                yield str(error)
    yield from _comparison(client, current.records(params))


def _comparison(client: "MlflowClient", records: Sequence[Record]) -> Iterator[str]:
    """The record of the present comparison, where it is of the present runs."""
    from lenet.evaluation.judge import disagreements

    if not is_of(REPORTS, METRICS, records):
        return
    found = store.search(client, f"tags.kind = 'comparison' and tags.`run.key` = '{identity_of(records)}'")
    if not found:
        yield "the comparison is not there; `lenet sync` records it"
    means = means_of(SUMMARY)
    for run in found:
        yield from (f"{_name(run)}: metric {fault}" for fault in disagreements(run.data.metrics, means, FILES))


def _name(run: "MlflowRun") -> str:
    return f"{run.info.run_name} ({run.info.run_id[:8]})"


def _compare(client: "MlflowClient", run: "MlflowRun", record: Record, files: Mapping[str, Path]) -> Iterator[str]:
    from lenet.evaluation.judge import disagreements  # pandas and SciPy, which no training needs

    if run.info.status != "FINISHED":
        yield f"status {run.info.status}, not FINISHED"
    parameters = expected_params(record.variant, record.seed, record.parameters)
    yield from (f"tag {fault}" for fault in disagreements(run.data.tags, expected_tags(record), FILES))
    yield from (f"parameter {fault}" for fault in disagreements(run.data.params, parameters, FILES))
    if not files.keys() >= {*TRAINED}:
        return
    history = readers.read(files["history.csv"], readers.history)
    metrics: dict[str, object] = {
        name: [f"{value} in epoch {epoch}" for epoch, value in zip(history["epoch"], history[name], strict=True)]
        for name in history
        if "/" in name
    }
    logged = {name: client.get_metric_history(run.info.run_id, name) for name in metrics}
    there: dict[str, object] = {
        name: [f"{value} in epoch {epoch}" for epoch, value in sorted((one.step, one.value) for one in points)]
        for name, points in logged.items()
    }
    if tested := files.get(f"{record.name}.json"):
        metrics |= test_numbers(tested)
    yield from (f"metric {fault}" for fault in disagreements(run.data.metrics | there, metrics, FILES))
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in files.items():
            try:
                kept = Path(client.download_artifacts(run.info.run_id, name, scratch)).read_bytes()
            except Exception:
                yield f"artifact {name} is missing"
            else:
                if kept != path.read_bytes():
                    yield f"artifact {name} is not the file {path}"
    made = f"source_run_id = '{run.info.run_id}'"
    if not client.search_logged_models([run.info.experiment_id], made):
        yield "it has no model"
