"""The network of a variant's block, its passes, and its outputs for images."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lenet.digits.data import to_inputs
from lenet.networks import fast
from lenet.networks.convnet import ConvNet
from lenet.networks.lenet5 import LeNet5
from lenet.params.schema import ConvNetwork, Network, Pixels

EVALUATION_BATCH = 200  # digits at a time; it bounds memory
FEW = 8  # digits whose outputs take the plain modules less time than it takes to make buffers


class Autograd:
    """A network's passes for batches of one size by autograd, as fast.Passes has them for LeNet-5.

    Args:
        network: it computes as it does in training, or in use, by its own mode.
        n: digits in a batch.

    Attributes:
        inputs: the batch (n, 1, 32, 32), to be filled before ``forward``.
    """

    def __init__(self, network: ConvNet, n: int) -> None:
        self.network, self.flat = network, fast.flat(network)
        self.inputs = torch.empty(n, 1, 32, 32)

    def forward(self) -> Float[Tensor, "n 10"]:
        """The outputs for ``inputs``."""
        with torch.set_grad_enabled(self.network.training):
            self.scores = self.network(self.inputs)
        return self.scores.detach()

    def backward(self, dscores: Float[Tensor, "n 10"]) -> None:
        """Set the parameters' ``grad`` from the loss's gradient at the outputs of the last ``forward``."""
        found = torch.autograd.grad(self.scores, self.flat.parameters, dscores)
        for gradient, its in zip(self.flat.gradients, found, strict=True):
            gradient.copy_(its)
        self.flat.give()


AnyNet = LeNet5 | ConvNet
AnyPasses = fast.Passes | Autograd


def build(section: Network | ConvNetwork) -> AnyNet:
    """The network that a block describes, its weights not yet drawn."""
    return LeNet5(section) if isinstance(section, Network) else ConvNet(section)


def passes(network: AnyNet, n: int) -> AnyPasses:
    """The network's forward and backward pass for batches of ``n`` digits."""
    return fast.Passes(network, n) if isinstance(network, LeNet5) else Autograd(network, n)


def outputs(network: AnyNet, images: UInt8[Tensor, "n 28 28"], pixels: Pixels) -> Float[Tensor, "n 10"]:
    """The network's outputs in use, for images, a bounded batch at a time."""
    with in_use(network):
        if len(images) <= FEW:
            return network(to_inputs(images, pixels))
        found = []
        its: AnyPasses | None = None
        for part in images.split(EVALUATION_BATCH):
            if its is None or len(its.inputs) != len(part):
                its = passes(network, len(part))
            to_inputs(part, pixels, out=its.inputs)
            found.append(its.forward())
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
