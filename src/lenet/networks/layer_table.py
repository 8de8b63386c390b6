"""A variant in one line, and its network's layers: sizes, connections, operations, parameters and their formulas."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lenet import networks
from lenet.arithmetic.nn import AveragePool, MapMeans, MaxPool
from lenet.networks.lenet5 import RadialBasis, SparseConv, Subsampling
from lenet.params.schema import ConvNetwork, Network, Variant


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name: the paper's.
        kind: what it computes.
        inputs, outputs: shapes maps@height×width, or a number of units.
        kernel: kernel size / stride.
        connections: links from an input or a bias to an output unit, as the paper counts them; pooling without
            parameters has no biases. Batch normalisation is one link and one bias to each unit.
        macs: multiply-accumulates for one image. A weighted input counts one; the four additions of a 2×2 mean
            count four; a maximum, being comparisons, counts none.
        parameters: how many are trainable.
        formula: how they arise.
    """

    name: str
    kind: str
    inputs: str
    outputs: str
    kernel: str
    connections: int
    macs: int
    parameters: int
    formula: str


def layers(network: Network | ConvNetwork) -> list[Layer]:
    """Every layer of a network, from the modules themselves run on one blank image."""
    found: list[Layer] = []
    model = networks.build(network)

    def record(name: str, module: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
        found.append(_describe(name, module, inputs[0], outputs[0]))

    for name, module in model.named_children():
        module.register_forward_hook(lambda m, i, o, name=name: record(name, m, i[0], o))
    with networks.in_use(model):
        model(torch.zeros(1, 1, 32, 32))
    return found


def totals(network: Network | ConvNetwork) -> dict[str, int]:
    """Parameters, connections and multiply-accumulates (for one image) of the whole network."""
    rows = layers(network)
    return {
        "parameters": sum(row.parameters for row in rows),
        "connections": sum(row.connections for row in rows),
        "multiply_accumulates": sum(row.macs for row in rows),
    }


def what(variant: Variant) -> str:
    """A variant in one line: its choices."""
    parts = [_choices(variant.network), variant.objective.loss, variant.optimizer.kind]
    if variant.distortion.kind != "none":
        parts.append("distorted digits")
    return ", ".join(parts)


def _choices(network: Network | ConvNetwork) -> str:
    if isinstance(network, ConvNetwork):
        maps = ", max pooling, ".join("–".join(str(one.maps) for one in stage) for stage in network.stages)
        return f"convolutions {maps} maps, batch normalisation, relu, global average pooling, {network.output}"
    return f"{network.activation}, {network.pooling.kind} pooling, C3 {network.C3}, {network.output}"


def _describe(name: str, module: nn.Module, inputs: Tensor, outputs: Tensor) -> Layer:
    units, area = outputs.numel(), outputs[0].numel()
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if isinstance(module, nn.Linear):
        kind, kernel = "full", "–"
        products, biases = module.weight.numel(), units
        formula = f"({module.in_features} + 1) × {module.out_features}"
        if name == "C5":  # its inputs are the 16 maps of S4, all of each
            kind, kernel = "convolution over the whole map", "5×5/1"
            formula = "(5×5×16 + 1) × 120"
    elif isinstance(module, RadialBasis):
        kind, kernel = "distance to each class's code", "–"
        products, biases = module.weight.numel(), 0
        formula = "84 × 10" if parameters else "0"
    elif isinstance(module, SparseConv):
        kind, kernel = "convolution, Table I", f"{module.size}×{module.size}/1"
        products, biases = module.weight.numel() * area, units
        formula = f"{len(module.weight)} × 5×5 + {len(outputs)}"
    elif isinstance(module, nn.BatchNorm2d):
        kind, kernel = "batch normalisation", "–"
        products, biases = units, units
        formula = f"{len(outputs)} × (1 + 1)"
    elif isinstance(module, MapMeans):
        kind, kernel = "global average pooling", f"{inputs.shape[1]}×{inputs.shape[2]}"
        products, biases = inputs.numel(), 0
        formula = "0"
    elif isinstance(module, nn.Conv2d):
        size = f"{module.kernel_size[0]}×{module.kernel_size[1]}"
        kind, kernel = "convolution", f"{size}/1"
        products, biases = module.weight.numel() * area, 0 if module.bias is None else units
        one = f"({size}×{module.in_channels} + 1)" if biases else f"{size}×{module.in_channels}"
        formula = f"{one} × {module.out_channels}"
    elif isinstance(module, Subsampling):
        kind, kernel = "trainable subsampling", "2×2/2"
        products, biases = 4 * units, units
        formula = f"{len(outputs)} × (1 + 1)"
    else:
        kind, kernel = f"{'average' if isinstance(module, AveragePool) else 'max'} pooling", "2×2/2"
        products, biases = 4 * units, 0
        formula = "0"
    macs = 0 if isinstance(module, MaxPool) else products
    return Layer(name, kind, _shape(inputs), _shape(outputs), kernel, products + biases, macs, parameters, formula)


def _shape(one: Tensor) -> str:
    return f"{one.shape[0]}@{one.shape[1]}×{one.shape[2]}" if one.dim() == 3 else str(len(one))
