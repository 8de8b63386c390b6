"""The record of a training as a Lightning Logger. A module of its own: importing Lightning takes seconds."""

from typing import Any

from pytorch_lightning.loggers import Logger

from lenet.tracking.live import Run


class RunLogger(Logger):
    """Hands what a Trainer logs to the record of a training, at step = epoch, from 1.

    The record has the block's parameters already, and ends where ``tracking.training`` ends. No fault of MLflow reaches
    the Trainer:

        with tracking.training(record, "lenet5-mine") as run:
            pl.Trainer(max_epochs=block.epochs, logger=RunLogger(run)).fit(LeNet(block, seed), data)

    A record says that its block was trained as it stands. For anything else Lightning's own MLFlowLogger is the one.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run

    @property
    def name(self) -> str | None:
        """The MLflow experiment; None for no record."""
        return self.run.experiment

    @property
    def version(self) -> str:
        """The run's name."""
        return self.run.record.name

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The record has them."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Note an epoch's numbers. Lightning says which epoch, from 0, among them; the step is its count of updates."""
        numbers = dict(metrics)
        self.run.epoch(int(numbers.pop("epoch")) + 1, numbers)
