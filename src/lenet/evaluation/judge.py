"""Are these the same run? What several accounts of runs say, compared: a record, files, a commit, MLflow, a rerun.

An account is what one place tells, by name: of what a run is a function (its key, data, signature, parameters) and what
came of it (weights, history, answers, metrics). What it does not name, or names None, it does not know.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from lenet.params.loading import flatten
from lenet.runs import readers
from lenet.runs.record import Record
from lenet.runtime.files import json_of
from lenet.training import fingerprint

Account = Mapping[str, Any]
DIGEST = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{16,}\b")
SHOWN = 6
"""Values shown of those that differ."""


@dataclass(frozen=True)
class Part:
    """What two accounts say of one thing.

    Attributes:
        what: its name.
        then: what the first says, in short; of values by name, only those that differ.
        here: what the second says.
        same: whether that is the same; None if one of them does not know.
        change: what differs, as ``then → here``.
        decides: whether two runs differ where it does; else it is there to be known.
    """

    what: str
    then: str
    here: str
    same: bool | None
    change: str = ""
    decides: bool = True


def differing(*accounts: Account) -> dict[str, list[Any]]:
    """What the accounts do not all say alike, by name: each account's word; None where it has none."""
    said = {name: [one.get(name) for one in accounts] for name in dict.fromkeys(n for one in accounts for n in one)}
    return {name: words for name, words in said.items() if any(word != words[0] for word in words)}


def parting(one: Sequence[Any], other: Sequence[Any]) -> int | None:
    """The first place, from 1, in which two sequences differ, or which one of them alone has."""
    for place in range(max(len(one), len(other))):
        if place >= min(len(one), len(other)) or one[place] != other[place]:
            return place + 1
    return None


def compare(then: Account, here: Account, names: Iterable[str] | None = None) -> list[Part]:
    """What two accounts say of the same things, one by one; of all that one of them names, or of these names."""
    return [_part(name, then.get(name), here.get(name)) for name in names or dict.fromkeys([*then, *here])]


def _part(what: str, then: Any, here: Any) -> Part:
    if then is None or here is None:
        return Part(what, _shown(then), _shown(here), None)
    if then == here:
        return Part(what, _shown(then), _shown(here), True)
    if not (isinstance(then, Mapping) and isinstance(here, Mapping)):
        one, other = map(_shown, _narrowed(then, here))
        return Part(what, one, other, False, f"{one} → {other}")
    rows = []
    for name, words in sorted(differing(flatten(then), flatten(here)).items()):
        one, other = ("absent" if word is None else _shown(word) for word in _narrowed(*words))
        rows.append((f"{name} {one}", f"{name} {other}", f"{name} {one} → {other}"))
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    then, here, change = (", ".join(row[column] for row in rows[:SHOWN]) + more for column in range(3))
    return Part(what, then, here, False, change)


def _narrowed(one: Any, other: Any) -> tuple[Any, Any]:
    """Of two lists the elements in the first place in which they differ; likewise in these."""
    while one != other:
        if isinstance(one, list) and isinstance(other, list):
            place = parting(one, other) or 1
            one, other = (side[place - 1] if place <= len(side) else None for side in (one, other))
        elif isinstance(one, Mapping) and isinstance(other, Mapping):
            one, other = next(iter(differing(one, other).values()))
        else:
            break
    return one, other


def _shown(word: Any) -> str:
    if word is None:
        return "unknown"
    return f"{len(word)} values" if isinstance(word, Mapping) else DIGEST.sub(r"\1", str(word))


def disagreements(account: Account, expected: Account, where: str) -> Iterator[str]:
    """A line for each thing that an account says otherwise than is expected, or does not say; lists' first difference.

    Args:
        account: what is judged. What it says beside the expected is left alone.
        expected: what is right.
        where: ends the line: where that is said.
    """
    expected = flatten(expected)
    account = {name: word for name, word in flatten(account).items() if name in expected}
    for name, words in differing(account, expected).items():
        said, right = ("missing" if word is None else word for word in _narrowed(*words))
        yield f"{name} is {said}, and {right} {where}"


def contradictions(told: Mapping[str, Account]) -> Iterator[str]:
    """A line for each thing of one run that a place tells otherwise than the first place that tells of it.

    Args:
        told: accounts of this run by the places that tell, those first that are believed.
    """
    known: dict[str, tuple[str, Any]] = {}
    for place, account in told.items():
        for name, word in account.items():
            first, right = known.setdefault(name, (place, word))
            yield from (f"{place}: {line}" for line in disagreements({name: word}, {name: right}, f"by {first}"))


def weights_told(paths: Mapping[str, Path]) -> dict[str, Account]:
    """What each file of a training, by name, tells of its weights. What it raises is of FAULTY (runtime/files.py)."""
    rows = readers.history(paths["history.csv"].read_bytes())
    digest = fingerprint.tensors_sha256(load_file(paths["weights.safetensors"]))
    told = {
        "weights.safetensors": digest,
        "run.json": json_of(paths["run.json"].read_bytes())["run"][readers.WEIGHTS],
        "history.csv": rows.iloc[-1].get(readers.WEIGHTS, digest),
    }
    return {file: {readers.WEIGHTS: word} for file, word in told.items()}


def files(
    name: str, record: Record | None = None, history: pd.DataFrame | None = None, metrics: Account | None = None,
    predictions: pd.DataFrame | None = None, missed: Mapping[int, np.ndarray] | None = None,
) -> dict[str, Account]:  # fmt: skip
    """What each file of a run tells, by names as in its metrics file; None: could not be read, or there is none."""
    found: dict[str, Account] = {}
    if record:
        block = {"name": record.name, "variant": record.variant, "parameters": record.parameters.model_dump()}
        found["run.json"] = {f"run.{part}": digest for part, digest in record.fingerprints.items()} | block
    if history is not None:
        columns = {name.replace("/", "."): cells.iloc[-1] for name, cells in history.items() if "validation/" in name}
        weights = {f"run.{readers.WEIGHTS}": history[readers.WEIGHTS].iloc[-1]} if readers.WEIGHTS in history else {}
        found["history.csv"] = columns | weights
    if predictions is not None:
        from lenet.evaluation import scoring  # Numba, which who reads no answers does not need

        wrong = predictions.loc[predictions["answer"] != predictions["label"], "index"].tolist()
        found["predictions.csv"] = {
            "test.misses": len(wrong),
            "test.count": len(predictions),
            "test.error": len(wrong) / len(predictions),
            "test.answers.sha256": scoring.answers_sha256(predictions.sort_values("index")["answer"].to_numpy()),
            "missed": wrong,
        }
    if missed is not None:
        found["missed.safetensors"] = {"missed": [*missed]}
    if metrics:
        found[f"metrics/{name}.json"] = flatten({part: metrics.get(part, {}) for part in ("run", "validation", "test")})
    return found
