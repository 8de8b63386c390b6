"""What is published in Git of each variant: its block and its seeds' metrics, of the root and of the experiments."""

import re
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lenet.params.schema import Params, Variant
from lenet.runs import readers, stale
from lenet.runtime import layout
from lenet.training import fingerprint


@dataclass(frozen=True)
class Published:
    """A variant's published runs.

    Attributes:
        name: the variant's.
        block: its parameters.
        home: the folder whose ``metrics`` has them, relative to the project: ``.`` or an experiment's.
        runs: the content of each seed's metrics file, by seed.
    """

    name: str
    block: Variant
    home: Path
    runs: dict[int, dict[str, Any]]

    @property
    def first(self) -> dict[str, Any]:
        """The first seed's metrics, for what all seeds have in common."""
        return next(iter(self.runs.values()))

    @property
    def is_former(self) -> bool:
        """Whether a run is of before signatures: its bits are those of one kind of processor."""
        return any(stale.is_stale(run["run"]) for run in self.runs.values())

    @property
    def is_of_other_settings(self) -> bool:
        """Whether params.yaml has been edited since; of runs from before signatures that cannot be told."""
        return any(
            fingerprint.run_key(self.block, seed, run["data.sha256"], run["signature"]) != run["key"]
            for seed, run in ((seed, found["run"]) for seed, found in self.runs.items())
            if not stale.is_stale(run)
        )

    @property
    def numbers(self) -> dict[str, Any]:
        """As ``results_table.cells`` takes them: errors are fractions of 1, their spread the sample's (n − 1)."""
        errors = [run["test"]["error"] for run in self.runs.values()]
        found = {
            "seeds": {str(seed): run["test"] for seed, run in self.runs.items()},
            "test_error": fmean(errors),
            "test_error_sd": stdev(errors) if len(errors) > 1 else None,
            "network": self.first["network"],
        }
        validation = self.mean("validation", "error")
        return found if validation is None else found | {"validation_error": validation}

    def mean(self, *path: str) -> float | None:
        """The mean over seeds of a number in the metrics files; None if one of them has not got it."""
        values = []
        for run in self.runs.values():
            value: Any = run
            for key in path:
                value = value.get(key) if isinstance(value, dict) else None
            values.append(value)
        return None if None in values else fmean(values)


def published(params: Params, project: Path = Path()) -> dict[str, Published]:
    """All variants with published runs, by name, in the order of the files of parameters.

    Raises InputError for a damaged file.
    """
    found: dict[str, Published] = {}
    for name, block in params.variants.items():
        for home in layout.homes(project):
            paths = {
                int(seed[1]): path
                for path in (home / layout.METRICS).glob(f"{name}-*.json")
                if (seed := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.stem))
            }
            if paths and name not in found:
                runs = {seed: readers.read(paths[seed], readers.metrics) for seed in sorted(paths)}
                found[name] = Published(name, block, home.relative_to(project), runs)
    return found
