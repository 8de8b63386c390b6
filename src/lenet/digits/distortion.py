"""Random distortions of training digits: each is moved by an affine map of its own. Plain torch."""

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor

from lenet.arithmetic.functions import exp, sine_and_cosine
from lenet.arithmetic.randomness import either_way
from lenet.arithmetic.warps import warp
from lenet.params.schema import AffineDistortion, PaperDistortion, Pixels


def distort(
    fields: Float[Tensor, "n 1 32 32"], maps: Float[Tensor, "n 2 3"], pixels: Pixels
) -> Float[Tensor, "n 1 32 32"]:
    """Move each field's content by its map, bilinearly interpolated; background comes in.

    Args:
        fields: inputs of a network.
        maps: from a place in the result, as x, y, 1 from the field's centre in pixels, to its source.
        pixels: the inputs' values.
    """
    return warp(fields - pixels.background, maps.double()) + pixels.background


def draw(n: int, how: AffineDistortion | PaperDistortion, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Draw ``n`` maps of a variant's distortion."""
    return paper_maps(n, how, generator) if isinstance(how, PaperDistortion) else affine_maps(n, how, generator)


def paper_maps(n: int, how: PaperDistortion, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Draw maps as the hundred digits of the paper's Fig. 7 have them.

    Fitted to that figure, a map scales about the middle column and a row near the digit's foot (26), and shears about
    row 18.5. Nothing is turned.
    """
    low, high = how.shrink
    shrink = low + (high - low) * torch.rand(n, generator=generator)
    squeeze, shear = 1 + _either_way(how.squeeze, n, generator), _either_way(how.shear, n, generator)
    x, y = _either_way(how.translation, n, generator), _either_way(how.translation, n, generator)
    wide, high_ = shrink * squeeze, shrink / squeeze
    slope, zero = shear * high_, torch.zeros(n)
    foot, pivot = 26 - 15.5, 18.5 - 15.5
    rows = (wide, slope, x - slope * pivot, zero, high_, y + (1.0 - high_) * foot)
    return torch.stack(rows, 1).view(n, 2, 3)


def _either_way(extent: float, n: int, generator: torch.Generator) -> Float[Tensor, " n"]:
    """Values between an extent and its negative."""
    return either_way((n,), generator) * extent


def affine_maps(n: int, how: AffineDistortion, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Draw maps that scale (x by s·q, y by s/q), shear x by y, turn, and move."""

    def draw(extent: float) -> Float[Tensor, " n"]:
        return _either_way(extent, n, generator)

    angle, size, squeeze, slope = draw(how.rotation * pi / 180), draw(how.scale), draw(how.squeeze), draw(how.shear)
    x, y = draw(how.translation), draw(how.translation)
    sin, cos = (each.float() for each in sine_and_cosine(angle.double()))
    wide, high = exp(size + squeeze), exp(size - squeeze)
    rows = (cos * wide, (cos * slope - sin) * high, x, sin * wide, (sin * slope + cos) * high, y)
    return torch.stack(rows, 1).view(n, 2, 3)
