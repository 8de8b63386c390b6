"""A small convolutional network as one builds it today: normalised convolutions, global average pooling. No loss."""

from collections.abc import Iterator
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lenet.arithmetic import nn as layers
from lenet.digits.data import BORDER
from lenet.networks.lenet5 import draw, name_places
from lenet.params.schema import ConvNetwork, Initialisation


class NormRelu(layers.BatchNorm2d):
    """Batch normalisation, then ReLU."""

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h w"]:
        return torch.relu(super().forward(x))


class ConvNet(nn.Module):
    """Stages of convolutions, then ten logits of the last maps' means. They see the 28×28 image of a 1@32×32 field.

    Every convolution is normalised and followed by ReLU. Every stage but the last ends in 2×2 maxima, which are taken
    first: the rest then has a quarter of the work. Layers are numbered as LeNet-5's are: C1 S2 N2 C3 N3 … output.
    """

    def __init__(self, network: ConvNetwork) -> None:
        super().__init__()
        maps, number = 1, 0
        for stage in network.stages:
            for how in stage:
                number += 1
                least = layers.INPUTS if number == 1 else layers.UNBOUNDED
                convolution = layers.Conv2d(maps, how.maps, how.size, how.padding, bias=False, least=least)
                self.add_module(f"C{number}", convolution)
                maps = how.maps
                if how is stage[-1] and stage is not network.stages[-1]:
                    number += 1
                    self.add_module(f"S{number}", layers.MaxPool())
                self.add_module(f"N{number}", NormRelu(maps))
        self.mean = layers.MapMeans()
        self.output = layers.Linear(maps, 10)
        name_places(self)

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        x = x[:, :, BORDER:-BORDER, BORDER:-BORDER]
        for layer in self.children():
            x = layer(x)
        return x

    def initialise(self, how: Initialisation, seed: int) -> "ConvNet":
        """Draw every weight uniformly from ±scale / fan_in**exponent; norms start as the identity, biases at zero."""
        draw(self._weights(), how, seed)
        nn.init.zeros_(self.output.bias)
        return self

    def _weights(self) -> Iterator[tuple[Tensor, int]]:
        for layer in self.children():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                yield layer.weight, prod(layer.weight.shape[1:])
