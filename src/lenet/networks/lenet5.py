"""LeNet-5 in the paper's names: C1 S2 C3 S4 C5 F6 output (LeCun et al. 1998, §II.B). No loss, no Lightning.

Trainings compute the same through kernels.py; a change here has to be made there too, or they refuse to start.
"""

from collections.abc import Callable, Iterable, Iterator
from math import prod

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lenet.arithmetic.randomness import derive
from lenet.config import Initialisation, Network, TrainablePooling
from lenet.networks.codes import codes

C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip
"""The S2 maps that each C3 map sees (Table I)."""


def scaled_tanh(a: Tensor) -> Tensor:
    """The paper's squashing function 1.7159·tanh(2a/3), which takes ±1 to ±1 (LeCun 1998, §II.B, App. A)."""
    return 1.7159 * torch.tanh(a * (2 / 3))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "scaled-tanh": scaled_tanh,
    "tanh": torch.tanh,
    "relu": torch.relu,
}


class SparseConv(nn.Module):
    """A convolution that holds only the kernels of connected maps, ordered by output map (LeCun 1998, Table I).

    Args:
        maps_in: number of input maps.
        table: for each output map, the input maps it sees.
        size: side of the kernels, in pixels.
    """

    slots: Tensor

    def __init__(self, maps_in: int, table: tuple[tuple[int, ...], ...], size: int) -> None:
        super().__init__()
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
        return F.conv2d(x, self.dense(), self.bias)


class Subsampling(nn.Module):
    """Trainable subsampling: a coefficient times the mean or sum of 2×2 inputs, plus a bias (LeCun 1998, §II.A, §II.B).

    The squashing that follows it belongs to the network.

    Attributes:
        share: what each of the four inputs counts, ¼ or 1.
    """

    def __init__(self, maps: int, coefficient: float, bias: float, share: float) -> None:
        super().__init__()
        self.share = share
        self.weight = nn.Parameter(torch.full((maps,), coefficient))
        self.bias = nn.Parameter(torch.full((maps,), bias))

    def pool(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
        """The means or sums."""
        return F.avg_pool2d(x, 2, divisor_override=round(1 / self.share))

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
        return self.pool(x) * self.weight[:, None, None] + self.bias[:, None, None]


class RadialBasis(nn.Module):
    """The squared distance between F6's state and the code of each class (LeCun 1998, §II.B, eq. 7).

    Args:
        adaptive: whether the codes are parameters, 840 of them; otherwise they stay as drawn.
    """

    weight: Tensor

    def __init__(self, adaptive: bool) -> None:
        super().__init__()
        if adaptive:
            self.weight = nn.Parameter(codes())
        else:
            self.register_buffer("weight", codes(), persistent=False)

    def forward(self, x: Float[Tensor, "n 84"]) -> Float[Tensor, "n 10"]:
        return (x[:, None] - self.weight).square().sum(2)


def draw(weights: Iterable[tuple[Tensor, int]], how: Initialisation, seed: int) -> None:
    """Draw weights, each given with its units' fan-in, uniformly from ±scale / fan_in**exponent."""
    generator = torch.Generator().manual_seed(derive(seed, "initialisation"))
    with torch.no_grad():
        for weight, fan_in in weights:
            bound = how.scale / fan_in**how.exponent
            weight.uniform_(-bound, bound, generator=generator)


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
        self.C1 = nn.Conv2d(1, 6, 5)
        self.S2 = _pooling(network, 6)
        self.C3 = nn.Conv2d(6, 16, 5) if network.C3 == "dense" else SparseConv(6, C3_TABLE, 5)
        self.S4 = _pooling(network, 16)
        self.C5 = nn.Linear(16 * 5 * 5, 120)  # a 5×5 convolution over a 5×5 map
        self.F6 = nn.Linear(120, 84)
        self.output = _output(network)

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


def _output(network: Network) -> nn.Linear | RadialBasis:
    if network.output in ("rbf", "adaptive-rbf"):
        return RadialBasis(adaptive=network.output == "adaptive-rbf")
    return nn.Linear(84, 10)


def _pooling(network: Network, maps: int) -> nn.Module:
    if isinstance(network.pooling, TrainablePooling):
        share = 1.0 if network.pooling.kind == "trainable-sum" else 0.25
        return Subsampling(maps, network.pooling.coefficient, network.pooling.bias, share)
    return {"average": nn.AvgPool2d, "max": nn.MaxPool2d}[network.pooling.kind](2)
