"""Losses, each travelling with its targets, its decision rule and its probabilities. Plain torch."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from lenet.config import CrossEntropy, MeanSquaredError, Variant

Scores = Float[Tensor, "n 10"]
Labels = Int64[Tensor, " n"]


@dataclass(frozen=True)
class Objective:
    """What is minimised and how an answer is read off.

    Attributes:
        loss: scores and labels → the mean loss over the samples, a scalar.
        decide: scores → the answered class of each sample.
        probabilities: scores → class probabilities; None where the outputs are none.
    """

    loss: Callable[[Scores, Labels], Float[Tensor, ""]]
    decide: Callable[[Scores], Labels]
    probabilities: Callable[[Scores], Scores] | None


def mean_squared_error(outputs: Scores, labels: Labels, off: float, on: float) -> Float[Tensor, ""]:
    """Σ_classes (y − t)², mean over samples: no ½ and no division by the ten classes, as in the explanation."""
    targets = torch.full_like(outputs, off).scatter_(1, labels[:, None], on)
    return (outputs - targets).square().sum(1).mean()


def softmax(logits: Scores) -> Scores:
    """Class probabilities of logits."""
    return torch.softmax(logits, 1)


def largest(scores: Scores) -> Labels:
    """The class of the largest score."""
    return scores.argmax(1)


def build(variant: Variant) -> Objective:
    """The objective of a variant's block on the outputs that its network has."""
    probabilities = softmax if variant.network.output == "softmax" else None
    return Objective(_LOSSES[variant.objective.loss](variant.objective, probabilities), largest, probabilities)


def _mse(section: MeanSquaredError, probabilities: Callable[[Scores], Scores] | None) -> Callable:
    def loss(scores: Scores, labels: Labels) -> Float[Tensor, ""]:
        outputs = probabilities(scores) if probabilities else scores
        return mean_squared_error(outputs, labels, section.off, section.on)

    return loss


def _cross_entropy(section: CrossEntropy, probabilities: Callable[[Scores], Scores] | None) -> Callable:
    return F.cross_entropy  # takes the logits: softmax and logarithm in one, without overflow


_LOSSES: dict[str, Callable] = {"mse": _mse, "cross-entropy": _cross_entropy}
