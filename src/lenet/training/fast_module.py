"""The LightningModule that the pipeline trains: the same bits by hand-written passes, checkpoints within an epoch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from lenet import networks
from lenet.arithmetic import exact
from lenet.digits.data import Digits, to_inputs
from lenet.digits.epochs import Chunks, present
from lenet.networks import fast
from lenet.networks.lenet5 import LeNet5
from lenet.params.schema import DiagonalLevenbergMarquardt, Variant
from lenet.runs.record import History, Row
from lenet.training import optimizer
from lenet.training.fingerprint import tensors_sha256
from lenet.training.module import LeNet

Observer = Callable[[Row], None]
DIGITS = 1024  # presented in a batch of Lightning's, at most
UPDATES = 64  # from one, at most: a checkpoint is saved between two


@dataclass(frozen=True)
class State:
    """A training between two updates; what is random in the rest of it follows from (seed, epoch, step).

    Attributes:
        epoch: finished epochs.
        step: updates done in the next epoch.
        wrong: digits answered wrongly in them.
        history: a row per finished epoch.
        tensors: the network's parameters, the optimizer's memory, the trace and snapshots, by name.
    """

    epoch: int
    step: int
    wrong: int
    history: History
    tensors: dict[str, Tensor]


class FastLeNet(LeNet):
    """Trains one variant with one seed on digits held in memory.

    Everything random follows from (seed, epoch, step), and a training that goes on from a State ends with the bits of
    one that was never stopped. A Lightning batch is a chunk of many updates, and the optimization Lightning's "manual"
    one: its work for every batch would take as long as an update of 16 digits. Before the first update the passes are
    compared with the readable network, bit for bit.

    Args:
        variant: the block of params.yaml.
        seed: of everything random.
        train: the digits to learn from.
        validation: the digits held out; may be none.
        observers: called with the history's row after each epoch.
        start: where a training of the same arguments was stopped; None for the beginning.
        snapshots: whether to keep the weights of each epoch's end.

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
        super().__init__(variant, seed)
        self.automatic_optimization = False
        self.train_set, self.validation_set, self.observers = train, validation, observers
        self.flat = fast.Flat([self.network])
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
        count, size = len(train), variant.batch_size
        sizes = {min(size, count), count % size or min(size, count)}
        self.passes = {n: networks.passes([self.network], n, self.flat) for n in sizes}
        if isinstance(self.network, LeNet5):
            some = train[: min(16, count)]
            inputs, labels = to_inputs(some.images, variant.pixels), some.labels.long()
            with torch.no_grad():
                dscores = self.objective.gradient(self.network(inputs), labels)
            fast.check(self.network, inputs, dscores)

    def _has_digits(self) -> bool:
        return True

    def configure_optimizers(self) -> Any:
        return optimizer.build(self.variant.optimizer, [self.flat.matrix])

    def train_dataloader(self) -> Chunks:
        """The coming epoch's digits; the Trainer is told to ask anew for each epoch."""
        self.presented = present(self.variant, self.seed, self.train_set, self.current_epoch + 1)
        size = self.variant.batch_size
        return Chunks(self.step * size, len(self.train_set), max(1, min(UPDATES, DIGITS // size)) * size)

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
        schedule = optimizer.factor(self.variant.schedule, self.current_epoch + 1, self.variant.epochs)
        self.rate = self.variant.optimizer.lr * schedule
        for group in self.rule.param_groups:
            group["lr"] = self.rate
        if isinstance(self.variant.optimizer, DiagonalLevenbergMarquardt) and not self.step:
            found = torch.cat([curvature.flatten() for curvature in self.curvatures(self.presented)])
            cast(optimizer.StochasticDiagonalLM, self.rule).set_curvatures([found[None]])

    def training_step(self, chunk: slice, index: int) -> None:  # type: ignore[override]
        size, labels = self.variant.batch_size, self.presented.labels(chunk)
        inputs, scores = self.presented.inputs(chunk), []
        for part, its_labels in zip(inputs.split(size), labels.split(size), strict=True):
            its = self.passes[len(part)]
            its.inputs[0] = part
            try:
                scores.append(its.forward()[0])
                its.backward(self.objective.gradient(scores[-1], its_labels)[None])
            except exact.NotFinite as error:
                raise self.diverged(error, self.step + len(scores)) from None
            self.rule.step()
        together = torch.cat(scores)
        self._note(self.objective.losses(together, labels))
        self.wrong += int((self.objective.decide(together) != labels).sum())

    def _note(self, losses: Float[Tensor, " n"]) -> None:
        """Each update's mean loss into the trace."""
        size = self.variant.batch_size
        for part in (losses[: len(losses) // size * size].view(-1, size), losses[len(losses) // size * size :][None]):
            if part.numel():
                try:
                    means = exact.divided(exact.total_each(part, 1, "the loss"), part.shape[1])
                except exact.NotFinite as error:
                    unfit = part.isfinite().all(1).logical_not().nonzero()
                    raise self.diverged(error, self.step + (int(unfit[0]) if len(unfit) else 0)) from None
                self.trace[self.current_epoch, self.step : self.step + len(means)] = means
                self.step += len(means)

    def on_train_epoch_end(self) -> None:
        losses = self.trace[self.current_epoch].double()
        count = len(self.train_set)
        sizes = torch.full_like(losses, self.variant.batch_size)
        sizes[-1] = count - sizes[:-1].sum()
        row: Row = {
            "epoch": self.current_epoch + 1,
            "learning_rate": self.rate,
            "train/loss": float(exact.divided(exact.total((losses * sizes).float(), 0, "the loss"), count)),
            "train/error": self.wrong / count,
        }
        if len(self.validation_set):
            scores = networks.outputs(self.network, self.validation_set.images, self.variant.pixels)
            labels = self.validation_set.labels.long()
            row["validation/loss"] = float(self.objective.loss(scores, labels))
            row["validation/error"] = int((self.objective.decide(scores) != labels).sum()) / len(labels)
        numbers = {
            name: torch.tensor(value, dtype=torch.float64) for name, value in row.items() if isinstance(value, float)
        }
        self.log_dict(numbers)  # for Lightning's callbacks and its logger, whose numbers are the history's
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
