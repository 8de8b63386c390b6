"""What a training presents in an epoch: an order of its digits, and the map by which each of them is distorted."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lenet.arithmetic.randomness import derive
from lenet.digits.data import Digits, shuffled, to_inputs
from lenet.digits.distortion import distort, draw
from lenet.params.schema import NoDistortion, PaperDistortion, Variant


@dataclass(frozen=True)
class Presentation:
    """An epoch's digits one after another.

    Attributes:
        variant: the recipe.
        digits: the training digits.
        order: the places in ``digits`` of those presented.
        maps: how each presented one is distorted; None: not at all.
    """

    variant: Variant
    digits: Digits
    order: Int64[Tensor, " n"]
    maps: Float[Tensor, "n 2 3"] | None

    def inputs(
        self, part: slice | Int64[Tensor, " m"], out: Float[Tensor, "m 1 32 32"] | None = None
    ) -> Float[Tensor, "m 1 32 32"]:
        """The network's inputs for some of the presented digits. ``out``: where to."""
        fields = to_inputs(self.digits.images[self.order[part]], self.variant.pixels, out=out)
        if self.maps is None:
            return fields
        return fields.copy_(distort(fields, self.maps[part], self.variant.pixels))

    def labels(self, part: slice | Int64[Tensor, " m"]) -> Int64[Tensor, " m"]:
        """Their classes."""
        return self.digits.labels[self.order[part]].long()


class Chunks:
    """The places ``start`` … ``stop`` of an epoch's presentation in parts of ``size``; the last one may be smaller."""

    def __init__(self, start: int, stop: int, size: int) -> None:
        self.parts = [slice(at, min(at + size, stop)) for at in range(start, stop, size)]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[slice]:
        return iter(self.parts)


def present(variant: Variant, seed: int, digits: Digits, epoch: int) -> Presentation:
    """What a variant presents in an epoch (from 1), a function of the arguments alone.

    With distorted copies of the digits, made once, digits and copies stand in one constant order together, of which an
    epoch is as many as there are digits: all have been presented after 1 + copies epochs, and then it starts again.
    """
    count, how = len(digits), variant.distortion
    if isinstance(how, PaperDistortion) and how.copies:
        kinds = 1 + how.copies
        everything = shuffled(kinds * count, seed, 0)
        chosen = everything.view(kinds, count)[(epoch - 1) % kinds]
        as_they_are = torch.eye(2, 3).expand(count, 2, 3)
        copies = [draw(count, how, _chance(seed, copy)) for copy in range(1, kinds)]
        return Presentation(variant, digits, chosen % count, torch.cat([as_they_are, *copies])[chosen])
    order = shuffled(count, seed, 0 if variant.order == "constant" else epoch)
    maps = None if isinstance(how, NoDistortion) else draw(count, how, _chance(seed, epoch))
    return Presentation(variant, digits, order, maps)


def _chance(seed: int, number: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, "distortion", number))
