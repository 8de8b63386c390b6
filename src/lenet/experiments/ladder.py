"""Of an experiment with chains: variants, each one step from its neighbour → what each step is worth."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lenet.evaluation.rounding import rounded
from lenet.experiments.experiment import Answers, Experiment, changed, outside
from lenet.networks import layer_table
from lenet.params.loading import PATH
from lenet.params.schema import Params, Section, Variant
from lenet.report import statistics
from lenet.runtime.errors import ParamsError

RATE = ("optimizer.lr", "optimizer.momentum")
START = ("initialisation.scale", "network.pooling.coefficient", "network.pooling.bias")


class Step(Section):
    """One change: the variant that it leads to, the change in words, and the parts of the block that it is made of."""

    to: str
    change: str
    parts: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Chain(Section):
    """Steps from a variant on."""

    start: str
    steps: Annotated[tuple[Step, ...], Field(strict=False, min_length=1)]

    @property
    def names(self) -> list[str]:
        return [self.start, *(step.to for step in self.steps)]


class Ladder(Experiment):
    """The params.yaml of a ladder: experiments/ladder, experiments/frontier."""

    chains: Annotated[tuple[Chain, ...], Field(strict=False, min_length=1)]

    def steps(self) -> list[tuple[str, Step]]:
        """Every step with the variant that it starts from."""
        return [(before, step) for one in self.chains for before, step in zip(one.names, one.steps, strict=False)]

    def result(self, answers: Answers, home: Path) -> dict[str, Any]:
        """What each step changes in the test error."""
        self.check(answers.params, home / PATH)
        names = list(dict.fromkeys(chain.from_iterable(one.names for one in self.chains)))
        signatures = answers.signatures(names)
        wrong = {name: answers.wrong(name) for name in names}
        compared = statistics.pairs(wrong, [(step.to, before) for before, step in self.steps()])
        steps = [
            {
                "from": before,
                "to": step.to,
                "change": step.change,
                "difference": found.difference.points,
                "low": found.difference.low,
                "high": found.difference.high,
                "p": found.difference.p,
                "p_adjusted": found.p_adjusted,
                "verdict": found.verdict,
            }
            for (before, step), found in zip(self.steps(), compared, strict=True)
        ]
        variants = {name: answers.describe(name) | _recipe(answers.params.variant(name)) for name in names}
        chains = [one.names for one in self.chains]
        return rounded({"chains": chains, "signatures": signatures, "variants": variants, "steps": steps})

    def check(self, params: Params, path: Path) -> None:
        """Raise ParamsError unless each step changes the parts that it states and no other.

        A rung's learning rate and momentum are its own; after a change of the activation the start is, too.
        """
        for before, step in self.steps():
            leaves = changed(params.variant(before), params.variant(step.to))
            own = (*RATE, *(START if "network.activation" in step.parts else ()))
            if others := list(outside(leaves, (*step.parts, *own))):
                raise ParamsError(f"{path}: {before} → {step.to} changes {', '.join(others)}, too; parts: {step.parts}")
            if idle := [part for part in step.parts if not leaves - set(outside(leaves, [part]))]:
                raise ParamsError(f"{path}: {before} → {step.to} changes nothing in {', '.join(idle)}")


def _recipe(variant: Variant) -> dict[str, Any]:
    """What a variant is, in short."""
    return {
        "what": layer_table.what(variant),
        "network": layer_table.totals(variant.network),
        "train_size": variant.train_size,
        "validation_size": variant.validation_size,
    }
