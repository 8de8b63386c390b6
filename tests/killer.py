"""Kills the stage that it is loaded into, by SIGKILL, at a place that the environment variable KILL names.

``KILL=step:137`` ends the process at the 137th call of what PLACES has under ``step``.
"""

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

PLACES = {
    "start": ("lenet.pipeline.train", "load_digits"),
    "step": ("lenet.training.optimizer.Rule", "step"),
    "checkpoint": ("lenet.training.checkpoint", "save_file"),
    "end": ("lenet.training.fit", "write_text"),
    "tracking": ("lenet.tracking.mirror.Mirror", "update"),
    "evaluate": ("lenet.evaluation.robustness", "curves"),
}


def install() -> None:
    """Set the trap, but not for a signature's small trainings; checkpoints are saved at every chance."""
    if "signature" in sys.argv:
        return
    place, _, count = os.environ["KILL"].partition(":")
    path, name = PLACES[place]
    owner, last = importlib.import_module("lenet.training.checkpoint"), int(count)
    owner.SECONDS = 0.0  # type: ignore[attr-defined]
    owner = _find(path)
    inner, calls = getattr(owner, name), 0

    def trapped(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == last:
            if place == "checkpoint":  # in the middle of writing
                Path(arguments[1]).write_bytes(b"half of a file")
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **options)

    setattr(owner, name, trapped)


def _find(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)
