"""The LightningModule that the pipeline trains: the same bits by hand-written passes, checkpoints within an epoch.

Several trainings of one block, with a seed each, can be computed side by side: each gets the bits that it gets alone.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lenet import networks
from lenet.arithmetic import exact
from lenet.digits.data import Digits, to_inputs
from lenet.digits.epochs import Chunks, Presentation, present
from lenet.networks import fast
from lenet.networks.lenet5 import LeNet5
from lenet.params.schema import DiagonalLevenbergMarquardt, Variant
from lenet.runs.record import History, Row
from lenet.runtime.errors import Diverged
from lenet.training import levenberg, optimizer
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

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of the network, the optimizer or the snapshots, under their own names."""
        return {key.removeprefix(f"{name}."): its for key, its in self.tensors.items() if key.startswith(f"{name}.")}


class Training:
    """One seed's training of a block, as far as it has come.

    Args:
        variant: the block of params.yaml.
        seed: of everything random.
        count: training digits.
        observers: called with the history's row after each epoch.
        start: where a training of the same arguments was stopped; None for the beginning.
        snapshots: whether to keep the weights of each epoch's end.
        device: where it computes; the bits do not depend on it.

    Attributes:
        network: its weights are what is learned.
        history: a row per finished epoch: epoch (from 1), learning_rate, train/loss and train/error on the fly
            (before each update), validation/loss and validation/error at the epoch's end where digits are held out,
            and weights.sha256. Losses are means over samples, errors fractions of 1.
        trace: each step's loss, in order.
        snapshots: the weights at each epoch's end by name, epochs first, if they are to be kept.
        step: steps done in the present epoch.
        wrong: digits answered wrongly in it, before their update.
        presented: what the present epoch presents.
        fault: why it has ended early; None if it has not.
    """

    presented: Presentation

    def __init__(
        self,
        variant: Variant,
        seed: int,
        count: int,
        observers: Sequence[Observer] = (),
        start: State | None = None,
        snapshots: bool = False,
        device: str = "cpu",
    ) -> None:
        self.seed, self.observers, self.start = seed, observers, start
        self.network = networks.build(variant.network).initialise(variant.initialisation, seed).to(device)
        self.history: History = []
        self.trace = torch.zeros(variant.epochs, -(-count // variant.batch_size))
        weights = self.weights() if snapshots else {}
        self.snapshots = {name: tensor.new_zeros(variant.epochs, *tensor.shape) for name, tensor in weights.items()}
        self.step = self.wrong = 0
        self.fault: Diverged | None = None
        if start:
            self.network.load_state_dict(start.part("network"))
            self.trace.copy_(start.tensors["trace"])
            for name, kept in self.snapshots.items():
                kept.copy_(start.part("snapshots")[name])
            self.step, self.wrong, self.history = start.step, start.wrong, start.history

    @property
    def position(self) -> tuple[int, int]:
        """Finished epochs, and steps of the next one."""
        return len(self.history), self.step

    def weights(self) -> dict[str, Tensor]:
        """The network's, by name, on the CPU."""
        return {name: tensor.cpu() for name, tensor in self.network.state_dict().items()}

    def state(self, memory: dict[str, Tensor]) -> State:
        """All that the rest of the training depends on, besides its inputs. ``memory``: the optimizer's."""
        parts = {"network": self.weights(), "optimizer": memory, "snapshots": self.snapshots}
        tensors = {f"{part}.{name}": tensor.cpu() for part, found in parts.items() for name, tensor in found.items()}
        return State(*self.position, self.wrong, self.history, {**tensors, "trace": self.trace})

    def close(self, row: Row) -> None:
        """End an epoch, whose row lacks the weights' digest."""
        weights = self.weights()
        row["weights.sha256"] = tensors_sha256(weights)
        for name, kept in self.snapshots.items():
            kept[len(self.history)] = weights[name]
        self.history.append(row)
        self.step = self.wrong = 0
        for observe in self.observers:
            observe(row)


class FastLeNet(LeNet):
    """Trains one variant on digits held in memory, with one seed or with several side by side.

    Everything random follows from (seed, epoch, step), and a training that goes on from a State ends with the bits of
    one that was never stopped. A Lightning batch is a chunk of many updates, and the optimization Lightning's "manual"
    one: its work for every batch would take as long as an update of 16 digits. Before the first update the passes are
    compared with the readable network, bit for bit.

    Observers get what LeNet logs: Lightning's names have no room for several seeds. Where one diverges it raises
    Diverged, and the others can go on from their ``state``.

    Args:
        variant: the block of params.yaml.
        trainings: of this block, all of them at one position.
        train: the digits to learn from.
        validation: the digits held out; may be none.
    """

    def __init__(self, variant: Variant, trainings: Sequence[Training], train: Digits, validation: Digits) -> None:
        super().__init__(variant, trainings[0].seed)
        self.automatic_optimization = False
        self.trainings, self.train_set, self.validation_set = trainings, train, validation
        its = [training.network for training in trainings]
        self.networks, self.network = nn.ModuleList(its), its[0]
        self.running = [*self.networks.buffers()] if len(its) > 1 else []  # norms' means: a forward pass moves them
        self.flat = fast.Flat(its)
        count, size = len(train), variant.batch_size
        sizes = {min(size, count), count % size or min(size, count)}
        self.passes = {n: networks.passes(its, n, self.flat) for n in sizes}
        if isinstance(self.network, LeNet5) or networks.device_of(self.network).type != "cpu":
            some = train[: min(16, count)]
            inputs, labels = to_inputs(some.images, variant.pixels), some.labels.long()
            for network in its:
                with suppress(exact.NotFinite):  # the first update tells it
                    scores = torch.linspace(0, 1, 10).expand(len(labels), 10)
                    networks.check(network, inputs, self.objective.gradient(scores, labels, len(labels)))

    def _has_digits(self) -> bool:
        return True

    def configure_optimizers(self) -> Any:
        return optimizer.build(self.variant.optimizer, [self.flat.matrix])

    def train_dataloader(self) -> Chunks:
        """The coming epoch's digits; the Trainer is told to ask anew for each epoch."""
        for training in self.trainings:
            training.presented = present(self.variant, training.seed, self.train_set, self.current_epoch + 1)
        size, step = self.variant.batch_size, self.trainings[0].step
        return Chunks(step * size, len(self.train_set), max(1, min(UPDATES, DIGITS // size)) * size)

    def on_train_start(self) -> None:
        self.rule = cast(torch.optim.Optimizer, self.optimizers(use_pl_optimizer=False))
        if starts := [training.start for training in self.trainings if training.start]:
            optimizer.restore(self.rule, _stacked([start.part("optimizer") for start in starts]))  # to its device

    def state(self, seed: int | None = None) -> State:
        """That of a seed's training; None: of the only one. Raises KeyError where none has this seed."""
        places = {training.seed: i for i, training in enumerate(self.trainings)}
        i = places[self.seed if seed is None else seed]
        memory = {name: its[i : i + 1] if its.ndim else its for name, its in optimizer.memory(self.rule).items()}
        return self.trainings[i].state(memory)

    def on_train_epoch_start(self) -> None:
        epoch = self.current_epoch + 1
        self.rate = self.variant.optimizer.lr * optimizer.factor(self.variant.schedule, epoch, self.variant.epochs)
        for group in self.rule.param_groups:
            group["lr"] = self.rate
        if isinstance(self.variant.optimizer, DiagonalLevenbergMarquardt) and not self.trainings[0].step:
            found = torch.zeros_like(self.flat.matrix)

            def estimate(i: int, training: Training) -> None:
                its = levenberg.at_start(training.network, training.seed, epoch, training.presented)
                torch.cat([curvature.flatten() for curvature in its], out=found[i])

            self._for_each(estimate)
            cast(optimizer.StochasticDiagonalLM, self.rule).set_curvatures([found])

    def training_step(self, chunk: slice, index: int) -> None:  # type: ignore[override]
        size, found = self.variant.batch_size, list[Tensor]()
        device, presented = self.flat.matrix.device, [training.presented for training in self.trainings]
        inputs = torch.stack([its.inputs(chunk) for its in presented]).to(device)
        labels = torch.stack([its.labels(chunk) for its in presented]).to(device)
        try:
            for part, its_labels in zip(inputs.split(size, 1), labels.split(size, 1), strict=True):
                found.append(self._update(part, its_labels))
        except exact.NotFinite as error:
            self.trainings[error.place].fault = self.diverged(error, self.trainings[0].step + len(found))
        scores = torch.cat(found, 1) if found else inputs.new_empty(len(inputs), 0, 10)
        try:
            self._for_each(lambda i, training: self._note(training, scores[i], labels[i, : scores.shape[1]]))
        except Diverged:
            if self.trainings[0].trace.shape[1] in [training.step for training in self.trainings if not training.fault]:
                self.on_train_epoch_end()  # the others'
            raise

    def _update(
        self, inputs: Float[Tensor, "trainings n 1 32 32"], labels: Int64[Tensor, "trainings n"]
    ) -> Float[Tensor, "trainings n 10"]:
        """One update of each training; their scores before it. Where it raises NotFinite nothing has changed."""
        its, before = self.passes[labels.shape[1]], [buffer.clone() for buffer in self.running]
        its.inputs.copy_(inputs)
        try:
            scores = its.forward()
            its.backward(self._gradient(scores, labels))
        except exact.NotFinite:
            for buffer, kept in zip(self.running, before, strict=True):
                buffer.copy_(kept)
            raise
        self.rule.step()
        return scores

    def _gradient(
        self, scores: Float[Tensor, "trainings n 10"], labels: Int64[Tensor, "trainings n"]
    ) -> Float[Tensor, "trainings n 10"]:
        gradient, n = self.objective.gradient, labels.shape[1]
        try:
            return gradient(scores.flatten(0, 1), labels.flatten(), n).view_as(scores)
        except exact.NotFinite:  # of which one?
            for i, (its, its_labels) in enumerate(zip(scores, labels, strict=True)):
                with exact.at(i):
                    gradient(its, its_labels, n)
            raise

    def _for_each(self, do: Callable[[int, Training], None]) -> None:
        """Do something for each training that has not diverged; then raise the fault of the first that has."""
        for i, training in enumerate(self.trainings):
            if not training.fault:
                try:
                    do(i, training)
                except exact.NotFinite as error:
                    training.fault = self.diverged(error, training.step)
        for training in self.trainings:
            if training.fault:
                raise training.fault

    def _note(self, training: Training, scores: Float[Tensor, "n 10"], labels: Int64[Tensor, " n"]) -> None:
        """Each update's mean loss into the trace, and the wrong answers into their count."""
        size, losses = self.variant.batch_size, self.objective.losses(scores, labels)
        for part in (losses[: len(losses) // size * size].view(-1, size), losses[len(losses) // size * size :][None]):
            if part.numel():
                unfit = (part.abs() < 2.0**exact.LARGEST).all(1).logical_not().nonzero()
                if len(unfit):  # the fault's place
                    training.step += int(unfit[0])
                means = exact.divided(exact.total_each(part, 1, "the loss"), part.shape[1])
                training.trace[self.current_epoch, training.step : training.step + len(means)] = means
                training.step += len(means)
        training.wrong += int((self.objective.decide(scores) != labels).sum())

    def on_train_epoch_end(self) -> None:
        self._for_each(lambda i, training: training.close(self._row(training)))

    def _row(self, training: Training) -> Row:
        """The epoch's, but for the weights' digest."""
        losses = training.trace[self.current_epoch].double()
        count = len(self.train_set)
        sizes = torch.full_like(losses, self.variant.batch_size)
        sizes[-1] = count - sizes[:-1].sum()
        row: Row = {
            "epoch": self.current_epoch + 1,
            "learning_rate": self.rate,
            "train/loss": float(exact.divided(exact.total((losses * sizes).float(), 0, "the loss"), count)),
            "train/error": training.wrong / count,
        }
        if len(self.validation_set):
            scores = networks.outputs(training.network, self.validation_set.images, self.variant.pixels)
            labels = self.validation_set.labels.long().to(scores.device)
            row["validation/loss"] = float(self.objective.loss(scores, labels))
            row["validation/error"] = int((self.objective.decide(scores) != labels).sum()) / len(labels)
        return row


def _stacked(memories: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Optimizers' memories of one network each as one; a single one as it is: signatures in Git were made so."""
    first, *others = memories
    if not others:
        return first
    return {name: torch.cat([its[name] for its in memories]) if part.ndim else part for name, part in first.items()}
