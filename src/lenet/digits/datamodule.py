"""The digits of a variant as a LightningDataModule."""

from collections.abc import Iterator
from pathlib import Path

import pytorch_lightning as pl
from jaxtyping import Float, Int64
from torch import Tensor

from lenet.digits.data import Digits, load_digits, to_inputs
from lenet.digits.epochs import Presentation, present
from lenet.params.schema import Variant
from lenet.runtime.errors import InputError

Batch = tuple[Float[Tensor, "n 1 32 32"], Int64[Tensor, " n"]] | list[Tensor]  # torch's own loaders give lists
IN_USE = 200  # digits of a batch that nothing is learned from; scores do not depend on it


class DigitsModule(pl.LightningDataModule):
    """A variant's batches: inputs (n, 1, 32, 32) and labels (n,).

    What an epoch presents, in which order and how distorted, follows from (seed, epoch) alone. The Trainer tells the
    epoch to the loader's sampler, so that no loader has to be made anew.

    Args:
        variant: the block of params.yaml.
        seed: of order and distortions.
        train: the training digits, or the file of them: ``data/train.safetensors``.
        test: the test digits, or the file of them, for ``Trainer.test`` and ``predict``.
    """

    def __init__(self, variant: Variant, seed: int, train: Digits | Path, test: Digits | Path | None = None) -> None:
        super().__init__()
        self.variant, self.seed, self.test_set = variant, seed, test
        digits = load_digits(train) if isinstance(train, Path) else train
        self.train_set, self.validation_set = digits.split(variant)

    def present(self, epoch: int) -> Presentation:
        """What an epoch, from 0, presents."""
        return present(self.variant, self.seed, self.train_set, epoch + 1)

    def train_dataloader(self) -> "Batches":
        return Batches(self)

    def val_dataloader(self) -> "InUse":
        return InUse(self.validation_set, self.variant)

    def test_dataloader(self) -> "InUse":
        if self.test_set is None:
            raise InputError("DigitsModule: no test digits were given; legal: test=Path('data/test.safetensors')")
        return InUse(load_digits(self.test_set) if isinstance(self.test_set, Path) else self.test_set, self.variant)

    def predict_dataloader(self) -> "InUse":
        return self.test_dataloader()


class Batches:
    """The batches of an epoch's presentation; the last may be smaller.

    Lightning keeps its state in checkpoints and gives it back, so that a training goes on within an epoch.
    """

    def __init__(self, digits: DigitsModule) -> None:
        self.digits, self.epoch, self.sampler = digits, 0, self
        self.done = 0  # batches given in this epoch
        self.skipped = {"epoch": 0, "done": 0}  # those that a training had before it was stopped

    def set_epoch(self, epoch: int) -> None:
        """Present this epoch, from 0, from now on. The Trainer calls it."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches have been given."""
        return {"epoch": self.epoch, "done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin this epoch after so many of its batches; others begin at their first."""
        self.skipped = state

    def __len__(self) -> int:
        return -(-len(self.digits.train_set) // self.digits.variant.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        presented, size = self.digits.present(self.epoch), self.digits.variant.batch_size
        self.done = self.skipped["done"] if self.skipped["epoch"] == self.epoch else 0
        for start in range(self.done * size, len(self.digits.train_set), size):
            part = slice(start, min(start + size, len(self.digits.train_set)))
            self.done += 1
            yield presented.inputs(part), presented.labels(part)


class InUse:
    """Digits as they are, in their order."""

    def __init__(self, digits: Digits, variant: Variant) -> None:
        self.digits, self.pixels = digits, variant.pixels

    def __len__(self) -> int:
        return -(-len(self.digits) // IN_USE)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.digits), IN_USE):
            part = self.digits[start : start + IN_USE]
            yield to_inputs(part.images, self.pixels), part.labels.long()
