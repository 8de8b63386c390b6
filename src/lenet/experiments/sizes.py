"""Job sizes: variants that differ in the number of training digits alone → error against that number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lenet.evaluation.rounding import rounded
from lenet.experiments.experiment import Answers, Experiment, changed, load, outside
from lenet.params.schema import Params
from lenet.runtime import processes
from lenet.runtime.errors import ParamsError
from lenet.runtime.files import write_json

PARTS = ("train_size", "epochs")


class Sizes(Experiment):
    """experiments/sizes/params.yaml: for each curve its variants, from the fewest digits to the most."""

    curves: dict[str, Annotated[tuple[str, ...], Field(strict=False, min_length=2)]]


def publish(params: Params, path: Path, folders: Sequence[Path], out: Path) -> None:
    """Write each curve's errors. The arguments are those of ladder.py's.

    Raises InputError if a run is missing or faulty, runs are of mixed arithmetic, or a curve's variants differ in more
    than digits and epochs.
    """
    sizes = load(Sizes, path)
    check(params, sizes, path)
    answers = Answers(params, folders, sizes.seeds)
    signatures = answers.signatures(dict.fromkeys(name for names in sizes.curves.values() for name in names))
    variants = {
        curve: [{"train_size": params.variant(name).train_size, **answers.describe(name)} for name in names]
        for curve, names in sizes.curves.items()
    }
    processes.check()
    write_json(out, rounded({"signatures": signatures, "variants": variants}))


def check(params: Params, sizes: Sizes, path: Path) -> None:
    """Raise ParamsError unless the variants of a curve differ in digits and epochs alone, the digits ascending."""
    for curve, names in sizes.curves.items():
        blocks = [params.variant(name) for name in names]
        for name, block in zip(names, blocks, strict=True):
            if others := list(outside(changed(block, blocks[-1]), PARTS)):
                raise ParamsError(f"{path}: {name} differs from {names[-1]} in {', '.join(others)}, too")
        if (counts := [block.train_size for block in blocks]) != sorted(set(counts)):
            raise ParamsError(f"{path}: {curve}: train_size must ascend; it is {', '.join(map(str, counts))}")
