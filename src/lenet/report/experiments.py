"""What the report shows of experiments, from the results that they have published in Git."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lenet.runtime.files import json_of, reading


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


class Size(_Part):
    """A variant trained with so many digits."""

    train_size: int = Field(gt=0)
    seeds: dict[str, Misses]
    test_error: float
    test_error_sd: float | None
    low: float | None
    high: float | None


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

    @model_validator(mode="after")
    def _whole(self) -> "Ladder":
        told = {name for chain in self.chains for name in chain}
        told |= {name for step in self.steps for name in (step.before, step.after)}
        if unknown := sorted(told - set(self.variants)):
            raise ValueError(f"no variant {', '.join(unknown)} in it")
        return self


class Frontier(Ladder):
    """experiments/frontier/result.json: one chain, from old to new."""

    variants: dict[str, Recipe]  # type: ignore[assignment]


class Sizes(Result):
    """experiments/sizes/result.json: each variant with more and more training digits."""

    variants: dict[str, list[Size]]


KINDS: dict[str, type[Result]] = {"ladder": Ladder, "frontier": Frontier, "sizes": Sizes}


def read(beside: Path, name: str) -> dict[str, Any] | None:
    """An experiment's result from its folder; None where there is none. Raises InputError for a faulty file.

    Args:
        beside: the folder of the experiments.
        name: of KINDS.
    """
    path = beside / name / "result.json"
    if not path.exists():
        return None
    with reading(path):
        return KINDS[name].model_validate(json_of(path.read_bytes())).model_dump(by_alias=True)
