"""What the report shows of experiments, from the results that they have published in Git."""

import json
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, reason


class _Part(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class Misses(_Part):
    """One seed's."""

    misses: int
    error: float


class Rung(_Part):
    """One variant of the ladder; errors are fractions of 1, spread and interval None for one seed."""

    seeds: dict[str, Misses]
    test_error: float
    test_error_sd: float | None
    low: float | None
    high: float | None
    what: str


class Recipe(Rung):
    """One variant of the frontier's chain, with what tells how far it can be compared."""

    network: dict[str, int]
    train_size: int
    validation_size: int


class Step(_Part):
    """One change; ``difference`` is negative where the error falls."""

    before: str = Field(alias="from")
    after: str = Field(alias="to")
    change: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None
    verdict: str


class Result(_Part):
    """What all have: each variant's signature. Files of the former arithmetic have none."""

    signatures: dict[str, str] | None = None


class Ladder(Result):
    """experiments/ladder/result.json: chains of variants, each one change from the one before."""

    chains: list[list[str]]
    variants: dict[str, Rung]
    steps: list[Step]


class Frontier(Ladder):
    """experiments/frontier/result.json: one chain, from old to new."""

    variants: dict[str, Recipe]  # type: ignore[assignment]


class Size(_Part):
    """A variant trained with so many digits."""

    train_size: int = Field(gt=0)
    seeds: dict[str, Misses]
    test_error: float
    test_error_sd: float | None
    low: float | None
    high: float | None


class Sizes(Result):
    """experiments/sizes/result.json: each variant with more and more training digits."""

    variants: dict[str, list[Size]]


def ladder(path: Path) -> dict[str, Any] | None:
    """Read experiments/ladder/result.json; None where there is none. Raises InputError for a faulty file."""
    return _chains(path, Ladder)


def frontier(path: Path) -> dict[str, Any] | None:
    """Read experiments/frontier/result.json; None where there is none. Raises InputError for a faulty file."""
    return _chains(path, Frontier)


def _chains(path: Path, kind: type[Ladder]) -> dict[str, Any] | None:
    found = _read(path, kind)
    if found:
        told = {name for chain in found["chains"] for name in chain}
        told |= {step[end] for step in found["steps"] for end in ("from", "to")}
        if unknown := sorted(told - set(found["variants"])):
            raise InputError(f"{path}: no variant {', '.join(unknown)} in it; `make {path.parent.name}` makes it anew")
    return found


def sizes(path: Path) -> dict[str, Any] | None:
    """Read experiments/sizes/result.json; None where there is none. Raises InputError for a faulty file."""
    return _read(path, Sizes)


def _read(path: Path, kind: type[BaseModel]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        return kind.model_validate(content).model_dump(by_alias=True)
    except FAULTY as error:
        raise InputError(f"{path}: {reason(error)}; `make {path.parent.name}` makes it anew") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
