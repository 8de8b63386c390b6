"""On-line training of the paper's network, digit by digit: ours beside plain torch and loops in C."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import plain, training
from lenet.digits.data import to_inputs
from lenet.networks import fast
from lenet.networks.lenet5 import C3_TABLE, LeNet5
from lenet.params import loading, schema
from lenet.params.schema import DiagonalLevenbergMarquardt, MaximumLikelihood, Variant
from lenet.training import levenberg, objective, optimizer

NAME = "lecun1998"
DIGITS = 3_200
COMPILER = shutil.which("cc")
HALF = MaximumLikelihood(loss="mle", factor=0.5)


@dataclass(frozen=True)
class Start:
    """Everything before the first update.

    Attributes:
        variant: the recipe.
        network: ours, its weights drawn.
        curvatures: its parameters' second derivatives, in their order.
        inputs: the digits (n, 1, 32, 32).
        labels: their classes.
    """

    variant: Variant
    network: LeNet5
    curvatures: list[Tensor]
    inputs: Tensor
    labels: Tensor

    def step_sizes(self) -> list[Tensor]:
        """Each parameter's lr / (mu + curvature)."""
        section = self.variant.optimizer
        assert isinstance(section, DiagonalLevenbergMarquardt)
        return [section.lr / (section.mu + curvature) for curvature in self.curvatures]


def ready(digits: int) -> Start:
    """The start of an on-line training."""
    variant, data = loading.load().variant(NAME), training.some(digits)
    assert isinstance(variant.network, schema.Network)
    network = LeNet5(variant.network).initialise(variant.initialisation, 1)
    inputs, labels = to_inputs(data.images, variant.pixels), data.labels.long()
    found = levenberg.curvatures(network, inputs[:500], labels[:500], HALF, "constant")
    return Start(variant, network, found, inputs, labels)


def ours(digits: int = 4 * DIGITS, seeds: int = 1) -> float:
    """Updates/s on the path of the train stage, second derivatives and tracking included."""
    return training.ours(NAME, 1, digits, seeds=seeds)


def passes(digits: int = DIGITS) -> float:
    """Updates/s of our passes for a batch of one, in the shortest loop."""
    return _timed(by_passes, ready(digits))


def autograd(digits: int = DIGITS) -> float:
    """Updates/s of plain torch."""
    return _timed(by_autograd, ready(digits))


def c(digits: int = DIGITS) -> float:
    """Updates/s of plain loops in C (equation 8)."""
    return _timed(in_c(), ready(digits))


Updates = Callable[[Start], Tensor]
"""One update for each digit; it returns the distances (n, 10) before each."""


def _timed(updates: Updates, start: Start) -> float:
    began = time.perf_counter()
    updates(start)
    return len(start.labels) / (time.perf_counter() - began)


def by_passes(start: Start) -> Tensor:
    """Updates of the network by the passes that the pipeline trains with."""
    its = fast.Passes([start.network], 1)
    rule = optimizer.build(start.variant.optimizer, [its.flat.matrix])
    assert isinstance(rule, optimizer.StochasticDiagonalLM)
    rule.set_curvatures([torch.cat([curvature.flatten() for curvature in start.curvatures])])
    criterion, found = objective.build(start.variant), []
    for x, y in zip(start.inputs.split(1), start.labels.split(1), strict=True):
        its.inputs[0] = x
        found.append(its.forward()[0])
        its.backward(criterion.gradient(found[-1], y, 1)[None])
        rule.step()
    return torch.cat(found)


def by_autograd(start: Start) -> Tensor:
    """Updates of a copy of the network in plain torch."""
    network, loss, found = plain.build(start.variant), plain.loss(start.variant), []
    network.load_state_dict(start.network.state_dict())
    parameters = list(zip(network.parameters(), start.step_sizes(), strict=True))
    for x, y in zip(start.inputs.split(1), start.labels.split(1), strict=True):
        network.zero_grad()
        distances = network(x)
        loss(distances, y).backward()
        with torch.no_grad():
            for parameter, size in parameters:
                assert parameter.grad is not None
                parameter.addcmul_(size, parameter.grad, value=-1)
        found.append(distances.detach())
    return torch.cat(found)


@cache
def in_c() -> Updates:
    """Updates of the network by online.c, compiled here."""
    library = Path(tempfile.mkdtemp()) / "online.so"
    source = Path(__file__).with_suffix(".c")
    # as -ffast-math, which would also make the whole process take subnormal numbers for 0
    flags = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]
    subprocess.run([str(COMPILER), *flags, "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    compiled = ctypes.CDLL(str(library))
    pairs = torch.tensor([[out, i] for out, seen in enumerate(C3_TABLE) for i in seen], dtype=torch.int32)

    def updates(start: Start) -> Tensor:
        held, sizes = [parameter.detach() for parameter in start.network.parameters()], start.step_sizes()
        short, distances = start.labels.int(), torch.empty(len(start.labels), 10)
        compiled.updates(
            len(short), _pointer(start.inputs), _pointer(short), _pointer(pairs), _pointer(start.network.output.weight),
            (ctypes.c_void_p * 12)(*map(Tensor.data_ptr, held)), (ctypes.c_void_p * 12)(*map(Tensor.data_ptr, sizes)),
            _pointer(distances),
        )  # fmt: skip
        return distances

    return updates


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
