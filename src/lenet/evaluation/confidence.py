"""How sure a network is of its answers, and whether it should be: calibration and rejection. Plain numpy.

A confidence is an estimate of the probability that the answer is right: the largest of ten estimates of the classes'
posterior probabilities. Softmax outputs are such estimates. Of squashed outputs trained by squared error towards the
targets ``off`` and ``on``, the ideal ones are off + (on − off) · P(class | image), for a mean minimises squared error:
so (y − off) / (on − off), clipped to 0…1, estimates the posterior. Penalties of distances to codes stand for minus the
logarithms of likelihoods (LeCun 1998, §II.C), so that their negatives' softmax does.
"""

from dataclasses import dataclass
from math import fsum

import numpy as np

from lenet.params.schema import MaximumAPosteriori, MaximumLikelihood, MeanSquaredError, Variant

OUTPUTS = [f"output {digit}" for digit in range(10)]  # columns of predictions.csv
TARGETS = (0.005, 0.001)  # errors among accepted digits; the paper's is the first (LeCun 1998, Fig. 10)
REJECTED = np.linspace(0, 0.1, 41)  # shares of rejection curves
BINS = 15  # of equal width


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence: how many, their mean confidence, and the fraction of them that is right."""

    count: int
    confidence: float
    accuracy: float


def of(outputs: np.ndarray, variant: Variant) -> np.ndarray:
    """The confidence (n,) of a variant's answers, from the outputs (n, 10) in predictions.csv.

    A softmax computed here is rounded to 1e-9: what another C library's last bit parts or orders is the same then.
    """
    objective = variant.objective
    if isinstance(objective, MaximumLikelihood | MaximumAPosteriori):
        from scipy.special import softmax

        return softmax(-objective.factor * outputs, axis=1).max(1).round(9)
    if variant.network.output == "softmax" or not isinstance(objective, MeanSquaredError):
        return outputs.max(1)
    return np.clip((outputs - objective.off) / (objective.on - objective.off), 0, 1).max(1)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    """The bins (of equal width, those with answers in them) of a reliability diagram, for vectors (n,).

    Sums are exact: the same in any order.
    """
    bins = np.ceil(confidence * BINS).clip(1, BINS)
    inside = [bins == place for place in range(1, BINS + 1)]
    return [
        Bin(int(one.sum()), fsum(confidence[one]) / int(one.sum()), float(right[one].mean()))
        for one in inside
        if one.any()
    ]


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error: |accuracy − confidence| over the bins, weighted by their size.

    (Guo et al. 2017, "On Calibration of Modern Neural Networks".)
    """
    return fsum(one.count * abs(one.accuracy - one.confidence) for one in bins) / sum(one.count for one in bins)


def rejection(confidence: np.ndarray, right: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The error among the accepted answers when these shares of all (below 1), the least confident, are rejected.

    Among equally confident answers the rejected ones are drawn by lot: their errors count evenly.
    """
    accepted, errors = _accepted(confidence, right)
    kept = len(right) * (1 - shares)
    return np.interp(kept, accepted, errors) / kept


def rejected_for(confidence: np.ndarray, right: np.ndarray, error: float) -> float:
    """The smallest share of answers to reject, at a threshold of confidence, so that the rest err no more than this.

    1 if even the most confident answers err more.
    """
    accepted, errors = _accepted(confidence, right)
    good = np.flatnonzero(errors <= error * accepted)
    return float(1 - accepted[good[-1]] / len(right))


def _accepted(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many answers, and errors among them, each threshold of confidence accepts, from none to all."""
    _, group = np.unique(-confidence, return_inverse=True)
    counts, wrong = np.bincount(group), np.bincount(group, ~right)
    return np.concatenate([[0], counts.cumsum()]), np.concatenate([[0], wrong.cumsum()])
