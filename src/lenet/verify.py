"""Is what was computed what a commit says?

Where the numerics canary equals the recorded one, bits are promised: dvc.lock, parsed (the order of its entries
varies), and every metrics file must be equal. Elsewhere the data must be equal bit for bit, and each variant's misses
must lie within what its seeds' spread allows.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from ruamel.yaml import YAML
from scipy import stats

from lenet.config import Params
from lenet.errors import InputError

METRICS = Path("metrics")
DATA_STAGES = frozenset({"fetch", "prepare"})
CONFIDENCE = 0.99


@dataclass(frozen=True)
class Verdict:
    """Whether one thing is the same, and how that was judged."""

    name: str
    same: bool
    how: str


def verify(params: Params, revision: str, folder: Path, names: Sequence[str] = ()) -> list[Verdict]:
    """Judge a project's dvc.lock and metrics against those of a Git revision.

    Args:
        params: what is compared.
        revision: of the repository that this process works in.
        folder: the project that has computed.
        names: runs, as ``<variant>-<seed>``, if not all of it is to be judged.

    Raises:
        InputError: the revision or one of its files is missing, or nothing has been computed in ``folder``.
    """
    runs = check_names(params, names)
    if new := [name for name in runs if not _is_at(revision, METRICS / f"{name}.json")]:
        raise InputError(f"{', '.join(new)}: not published at {revision}; name the runs that are to be judged")
    before = {name: json.loads(_at(revision, METRICS / f"{name}.json")) for name in runs}
    after = {name: json.loads(_here(folder / METRICS / f"{name}.json")) for name in runs}
    locks = [_stages(text) for text in (_at(revision, Path("dvc.lock")), _here(folder / "dvc.lock"))]
    if names:
        wanted = DATA_STAGES.union(*({f"train@{name}", f"evaluate@{name}"} for name in names))
        locks = [{name: stage for name, stage in lock.items() if name in wanted} for lock in locks]
    if all(before[name]["run"]["canary"] == after[name]["run"]["canary"] for name in runs):
        return judge_bits(*locks) + judge_bits(
            {f"metrics/{name}.json": before[name] for name in runs},
            {f"metrics/{name}.json": after[name] for name in runs},
        )
    data = [{name: lock.get(name) for name in DATA_STAGES} for lock in locks]
    spread = []
    for variant in dict.fromkeys(variant for variant, _ in runs.values()):
        misses = (
            [by[name]["test"]["misses"] for name, (of, _) in runs.items() if of == variant] for by in (before, after)
        )
        spread.append(judge_spread(variant, *misses))
    return judge_bits(*data) + spread


def check_names(params: Params, names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Variant and seed of these runs, or of all compared ones. Raises InputError for one that is not compared."""
    runs = {f"{variant}-{seed}": (variant, seed) for variant, seed in params.runs()}
    if unknown := [name for name in names if name not in runs]:
        raise InputError(f"{', '.join(unknown)}: not compared; legal: {', '.join(runs)}")
    return {name: run for name, run in runs.items() if name in (names or runs)}


def judge_bits(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Verdict]:
    """Equal, name by name; what only one side has is not."""
    return [
        Verdict(name, name in before and name in after and before[name] == after[name], "bitwise")
        for name in sorted({*before, *after})
    ]


def judge_spread(variant: str, before: Sequence[int], after: Sequence[int], seeds: Sequence[int] = ()) -> Verdict:
    """Within noise: the means differ by less than 2.58 standard errors (1 % level, normal).

    A side's variance is that of its seeds (where it is a single run: of ``seeds``), but at least its mean: what
    counting rare misses alone gives, so that few seeds that happen to agree do not make the judge too strict.
    """
    means, variances = [np.mean(misses) for misses in (before, after)], []
    for misses in (before, after):
        spread = misses if len(misses) > 1 else seeds
        sample = np.var(spread, ddof=1) if len(spread) > 1 else 0.0
        variances.append(max(float(sample), float(np.mean(misses))) / len(misses))
    limit = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * sum(variances) ** 0.5
    gap = float(abs(means[0] - means[1]))
    how = f"mean misses {means[0]:.1f} → {means[1]:.1f}, {gap:.1f} apart, at most {limit:.1f}"
    return Verdict(variant, gap <= limit, how)


def table(verdicts: list[Verdict]) -> Table:
    """The verdicts for a terminal."""
    view = Table("stage or file", "same", "judged")
    for verdict in verdicts:
        view.add_row(verdict.name, "yes" if verdict.same else "[red]NO[/red]", verdict.how)
    return view


def _is_at(revision: str, path: Path) -> bool:
    return bool(_git("ls-tree", revision, str(path)))


def _at(revision: str, path: Path) -> str:
    return _git("show", f"{revision}:./{path}")


def _git(*words: str) -> str:
    found = subprocess.run(["git", *words], capture_output=True, text=True)
    if found.returncode:
        raise InputError(f"git {' '.join(words)}: {' '.join(found.stderr.split())}")
    return found.stdout


def _here(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; `make repro` makes it") from None


def _stages(text: str) -> dict[str, Any]:
    return YAML(typ="safe").load(text)["stages"]
