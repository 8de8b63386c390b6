"""``sweep`` of params.yaml as closed, frozen, default-free types."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from lenet.params.schema import Params, Section, Variant
from lenet.runtime.errors import ParamsError

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Random(Section):
    """Each value drawn by itself."""

    kind: Literal["random"]


class TPE(Section):
    """Optuna's tree-structured Parzen estimator, of all values together, after ``startup`` random trials."""

    kind: Literal["tpe"]
    startup: Count


class NoPruner(Section):
    """Each trial runs to its end."""

    kind: Literal["none"]


class MedianPruner(Section):
    """Stops a trial whose best error so far is above the median of the others' at this epoch, from ``first`` on.

    ``startup``: so many trials have to be complete before.
    """

    kind: Literal["median"]
    first: Count
    startup: Count


class HalvingPruner(Section):
    """After epochs first, first × keep, first × keep² … one in ``keep`` goes on; ``hyperband`` varies ``first``."""

    kind: Literal["successive-halving", "hyperband"]
    first: Count
    keep: Annotated[int, Field(ge=2)]


Objective = Literal["validation/error", "parameters", "multiply_accumulates"]


class Settings(Section):
    """How studies are made; all of them alike.

    Attributes:
        seed: of what is tried.
        seeds: of each trial's trainings, side by side; a trial is judged by their mean.
        trials: how many.
        batch: how many are asked for at once; they know of the batches before alone.
        objectives: what is to be small.
        sampler: who proposes.
        pruner: who stops what does not look promising.
        spaces: by variant, what is tried (space.py).
    """

    seed: Seed
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    trials: Count
    batch: Count
    objectives: Annotated[tuple[Objective, ...], Field(strict=False, min_length=1)]
    sampler: Annotated[Random | TPE, Field(discriminator="kind")]
    pruner: Annotated[NoPruner | MedianPruner | HalvingPruner, Field(discriminator="kind")]
    spaces: dict[str, dict[str, Any]]

    @model_validator(mode="after")
    def _fits_together(self) -> "Settings":
        if self.objectives[0] != "validation/error" or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                f"objectives = {list(self.objectives)}: validation/error is the first, and each stands once"
            )
        if len({*self.seeds}) < len(self.seeds):
            raise ValueError(f"seeds = {list(self.seeds)}: each stands once")
        if len(self.objectives) > 1 and self.pruner.kind != "none":
            raise ValueError(
                f"pruner.kind = {self.pruner.kind!r}: with several objectives no trial is worse than another before "
                "its end; legal with them: 'none'"
            )
        return self

    def check(self, block: Variant, variant: str) -> None:
        """Raise ParamsError unless there is something to try of a variant, and something to judge it by."""
        if variant not in self.spaces:
            legal = ", ".join(self.spaces) or "none"
            raise ParamsError(f"params.yaml: sweep.spaces has no {variant}: nothing is to be tried; it has: {legal}")
        if not block.validation_size:
            raise ParamsError(
                f"params.yaml: variants.{variant}.validation_size = 0, so there is nothing to judge trials by"
            )


def settings(params: Params) -> Settings:
    """The studies of params.yaml, all spaces checked. Raises ParamsError, one line a fault."""
    from lenet.sweep import space

    found = parse(params.sweep)
    for name, content in found.spaces.items():
        if name not in params.variants:
            legal = ", ".join(params.variants)
            raise ParamsError(f"params.yaml: sweep.spaces.{name}: there is no such variant; legal: {legal}")
        space.Space(content, name).check(params, name)
    return found


def parse(content: Mapping[str, Any]) -> Settings:
    """The settings alone, their spaces unchecked. Raises ParamsError, one line a fault."""
    try:
        return Settings.model_validate(dict(content))
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            path = ".".join(["sweep", *(str(step) for step in fault["loc"])])
            context = fault.get("ctx", {})
            legal = context.get("expected") or context.get("expected_tags")
            if fault["type"] == "missing":
                faults.append(f"{path}: missing")
            elif fault["type"] == "value_error":
                faults.append(f"{path}: {context['error']}")
            else:
                said = f"legal: {legal}" if legal else fault["msg"]
                faults.append(f"{path} = {fault['input']!r}; {said}")
        raise ParamsError("\n".join(f"params.yaml: {fault}" for fault in faults)) from None
