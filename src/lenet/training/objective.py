"""Losses, each travelling with its targets, its decision rule and its probabilities. Plain torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from lenet.arithmetic import exact, functions
from lenet.params.schema import CrossEntropy, MaximumAPosteriori, MaximumLikelihood, MeanSquaredError, Variant

Scores = Float[Tensor, "n 10"]
Labels = Int64[Tensor, " n"]
Losses = Float[Tensor, " n"]
Loss = Float[Tensor, ""]


@dataclass(frozen=True)
class Objective:
    """What is minimised and how an answer is read off.

    Attributes:
        losses: scores and labels → each sample's loss.
        gradient: scores, labels and a number of samples → the gradient at the scores of the mean loss over so many
            samples, derived by hand.
        decide: scores → the answered class of each sample.
        probabilities: scores → class probabilities; None where the outputs are none.
    """

    losses: Callable[[Scores, Labels], Losses]
    gradient: Callable[[Scores, Labels, int], Scores]
    decide: Callable[[Scores], Labels]
    probabilities: Callable[[Scores], Scores] | None

    def loss(self, scores: Scores, labels: Labels) -> Loss:
        """The mean loss over the samples, for autograd."""
        return _MeanLoss.apply(scores, labels, self)


class _MeanLoss(Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, labels: Tensor, objective: Objective) -> Tensor:
        ctx.gradient = objective.gradient(scores, labels, len(labels)) if ctx.needs_input_grad[0] else None
        return exact.mean(objective.losses(scores, labels), "the loss")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.gradient * grad, None, None


def _excess(outputs: Scores, labels: Labels, off: float, on: float) -> Scores:
    """The outputs less their targets: ``on`` for the right class, ``off`` for the others."""
    return outputs - torch.full_like(outputs, off).scatter_(1, labels[:, None], on)


def softmax(logits: Scores) -> Scores:
    """Class probabilities of logits."""
    return functions.softmax(logits)


def largest(scores: Scores) -> Labels:
    """The class of the largest score."""
    return scores.argmax(1)


def smallest(scores: Scores) -> Labels:
    """The class of the smallest score: the nearest code."""
    return scores.argmin(1)


def shares(section: MaximumAPosteriori, distances: Scores) -> Scores:
    """e^−penalty of each class as a fraction of their sum with rubbish, whose penalty is j (LeCun 1998, eq. 9)."""
    return functions.softmax(_with_rubbish(section, distances))[:, :-1]


def _with_rubbish(section: MaximumAPosteriori, distances: Scores) -> Float[Tensor, "n 11"]:
    """Minus the penalties of the classes and of rubbish."""
    return F.pad(distances * -section.factor, (0, 1), value=-section.j)


def build(variant: Variant) -> Objective:
    """The objective of a variant's block on the outputs that its network has."""
    probabilities = softmax if variant.network.output == "softmax" else None
    decide = smallest if variant.network.output.endswith("rbf") else largest
    losses, gradient = _LOSSES[variant.objective.loss](variant.objective, probabilities)
    return Objective(losses, gradient, decide, probabilities)


Pair = tuple[Callable[[Scores, Labels], Losses], Callable[[Scores, Labels, int], Scores]]


def _mse(section: MeanSquaredError, probabilities: Callable[[Scores], Scores] | None) -> Pair:
    """Σ_classes (y − t)²: no ½ and no division by the ten classes, as in the explanation."""

    def losses(scores: Scores, labels: Labels) -> Losses:
        excess = _excess(probabilities(scores) if probabilities else scores, labels, section.off, section.on)
        return exact.total_each(excess * excess, 1, "the loss").float()

    def gradient(scores: Scores, labels: Labels, count: int) -> Scores:
        outputs = probabilities(scores) if probabilities else scores
        slope = _excess(outputs, labels, section.off, section.on) * (2 / count)
        if probabilities:  # through the softmax
            common = exact.total_each(slope * outputs, 1, "the loss").float()
            slope = outputs * (slope - common[:, None])
        return slope

    return losses, gradient


def _cross_entropy(section: CrossEntropy, probabilities: Callable[[Scores], Scores] | None) -> Pair:
    """Minus the logarithm of the right class's softmax, from the logits: without overflow."""

    def losses(logits: Scores, labels: Labels) -> Losses:
        return functions.minus_log_softmax(logits, labels)

    def gradient(logits: Scores, labels: Labels, count: int) -> Scores:
        return _less_right(softmax(logits), labels).mul_(1 / count)

    return losses, gradient


def _less_right(shares: Scores, labels: Labels) -> Scores:
    """Shares less 1 for the right class, in place."""
    return shares.scatter_add_(1, labels[:, None], shares.new_full((1, 1), -1.0).expand(len(labels), 1))


def _mle(section: MaximumLikelihood, probabilities: None) -> Pair:
    def losses(distances: Scores, labels: Labels) -> Losses:
        return distances.gather(1, labels[:, None])[:, 0] * section.factor

    def gradient(distances: Scores, labels: Labels, count: int) -> Scores:
        return _less_right(torch.zeros_like(distances), labels).mul_(-section.factor / count)

    return losses, gradient


def _map(section: MaximumAPosteriori, probabilities: None) -> Pair:
    def losses(distances: Scores, labels: Labels) -> Losses:
        return functions.minus_log_softmax(_with_rubbish(section, distances), labels)

    def gradient(distances: Scores, labels: Labels, count: int) -> Scores:
        return _less_right(shares(section, distances), labels).mul_(-section.factor / count)

    return losses, gradient


_LOSSES: dict[str, Callable] = {"mse": _mse, "cross-entropy": _cross_entropy, "mle": _mle, "map": _map}
