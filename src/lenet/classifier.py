"""The LightningModule: glue between network, objective, optimizer and batches."""

from collections.abc import Callable, Sequence
from typing import cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from lenet import kernels, networks, objective, optimizer
from lenet.checkpoint import State
from lenet.config import AffineDistortion, Variant
from lenet.data import Batches, Digits, shuffled, to_inputs
from lenet.distortion import distort
from lenet.errors import InputError
from lenet.fingerprint import tensors_sha256
from lenet.model import LeNet5
from lenet.randomness import derive
from lenet.record import History, Row

Observer = Callable[[Row], None]
UPDATES = 64  # in a batch of Lightning's


class Classifier(pl.LightningModule):
    """Trains one variant with one seed on digits held in memory.

    Everything random follows from (seed, epoch, step): ``fit`` sees the same batches whatever ran before, and a
    training that goes on from a State ends with the bits of one that was never stopped.

    A Lightning batch is a chunk of UPDATES updates, and the optimization Lightning's "manual" one: its work for every
    batch would take as long as an update of 16 digits.

    Attributes:
        history: a row per finished epoch: epoch (from 1), learning_rate, train/loss and train/error on the fly
            (before each update), validation/loss and validation/error at the epoch's end where digits are held out,
            and weights.sha256. Losses are means over samples, errors fractions of 1.
        trace: each step's loss, in order.
        step: steps done in the present epoch.
        wrong: digits answered wrongly in it, before their update.
    """

    def __init__(
        self,
        variant: Variant,
        seed: int,
        train: Digits,
        validation: Digits,
        observers: Sequence[Observer] = (),
        start: State | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.variant, self.seed, self.observers = variant, seed, observers
        self.network = networks.build(variant.network).initialise(variant.initialisation, seed)
        self.objective = objective.build(variant)
        self.train_set, self.validation_set = train, validation
        self.history: History = []
        self.trace = torch.zeros(variant.epochs, -(-len(train) // variant.batch_size))
        self.step = self.wrong = 0
        self.start = start
        if start:
            self.network.load_state_dict(_part(start, "network"))
            self.trace.copy_(start.tensors["trace"])
            self.step, self.wrong, self.history = start.step, start.wrong, start.history
        if isinstance(self.network, LeNet5):
            kernels.check(self.network, to_inputs(train.images[:16], variant.pixels))
        self.passes = {n: networks.passes(self.network, n) for n in self._batch_sizes()}

    def _batch_sizes(self) -> set[int]:
        """That of a batch and that of an epoch's last one."""
        count, size = len(self.train_set), self.variant.batch_size
        return {min(size, count), count % size or min(size, count)}

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        return self.network(x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer.build(self.variant.optimizer, self.network.parameters())

    def train_dataloader(self) -> Batches:
        """The coming epoch's batches; the Trainer is told to ask anew for each epoch."""
        order = shuffled(len(self.train_set), self.seed, self.current_epoch + 1)
        return Batches(self.train_set, order[self.step * self.variant.batch_size :], UPDATES * self.variant.batch_size)

    def on_train_start(self) -> None:
        self.rule = cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False))
        if self.start:
            optimizer.restore(self.rule, _part(self.start, "optimizer"))

    def state(self) -> State:
        """All that the rest of the training depends on, besides its inputs."""
        parts = {"network": self.network.state_dict(), "optimizer": optimizer.memory(self.rule)}
        tensors = {f"{part}.{name}": tensor for part, found in parts.items() for name, tensor in found.items()}
        return State(len(self.history), self.step, self.wrong, self.history, {**tensors, "trace": self.trace})

    def on_train_epoch_start(self) -> None:
        self.rate = self.variant.optimizer.lr * optimizer.factor(
            self.variant.schedule, self.current_epoch + 1, self.variant.epochs
        )
        for group in self.rule.param_groups:
            group["lr"] = self.rate

    def training_step(self, chunk: tuple[Tensor, Tensor], index: int) -> None:
        images, labels = chunk
        size = self.variant.batch_size
        batches = zip(images.split(size), labels.split(size), strict=True)
        done = [self._update(self.step + i, *batch) for i, batch in enumerate(batches)]
        losses, scores = zip(*done, strict=True)
        self.trace[self.current_epoch, self.step : self.step + len(done)] = torch.stack(losses)
        self.step += len(done)
        self.wrong += int((self.objective.decide(torch.cat(scores)) != labels).sum())

    def _update(self, step: int, images: Tensor, labels: Tensor) -> tuple[Float[Tensor, ""], Float[Tensor, "n 10"]]:
        """One step, counted from 0 in its epoch; the loss and the scores before it."""
        passes, variant = self.passes[len(labels)], self.variant
        inputs = to_inputs(images, variant.pixels, out=passes.inputs)
        if isinstance(variant.distortion, AffineDistortion):
            chance = torch.Generator().manual_seed(derive(self.seed, "distortion", self.current_epoch + 1, step))
            inputs.copy_(distort(inputs, variant.distortion, variant.pixels, chance))
        scores = passes.forward()
        loss, gradient = self.objective.loss_and_gradient(scores, labels)
        passes.backward(gradient)
        self.rule.step()
        return loss, scores

    def on_train_epoch_end(self) -> None:
        losses = self.trace[self.current_epoch].double()
        if not losses.isfinite().all():
            step = int(losses.isfinite().logical_not().nonzero()[0])
            raise InputError(
                f"the training diverged: the loss is {losses[step]} at step {step + 1} of epoch "
                f"{self.current_epoch + 1}; a smaller optimizer.lr may help"
            )
        count = len(self.train_set)
        sizes = torch.full_like(losses, self.variant.batch_size)
        sizes[-1] = count - sizes[:-1].sum()
        row: Row = {
            "epoch": self.current_epoch + 1,
            "learning_rate": self.rate,
            "train/loss": float((losses * sizes).sum() / count),
            "train/error": self.wrong / count,
        }
        if len(self.validation_set):
            scores = networks.outputs(self.network, self.validation_set.images, self.variant.pixels)
            labels = self.validation_set.labels.long()
            row["validation/loss"] = float(self.objective.loss(scores, labels))
            row["validation/error"] = int((self.objective.decide(scores) != labels).sum()) / len(labels)
        self.log_dict({name: float(value) for name, value in row.items() if "/" in name})  # for Lightning's callbacks
        row["weights.sha256"] = tensors_sha256(self.network.state_dict())
        self.history.append(row)
        self.step = self.wrong = 0
        for observe in self.observers:
            observe(row)


def _part(state: State, name: str) -> dict[str, Tensor]:
    """The tensors of the network or of the optimizer, under their own names."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.tensors.items() if key.startswith(f"{name}.")}
