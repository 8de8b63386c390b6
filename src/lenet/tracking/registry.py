"""MLflow's model registry: versions of one registered model, each a training's network, and the alias ``champion``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lenet.runtime.errors import InputError
from lenet.tracking import journal, store
from lenet.tracking.lookup import Tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

MODEL = "lenet5"
"""The registered model."""
ALIAS = "champion"
PATIENCE = 10  # seconds, for another process that moves the alias
_IDENTITY = ("variant", "seed", "run.key", "weights.sha256")


@dataclass(frozen=True)
class Version:
    """A version of the registered model.

    Attributes:
        number: MLflow's, from 1.
        name: ``<variant>-<seed>`` of its training.
        key: ``run.key``.
        weights: ``weights.sha256``.
    """

    number: int
    name: str
    key: str
    weights: str

    @property
    def uri(self) -> str:
        """Its address in MLflow."""
        return f"models:/{MODEL}/{self.number}"


def register(run: Tracked, description: str) -> tuple[Version, bool]:
    """Make a version of a run's model.

    Args:
        run: what MLflow has recorded, with a model.
        description: Markdown, as for example a model card.

    Returns:
        The version, and whether it is new: a run's network has one version.

    Raises:
        InputError: MLflow does not have the run, or no whole model of it; or the store does not answer.
    """
    from mlflow.entities import LoggedModelStatus

    if run.id is None:
        raise InputError(f"{run.name}: {store.shown()} has no such run; `lenet sync` completes it from files")
    with store.asking():
        client = store.open_store()
        for version in _versions(client):
            if (version.key, version.weights) == (run.key, run.tags.get("weights.sha256")):
                return version, False
        place = client.get_run(run.id).info.experiment_id
        models = client.search_logged_models([place], f"source_run_id = '{run.id}'")
        model = next((one for one in models if one.status == LoggedModelStatus.READY), None)
        if model is None:
            raise InputError(f"{run.name}: its run in {store.shown()} has no model; `lenet sync` adds it from files")
        _make(client)
        made = client.create_model_version(
            MODEL,
            f"models:/{model.model_id}",
            run.id,
            tags={name: run.tags[name] for name in _IDENTITY},
            description=description,
            model_id=model.model_id,
        )
        return _version(made), True


def versions() -> tuple[list[Version], int | None]:
    """All versions that `lenet register` has made, the oldest first, and the number of the one that has the alias.

    Raises InputError if the store does not answer.
    """
    with store.asking():
        client = store.open_store()
        return _versions(client), _aliased(client)


def promote(version: Version, tags: Mapping[str, str], instead_of: int | None) -> None:
    """Move the alias to a version, and note why.

    Args:
        version: the new champion.
        tags: what is noted at the version.
        instead_of: the champion's number so far; None if there was none.

    Raises:
        InputError: the alias has been moved meanwhile, or the store does not answer.
    """
    with store.asking():
        client = store.open_store()
        with journal.lock(ALIAS, PATIENCE):
            if _aliased(client) != instead_of:
                raise InputError(f"{ALIAS!r} has been moved meanwhile; the same command compares with the new one")
            for name, value in tags.items():
                client.set_model_version_tag(MODEL, str(version.number), name, value)
            client.set_registered_model_alias(MODEL, ALIAS, str(version.number))


def _make(client: "MlflowClient") -> None:
    """Make the registered model, unless it is there: two may do so at once."""
    from mlflow import MlflowException

    try:
        client.create_registered_model(MODEL, description="LeNet-5 of 1998 and of today; each version is one training.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(client: "MlflowClient") -> list[Version]:
    found = client.search_model_versions(f"name = '{MODEL}'", max_results=10_000)
    ours = [_version(one) for one in found if {*_IDENTITY} <= one.tags.keys()]
    return sorted(ours, key=lambda version: version.number)


def _version(one: "ModelVersion") -> Version:
    tags = one.tags
    return Version(int(one.version), f"{tags['variant']}-{tags['seed']}", tags["run.key"], tags["weights.sha256"])


def _aliased(client: "MlflowClient") -> int | None:
    """The version that has the alias."""
    from mlflow import MlflowException

    try:
        number = client.get_registered_model(MODEL).aliases.get(ALIAS)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return int(number) if number is not None else None
