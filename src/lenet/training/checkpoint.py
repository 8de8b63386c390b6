"""Checkpoints of a training under way: killed at any moment and started again, it goes on and ends with the same bits.

They lie outside DVC's outputs, which DVC deletes before a stage runs, in a folder named after the ``run.key``. So a
training never goes on from the checkpoint of another one: other parameters, digits or signature, other key.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lenet.runtime import layout
from lenet.training.fast_module import FastLeNet, State

SECONDS = 10.0  # between two checkpoints
KEPT = 2  # the one before serves if the last is damaged


class Checkpoints(pl.Callback):
    """Saves a training's state every SECONDS.

    Args:
        folder: where to; nothing else may be in it. None: nothing is saved, and there is nothing to go on from.
        name: of the training, for messages.
        seed: which of several trainings side by side; None: the only one.
    """

    def __init__(self, folder: Path | None, name: str, seed: int | None = None) -> None:
        self.folder, self.name, self.seed = folder, name, seed
        self.saved = time.monotonic()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save_if_due(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 < trainer.num_training_batches:  # then there is the epoch's end to come, and its row
            self._save_if_due(pl_module)

    def _save_if_due(self, module: pl.LightningModule) -> None:
        if self.folder and time.monotonic() - self.saved >= SECONDS:
            try:
                self.save(cast(FastLeNet, module).state(self.seed))
            except KeyError:  # it has ended
                self.saved = inf
            except (OSError, SafetensorError) as error:
                self._warn(f"no checkpoint can be saved ({error}); it goes on without")
                self.saved = inf
            else:
                self.saved = time.monotonic()

    def save(self, state: State) -> None:
        """Write a state, whole or not at all; its SHA-256 becomes a part of the file's name."""
        assert self.folder is not None
        position = {"epoch": state.epoch, "step": state.step, "wrong": state.wrong, "history": state.history}
        beside = self.folder / ".partial"
        save_file(state.tensors, beside, metadata={"position": json.dumps(position)})
        beside.replace(self.folder / f"{state.epoch:06}-{state.step:08}-{_digest(beside)}.safetensors")
        for old in self._files()[KEPT:]:
            old.unlink()

    def latest(self, with_snapshots: bool = False) -> State | None:
        """The last state that is sound, and has snapshots if they are needed; None if there is none."""
        for path in self._files():
            try:
                state = _load(path)
                if with_snapshots and not any(name.startswith("snapshots.") for name in state.tensors):
                    raise ValueError("it has no snapshots")
            except (OSError, SafetensorError, ValueError, KeyError) as error:
                self._warn(f"{path} is damaged ({error}); it goes on from the one before, or from the beginning")
                continue
            print(f"lenet: {self.name} goes on after epoch {state.epoch}, step {state.step}", file=sys.stderr)
            return state
        return None

    def remove(self) -> None:
        """Remove all of them: the training is complete."""
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        """The last first."""
        return sorted(self.folder.glob("*.safetensors"), reverse=True) if self.folder else []

    def _warn(self, text: str) -> None:
        print(f"lenet: warning: {self.name}: {text}", file=sys.stderr)


@contextmanager
def kept(name: str, key: str, seed: int | None = None) -> Iterator[Checkpoints]:
    """The checkpoints of the training of this name and ``run.key``; another process's of the same are left alone.

    ``seed``: which of several trainings side by side.
    """
    folder = home() / f"{name}-{key}"
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        yield Checkpoints(None, name, seed)
        return
    try:
        yield Checkpoints(folder, name, seed)
    finally:
        lock.release()


def home() -> Path:
    """The folder of all checkpoints."""
    return layout.kept("checkpoints")


def _load(path: Path) -> State:
    """Read a state. Nothing in the file is executed. Raises ValueError if its bytes are not those that were written."""
    if not path.stem.endswith(_digest(path)):
        raise ValueError("its SHA-256 is not that of its name")
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dictionary
        return State(**json.loads(file.metadata()["position"]), tensors=tensors)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
