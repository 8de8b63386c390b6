"""Stage evaluate: a run's weights on the test digits → its metrics and each digit's answer. The only reader of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum, log
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from safetensors.numpy import save_file
from safetensors.torch import load_file as load_tensors
from torch import Tensor

from lenet import tracking
from lenet.arithmetic import exact
from lenet.digits.data import Digits, load_digits
from lenet.evaluation import recognition, robustness
from lenet.evaluation.rounding import rounded
from lenet.networks import layer_table
from lenet.runs import readers
from lenet.runtime import processes
from lenet.runtime.errors import FaultyFile, InputError
from lenet.runtime.files import reading, whole, write_json, write_text
from lenet.training import fingerprint

CLASSES = 10
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Answers:
    """What a network answers to digits: the class, its outputs, and probabilities where they are some."""

    decided: Int64[Tensor, " n"]
    scores: Float[Tensor, "n 10"]
    probabilities: Float[Tensor, "n 10"] | None


def evaluate(folder: Path, test: Path, out: Path, track: bool) -> None:
    """Test the run in ``folder``: metrics to ``out``; answers, missed digits and robustness to ``folder``.

    Raises:
        InputError: a missing or faulty file, weights that are not the record's, or scores that are not finite.
    """
    with processes.sole_writer(out):
        recogniser = recognition.load(folder)
        record = recogniser.record
        if fingerprint.tensors_sha256(recogniser.network.state_dict()) != record.weights:
            raise FaultyFile(folder / "weights.safetensors", "the weights are not those of run.json")
        digits = load_digits(test)
        try:
            answers = answer(recogniser, digits)
        except exact.NotFinite as error:
            raise InputError(f"{folder}: {error}; its training diverged") from None
        if not answers.scores.isfinite().all():
            raise InputError(f"{folder}: the network's outputs are not finite; its training diverged")
        history = readers.read(folder / "history.csv", readers.history)
        tested = test_metrics(answers, digits.labels.long())
        curves = robustness.curves(recogniser, digits)
        epochs = {}
        if (snapshots := folder / "snapshots.safetensors").exists():
            with reading(snapshots):
                passes = load_tensors(snapshots)
            epochs = {"epochs": {"misses": misses(recogniser, passes, digits)}}
        processes.check()
        write_text(folder / "predictions.csv", to_csv(answers, digits))
        missed = np.flatnonzero(answers.decided != digits.labels)
        with whole(folder / "missed.safetensors") as beside:
            save_file({"images": digits.images[missed].numpy(), "index": digits.index[missed].numpy()}, beside)
        write_json(folder / "robustness.json", curves)
        write_json(
            out,
            {
                "variant": record.variant,
                "seed": record.seed,
                "run": record.fingerprints,
                "digits": {
                    "trained_on": record.parameters.train_size,
                    "held_out": record.parameters.validation_size,
                },
                "test": tested,
                **_validation(history),
                **epochs,
                "robustness": {name: by_level(curve) for name, curve in curves.items()},
                "network": layer_table.totals(record.parameters.network),
            },
        )
        if track:
            tracking.evaluated(record, folder, out)


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
        "answers.sha256": fingerprint.sha256_of(answers.decided.numpy().astype(np.uint8).tobytes()),
        "error.per_class": [_share(wrong[labels == digit]) for digit in range(CLASSES)],
    }
    if answers.probabilities is not None:
        metrics["negative_log_likelihood"] = rounded(negative_log_likelihood(answers.probabilities, labels))
        metrics["calibration_error"] = rounded(calibration_error(answers.probabilities, labels))
    return metrics


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
    """Expected calibration error: |accuracy − confidence| over 15 equal bins of confidence, weighted by their size.

    (Guo et al. 2017, "On Calibration of Modern Neural Networks".) Sums are exact.
    """
    confidence, decided = probabilities.double().max(1)
    gaps = (decided == labels).double() - confidence
    bins = (confidence * CALIBRATION_BINS).ceil().clamp(1, CALIBRATION_BINS) - 1
    return fsum(abs(fsum(gaps[bins == place].tolist())) for place in range(CALIBRATION_BINS)) / len(labels)


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


def _validation(history: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The last epoch's validation part; nothing where no digits were held out."""
    last = history.iloc[-1]
    found = {name: float(last[f"validation/{name}"]) for name in ("loss", "error") if f"validation/{name}" in last}
    return {"validation": found} if found else {}
