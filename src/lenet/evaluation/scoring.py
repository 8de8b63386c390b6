"""A network's answers to digits, and what they are worth: misses, likelihood, calibration."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum, log
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from lenet.digits.data import Digits
from lenet.evaluation import confidence, recognition
from lenet.evaluation.rounding import rounded
from lenet.training import fingerprint

CLASSES = 10


@dataclass(frozen=True)
class Answers:
    """What a network answers to digits: the class, its outputs, and probabilities where they are some."""

    decided: Int64[Tensor, " n"]
    scores: Float[Tensor, "n 10"]
    probabilities: Float[Tensor, "n 10"] | None


def answer(recogniser: recognition.Recogniser, digits: Digits) -> Answers:
    """The network's answers to digits."""
    scores = recogniser.scores(digits.images)
    objective = recogniser.objective
    return Answers(
        objective.decide(scores), scores, objective.probabilities(scores) if objective.probabilities else None
    )


def test_metrics(answers: Answers, labels: Int64[Tensor, " n"]) -> dict[str, Any]:
    """Misses, count, error, a digest of the answers, errors per class; for probabilities likelihood and calibration."""
    wrong = answers.decided != labels
    metrics: dict[str, Any] = {
        "misses": int(wrong.sum()),
        "count": len(labels),
        "error": int(wrong.sum()) / len(labels),
        "answers.sha256": answers_sha256(answers.decided.numpy()),
        "error.per_class": [_share(wrong[labels == digit]) for digit in range(CLASSES)],
    }
    if answers.probabilities is not None:
        metrics["negative_log_likelihood"] = rounded(negative_log_likelihood(answers.probabilities, labels))
        metrics["calibration_error"] = rounded(calibration_error(answers.probabilities, labels))
    return metrics


def answers_sha256(answers: np.ndarray) -> str:
    """The digest of the answers to all test digits, in their order."""
    return fingerprint.sha256_of(answers.astype(np.uint8).tobytes())


def _share(flags: Bool[Tensor, " n"]) -> float:
    """The fraction that is true; 0 of none."""
    return int(flags.sum()) / max(1, len(flags))


def misses(recogniser: recognition.Recogniser, snapshots: Mapping[str, Tensor], digits: Digits) -> list[int]:
    """How many digits the network misses with the weights of each epoch's end.

    Args:
        recogniser: of the last epoch; it is left as it was.
        snapshots: the weights by name, epochs first.
        digits: what it is tested on.
    """
    last = {name: tensor.clone() for name, tensor in recogniser.network.state_dict().items()}
    found = []
    for weights in zip(*snapshots.values(), strict=True):
        recogniser.network.load_state_dict(dict(zip(snapshots, weights, strict=True)))
        found.append(int((answer(recogniser, digits).decided != digits.labels).sum()))
    recogniser.network.load_state_dict(last)
    return found


def by_level(curve: Mapping[str, Any]) -> dict[str, float]:
    """A curve of ``robustness.curves`` in short: level → error."""
    return {str(level): error for level, error in zip(curve["levels"], curve["errors"], strict=True)}


def negative_log_likelihood(probabilities: Float[Tensor, "n 10"], labels: Int64[Tensor, " n"]) -> float:
    """Mean of −ln p(right class), in nats; a probability that underflowed counts as the smallest float32.

    Summed exactly, so that only the logarithm's last bit can differ between C libraries.
    """
    right = probabilities.gather(1, labels[:, None])[:, 0].clamp_min(torch.finfo(torch.float32).tiny)
    return -fsum(map(log, right.tolist())) / len(labels)


def calibration_error(probabilities: Float[Tensor, "n 10"], labels: Int64[Tensor, " n"]) -> float:
    """Expected calibration error of the likeliest classes."""
    sure, decided = probabilities.double().max(1)
    return confidence.calibration_error(confidence.reliability(sure.numpy(), (decided == labels).numpy()))


def confusion(decided: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts (10, 10): row the digit, column the answer."""
    return np.bincount(CLASSES * labels + decided, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def to_csv(answers: Answers, digits: Digits) -> str:
    """A line per digit: its place in the MNIST test file, label, answer, and the ten outputs."""
    table = pd.DataFrame({"index": digits.index, "label": digits.labels, "answer": answers.decided})
    outputs = answers.scores if answers.probabilities is None else answers.probabilities
    for digit in range(CLASSES):
        table[f"output {digit}"] = outputs[:, digit].numpy()
    return table.to_csv(index=False, lineterminator="\n")
