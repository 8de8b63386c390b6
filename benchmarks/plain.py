"""LeNet-5 in torch's own layers, losses and optimizers, in single precision: what our ways are compared with.

It computes the functions of ``lenet.networks.lenet5`` and ``lenet.training`` up to rounding, as somebody would write
them who knows torch and needs no equal bits. Parameters have the same names and shapes.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from lenet import networks
from lenet.networks.codes import codes
from lenet.networks.lenet5 import C3_TABLE
from lenet.params.schema import (
    SGD,
    Adam,
    CrossEntropy,
    DiagonalLevenbergMarquardt,
    MaximumAPosteriori,
    MaximumLikelihood,
    MeanSquaredError,
    Network,
    TrainablePooling,
    Variant,
)

Loss = Callable[[Float[Tensor, "n 10"], Int64[Tensor, " n"]], Float[Tensor, ""]]


def scaled_tanh(a: Tensor) -> Tensor:
    """1.7159·tanh(2a/3)."""
    return 1.7159 * torch.tanh(a * (2 / 3))


SQUASH: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "scaled-tanh": scaled_tanh,
    "tanh": torch.tanh,
    "relu": F.relu,
}


class TableConv(nn.Module):
    """C3 by Table I: its 60 kernels among the 96 of a dense convolution, the others zero."""

    slots: Tensor

    def __init__(self) -> None:
        super().__init__()
        slots = [6 * out + i for out, seen in enumerate(C3_TABLE) for i in seen]
        self.register_buffer("slots", torch.tensor(slots), persistent=False)
        self.weight = nn.Parameter(torch.zeros(60, 5, 5))
        self.bias = nn.Parameter(torch.zeros(16))

    def forward(self, x: Float[Tensor, "n 6 14 14"]) -> Float[Tensor, "n 16 10 10"]:
        kernels = self.weight.new_zeros(96, 5, 5).index_copy(0, self.slots, self.weight)
        return F.conv2d(x, kernels.view(16, 6, 5, 5), self.bias)


class Subsampling(nn.Module):
    """A coefficient times the mean or sum of 2×2 inputs, plus a bias."""

    def __init__(self, maps: int, divisor: int) -> None:
        super().__init__()
        self.divisor = divisor
        self.weight, self.bias = nn.Parameter(torch.zeros(maps)), nn.Parameter(torch.zeros(maps))

    def forward(self, x: Float[Tensor, "n maps h w"]) -> Float[Tensor, "n maps h/2 w/2"]:
        means = F.avg_pool2d(x, 2, divisor_override=self.divisor)
        return torch.addcmul(self.bias[:, None, None], means, self.weight[:, None, None])


class Distances(nn.Module):
    """Squared distances to the constant codes."""

    codes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", codes(), persistent=False)

    def forward(self, x: Float[Tensor, "n 84"]) -> Float[Tensor, "n 10"]:
        return (x[:, None] - self.codes).square().sum(2)


class LeNet5(nn.Module):
    """The LeNet-5 family, but for learned codes. Its weights are zero until they are loaded or drawn."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        if network.output == "adaptive-rbf":
            raise ValueError("the plain network has no learned codes")
        self.squash = SQUASH[network.activation]
        self.squash_output = network.output == "squashed"
        self.C1 = nn.Conv2d(1, 6, 5)
        self.S2 = _pooling(network, 6)
        self.C3 = TableConv() if network.C3 == "table" else nn.Conv2d(6, 16, 5)
        self.S4 = _pooling(network, 16)
        self.C5 = nn.Linear(400, 120)
        self.F6 = nn.Linear(120, 84)
        self.output = Distances() if network.output == "rbf" else nn.Linear(84, 10)

    def forward(self, x: Float[Tensor, "n 1 32 32"]) -> Float[Tensor, "n 10"]:
        x = self._subsample(self.S2, self.squash(self.C1(x)))
        x = self._subsample(self.S4, self.squash(self.C3(x)))
        x = self.squash(self.C5(x.flatten(1)))
        x = self.output(self.squash(self.F6(x)))
        return self.squash(x) if self.squash_output else x

    def _subsample(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.squash(layer(x)) if isinstance(layer, Subsampling) else layer(x)


def _pooling(network: Network, maps: int) -> nn.Module:
    if isinstance(network.pooling, TrainablePooling):
        return Subsampling(maps, 1 if network.pooling.kind == "trainable-sum" else 4)
    return nn.MaxPool2d(2) if network.pooling.kind == "max" else nn.AvgPool2d(2)


def build(variant: Variant, seed: int = 1) -> LeNet5:
    """A variant's network with the weights that a training of ours starts from."""
    assert isinstance(variant.network, Network)
    network = LeNet5(variant.network)
    network.load_state_dict(networks.build(variant.network).initialise(variant.initialisation, seed).state_dict())
    return network


def loss(variant: Variant) -> Loss:
    """A variant's mean loss over a batch. Raises ValueError for one that is not here."""
    section = variant.objective
    if isinstance(section, CrossEntropy):
        return F.cross_entropy
    if isinstance(section, MaximumLikelihood):
        return lambda distances, labels: section.factor * distances.gather(1, labels[:, None]).mean()
    if isinstance(section, MaximumAPosteriori):  # a softmax with a class for rubbish
        return lambda distances, labels: F.cross_entropy(
            F.pad(-section.factor * distances, (0, 1), value=-section.j), labels
        )
    if isinstance(section, MeanSquaredError) and variant.network.output == "squashed":
        targets = torch.full((10, 10), section.off).fill_diagonal_(section.on)
        return lambda scores, labels: F.mse_loss(scores, targets[labels], reduction="sum") / len(labels)
    raise ValueError(f"no plain loss for {section} on {variant.network.output} outputs")


def optimizer(variant: Variant, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """A variant's optimizer, as fast as torch has it. Raises ValueError for one that torch has not."""
    section = variant.optimizer
    if isinstance(section, SGD):
        return torch.optim.SGD(
            parameters, section.lr, momentum=section.momentum, weight_decay=section.weight_decay, fused=True
        )
    if isinstance(section, Adam):
        rule = torch.optim.AdamW if section.kind == "adamw" else torch.optim.Adam
        betas = section.beta1, section.beta2
        return rule(parameters, section.lr, betas, weight_decay=section.weight_decay, fused=True)
    assert isinstance(section, DiagonalLevenbergMarquardt)
    raise ValueError("torch has no diagonal Levenberg–Marquardt; online.py steps by hand")
