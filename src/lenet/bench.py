"""`lenet bench`: training speed of our path beside a bare loop and the usual way, on one core, in one sitting."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from lenet import THREADS, fingerprint, objective, optimizer, tracking
from lenet.config import FixedPooling, Params, Variant
from lenet.data import Batches, Digits, load_digits, shuffled, to_inputs
from lenet.model import LeNet5
from lenet.record import Record
from lenet.train import fit

BATCH = 128
DIGITS = 55_000  # an epoch of the compared variants


def bench(params: Params, data: Path, repetitions: int) -> None:
    """Print medians of images/s and their ratios. All three train the same network on the same digits for one epoch.

    The network is the `modern` block with average pooling, so that the usual way's ``AvgPool2d`` computes the same.
    Repetitions alternate, so that a busy machine slows all alike.
    """
    torch.set_num_threads(THREADS)
    digits = load_digits(data)[:DIGITS]
    modern = params.variant("modern")
    network = modern.network.model_copy(update={"pooling": FixedPooling(kind="average")})
    variant = modern.model_copy(
        update={"network": network, "batch_size": BATCH, "epochs": 1, "train_size": DIGITS, "validation_size": 0}
    )
    ways: dict[str, Callable[[Variant, Digits], float]] = {
        "ours: Lightning, tracking on": _ours,
        "bare PyTorch loop": _bare,
        "usual: DataLoader, Lightning defaults": _usual,
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        tracking.open_store()
        for repetition in range(repetitions + 1):
            for name, way in ways.items():
                speed = way(variant, digits)
                if repetition:  # the first warms up
                    speeds[name].append(speed)
    _print(speeds)


def _ours(variant: Variant, digits: Digits) -> float:
    """The path of the train stage: ``fit`` with the MLflow run open; its set-up and end are not part of the speed."""
    record = Record("bench", 1, variant, key=f"bench-{time.time_ns()}", data="", canary="")
    clock = _Clock()
    with tracking.training(record, enabled=True) as run:
        fit(variant, 1, digits, digits[:0], [run.epoch], [clock])
    return len(digits) / clock.seconds


class _Clock(pl.Callback):
    """From the first batch to the end of the epoch, its tracking included."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self.start


def _bare(variant: Variant, digits: Digits) -> float:
    """The same network, tensors and optimizer in the shortest loop."""
    network = LeNet5(variant.network).initialise(variant.initialisation, 1)
    rule, loss = optimizer.build(variant.optimizer, network.parameters()), objective.build(variant).loss
    inputs, labels = to_inputs(digits.images, variant.pixels), digits.labels.long()
    start = time.perf_counter()
    for x, y in Batches(inputs, labels, BATCH, shuffled(len(labels), 1, 1)):
        rule.zero_grad()
        loss(network(x), y).backward()
        rule.step()
    return len(digits) / (time.perf_counter() - start)


def _usual(variant: Variant, digits: Digits) -> float:
    """What tutorials do: DataLoader over TensorDataset, contiguous memory, AvgPool2d, a metric logged each step."""
    inputs, labels = to_inputs(digits.images, variant.pixels), digits.labels.long()
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=BATCH, shuffle=True)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as scratch:
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, callbacks=[clock], logger=False, default_root_dir=scratch,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(_Usual(), loader)
    return len(digits) / clock.seconds


class _Usual(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], index: int) -> torch.Tensor:
        x, y = batch
        loss = cross_entropy(self.layers(x), y)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001)


def _print(speeds: dict[str, list[float]]) -> None:
    ours, *_ = (statistics.median(values) for values in speeds.values())
    view = Table("way", title=f"Training, batch {BATCH}, one core; medians of {len(next(iter(speeds.values())))}")
    for column in ("images/s", "slowest … fastest", "ours ÷ this"):
        view.add_column(column, justify="right")
    for name, values in speeds.items():
        median = statistics.median(values)
        view.add_row(name, f"{median:,.0f}", f"{min(values):,.0f} … {max(values):,.0f}", f"{ours / median:.2f}")
    Console(width=100).print(view)
    print(f"torch {torch.__version__}, canary {fingerprint.canary()}, {torch.backends.cpu.get_cpu_capability()}")
