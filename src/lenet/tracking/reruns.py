"""The record of reruns: runs of an experiment of their own, linked with the runs that they repeat."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lenet.runtime.errors import InputError
from lenet.tracking import journal, store
from lenet.tracking.live import surroundings
from lenet.tracking.lookup import Tracked
from lenet.tracking.mirror import test_numbers
from lenet.tracking.recorder import bounded

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = f"{store.EXPERIMENT}-reruns"


def reran(
    run: Tracked, again: Tracked, verdict: Mapping[str, str], report: Any, files: Mapping[str, Path]
) -> str | None:
    """Record a rerun; return MLflow's id, or None where the store did not take it, which is said.

    Args:
        run: what was repeated.
        again: what came out.
        verdict: tags that tell how they compare, without their prefix ``rerun.``.
        report: all that was found, as JSON, for the artifact ``rerun.json``.
        files: the rerun's outputs, by name.
    """
    recorded = None

    def record(client: "MlflowClient") -> None:
        nonlocal recorded
        recorded = _record(client, run, again, verdict, report, files)
        if run.id:
            earlier = client.get_run(run.id).data.tags.get("reruns", "").split()
            client.set_tag(run.id, "reruns", " ".join([*earlier, recorded]))
            client.set_tag(run.id, "rerun.grade", verdict["grade"])

    bounded(f"the rerun of {run.name}", record, "it is not kept")
    return recorded


def trainings(condition: str | None) -> list[tuple[str, str]]:
    """Name and id of the finished trainings that meet a condition in MLflow's filter language, the oldest first.

    Raises:
        InputError: the condition is none, or the store does not answer.
    """
    client = store.look()
    if client is None:
        return []
    both = " and ".join(filter(None, ["tags.kind = 'training' and attributes.status = 'FINISHED'", condition]))
    try:
        return [(store.identity(run)[0], run.info.run_id) for run in store.search(client, both)]
    except Exception as error:
        raise InputError(f"--filter {condition!r}: {store.reason(error)}") from None


def _record(
    client: "MlflowClient",
    run: Tracked,
    again: Tracked,
    verdict: Mapping[str, str],
    report: Any,
    files: Mapping[str, Path],
) -> str:
    experiment = store.experiment_id(client, EXPERIMENT)
    of = run.id or run.key
    tags = {name: value for name, value in surroundings().items() if not name.startswith(("mlflow.source", "git."))}
    tags |= {"kind": "rerun", "variant": run.tags["variant"], "seed": run.tags["seed"], "rerun.of": of}
    tags |= dict(again.tags) | {f"rerun.{name}": value for name, value in verdict.items()}
    link = store.link(client.get_run(run.id), run.name) if run.id else f"{run.name} {run.key[:12]}"
    tags["mlflow.note.content"] = f"Again: {link}. {verdict['how']}"
    made = client.create_run(experiment, tags=tags, run_name=run.name).info.run_id
    time = journal.now()
    points = [
        (name, value, time, int(row["epoch"]))
        for row in again.history
        for name, value in row.items()
        if isinstance(value, float)
    ]
    tested = test_numbers(files[f"{run.name}.json"])
    points += [(name, value, time, len(again.history)) for name, value in tested.items()]
    parameters = {"variant": run.tags["variant"], "seed": run.tags["seed"], **again.parameters}
    store.add(client, made, params=parameters, points=points)
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "rerun.json").write_text(json.dumps(report | {"rerun": made}, indent=2))
        client.log_artifact(made, str(Path(scratch) / "rerun.json"))
    for path in files.values():
        client.log_artifact(made, str(path))
    client.set_terminated(made, "FINISHED")
    return str(made)
