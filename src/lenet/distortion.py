"""Random distortions of training digits: each is moved by an affine map of its own. Plain torch.

As in the paper (LeCun 1998, §III.B) digits are moved, scaled, squeezed and sheared horizontally; here also turned.
"""

from math import pi

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lenet.config import AffineDistortion, Pixels


def distort(
    fields: Float[Tensor, "n 1 32 32"], how: AffineDistortion, pixels: Pixels, generator: torch.Generator
) -> Float[Tensor, "n 1 32 32"]:
    """Move each field's content by a random affine map, bilinearly interpolated; background comes in.

    Args:
        fields: inputs of a network.
        how: the ranges that the maps are drawn from.
        pixels: the inputs' values.
        generator: what is drawn from.
    """
    grid = F.affine_grid(affine_maps(len(fields), how, generator), list(fields.shape), align_corners=False)
    return F.grid_sample(fields - pixels.background, grid, align_corners=False).add_(pixels.background)


def affine_maps(n: int, how: AffineDistortion, generator: torch.Generator) -> Float[Tensor, "n 2 3"]:
    """Draw maps from a place in the result, as x, y, 1 from the field's centre with half a side as unit, to its source.

    A map scales (x by s·q, y by s/q), shears x by y, turns, and moves.
    """

    def draw(extent: float) -> Float[Tensor, " n"]:
        return (2 * torch.rand(n, generator=generator) - 1) * extent

    angle, size, squeeze, slope = draw(how.rotation * pi / 180), draw(how.scale), draw(how.squeeze), draw(how.shear)
    x, y = draw(how.translation / 16), draw(how.translation / 16)
    cos, sin = angle.cos(), angle.sin()
    wide, high = (size + squeeze).exp(), (size - squeeze).exp()
    rows = (cos * wide, (cos * slope - sin) * high, x, sin * wide, (sin * slope + cos) * high, y)
    return torch.stack(rows, 1).view(n, 2, 3)
