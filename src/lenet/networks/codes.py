"""The ten stylised digits that the output units' centres are (LeCun et al. 1998, §II.B, Fig. 3), bit by bit."""

import torch
from jaxtyping import Float
from torch import Tensor

DRAWN = """
0         1         2         3         4
.#####.   ...##..   .#####.   #######   .#####.
.......   ..###..   .......   .....##   .......
..###..   .####..   .#####.   ....##.   .......
.##.##.   ...##..   ##...##   ...##..   .##..##
##...##   ...##..   #....##   ..####.   .##..##
##...##   ...##..   ....##.   .....##   ###..##
##...##   ...##..   ..###..   .....##   ##...##
##...##   ...##..   .##....   .....##   ##...##
.##.##.   ...##..   ##.....   ##...##   ##..###
..###..   .######   #######   .#####.   .######
.......   .......   .......   .......   .....##
.......   .......   .......   .......   .....##

5         6         7         8         9
.#####.   ..####.   #######   .#####.   .#####.
.......   .##....   .....##   ##...##   ##..###
#######   ##.....   .....##   ##...##   ##...##
##.....   ##.....   ....##.   ##...##   ##...##
##.....   ######.   ...##..   .#####.   ##..###
.####..   ###..##   ...##..   ##...##   .######
..####.   ##...##   ..##...   ##...##   .....##
.....##   ##...##   ..##...   ##...##   .....##
##...##   ###..##   ..##...   ##...##   ....##.
.#####.   .#####.   ..##...   .#####.   .####..
.......   .......   .......   .......   .......
.......   .......   .......   .......   .......
"""
"""7×12 pixels each, ``#`` for +1 and ``.`` for −1. The bars above 0, 2, 4 and 5 and the open 4 are the figure's own."""

WIDTH, HEIGHT = 7, 12


def codes() -> Float[Tensor, "10 84"]:
    """The codes of 0 … 9 as ±1, each row by row from the top."""
    lines = [line.split() for line in DRAWN.strip().splitlines() if line]
    pictures = [
        digit for start in (0, HEIGHT + 1) for digit in zip(*lines[start + 1 : start + 1 + HEIGHT], strict=True)
    ]
    return torch.tensor([[1.0 if pixel == "#" else -1.0 for pixel in "".join(picture)] for picture in pictures])
