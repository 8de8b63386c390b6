"""The second derivatives of stochastic diagonal Levenberg–Marquardt (LeCun et al. 1998, App. C). Plain torch.

Each parameter has a step size of its own, lr / (mu + h), with an estimate h of the loss's second derivative. Estimates
go back through the layers as gradients do, but with weights and states squared. They leave out the curvature of the
squashing functions (Gauss–Newton) and the cross terms between the places where one weight is used (App. C, eq. 21–27).
"""

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call

from lenet.arithmetic import exact
from lenet.arithmetic import nn as layers
from lenet.arithmetic.randomness import derive
from lenet.digits.epochs import Presentation
from lenet.networks.lenet5 import LeNet5, RadialBasis, Subsampling
from lenet.params.schema import Criterion, DiagonalLevenbergMarquardt, MaximumLikelihood
from lenet.training import objective


def curvatures(
    network: LeNet5,
    inputs: Float[Tensor, "n 1 32 32"],
    labels: Int64[Tensor, " n"],
    section: Criterion,
    criterion: str,
) -> list[Tensor]:
    """The second derivative of the loss by each parameter, averaged over digits; every one is at least 0.

    Codes that are learned get that of their own class's penalty.

    Args:
        network: one whose output is distances to codes.
        inputs: the digits.
        labels: their classes.
        section: the loss.
        criterion: what stands for the loss's second derivative at F6's states: ``constant``, that of one penalty
            whatever the loss is, or ``exact``. They differ for ``map`` alone.

    Returns:
        In the order and shapes of ``network.parameters()``.
    """
    codes = network.output
    assert isinstance(codes, RadialBasis)
    with torch.no_grad():
        found: dict[nn.Parameter, Tensor] = {}
        stages = _stages(network, inputs)
        at_state = _at_states(section, criterion, stages[-1].states, codes)
        if isinstance(codes.weight, nn.Parameter):
            share = exact.divided(torch.bincount(labels, minlength=len(codes.weight)).double(), len(labels))
            found[codes.weight] = (share * (2 * section.factor))[:, None].expand_as(codes.weight).clone()
        for stage in reversed(stages):
            at_state = stage.back(at_state, found)
        return [found[parameter] for parameter in network.parameters()]


def at_start(network: nn.Module, seed: int, epoch: int, presented: Presentation) -> list[Tensor]:
    """The same at an epoch's start, from as many of the digits that it presents as the block has ``patterns``."""
    variant = presented.variant
    section, criterion = cast(DiagonalLevenbergMarquardt, variant.optimizer), cast(Criterion, variant.objective)
    chance = torch.Generator().manual_seed(derive(seed, "curvature", epoch))
    some = torch.randperm(len(presented.order), generator=chance)[: section.patterns]
    device = next(network.parameters()).device
    inputs, labels = presented.inputs(some).to(device), presented.labels(some).to(device)
    return curvatures(cast(LeNet5, network), inputs, labels, criterion, section.criterion)


class _Stage:
    """A layer, squashed: x → states."""

    def __init__(self, layer: nn.Module, squash: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.layer = layer
        self.pooled = layer.pool(x) if isinstance(layer, Subsampling) else x
        with torch.enable_grad():
            sums = layer(x).detach().requires_grad_()
            self.states = squash(sums)
            (self.slope,) = torch.autograd.grad(self.states, sums, torch.ones_like(sums))
        self.states = self.states.detach()

    def back(self, at_state: Tensor, found: dict[nn.Parameter, Tensor]) -> Tensor:
        """From the second derivative by the states, note those by the parameters and return that by x.

        A layer of squared weights on squared inputs has, as gradients, the sums that are wanted: Σ_k w_ki² g_k by
        its input, and Σ g x² over every place where a weight is used.
        """
        at_sum = (self.slope * self.slope) * at_state.view_as(self.slope)
        with torch.enable_grad():
            squares = {name: (p * p).detach().requires_grad_() for name, p in self.layer.named_parameters()}
            x = (self.pooled * self.pooled).requires_grad_()
            sums = _weigh(self.layer, squares, x)
            at_x, *at_squares = torch.autograd.grad(sums, (x, *squares.values()), at_sum)
        for parameter, its in zip(self.layer.parameters(), at_squares, strict=True):
            found[parameter] = exact.divided(its.double(), len(x))
        if isinstance(self.layer, Subsampling):  # its four inputs alike
            at_x = at_x.repeat_interleave(2, 2).repeat_interleave(2, 3) * self.layer.share**2
        return at_x


def _weigh(layer: nn.Module, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """The layer's sums with other weights; subsampling's inputs are pooled already."""
    if isinstance(layer, Subsampling):
        return layers.scale(x, weights["weight"], weights["bias"], layer.place)
    return functional_call(layer, weights, x)


def _at_states(section: Criterion, criterion: str, states: Tensor, codes: RadialBasis) -> Tensor:
    """The loss's second derivative by F6's states (n, 84)."""
    one = 2 * section.factor
    if criterion == "constant" or isinstance(section, MaximumLikelihood):
        return torch.full_like(states, one)
    shares = objective.shares(section, codes(states))
    slopes = one * (states[:, None] - codes.weight)  # of the penalties; rubbish has none
    parts = torch.stack([shares[:, :, None] * slopes, shares[:, :, None] * (slopes * slopes)], 1)
    mean, squares = exact.total_each(parts, 2, "the curvature").float().unbind(1)
    rubbish = 1.0 - exact.total_each(shares, 1, "the curvature").float()[:, None]
    return (rubbish * one + (squares - mean * mean)).clamp(min=0.0)


def _stages(network: LeNet5, x: Tensor) -> list[_Stage]:
    found = []
    for layer in (network.C1, network.S2, network.C3, network.S4, network.C5, network.F6):
        stage = _Stage(layer, network.squash, x.flatten(1) if layer is network.C5 else x)
        found.append(stage)
        x = stage.states
    return found
