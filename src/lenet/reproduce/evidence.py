"""What a run was a function of, and what came of it: read alike from a tracked run and from its rerun's files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lenet.runs import readers
from lenet.runtime.errors import InputError
from lenet.tracking import Tracked


@dataclass(frozen=True)
class Inputs:
    """All that decides a training's bits, and where it was computed. None or empty: not known.

    Attributes:
        key: ``run.key``, the digest of parameters, seed, data and signature; before signatures, of sources, packages
            and threads in place of the last.
        data: ``data.sha256``.
        source: ``source.sha256``.
        parameters: the variant's block, flat, as text.
        signature: of what the variant's code does; None of a run from before there were signatures.
        conformance: ``right``, or the operations that were off.
        packages: versions of the installed packages; of an older run, those of the packages that could change its bits.
        threads: that torch uses.
        build: torch's, for example ``2.13.0+cpu``.
        processor: the instruction set that torch uses, for example ``AVX512``.
        canary: of an older run, the digest of its processor's arithmetic.
    """

    key: str | None
    data: str | None
    source: str | None
    parameters: Mapping[str, str]
    signature: str | None
    conformance: str | None
    packages: Mapping[str, str]
    threads: str | None
    build: str | None
    processor: str | None
    canary: str | None

    @property
    def portable(self) -> bool:
        """Whether its bits are the same on every machine: of all runs that have a signature."""
        return self.signature is not None


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


def outcome(run: Tracked) -> Outcome:
    """What is known of what came of a tracked run, or of a rerun. Raises InputError for a faulty artifact."""
    content = run.parse(f"{run.name}.json", readers.metrics) or {}
    tested = content.get("test", {})
    told = tested.get("answers.sha256")
    answers = (
        run.parse("predictions.csv", lambda table: readers.answers_sha256(readers.answers(readers.predictions(table))))
        or told
    )
    if told not in (None, answers):
        raise InputError(f"{run.name}: predictions.csv has other answers than {run.name}.json tells of")
    epochs = tuple(str(row["weights.sha256"]) for row in run.history if "weights.sha256" in row)
    trace = run.parse("trace", lambda found: np.frombuffer(found, "<u4"))
    fits = trace is not None and epochs and len(trace) % len(epochs) == 0
    numbers = {f"{part}/{n}": float(v) for part in ("validation", "test") for n, v in _plain(content.get(part, {}))}
    recorded = {n: float(v) for n, v in run.metrics.items() if n.startswith(("validation/", "test/"))}
    numbers = recorded | numbers
    misses = numbers.get("test/misses")
    return Outcome(
        weights=run.tags.get("weights.sha256"),
        answers=answers,
        misses=round(misses) if misses is not None and np.isfinite(misses) else None,
        numbers=numbers,
        losses=trace.reshape(len(epochs), -1) if trace is not None and fits else None,
        epochs=epochs,
    )


def _plain(part: Mapping[str, Any]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in part.items() if isinstance(value, int | float)]
