"""On-line training of the paper's network, digit by digit: ours beside autograd, passes made for batches, and C."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import training
from lenet import config, networks
from lenet.config import MaximumLikelihood, Variant
from lenet.digits.data import to_inputs
from lenet.networks import kernels
from lenet.networks.lenet5 import C3_TABLE, LeNet5
from lenet.training import levenberg, objective, optimizer
from lenet.training.levenberg import StochasticDiagonalLM

NAME = "lecun1998"
DIGITS = 3_200
COMPILER = shutil.which("cc")


def ready(digits: int) -> tuple[Variant, LeNet5, StochasticDiagonalLM, Tensor, Tensor]:
    """Everything before the first update: network, step sizes, inputs and labels."""
    variant, data = config.load().variant(NAME), training.some(digits)
    network = networks.build(variant.network).initialise(variant.initialisation, 1)
    rule = optimizer.build(variant.optimizer, network.parameters())
    inputs, labels = to_inputs(data.images, variant.pixels), data.labels.long()
    half = MaximumLikelihood(loss="mle", factor=0.5)
    assert isinstance(network, LeNet5)
    assert isinstance(rule, StochasticDiagonalLM)
    rule.set_curvatures(levenberg.curvatures(network, inputs[:500], labels[:500], half, "constant"))
    return variant, network, rule, inputs, labels


def ours(digits: int = 4 * DIGITS) -> float:
    """Updates/s on the path of the train stage, second derivatives and tracking included."""
    return training.ours(NAME, 1, digits)


def eager(digits: int = DIGITS) -> float:
    """Updates/s of the modules with autograd and the optimizer's step."""
    variant, network, rule, inputs, labels = ready(digits)
    loss = objective.build(variant).loss
    start = time.perf_counter()
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        network.zero_grad()
        loss(network(x), y).backward()
        rule.step()
    return digits / (time.perf_counter() - start)


def passes(digits: int = DIGITS) -> float:
    """Updates/s of the passes that batches have, for batches of one."""
    variant, network, rule, inputs, labels = ready(digits)
    its, criterion = kernels.Passes(network, 1), objective.build(variant)
    start = time.perf_counter()
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        its.inputs.copy_(x)
        its.backward(criterion.loss_and_gradient(its.forward(), y)[1])
        rule.step()
    return digits / (time.perf_counter() - start)


def c(digits: int = DIGITS) -> float:
    """Updates/s of plain loops in C (equation 8)."""
    _, network, rule, inputs, labels = ready(digits)
    run = in_c()
    start = time.perf_counter()
    run(network, rule, inputs, labels)
    return digits / (time.perf_counter() - start)


@cache
def in_c() -> Callable[[LeNet5, StochasticDiagonalLM, Tensor, Tensor], Tensor]:
    """Updates of a network by online.c, compiled here; they return the distances before each."""
    library = Path(tempfile.mkdtemp()) / "online.so"
    source = Path(__file__).with_suffix(".c")
    # as -ffast-math, which would also make the whole process take subnormal numbers for 0
    flags = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"]
    subprocess.run([str(COMPILER), *flags, "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    compiled = ctypes.CDLL(str(library))
    pairs = torch.tensor([[out, i] for out, seen in enumerate(C3_TABLE) for i in seen], dtype=torch.int32)

    def updates(network: LeNet5, rule: StochasticDiagonalLM, inputs: Tensor, labels: Tensor) -> Tensor:
        held = [parameter.detach() for parameter in network.parameters()]
        sizes, distances = rule.step_sizes(), torch.empty(len(inputs), 10)
        short = labels.int()
        codes = network.output.weight.detach()
        compiled.updates(
            len(inputs), _pointer(inputs), _pointer(short), _pointer(pairs), _pointer(codes),
            (ctypes.c_void_p * 12)(*map(Tensor.data_ptr, held)), (ctypes.c_void_p * 12)(*map(Tensor.data_ptr, sizes)),
            _pointer(distances),
        )  # fmt: skip
        return distances

    return updates


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    assert tensor.is_contiguous()
    return ctypes.c_void_p(tensor.data_ptr())
