"""The LightningModule: glue between network, objective, optimizer and batches."""

from collections.abc import Callable, Sequence
from typing import cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from lenet import networks
from lenet.arithmetic.randomness import derive
from lenet.config import Criterion, DiagonalLevenbergMarquardt, Variant
from lenet.digits.data import Digits, to_inputs
from lenet.digits.presentation import Chunks, present
from lenet.errors import InputError
from lenet.fingerprint import tensors_sha256
from lenet.networks import kernels, online
from lenet.networks.lenet5 import LeNet5
from lenet.training import levenberg, objective, optimizer
from lenet.training.checkpoint import State
from lenet.training.record import History, Row

Observer = Callable[[Row], None]
Updates = Callable[[slice], tuple[Float[Tensor, " steps"], Float[Tensor, "n 10"]]]
"""Learn from a part of an epoch's presentation; each update's loss and each digit's scores, before the update."""
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
        snapshots: the weights at each epoch's end by name, epochs first, if they are to be kept.
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
        snapshots: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.variant, self.seed, self.observers = variant, seed, observers
        self.network = networks.build(variant.network).initialise(variant.initialisation, seed)
        self.objective = objective.build(variant)
        self.train_set, self.validation_set = train, validation
        self.history: History = []
        self.trace = torch.zeros(variant.epochs, -(-len(train) // variant.batch_size))
        weights = self.network.state_dict() if snapshots else {}
        self.snapshots = {name: tensor.new_zeros(variant.epochs, *tensor.shape) for name, tensor in weights.items()}
        self.step = self.wrong = 0
        self.start = start
        if start:
            self.network.load_state_dict(_part(start, "network"))
            self.trace.copy_(start.tensors["trace"])
            for name, kept in self.snapshots.items():
                kept.copy_(_part(start, "snapshots")[name])
            self.step, self.wrong, self.history = start.step, start.wrong, start.history
        self.updates = self._on_line() if online.fits(variant) else self._in_batches()

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        return self.network(x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return optimizer.build(self.variant.optimizer, self.network.parameters())

    def train_dataloader(self) -> Chunks:
        """The coming epoch's digits; the Trainer is told to ask anew for each epoch."""
        self.presented = present(self.variant, self.seed, self.train_set, self.current_epoch + 1)
        done = self.step * self.variant.batch_size
        return Chunks(done, len(self.train_set), UPDATES * self.variant.batch_size)

    def on_train_start(self) -> None:
        self.rule = cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False))
        if self.start:
            optimizer.restore(self.rule, _part(self.start, "optimizer"))

    def state(self) -> State:
        """All that the rest of the training depends on, besides its inputs."""
        parts = {
            "network": self.network.state_dict(),
            "optimizer": optimizer.memory(self.rule),
            "snapshots": self.snapshots,
        }
        tensors = {f"{part}.{name}": tensor for part, found in parts.items() for name, tensor in found.items()}
        return State(len(self.history), self.step, self.wrong, self.history, {**tensors, "trace": self.trace})

    def on_train_epoch_start(self) -> None:
        self.rate = self.variant.optimizer.lr * optimizer.factor(
            self.variant.schedule, self.current_epoch + 1, self.variant.epochs
        )
        for group in self.rule.param_groups:
            group["lr"] = self.rate
        if isinstance(self.variant.optimizer, DiagonalLevenbergMarquardt) and not self.step:
            self._estimate(self.variant.optimizer)

    def _estimate(self, section: DiagonalLevenbergMarquardt) -> None:
        """Give the optimizer the second derivatives at the epoch's start, from some of its digits."""
        chance = torch.Generator().manual_seed(derive(self.seed, "curvature", self.current_epoch + 1))
        some = torch.randperm(len(self.train_set), generator=chance)[: section.patterns]
        network, criterion = cast(LeNet5, self.network), cast(Criterion, self.variant.objective)
        inputs, labels = self.presented.inputs(some), self.presented.labels(some)
        found = levenberg.curvatures(network, inputs, labels, criterion, section.criterion)
        cast(levenberg.StochasticDiagonalLM, self.rule).set_curvatures(found)

    def training_step(self, chunk: slice, index: int) -> None:
        losses, scores = self.updates(chunk)
        self.trace[self.current_epoch, self.step : self.step + len(losses)] = losses
        self.step += len(losses)
        self.wrong += int((self.objective.decide(scores) != self.presented.labels(chunk)).sum())

    def _few(self) -> Float[Tensor, "n 1 32 32"]:
        """Inputs to compare two ways of computing the same."""
        return to_inputs(self.train_set.images[:16], self.variant.pixels)

    def _in_batches(self) -> Updates:
        """Updates by the optimizer's own steps."""
        count, size = len(self.train_set), self.variant.batch_size
        if isinstance(self.network, LeNet5):
            kernels.check(self.network, self._few())
        passes = {n: networks.passes(self.network, n) for n in {min(size, count), count % size or min(size, count)}}

        def update(batch: slice) -> tuple[Float[Tensor, ""], Float[Tensor, "n 10"]]:
            labels = self.presented.labels(batch)
            its = passes[len(labels)]
            self.presented.inputs(batch, out=its.inputs)
            scores = its.forward()
            loss, gradient = self.objective.loss_and_gradient(scores, labels)
            its.backward(gradient)
            self.rule.step()
            return loss, scores

        def updates(chunk: slice) -> tuple[Float[Tensor, " steps"], Float[Tensor, "n 10"]]:
            starts = range(chunk.start, chunk.stop, size)
            losses, scores = zip(*(update(slice(at, min(at + size, chunk.stop))) for at in starts), strict=True)
            return torch.stack(losses), torch.cat(scores)

        return updates

    def _on_line(self) -> Updates:
        """The same for batches of one digit."""
        network = online.OnLine(cast(LeNet5, self.network), cast(Criterion, self.variant.objective))
        network.check(self._few())

        def updates(chunk: slice) -> tuple[Float[Tensor, " steps"], Float[Tensor, "n 10"]]:
            labels = self.presented.labels(chunk)
            rule = cast(levenberg.StochasticDiagonalLM, self.rule)
            scores = network.updates(self.presented.inputs(chunk), labels, rule)
            losses = torch.func.vmap(self.objective.loss)(scores[:, None], labels[:, None])
            return losses, scores

        return updates

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
        weights = self.network.state_dict()
        row["weights.sha256"] = tensors_sha256(weights)
        for name, kept in self.snapshots.items():
            kept[self.current_epoch] = weights[name]
        self.history.append(row)
        self.step = self.wrong = 0
        for observe in self.observers:
            observe(row)


def _part(state: State, name: str) -> dict[str, Tensor]:
    """The tensors of the network, the optimizer or the snapshots, under their own names."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.tensors.items() if key.startswith(f"{name}.")}
