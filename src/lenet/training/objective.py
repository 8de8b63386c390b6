"""Losses, each travelling with its targets, its decision rule and its probabilities. Plain torch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from lenet.config import CrossEntropy, MaximumAPosteriori, MaximumLikelihood, MeanSquaredError, Variant

Scores = Float[Tensor, "n 10"]
Labels = Int64[Tensor, " n"]
Loss = Float[Tensor, ""]


@dataclass(frozen=True)
class Objective:
    """What is minimised and how an answer is read off.

    Attributes:
        loss: scores and labels → the mean loss over the samples, a scalar.
        loss_and_gradient: the same, and the loss's gradient at the scores, derived by hand.
        decide: scores → the answered class of each sample.
        probabilities: scores → class probabilities; None where the outputs are none.
    """

    loss: Callable[[Scores, Labels], Loss]
    loss_and_gradient: Callable[[Scores, Labels], tuple[Loss, Scores]]
    decide: Callable[[Scores], Labels]
    probabilities: Callable[[Scores], Scores] | None


def mean_squared_error(outputs: Scores, labels: Labels, off: float, on: float) -> Loss:
    """Σ_classes (y − t)², mean over samples: no ½ and no division by the ten classes, as in the explanation."""
    return _excess(outputs, labels, off, on).square().sum(1).mean()


def _excess(outputs: Scores, labels: Labels, off: float, on: float) -> Scores:
    """The outputs less their targets: ``on`` for the right class, ``off`` for the others."""
    return outputs - torch.full_like(outputs, off).scatter_(1, labels[:, None], on)


def softmax(logits: Scores) -> Scores:
    """Class probabilities of logits."""
    return torch.softmax(logits, 1)


def largest(scores: Scores) -> Labels:
    """The class of the largest score."""
    return scores.argmax(1)


def smallest(scores: Scores) -> Labels:
    """The class of the smallest score: the nearest code."""
    return scores.argmin(1)


def shares(section: MaximumAPosteriori, distances: Scores) -> Scores:
    """e^−penalty of each class as a fraction of their sum with rubbish, whose penalty is j (LeCun 1998, eq. 9)."""
    return torch.softmax(_with_rubbish(section, distances), 1)[:, :-1]


def _with_rubbish(section: MaximumAPosteriori, distances: Scores) -> Float[Tensor, "n 11"]:
    """Minus the penalties of the classes and of rubbish."""
    return F.pad(distances * -section.factor, (0, 1), value=-section.j)


def build(variant: Variant) -> Objective:
    """The objective of a variant's block on the outputs that its network has."""
    probabilities = softmax if variant.network.output == "softmax" else None
    decide = smallest if variant.network.output.endswith("rbf") else largest
    loss, loss_and_gradient = _LOSSES[variant.objective.loss](variant.objective, probabilities)
    return Objective(loss, loss_and_gradient, decide, probabilities)


def _mse(section: MeanSquaredError, probabilities: Callable[[Scores], Scores] | None) -> tuple[Callable, Callable]:
    def loss(scores: Scores, labels: Labels) -> Loss:
        outputs = probabilities(scores) if probabilities else scores
        return mean_squared_error(outputs, labels, section.off, section.on)

    def loss_and_gradient(scores: Scores, labels: Labels) -> tuple[Loss, Scores]:
        outputs = probabilities(scores) if probabilities else scores
        excess = _excess(outputs, labels, section.off, section.on)
        value = excess.square().sum(1).mean()
        gradient = excess.mul_(2 / len(labels))
        if probabilities:  # through the softmax
            gradient = outputs * (gradient - (gradient * outputs).sum(1, keepdim=True))
        return value, gradient

    return loss, loss_and_gradient


def _cross_entropy(
    section: CrossEntropy, probabilities: Callable[[Scores], Scores] | None
) -> tuple[Callable, Callable]:
    def loss_and_gradient(scores: Scores, labels: Labels) -> tuple[Loss, Scores]:
        logarithms = torch.log_softmax(scores, 1)
        value = F.nll_loss(logarithms, labels)
        right = F.one_hot(labels, scores.shape[1])
        return value, logarithms.exp_().sub_(right).div_(len(labels))

    return F.cross_entropy, loss_and_gradient  # they take the logits: softmax and logarithm in one, without overflow


def _mle(section: MaximumLikelihood, probabilities: None) -> tuple[Callable, Callable]:
    def loss(distances: Scores, labels: Labels) -> Loss:
        return section.factor * distances.gather(1, labels[:, None]).mean()

    def loss_and_gradient(distances: Scores, labels: Labels) -> tuple[Loss, Scores]:
        right = F.one_hot(labels, distances.shape[1]).to(distances.dtype)
        return loss(distances, labels), right.mul_(section.factor / len(labels))

    return loss, loss_and_gradient


def _map(section: MaximumAPosteriori, probabilities: None) -> tuple[Callable, Callable]:
    right_alone, its_gradient = _mle(MaximumLikelihood(loss="mle", factor=section.factor), None)

    def loss(distances: Scores, labels: Labels) -> Loss:
        return right_alone(distances, labels) + _with_rubbish(section, distances).logsumexp(1).mean()

    def loss_and_gradient(distances: Scores, labels: Labels) -> tuple[Loss, Scores]:
        gradient = its_gradient(distances, labels)[1]
        return loss(distances, labels), gradient.sub_(shares(section, distances), alpha=section.factor / len(labels))

    return loss, loss_and_gradient


_LOSSES: dict[str, Callable] = {"mse": _mse, "cross-entropy": _cross_entropy, "mle": _mle, "map": _map}
