"""Models from MLflow's record, loaded for use."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lenet.inference import model as packaged
from lenet.inference import trained
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.tracking import store

LOADERS = (packaged.__name__, "lenet.evaluation.recognition")
"""The modules that load models of this project: the present one, and that of models before it."""

Predict = Callable[[np.ndarray], Mapping[str, Any]]


def load_model(address: str, scratch: Path) -> tuple[Record, Predict]:
    """Load a model of this project from MLflow.

    Args:
        address: as MLflow has it: ``runs:/ID/model``, ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or a folder.
        scratch: an empty folder, kept as long as the model is used.

    Returns:
        The record of its training, and what it answers.

    Raises:
        InputError: no such model, another project's, or a store that does not answer.
    """
    shown = store.masked(address)
    if ":" not in address and not Path(address).is_dir():
        raise InputError(f"{shown}: no folder of a model, and no address as runs:/ID/model or models:/NAME@ALIAS")
    if store.look() is None and address.startswith(("runs:/", "models:/")):
        raise InputError(f"{shown}: {store.shown()} has no runs yet")
    import mlflow
    from mlflow.models import Model

    store.configure()
    path = list(sys.path)
    try:
        place = mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(scratch))
        flavor = Model.load(place).flavors.get("python_function", {})
        if flavor.get("loader_module") not in LOADERS:
            raise InputError(f"{shown}: not a model of this project")
        record = trained.load(Path(place) / flavor["data"]).record
        return record, mlflow.pyfunc.load_model(place).predict
    except InputError:
        raise
    except Exception as error:  # of MLflow, of a server, of files
        raise InputError(f"{shown}: the model cannot be loaded ({store.reason(error)})") from None
    finally:
        sys.path[:] = path  # MLflow adds the model's own sources, which are not used here
