"""Of an experiment with curves: variants that differ in the number of training digits alone → error by that number."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from lenet.evaluation.rounding import rounded
from lenet.experiments.experiment import Answers, Experiment, changed, outside
from lenet.params.loading import PATH
from lenet.params.schema import Params
from lenet.runtime.errors import ParamsError

PARTS = ("train_size", "epochs")


class Sizes(Experiment):
    """experiments/sizes/params.yaml: for each curve its variants, from the fewest digits to the most."""

    curves: dict[str, Annotated[tuple[str, ...], Field(strict=False, min_length=2)]]

    def result(self, answers: Answers, home: Path) -> dict[str, Any]:
        """Each curve's errors."""
        self.check(answers.params, home / PATH)
        signatures = answers.signatures(dict.fromkeys(name for names in self.curves.values() for name in names))
        variants = {
            curve: [{"train_size": answers.params.variant(name).train_size, **answers.describe(name)} for name in names]
            for curve, names in self.curves.items()
        }
        return rounded({"signatures": signatures, "variants": variants})

    def check(self, params: Params, path: Path) -> None:
        """Raise ParamsError unless the variants of a curve differ in digits and epochs alone, the digits ascending."""
        for curve, names in self.curves.items():
            blocks = [params.variant(name) for name in names]
            for name, block in zip(names, blocks, strict=True):
                if others := list(outside(changed(block, blocks[-1]), PARTS)):
                    raise ParamsError(f"{path}: {name} differs from {names[-1]} in {', '.join(others)}, too")
            if (counts := [block.train_size for block in blocks]) != sorted(set(counts)):
                raise ParamsError(f"{path}: {curve}: train_size must ascend; it is {', '.join(map(str, counts))}")
