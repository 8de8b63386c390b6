"""The network of a variant's block, its passes, and its outputs for images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from lenet.arithmetic import exact
from lenet.digits.data import to_inputs
from lenet.networks import fast
from lenet.networks.convnet import ConvNet
from lenet.networks.fast import Flat
from lenet.networks.lenet5 import LeNet5
from lenet.params.schema import ConvNetwork, Network, Pixels
from lenet.runtime.errors import InputError

EVALUATION_BATCH = 64  # digits at a time: the fastest
FEW = 8  # digits whose outputs take the plain modules less time than it takes to make buffers


class Autograd:
    """Networks' passes for batches of one size by autograd, as fast.Passes has them for LeNet-5 on a processor.

    Args:
        networks: they compute as they do in training, or in use, by their own mode.
        n: digits in a batch.
        flat: their parameters, if there are some already.

    Attributes:
        inputs: each network's batch (networks, n, 1, 32, 32), to be filled before ``forward``.
    """

    def __init__(self, networks: "Sequence[AnyNet]", n: int, flat: Flat | None = None) -> None:
        self.networks, self.flat = networks, flat or Flat(networks)
        self.inputs = self.flat.matrix.new_empty(len(networks), n, 1, 32, 32)

    def forward(self) -> Float[Tensor, "networks n 10"]:
        """The outputs for ``inputs``."""
        with torch.set_grad_enabled(self.networks[0].training):
            self.scores = []
            for i, (network, its) in enumerate(zip(self.networks, self.inputs, strict=True)):
                with exact.at(i):
                    self.scores.append(network(its))
        return torch.stack([scores.detach() for scores in self.scores])

    def backward(self, dscores: Float[Tensor, "networks n 10"]) -> None:
        """Set the parameters' ``grad`` from the loss's gradient at the outputs of the last ``forward``."""
        for i, (scores, its) in enumerate(zip(self.scores, dscores, strict=True)):
            with exact.at(i):
                found = torch.autograd.grad(scores, self.flat.parameters[i], its)
            for gradient, part in zip(self.flat.gradients[i], found, strict=True):
                gradient.copy_(part)
        self.flat.give()


AnyNet = LeNet5 | ConvNet
AnyPasses = fast.Passes | Autograd


def build(section: Network | ConvNetwork) -> AnyNet:
    """The network that a block describes, its weights not yet drawn."""
    return LeNet5(section) if isinstance(section, Network) else ConvNet(section)


def passes(networks: Sequence[AnyNet], n: int, flat: Flat | None = None) -> AnyPasses:
    """Forward and backward pass of networks of one kind for batches of ``n`` digits."""
    if isinstance(networks[0], LeNet5) and device_of(networks[0]).type == "cpu":
        return fast.Passes(cast(Sequence[LeNet5], networks), n, flat)
    return Autograd(networks, n, flat)


def device_of(network: nn.Module) -> torch.device:
    """Where a network's weights are."""
    return next(network.parameters()).device


def check(network: AnyNet, inputs: Float[Tensor, "n 1 32 32"], dscores: Float[Tensor, "n 10"]) -> None:
    """Raise InputError if the passes differ in a bit of an output or of a gradient from the plain modules on the CPU.

    Args:
        network: it stays as it is.
        inputs: some digits.
        dscores: a gradient at their scores.
    """
    its, plain = passes([deepcopy(network)], len(inputs)), deepcopy(network).cpu()
    its.inputs[0] = inputs
    (scores,) = its.forward()
    its.backward(dscores[None].to(scores.device))
    ours = [scores.cpu(), *(gradient.cpu() for gradient in its.flat.gradients[0])]
    theirs = plain(inputs)
    gradients = torch.autograd.grad(theirs, list(plain.parameters()), dscores)
    names = ["the outputs", *(f"the gradient at {name}" for name, _ in network.named_parameters())]
    for name, a, b in zip(names, ours, [theirs.detach(), *gradients], strict=True):
        if not torch.equal(a, b):
            how = f"{type(its).__name__} on {device_of(network)}"
            raise InputError(f"{how} computes another network than the plain modules: {name} differ; change both alike")


def outputs(network: AnyNet, images: UInt8[Tensor, "n 28 28"], pixels: Pixels) -> Float[Tensor, "n 10"]:
    """The network's outputs in use, for images, a bounded batch at a time.

    Raises InputError where the passes give other outputs for the first images than the network itself.
    """
    with in_use(network):
        first = network(to_inputs(images[:FEW], pixels).to(device_of(network)))
        if len(images) <= FEW:
            return first
        found = []
        its: AnyPasses | None = None
        for part in images.split(EVALUATION_BATCH):
            if its is None or its.inputs.shape[1] != len(part):
                its = passes([network], len(part))
            to_inputs(part, pixels, out=its.inputs[0])
            found.append(its.forward()[0])
    if not torch.equal(found[0][:FEW], first):
        raise InputError("the fast passes give other outputs than the network: this machine's arithmetic is off")
    return torch.cat(found)


@contextmanager
def in_use(network: AnyNet) -> Iterator[None]:
    """The network as it is used, for a while: its norms as learned, no gradients."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)
