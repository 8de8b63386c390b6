"""The record of reruns: runs of an experiment of their own, linked with the runs that they repeat."""

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
        original = client.get_run(run.id) if run.id else None
        link = store.link(original, run.name) if original else f"{run.name} {run.key[:12]}"
        identity = {"variant": run.tags["variant"], "seed": run.tags["seed"]}
        where = {n: value for n, value in surroundings().items() if not n.startswith(("mlflow.source", "git."))}
        tags = where | identity | {"kind": "rerun", "rerun.of": run.id or run.key} | dict(again.tags)
        tags |= {f"rerun.{name}": value for name, value in verdict.items()}
        tags["mlflow.note.content"] = f"Again: {link}. {verdict['how']}"
        experiment = store.experiment_id(client, EXPERIMENT)
        made = str(client.create_run(experiment, tags=tags, run_name=run.name).info.run_id)
        time, tested = journal.now(), test_numbers(files[f"{run.name}.json"])
        points = [*store.points(again.history, time), *((n, v, time, len(again.history)) for n, v in tested.items())]
        store.add(client, made, params=identity | dict(again.parameters), points=points)
        client.log_dict(made, report | {"rerun": made}, "rerun.json")
        for path in files.values():
            client.log_artifact(made, str(path))
        client.set_terminated(made, "FINISHED")
        recorded = made
        if original:
            earlier = original.data.tags.get("reruns", "").split()
            store.add(
                client, original.info.run_id, {"reruns": " ".join([*earlier, made]), "rerun.grade": verdict["grade"]}
            )

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
