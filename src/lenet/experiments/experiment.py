"""What experiments share: a params.yaml of their own, and what runs answered to the test digits."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field

from lenet.evaluation import confidence
from lenet.params.loading import flatten
from lenet.params.schema import Name, Params, Section, Variant
from lenet.report import statistics
from lenet.runs import readers
from lenet.runs.record import Record
from lenet.runtime.errors import InputError


class Answers:
    """Which test digits each run misses, from the folders of several homes.

    Args:
        params: the blocks that the runs must be of.
        folders: folders of runs' folders; a run is in the first that has it.
        seeds: those of every variant.
    """

    def __init__(self, params: Params, folders: Sequence[Path], seeds: Sequence[int]) -> None:
        self.params, self.folders, self.seeds = params, folders, seeds

    def wrong(self, variant: str) -> np.ndarray:
        """Whether a seed's network misses a digit, boolean (seeds, digits); digits in the MNIST test file's order.

        Raises InputError if a run is missing, faulty, or not of the present block.
        """
        return np.array([self._table(variant, seed)["wrong"] for seed in self.seeds])

    def signatures(self, variants: Iterable[str]) -> dict[str, str] | None:
        """Each variant's signature, which is what its runs do; None where all are of the former arithmetic.

        Raises InputError if runs are of mixed arithmetic, or a run is missing.
        """
        found = {f"{variant}-{seed}": self._signature(variant, seed) for variant in variants for seed in self.seeds}
        if not any(found.values()):
            return None
        if former := [name for name, signature in found.items() if signature is None]:
            raise InputError(
                f"runs of mixed arithmetic: {', '.join(former)} have no signature, the others have; "
                "`dvc repro` trains them anew"
            )
        signatures: dict[str, str] = {}
        for name, signature in found.items():
            if signature and signatures.setdefault(name.rpartition("-")[0], signature) != signature:
                raise InputError(
                    f"runs of mixed arithmetic: {name} has another signature than its variant's other runs"
                )
        return signatures

    def rejection(self, variant: str) -> dict[str, Any]:
        """Each seed's error among the digits that are left when some ``shares`` of them are rejected."""
        block = self.params.variant(variant)
        curves = []
        for seed in self.seeds:
            table = self._table(variant, seed)
            sure = confidence.of(table[confidence.OUTPUTS].to_numpy(), block)
            curves.append(confidence.rejection(sure, ~table["wrong"].to_numpy(), confidence.REJECTED).tolist())
        return {"shares": confidence.REJECTED.tolist(), "seeds": curves}

    def _table(self, variant: str, seed: int) -> pd.DataFrame:
        """What a run answered and whether that is ``wrong``, digits in the MNIST test file's order."""
        folder = self._folder(variant, seed)
        if Record.read(folder / "run.json").parameters != self.params.variant(variant):
            raise InputError(f"{folder}: trained with another block than params.yaml has; `dvc repro` trains it anew")
        table = readers.read(folder / "predictions.csv", readers.predictions).set_index("index").sort_index()
        return table.assign(wrong=table["answer"] != table["label"])

    def _folder(self, variant: str, seed: int) -> Path:
        """Where a run is."""
        name = f"{variant}-{seed}"
        found = [folder / name for folder in self.folders if (folder / name / "predictions.csv").exists()]
        if not found:
            places = " or ".join(map(str, self.folders))
            raise InputError(f"{name}: no evaluated run in {places}; `lenet repro {name}` makes it")
        return found[0]

    def _signature(self, variant: str, seed: int) -> str | None:
        return Record.read(self._folder(variant, seed) / "run.json").signature or None

    def describe(self, variant: str) -> dict[str, Any]:
        """A variant's misses and error of each seed, and its mean error with spread and interval."""
        wrong = self.wrong(variant)
        found = statistics.estimate(wrong)
        return {
            "seeds": {
                str(seed): {"misses": int(one.sum()), "error": float(one.mean())}
                for seed, one in zip(self.seeds, wrong, strict=True)
            },
            "count": found.digits,
            "test_error": found.error,
            "test_error_sd": found.sd,
            "low": found.low,
            "high": found.high,
        }


class Experiment(Section):
    """An experiment's params.yaml: which runs its pipeline trains, and the blocks of their variants."""

    seeds: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    train: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    variants: dict[Name, Variant]

    def result(self, answers: Answers, home: Path) -> dict[str, Any]:
        """What is published. Raises InputError where it cannot be computed from the runs."""
        raise NotImplementedError


def changed(one: Variant, other: Variant) -> set[str]:
    """The leaves in which two blocks differ, by dotted name."""
    ours, theirs = flatten(one), flatten(other)
    return {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}


def outside(leaves: set[str], parts: Sequence[str]) -> Iterator[str]:
    """Of leaves, those that are in none of the parts; a part is a leaf or a section."""
    return (leaf for leaf in sorted(leaves) if not any(f"{leaf}.".startswith(f"{part}.") for part in parts))
