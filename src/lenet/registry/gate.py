"""The gate before the alias ``champion``: a challenger has to be better than the champion beyond chance.

Two networks answer the same digits, so their errors are compared in pairs: only digits that one of them alone misses
tell them apart. The interval of the difference is Agresti and Min's (2005), with half a digit added to each of the four
counts of a pair of answers. It is one over other digits of the same kind, for these two networks; of other seeds of
their variants it says nothing (report/statistics.py does).
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from scipy import stats

from lenet import tracking
from lenet.digits.data import Digits
from lenet.networks import layer_table
from lenet.report.statistics import LEVEL, confidence_interval, points
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.tracking.models import Predict
from lenet.tracking.registry import Version
from lenet.training import fingerprint

MARGIN = 0.003  # of an error, as a fraction: worse by less counts as not worse; 5,000 digits can show that of equals
FEWEST = 1000  # digits: with fewer no difference of today's networks can be seen


@dataclass(frozen=True)
class Loaded:
    """A version's network.

    Attributes:
        version: which.
        record: of its training.
        predict: images (n, 28, 28) → ``digit`` and ``scores``.
        parameters: how many trainable ones.
    """

    version: Version
    record: Record
    predict: Predict
    parameters: int

    @classmethod
    def of(cls, version: Version, scratch: Path) -> "Loaded":
        """Load a version. Raises InputError if it cannot be loaded, or is another network than its tags say."""
        record, predict = tracking.load_model(version.uri, scratch)
        if (record.key, record.weights) != (version.key, version.weights):
            raise InputError(f"version {version.number}: its model is not the run of its tags; register the run again")
        return cls(version, record, predict, layer_table.totals(record.parameters.network)["parameters"])


@dataclass(frozen=True)
class Comparison:
    """A challenger beside the champion.

    Attributes:
        challenger, champion: the two.
        digits: how many both have answered.
        misses: the challenger's and the champion's.
        difference: the challenger's error less the champion's, as a fraction of 1.
        low, high: its interval.
        tests: over how many challengers the interval is corrected.
    """

    challenger: Loaded
    champion: Loaded
    digits: int
    misses: tuple[int, int]
    difference: float
    low: float
    high: float
    tests: int

    @property
    def better(self) -> bool:
        """Whether the challenger is better beyond chance."""
        return self.high < 0

    @property
    def smaller(self) -> bool:
        """Whether it has fewer parameters and is not worse: by less than MARGIN at the interval's upper end."""
        return self.high < MARGIN and self.challenger.parameters < self.champion.parameters

    @property
    def verdict(self) -> str:
        """A sentence."""
        names = " and ".join(f"{one.version.name} (version {one.version.number})" for one in self.pair)
        found = f"{points(self.difference)} points, {confidence_interval(self.low, self.high)}"
        if self.tests > 1:
            found += f", corrected for {self.tests} challengers"
        counts = f"{self.misses[0]} and {self.misses[1]} misses of {self.digits:,} digits that neither has seen"
        how = "better" if self.better else "worse" if self.low > 0 else "no different beyond chance"
        return f"{names}: {counts}; the first is {how} ({found})"

    @property
    def pair(self) -> tuple[Loaded, Loaded]:
        """Challenger and champion."""
        return self.challenger, self.champion


def unseen(records: Sequence[Record], digits: Digits) -> Bool[np.ndarray, " digits"]:
    """Which of the training file's digits no training has learned from.

    Args:
        records: the trainings.
        digits: those of data/train.safetensors, in its order.

    Raises:
        InputError: a training has had other digits, or too few are left.
    """
    free = np.ones(len(digits), bool)
    for record in records:
        block = record.parameters
        if fingerprint.data_sha256(*digits.split(block)) != record.data:
            raise InputError(f"{record.name}: it was trained on other digits than those of data/train.safetensors")
        free[block.validation_size : block.validation_size + block.train_size] = False
    if free.sum() < FEWEST:
        names = " and ".join(record.name for record in records)
        raise InputError(
            f"{names}: only {free.sum():,} digits are left that neither has learned from; the test digits are for "
            f"evaluation alone. Register runs of a variant with validation digits, or use --force"
        )
    return free


def compare(challenger: Loaded, champion: Loaded, digits: Digits, tests: int = 1) -> Comparison:
    """Compare two networks on digits that neither has seen.

    Args:
        challenger: the one that may take the champion's place.
        champion: the other.
        digits: those of data/train.safetensors.
        tests: how many challengers are compared: the interval's level is corrected for them (Bonferroni).

    Raises:
        InputError: as ``unseen``.
    """
    free = unseen([challenger.record, champion.record], digits)
    images, labels = digits.images.numpy()[free], digits.labels.numpy()[free]
    first, second = (one.predict(images)["digit"] != labels for one in (challenger, champion))
    difference, low, high = paired(first, second, LEVEL / tests)
    misses = int(first.sum()), int(second.sum())
    return Comparison(challenger, champion, len(labels), misses, difference, low, high, tests)


def paired(
    a: Bool[np.ndarray, " digits"], b: Bool[np.ndarray, " digits"], level: float = LEVEL
) -> tuple[float, float, float]:
    """The difference of two networks' errors, a's less b's, and its interval (Agresti and Min 2005).

    Args:
        a: whether the first misses a digit.
        b: the same of the second.
        level: 1 less the interval's confidence.
    """
    only_a, only_b, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    more_a, more_b, more = only_a + 0.5, only_b + 0.5, n + 2
    middle = (more_a - more_b) / more
    half = float(stats.norm.isf(level / 2)) * sqrt((more_a + more_b) - (more_a - more_b) ** 2 / more) / more
    return (only_a - only_b) / n, middle - half, middle + half


@dataclass(frozen=True)
class Outcome:
    """What came of comparing challengers with the champion.

    Attributes:
        champion: the number of the version that has the alias; None if none has it.
        winner: the version that has earned it; None if none has.
        why: what is noted at the winner.
        comparisons: one for each challenger.
    """

    champion: int | None
    winner: Version | None
    why: str
    comparisons: Sequence[Comparison] = ()

    def promote(self) -> None:
        """Give the winner the alias. Raises InputError as tracking.promote."""
        assert self.winner
        over = {"champion.over": str(self.champion)} if self.comparisons else {}
        tracking.promote(self.winner, {"champion.verdict": self.why, **over}, self.champion)


def judge(digits: Digits, prefer_small: bool) -> Outcome:
    """Compare all versions that are newer than the champion with it.

    Args:
        digits: those of data/train.safetensors.
        prefer_small: whether one that is smaller and not worse wins, too.

    Returns:
        The outcome. The first version of a registry without a champion earns the alias unopposed.

    Raises:
        InputError: no version, or one that cannot be compared.
    """
    versions, aliased = tracking.versions()
    if not versions:
        raise InputError("no version is registered; `lenet register modern` makes one")
    if aliased is None:
        return Outcome(None, versions[0], "the first champion: there was no other")
    champion = _numbered(versions, aliased)
    newer = [version for version in versions if version.number > champion.number]
    with tempfile.TemporaryDirectory() as scratch:
        places = (Path(scratch, str(version.number)) for version in (champion, *newer))
        loaded = []
        for version, place in zip((champion, *newer), places, strict=True):
            place.mkdir()
            loaded.append(Loaded.of(version, place))
        found = [compare(one, loaded[0], digits, len(newer)) for one in loaded[1:]]
    winners = [one for one in found if one.better or (prefer_small and one.smaller)]
    if not winners:
        return Outcome(aliased, None, "", found)
    best = min(winners, key=lambda one: (one.misses[0], one.challenger.parameters, one.challenger.version.number))
    how = best.verdict + ("" if best.better else f"; it is smaller, and worse by less than {points(MARGIN)} points")
    return Outcome(aliased, best.challenger.version, how, found)


def force(number: int) -> Outcome:
    """A version that gets the alias without a comparison. Raises InputError if there is none of this number."""
    versions, aliased = tracking.versions()
    return Outcome(aliased, _numbered(versions, number), "by force: not compared")


def _numbered(versions: Sequence[Version], number: int) -> Version:
    found = next((one for one in versions if one.number == number), None)
    if found is None:
        legal = ", ".join(str(one.number) for one in versions) or "none"
        raise InputError(f"version {number}: `lenet register` has not made it, or it was deleted; versions: {legal}")
    return found
