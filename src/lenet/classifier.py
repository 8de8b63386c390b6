"""The LightningModule: glue between network, objective, optimizer and batches."""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from lenet import objective, optimizer
from lenet.config import Variant
from lenet.data import Batches, Digits, shuffled, to_inputs
from lenet.errors import InputError
from lenet.fingerprint import tensors_sha256
from lenet.model import LeNet5, outputs
from lenet.record import History, Row

Observer = Callable[[Row], None]


class Classifier(pl.LightningModule):
    """Trains one variant with one seed on digits held in memory.

    Everything random follows from (seed, epoch): ``fit`` sees the same batches whatever ran before.

    Attributes:
        history: a row per finished epoch: epoch (from 1), learning_rate, train/loss and train/error on the fly
            (before each update), validation/loss and validation/error at the epoch's end where digits are held out,
            and weights.sha256. Losses are means over samples, errors fractions of 1.
        trace: each step's loss, in order.
    """

    def __init__(
        self, variant: Variant, seed: int, train: Digits, validation: Digits, observers: Sequence[Observer] = ()
    ) -> None:
        super().__init__()
        self.variant, self.seed, self.observers = variant, seed, observers
        self.network = LeNet5(variant.network).initialise(variant.initialisation, seed)
        self.objective = objective.build(variant)
        self.train_set = (to_inputs(train.images, variant.pixels), train.labels.long())
        self.validation_set = (to_inputs(validation.images, variant.pixels), validation.labels.long())
        self.history: History = []
        steps = -(-len(train) // variant.batch_size)
        self.trace = torch.zeros(variant.epochs, steps)
        self.wrong = torch.zeros((), dtype=torch.int64)

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        return self.network(x)

    def configure_optimizers(self) -> Any:
        rule = optimizer.build(self.variant.optimizer, self.network.parameters())
        return [rule], [torch.optim.lr_scheduler.LambdaLR(rule, self._factor)]

    def _factor(self, epochs_done: int) -> float:
        return optimizer.factor(self.variant.schedule, epochs_done + 1, self.variant.epochs)

    def train_dataloader(self) -> Batches:
        """The coming epoch's batches; the Trainer is told to ask anew for each epoch."""
        inputs, labels = self.train_set
        order = shuffled(len(labels), self.seed, self.current_epoch + 1)
        return Batches(inputs, labels, self.variant.batch_size, order)

    def training_step(self, batch: tuple[Tensor, Tensor], step: int) -> Float[Tensor, ""]:
        inputs, labels = batch
        scores = self.network(inputs)
        loss = self.objective.loss(scores, labels)
        self.trace[self.current_epoch, step] = loss.detach()
        self.wrong += (self.objective.decide(scores.detach()) != labels).sum()
        return loss

    def on_train_epoch_end(self) -> None:
        inputs, labels = self.train_set
        losses = self.trace[self.current_epoch].double()
        if not losses.isfinite().all():
            step = int(losses.isfinite().logical_not().nonzero()[0])
            raise InputError(
                f"the training diverged: the loss is {losses[step]} at step {step + 1} of epoch "
                f"{self.current_epoch + 1}; a smaller optimizer.lr may help"
            )
        sizes = torch.full_like(losses, self.variant.batch_size)
        sizes[-1] = len(labels) - sizes[:-1].sum()
        row: Row = {
            "epoch": self.current_epoch + 1,
            "learning_rate": self.variant.optimizer.lr * self._factor(self.current_epoch),
            "train/loss": float((losses * sizes).sum() / len(labels)),
            "train/error": int(self.wrong) / len(labels),
        }
        self.wrong.zero_()
        if len(self.validation_set[1]):
            inputs, labels = self.validation_set
            scores = outputs(self.network, inputs)
            row["validation/loss"] = float(self.objective.loss(scores, labels))
            row["validation/error"] = int((self.objective.decide(scores) != labels).sum()) / len(labels)
        self.log_dict({name: float(value) for name, value in row.items() if "/" in name})  # for Lightning's callbacks
        row["weights.sha256"] = tensors_sha256(self.network.state_dict())
        self.history.append(row)
        for observe in self.observers:
            observe(row)
