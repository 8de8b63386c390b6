"""What a run was a function of, and what came of it: read alike from a tracked run and from its rerun's files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lenet.evaluation import judge
from lenet.evaluation.judge import Account
from lenet.runs import readers
from lenet.runtime.errors import InputError
from lenet.tracking import Tracked, numbers_of

FORMER = "recorded before signatures existed: its bits depend on processor and packages"
"""Of a run without a signature: it is rerun as any other, and whatever differs may be why its bits do."""
TAGS = {
    "key": "run.key", "data": "data.sha256", "code": "source.sha256", "signature": "signature",
    "conformance": "conformance", "threads": "threads", "processor": "processor",
}  # fmt: skip
"""The tags of what decides a training's bits, and of where it was computed, by names of an account."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run. None or empty: not known.

    Attributes:
        weights: ``weights.sha256``.
        answers: the digest of all answers to the test digits.
        misses: of the test digits.
        numbers: validation and test metrics.
        losses: each step's, in rows of epochs, as the bits of float32.
        epochs: the weights' digest at the end of each epoch.
    """

    weights: str | None
    answers: str | None
    misses: int | None
    numbers: Mapping[str, float]
    losses: "np.ndarray | None"
    epochs: tuple[str, ...]


def inputs(run: Tracked) -> Account:
    """All that is known of what a tracked run was made of."""
    return {"packages": run.packages()} | recorded(run)


def recorded(run: Tracked) -> dict[str, Any]:
    """What its record alone says of that."""
    found: dict[str, Any] = {name: run.tags[tag] for name, tag in TAGS.items() if tag in run.tags}
    parameters = {name: value for name, value in run.parameters.items() if name not in ("variant", "seed")}
    return found | ({"parameters": parameters} if parameters else {})


def outcome(run: Tracked) -> Outcome:
    """What is known of what came of a tracked run, or of a rerun. Raises InputError for a faulty artifact."""
    content = run.parse(f"{run.name}.json", readers.metrics) or {}
    table = run.parse("predictions.csv", readers.predictions)
    told = judge.files(run.name, metrics=content, predictions=table)
    for fault in judge.contradictions(told):
        raise InputError(f"{run.name}: {fault}")
    epochs = tuple(str(row["weights.sha256"]) for row in run.history if "weights.sha256" in row)
    trace = run.parse("trace", lambda found: np.frombuffer(found, "<u4"))
    fits = trace is not None and epochs and len(trace) % len(epochs) == 0
    numbers = {n: v for n, v in run.metrics.items() if n.startswith(("validation/", "test/"))}
    numbers |= numbers_of(content, "validation", "test")
    misses = numbers.get("test/misses")
    return Outcome(
        weights=run.tags.get("weights.sha256"),
        answers=next((word["test.answers.sha256"] for word in told.values() if "test.answers.sha256" in word), None),
        misses=round(misses) if misses is not None and np.isfinite(misses) else None,
        numbers=numbers,
        losses=trace.reshape(len(epochs), -1) if trace is not None and fits else None,
        epochs=epochs,
    )
