"""LeNet-5 as published in 1998 and as built today, tracked and reproducible.

Importing the package fixes what must be fixed before torch or mlflow load: one CPU thread per process, so that those
side by side do not stall each other (LENET_THREADS takes another number; no bit depends on it), and no usage telemetry.

``from lenet import LeNet, DigitsModule``: the LightningModule and its data, for scripts and notebooks of one's own.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenet.digits.datamodule import DigitsModule
    from lenet.training.module import LeNet

__all__ = ["THREADS", "DigitsModule", "LeNet"]

THREADS = int(os.environ.get("LENET_THREADS", "1"))
_HOMES = {"DigitsModule": "lenet.digits.datamodule", "LeNet": "lenet.training.module"}

os.environ.update(
    OMP_NUM_THREADS=str(THREADS),
    MKL_NUM_THREADS=str(THREADS),
    OPENBLAS_NUM_THREADS=str(THREADS),
    OMP_WAIT_POLICY="PASSIVE",
    MLFLOW_DISABLE_TELEMETRY="true",
    DO_NOT_TRACK="true",
    DVC_NO_ANALYTICS="1",
)


def __getattr__(name: str) -> Any:
    """What takes seconds to import, when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
