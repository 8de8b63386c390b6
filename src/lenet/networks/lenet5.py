"""LeNet-5 in the paper's names: C1 S2 C3 S4 C5 F6 output (LeCun et al. 1998, §II.B). No loss, no Lightning.

Trainings compute the same bits through fast.py; a change here has to be made there too, or they refuse to start.
"""

from collections.abc import Callable, Iterable, Iterator
from math import prod

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lenet.arithmetic import nn as layers
from lenet.arithmetic import scalars
from lenet.arithmetic.randomness import derive, either_way
from lenet.networks.codes import codes
from lenet.params.schema import Initialisation, Network, TrainablePooling

C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
"""The S2 maps that each C3 map sees (Table I)."""


def scaled_tanh(a: Tensor) -> Tensor:
    """The paper's squashing function 1.7159·tanh(2a/3), which takes ±1 to ±1 (LeCun 1998, §II.B, App. A)."""
    return layers.tanh(a, 2 / 3, 1.7159)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": layers.logistic,
    "scaled-tanh": scaled_tanh,
    "tanh": layers.tanh,
    "relu": torch.relu,
}
BOUNDED = 1
"""Exponents: squashed values lie within ±2^1, and ReLU's share a grid up to 2^3."""
LEAST = {"sigmoid": BOUNDED, "scaled-tanh": BOUNDED, "tanh": BOUNDED, "relu": layers.UNBOUNDED}


class SparseConv(nn.Module):
    """A convolution that holds only the kernels of connected maps, ordered by output map (LeCun 1998, Table I).

    Args:
        maps_in: number of input maps.
        table: for each output map, the input maps it sees.
        size: side of the kernels, in pixels.
        least: inputs of magnitudes below 2^least share one grid.

    Attributes:
        place: its name in messages.
    """

    slots: Tensor

    def __init__(self, maps_in: int, table: tuple[tuple[int, ...], ...], size: int, least: int) -> None:
        super().__init__()
        self.least, self.place = least, "a convolution"
        self.table, self.maps_in, self.size = table, maps_in, size
        slots = [maps_in * out + i for out, seen in enumerate(table) for i in seen]
        self.register_buffer("slots", torch.tensor(slots), persistent=False)
        self.weight = nn.Parameter(torch.zeros(len(slots), size, size))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    def dense(self) -> Float[Tensor, "maps_out maps_in size size"]:
        """The kernels of all pairs of maps, zero where there is no connection."""
        places = self.weight.new_zeros(len(self.table) * self.maps_in, self.size, self.size)
        kernels = places.index_copy(0, self.slots, self.weight)
        return kernels.view(len(self.table), self.maps_in, self.size, self.size)

    def connected(self, dense: Shaped[Tensor, "maps_out maps_in size size"]) -> Shaped[Tensor, "kernels size size"]:
        """Of something for the kernels of all pairs of maps, what is for those of connected ones."""
        return dense.reshape(-1, self.size, self.size).index_select(0, self.slots)

    def forward(self, x: Float[Tensor, "n maps_in h w"]) -> Float[Tensor, "n maps_out h2 w2"]:
        return layers.convolution(x, self.dense(), self.bias, self.least, 0, self.place)


class Subsampling(nn.Module):
    """Trainable subsampling: a coefficient times the mean or sum of 2×2 inputs, plus a bias (LeCun 1998, §II.A, §II.B).

    The squashing that follows it belongs to the network.

    Attributes:
        share: what each of the four inputs counts, ¼ or 1.
    """

    def __init__(self, maps: int, coefficient: float, bias: float, share: float) -> None:
        super().__init__()
        self.share, self.place = share, "subsampling"
        self.weight = nn.Parameter(torch.full((maps,), coefficient))
        self.bias = nn.Parameter(torch.full((maps,), bias))

    def pool(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
        """The means or sums."""
        return layers.field_sums(x) * self.share

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
        return layers.scale(self.pool(x), self.weight, self.bias, self.place)


class RadialBasis(nn.Module):
    """The squared distance between F6's state and the code of each class (LeCun 1998, §II.B, eq. 7).

    Args:
        adaptive: whether the codes are parameters, 840 of them; otherwise they stay as drawn.
    """

    weight: Tensor

    def __init__(self, adaptive: bool) -> None:
        super().__init__()
        self.place = "the output"
        if adaptive:
            self.weight = nn.Parameter(codes())
        else:
            self.register_buffer("weight", codes(), persistent=False)

    def forward(self, x: Float[Tensor, "n 84"]) -> Float[Tensor, "n 10"]:
        return layers.distances(x, self.weight, self.place)


def draw(weights: Iterable[tuple[Tensor, int]], how: Initialisation, seed: int) -> None:
    """Draw weights, each given with its units' fan-in, uniformly from ±scale / fan_in**exponent."""
    generator = torch.Generator().manual_seed(derive(seed, "initialisation"))
    with torch.no_grad():
        for weight, fan_in in weights:
            bound = how.scale / scalars.power(fan_in, how.exponent)
            weight.copy_(either_way(tuple(weight.shape), generator) * bound)


class LeNet5(nn.Module):
    """The LeNet-5 family on 1@32×32 inputs, ten outputs.

    ``forward`` returns the ten units' states: squashed outputs, logits where ``output`` is softmax, or the squared
    distances to the codes.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.activation = network.activation
        self.squash = ACTIVATIONS[network.activation]
        self.squash_output = network.output == "squashed"
        least = LEAST[network.activation]
        self.C1 = layers.Conv2d(1, 6, 5, least=layers.INPUTS)
        self.S2 = _pooling(network, 6)
        self.C3 = layers.Conv2d(6, 16, 5, least=least) if network.C3 == "dense" else SparseConv(6, C3_TABLE, 5, least)
        self.S4 = _pooling(network, 16)
        self.C5 = layers.Linear(16 * 5 * 5, 120, least)  # a 5×5 convolution over a 5×5 map
        self.F6 = layers.Linear(120, 84, least)
        self.output = _output(network, least)
        name_places(self)

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        x = self._subsample(self.S2, self.squash(self.C1(x)))
        x = self._subsample(self.S4, self.squash(self.C3(x)))
        x = self.squash(self.C5(x.flatten(1)))
        x = self.output(self.squash(self.F6(x)))
        return self.squash(x) if self.squash_output else x

    def _subsample(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.squash(layer(x)) if isinstance(layer, Subsampling) else layer(x)

    def initialise(self, how: Initialisation, seed: int) -> "LeNet5":
        """Draw every weight uniformly from ±scale / fan_in**exponent; then the biases likewise, or they are zero.

        The fan-in counts the connected inputs of a unit: 25 in C1; 75, 100 or 150 in C3 by Table I. Coefficients and
        biases of trainable subsampling keep their constant start, and codes are as drawn. The paper has scale 2.4 and
        exponent 1 (App. A).
        """
        units = list(self._units())
        draw(((weight, fan_in) for weight, _, fan_in in units), how, seed)
        if how.biases == "random":
            draw(((bias, fan_in) for _, bias, fan_in in units), how, derive(seed, "biases"))
        else:
            for _, bias, _ in units:
                nn.init.zeros_(bias)
        return self

    def _units(self) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Weights and biases of units with equally many inputs, and that number, in the order of the network."""
        for layer in (self.C1, self.C3, self.C5, self.F6, self.output):
            if isinstance(layer, SparseConv):
                kernels = layer.weight.split([len(seen) for seen in layer.table])
                yield from zip(kernels, layer.bias.split(1), (part.numel() for part in kernels), strict=True)
            elif not isinstance(layer, RadialBasis):
                assert layer.bias is not None
                yield layer.weight, layer.bias, prod(layer.weight.shape[1:])


def name_places(network: nn.Module) -> None:
    """Give the layers their names in the network, for messages."""
    for name, layer in network.named_children():
        if hasattr(layer, "place"):
            setattr(layer, "place", name)  # noqa: B010  to a type checker it is a module's


def _output(network: Network, least: int) -> layers.Linear | RadialBasis:
    if network.output in ("rbf", "adaptive-rbf"):
        return RadialBasis(adaptive=network.output == "adaptive-rbf")
    return layers.Linear(84, 10, least)


def _pooling(network: Network, maps: int) -> nn.Module:
    if isinstance(network.pooling, TrainablePooling):
        share = 1.0 if network.pooling.kind == "trainable-sum" else 0.25
        return Subsampling(maps, network.pooling.coefficient, network.pooling.bias, share)
    return {"average": layers.AveragePool, "max": layers.MaxPool}[network.pooling.kind]()
