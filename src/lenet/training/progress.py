"""What a training shows while it runs: a bar in a terminal, elsewhere lines."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lenet.params.schema import Variant
from lenet.training.fast_module import FastLeNet

Observers = list[Callable[[Mapping[str, Any]], None]]


@contextmanager
def training(names: Mapping[int, str], variant: Variant) -> Iterator[tuple[dict[int, Observers], list[pl.Callback]]]:
    """The display of trainings of a variant, fit for where standard error goes.

    Args:
        names: by seed.
        variant: the block.

    Returns:
        Each seed's observers of rows, and Lightning's callbacks.
    """
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True)) as bar:
            yield {seed: [] for seed in names}, [_Bars(bar, names, variant)]
    else:
        yield {seed: [_Lines(name, variant)] for seed, name in names.items()}, []


def state(row: Mapping[str, Any], epochs: int, rate: float) -> str:
    """Epoch, loss, error and speed in one line."""
    error = row.get("validation/error", row["train/error"])
    which = "validation" if "validation/error" in row else "training"
    return f"epoch {row['epoch']}/{epochs}  loss {row['train/loss']:.4f}  {which} error {error:.2%}  {rate:,.0f} img/s"


class _Lines:
    """A line an epoch, but not more than one a second; `lenet repro` shows the latest."""

    def __init__(self, name: str, variant: Variant) -> None:
        self.name, self.variant, self.start, self.shown = name, variant, time.monotonic(), 0.0

    def __call__(self, row: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if now - self.shown < 1 and row["epoch"] < self.variant.epochs:
            return
        self.shown = now
        rate = row["epoch"] * self.variant.train_size / (now - self.start)
        print(f"{self.name}: {state(row, self.variant.epochs, rate)}", file=sys.stderr, flush=True)


class _Bars(pl.Callback):
    """Follows batches, touching the screen ten times a second at most: a bar for each training."""

    def __init__(self, bar: Progress, names: Mapping[int, str], variant: Variant) -> None:
        self.bar, self.variant = bar, variant
        total = variant.epochs * variant.train_size
        self.tasks = {seed: bar.add_task(name, total=total, state="") for seed, name in names.items()}
        self.start = self.shown = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        last = batch_idx + 1 == trainer.num_training_batches
        if now - self.shown < 0.1 and not last:
            return
        assert isinstance(pl_module, FastLeNet)
        self.shown = now
        for its in pl_module.trainings:
            seen = min(its.step * self.variant.batch_size, self.variant.train_size)
            done = trainer.current_epoch * self.variant.train_size + seen
            row = {
                "epoch": trainer.current_epoch + 1,
                "train/loss": float(its.trace[trainer.current_epoch, : its.step].mean()),
                "train/error": its.wrong / seen,
            }
            shown = state(row, self.variant.epochs, done / (now - self.start))
            self.bar.update(self.tasks[its.seed], completed=done, state=shown)
