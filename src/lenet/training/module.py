"""The LightningModule: a network, its objective, its optimizer and its schedule."""

from typing import Any, cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lenet import networks
from lenet.arithmetic import conformance, exact
from lenet.arithmetic.randomness import derive
from lenet.config import Criterion, DiagonalLevenbergMarquardt, Variant
from lenet.digits.datamodule import Batch, DigitsModule
from lenet.digits.presentation import Presentation
from lenet.errors import Diverged, InputError
from lenet.networks.lenet5 import LeNet5
from lenet.training import levenberg, objective, optimizer


class LeNet(pl.LightningModule):
    """One variant with one seed, for any Trainer that computes in single precision on one device.

    With ``DigitsModule`` of the same variant and seed it ends with the weights that the pipeline publishes, bit for
    bit. It logs train/loss and train/error (before each update), validation/loss and validation/error, test/loss and
    test/error: losses are means over samples, errors fractions of 1.

    A training uses one thread: networks of this size are many times slower with more.

    Args:
        variant: the block of params.yaml.
        seed: of the initial weights, and of the digits that curvatures are estimated from.
    """

    def __init__(self, variant: Variant, seed: int) -> None:
        super().__init__()
        self.variant, self.seed = variant, seed
        self.network = networks.build(variant.network).initialise(variant.initialisation, seed)
        self.objective = objective.build(variant)
        self._seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        return self.network(x)

    def configure_optimizers(self) -> Any:
        rule = optimizer.build(self.variant.optimizer, self.network.parameters())
        return {"optimizer": rule, "lr_scheduler": {"scheduler": LambdaLR(rule, self._factor), "interval": "epoch"}}

    def _factor(self, epoch: int) -> float:
        """Of the learning rate in an epoch, from 0; it is also asked after the last one."""
        epochs = self.variant.epochs
        return optimizer.factor(self.variant.schedule, min(epoch + 1, epochs), epochs)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        inputs, labels = batch
        scores = self(inputs)
        try:
            loss = self.objective.loss(scores, labels)
        except exact.NotFinite as error:
            raise self.diverged(error, index) from None
        wrong = self.objective.decide(scores.detach()) != labels
        parts = {"train/loss": loss.detach(), "train/error": wrong.float().mean()}
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def diverged(self, error: Exception, step: int) -> Diverged:
        """What to raise where a number has become infinite in a step, from 0, of this epoch."""
        return Diverged(
            f"the training diverged: {error} at step {step + 1} of epoch {self.current_epoch + 1}; "
            "a smaller optimizer.lr may help"
        )

    def validation_step(self, batch: Batch, index: int) -> None:
        self._see(batch)

    def test_step(self, batch: Batch, index: int) -> None:
        self._see(batch)

    def predict_step(self, batch: Batch | Tensor, index: int) -> dict[str, Tensor]:
        """``digit``: int64 (n,); ``scores``: float32 (n, 10), probabilities where the variant has them."""
        scores = self(batch if isinstance(batch, Tensor) else batch[0])
        probabilities = self.objective.probabilities
        return {"digit": self.objective.decide(scores), "scores": probabilities(scores) if probabilities else scores}

    def on_validation_epoch_end(self) -> None:
        self._tell("validation")

    def on_test_epoch_end(self) -> None:
        self._tell("test")

    def _see(self, batch: Batch) -> None:
        self._seen.append((self(batch[0]), batch[1]))

    def _tell(self, name: str) -> None:
        """Log the loss and error of all that was seen: an exact sum over it, not a mean of batches' means."""
        if self._seen:
            scores, labels = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
            wrong = self.objective.decide(scores) != labels
            self.log_dict({f"{name}/loss": self.objective.loss(scores, labels), f"{name}/error": wrong.float().mean()})
        self._seen = []

    def on_fit_start(self) -> None:
        conformance.check()
        trainer = self.trainer
        epochs, most = trainer.max_epochs, self.variant.epochs
        if epochs is None or not 0 <= epochs <= most:
            raise InputError(f"max_epochs = {epochs}: the block's schedule is for {most} epochs; legal: 0 … {most}")
        if trainer.precision != "32-true":
            raise InputError(
                f"precision = {trainer.precision!r}: the arithmetic is in single precision; legal: '32-true'"
            )
        if trainer.world_size > 1:
            raise InputError(f"devices = {trainer.world_size}: a training is one process's; legal: devices=1")
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def teardown(self, stage: str) -> None:
        torch.set_num_threads(self.__dict__.pop("_threads", torch.get_num_threads()))

    def on_train_epoch_start(self) -> None:
        if isinstance(self.variant.optimizer, DiagonalLevenbergMarquardt):
            digits = getattr(self.trainer, "datamodule", None)
            if not isinstance(digits, DigitsModule):
                raise InputError(
                    "curvatures are estimated from training digits; legal: trainer.fit(…, DigitsModule(…))"
                )
            rule = cast(optimizer.StochasticDiagonalLM, self.optimizers(use_pl_optimizer=False))
            rule.set_curvatures(self.curvatures(digits.present(self.current_epoch)))

    def curvatures(self, presented: Presentation) -> list[Tensor]:
        """The second derivatives by each parameter at an epoch's start, from some of the digits that it presents."""
        section = cast(DiagonalLevenbergMarquardt, self.variant.optimizer)
        chance = torch.Generator().manual_seed(derive(self.seed, "curvature", self.current_epoch + 1))
        some = torch.randperm(len(presented.order), generator=chance)[: section.patterns]
        network, criterion = cast(LeNet5, self.network), cast(Criterion, self.variant.objective)
        inputs, labels = presented.inputs(some), presented.labels(some)
        return levenberg.curvatures(network, inputs, labels, criterion, section.criterion)
