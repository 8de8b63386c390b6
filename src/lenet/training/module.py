"""The LightningModule: a network, its objective, its optimizer and its schedule."""

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from lenet import THREADS, networks
from lenet.arithmetic import conformance, exact
from lenet.digits.datamodule import Batch, DigitsModule
from lenet.params.schema import DiagonalLevenbergMarquardt, Variant
from lenet.runtime.errors import Diverged, InputError
from lenet.training import levenberg, objective, optimizer


class LeNet(pl.LightningModule):
    """One variant with one seed, for any Trainer that computes in single precision on one device.

    With ``DigitsModule`` of the same variant and seed it ends with the weights that the pipeline publishes, bit for
    bit; with fewer epochs, with the weights that a training of the block has after so many. It goes on from a
    Lightning checkpoint, of an epoch's end or of within it, to the same bits. It logs train/loss and train/error
    (before each update), validation/loss and validation/error, test/loss and test/error: losses are means over
    samples, errors fractions of 1.

    Other loaders may give it other batches: inputs (n, 1, 32, 32) as ``digits.data.to_inputs`` makes them, labels
    int64 (n,). What a Trainer changes of the recipe, it changes: with ``limit_train_batches`` an epoch is the first of
    its batches; with ``accumulate_grad_batches`` a step follows the mean of so many batches' gradients; with
    ``gradient_clip_val`` gradients are clipped by torch, whose norm is a sum in no fixed order, so that the bits hold
    on one machine only. What cannot be right is refused before the first update: more epochs than the block has,
    another precision, several devices, pixels of another block, and curvatures without a ``DigitsModule``.

    One thread works: networks of this size are many times slower with more. Afterwards torch has its threads again.

    Args:
        variant: the block of params.yaml, as a Variant or, as checkpoints hold it, in plain values.
        seed: of the initial weights, and of the digits that curvatures are estimated from.
    """

    def __init__(self, variant: Variant | Mapping[str, Any], seed: int) -> None:
        super().__init__()
        self.variant, self.seed = Variant.model_validate(variant), seed
        self.save_hyperparameters({"variant": self.variant.model_dump(mode="json"), "seed": seed})
        self.network = networks.build(self.variant.network).initialise(self.variant.initialisation, seed)
        self._seen: list[tuple[Tensor, Tensor]] = []

    @property
    def objective(self) -> objective.Objective:
        """The loss and how an answer is read off. It is no attribute, as its functions cannot be pickled."""
        return objective.build(self.variant)

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        return self.network(x)

    def configure_optimizers(self) -> Any:
        rule = optimizer.build(self.variant.optimizer, self.network.parameters())
        schedule = LambdaLR(rule, lambda epoch: self._factor(epoch))  # a method would go into checkpoints
        return {"optimizer": rule, "lr_scheduler": {"scheduler": schedule, "interval": "epoch"}}

    def _factor(self, epoch: int) -> float:
        """Of the learning rate in an epoch, from 0; it is also asked after the last one."""
        epochs = self.variant.epochs
        return optimizer.factor(self.variant.schedule, min(epoch + 1, epochs), epochs)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        inputs, labels = batch
        try:
            scores = self(inputs)
            loss = self.objective.loss(scores, labels)
        except exact.NotFinite as error:
            raise self.diverged(error, index) from None
        wrong = self.objective.decide(scores.detach()) != labels
        parts = {"train/loss": loss.detach(), "train/error": wrong.float().mean()}
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=len(labels))
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        try:
            super().backward(loss, *args, **kwargs)
        except exact.NotFinite as error:
            raise self.diverged(error, self.trainer.fit_loop.batch_idx) from None

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

    def on_validation_epoch_start(self) -> None:
        self._seen = []

    def on_validation_epoch_end(self) -> None:
        self._tell("validation")

    def on_test_epoch_start(self) -> None:
        self._seen = []

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

    def configure_callbacks(self) -> list[pl.Callback]:
        return [OneThread()]

    def setup(self, stage: str) -> None:
        """Refuse what cannot be right. Raises InputError."""
        trainer: Any = self.trainer  # some of its attributes are undeclared
        digits = trainer.datamodule
        if trainer.precision != "32-true":
            raise InputError(
                f"precision = {trainer.precision!r}: the arithmetic is in single precision; legal: '32-true'"
            )
        if trainer.world_size > 1:
            raise InputError(f"devices = {trainer.world_size}: a training is one process's; legal: devices=1")
        if isinstance(digits, DigitsModule) and digits.variant.pixels != self.variant.pixels:
            raise InputError(
                f"DigitsModule has pixels = {digits.variant.pixels!r}, the network {self.variant.pixels!r}; "
                "legal: the same"
            )
        if isinstance(digits, DigitsModule) and trainer.overfit_batches:
            raise InputError(
                f"overfit_batches = {trainer.overfit_batches}: DigitsModule presents other digits in each epoch; "
                "legal: a smaller train_size in the block"
            )
        if stage != "fit":
            return
        conformance.check()
        epochs, most = trainer.max_epochs, self.variant.epochs
        if epochs is None or not 0 <= epochs <= most:
            raise InputError(
                f"max_epochs = {epochs}: the block's schedule is for {most} epochs; legal: max_epochs = 0 … {most}"
            )
        if isinstance(self.variant.optimizer, DiagonalLevenbergMarquardt) and not self._has_digits():
            raise InputError(
                f"optimizer.kind = {self.variant.optimizer.kind!r} estimates curvatures from the training digits; "
                "legal: trainer.fit(module, DigitsModule(…))"
            )

    def _has_digits(self) -> bool:
        """Whether curvatures can be estimated."""
        return isinstance(getattr(self.trainer, "datamodule", None), DigitsModule)

    def on_train_epoch_start(self) -> None:
        if isinstance(self.variant.optimizer, DiagonalLevenbergMarquardt):
            digits = cast(DigitsModule, getattr(self.trainer, "datamodule"))  # noqa: B009  Lightning sets it
            rule = cast(optimizer.StochasticDiagonalLM, self.optimizers(use_pl_optimizer=False))
            presented = digits.present(self.current_epoch)
            rule.set_curvatures(levenberg.at_start(self.network, self.seed, self.current_epoch + 1, presented))


class OneThread(pl.Callback):
    """Lets torch work with one thread until the Trainer has ended, in whatever way."""

    def __init__(self) -> None:
        self.threads: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(THREADS)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if self.threads:
            torch.set_num_threads(self.threads)
        self.threads = None
