"""Affine maps of pictures, bilinearly interpolated."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor


def warp(
    fields: Float[Tensor, "n c side side"],
    maps: Float64[Tensor, "m 2 3"],
) -> Float[Tensor, "n c side side"]:
    """Each picture's content moved by its map.

    Args:
        fields: pictures. Beyond them lie their outermost pixels, which are background: MNIST's have a border.
        maps: one for each picture, or one for all (m = 1): from a place in the result, as x, y, 1 from the middle in
            pixels, x to the right and y down, to its source.
    """
    n, c, side, _ = fields.shape
    middle = (side - 1) / 2
    line = torch.arange(side, dtype=torch.float64, device=fields.device) - middle
    across, down = line[None, None, :], line[None, :, None]
    x, y = (
        (row[:, 0, None, None] * across + row[:, 1, None, None] * down) + row[:, 2, None, None] + middle
        for row in maps.unbind(1)
    )
    x, y = x.clamp(0, side - 1), y.clamp(0, side - 1)
    left, top = x.floor(), y.floor()
    right_share, lower_share = (x - left).float()[:, None], (y - top).float()[:, None]
    flat = fields.flatten(2)

    def pixels(column: Tensor, row: Tensor) -> Tensor:
        place: Int64[Tensor, "m side side"] = (row.clamp(max=side - 1) * side + column.clamp(max=side - 1)).long()
        return flat.gather(2, place.view(len(place), 1, -1).expand(n, c, -1)).view(n, c, side, side)

    def between(row: Tensor) -> Tensor:
        first, second = pixels(left, row), pixels(left + 1, row)
        return first * (1.0 - right_share) + second * right_share

    return between(top) * (1.0 - lower_share) + between(top + 1) * lower_share
