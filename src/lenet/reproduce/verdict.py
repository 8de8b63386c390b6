"""How much a rerun has in common with its run, where the two part, and what differs in what they were made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lenet.evaluation import judge
from lenet.evaluation.judge import Account, Part
from lenet.reproduce.evidence import FORMER, Outcome
from lenet.runtime.errors import InputError

GRADES = ("bitwise", "predictions", "metrics", "within-noise", "different")
"""The best first: the same weights, bit for bit; the same answers to all test digits; the same metrics as printed;
misses as far apart as those of the variant's seeds; none of these."""
PRINTED = ".4g"
ERRORS = 2.58
"""Standard errors within which a difference is noise: the 1 % level, normal."""
BROKEN = "Something is broken: the machine, a library in a way that the conformance check does not see, or this project"


@dataclass(frozen=True)
class Cause:
    """What differs between the inputs of a run and of its rerun.

    Attributes:
        kind: data, code, parameters or conformance; ``broken`` where bits have to be the same and are not; ``former``
            of a run from before signatures; ``unknown`` where nothing known differs.
        detail: what exactly.
    """

    kind: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What a rerun has shown.

    Attributes:
        grade: one of GRADES.
        how: how it was found.
        stages: what prepare, train and evaluate made then, and have made again.
        step: the first step whose loss differs, as (epoch, step), both from 1; None if none does, or it is not known.
        epoch: the first epoch, from 1, after which the weights differ; None likewise.
        causes: what differs in the inputs.
    """

    grade: str
    how: str
    stages: Sequence[Part]
    step: tuple[int, int] | None
    epoch: int | None
    causes: Sequence[Cause]

    @property
    def summary(self) -> str:
        """One line."""
        parts = [f"{self.grade}: {self.how}"]
        if self.grade != "bitwise":
            parts.append(self.parting)
            parts.append("; ".join(f"{cause.kind}: {cause.detail}" for cause in self.causes))
        return ". ".join(part for part in parts if part)

    @property
    def parting(self) -> str:
        """Where the two part, in words."""
        where = f"the loss of step {self.step[1]} in epoch {self.step[0]}" if self.step else ""
        after = f"the weights after epoch {self.epoch}" if self.epoch else ""
        found = " and ".join(part for part in (where, after) if part)
        return f"first to differ: {found}" if found else "where they diverge is unknown"


def judge_rerun(then: tuple[Account, Outcome], now: tuple[Account, Outcome], misses_of_seeds: Sequence[int]) -> Verdict:
    """Compare a rerun with its run.

    Args:
        then: what the run was made of, and what came of it.
        now: the same of the rerun.
        misses_of_seeds: the test misses of the variant's published seeds, for the spread.

    Raises:
        InputError: the same weights, and something else that follows from the same training is not the same.
    """
    (inputs, before), (new_inputs, after) = then, now
    stages = _stages(inputs, before, new_inputs, after)
    epoch = judge.parting(before.epochs, after.epochs) if before.epochs and after.epochs else None
    grade, how = _grade(before, after, misses_of_seeds)
    differing = [*causes(inputs, new_inputs)] if grade != "bitwise" else []
    found = Verdict(grade, how, stages, first_step(before, after), epoch, differing)
    if grade == "bitwise" and (found.step or found.epoch or stages[2].same is False):
        evaluated = f"what evaluate made: {stages[2].change}"
        other = found.parting.removeprefix("first to differ: ") if found.step or found.epoch else evaluated
        raise InputError(f"the weights are the same, bit for bit, but not {other}: one of the two was not computed")
    return found


def _stages(inputs: Account, before: Outcome, new_inputs: Account, after: Outcome) -> list[Part]:
    """What the stages have made, as far as both sides know it; equal misses alone are not yet the same answers."""
    known = [name for name in ("misses", "answers") if None not in (getattr(before, name), getattr(after, name))]
    sides = [
        {
            "prepare": given.get("data"),
            "train": outcome.weights,
            "evaluate": ", ".join(f"{name} {getattr(outcome, name)}" for name in known) or None,
        }
        for given, outcome in ((inputs, before), (new_inputs, after))
    ]
    *others, tested = judge.compare(*sides)
    return [*others, tested if "answers" in known or not tested.same else replace(tested, same=None)]


def _grade(before: Outcome, after: Outcome, misses_of_seeds: Sequence[int]) -> tuple[str, str]:
    if before.weights == after.weights:
        return "bitwise", "the weights are the same, bit for bit"
    if before.answers is not None and before.answers == after.answers:
        return "predictions", "different weights, but the same answer to every test digit"
    if same_as_printed(before.numbers, after.numbers):
        return "metrics", "different weights, but the same metrics to four digits"
    if before.misses is None or after.misses is None:
        return "different", "different weights, and the test misses of one of the two are unknown"
    spread = float(np.var(misses_of_seeds, ddof=1)) if len(misses_of_seeds) > 1 else 0.0
    # at least what counting rare misses alone gives, so that few seeds that happen to agree make it not too strict
    limit = ERRORS * (max(spread, before.misses) + max(spread, after.misses)) ** 0.5
    gap = abs(before.misses - after.misses)
    how = f"different weights; misses {before.misses} → {after.misses}, {gap} apart, at most {limit:.1f}"
    return ("within-noise" if gap <= limit else "different"), how


def same_as_printed(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Whether all metrics that both have are the same to four digits; the test misses have to be among them."""
    shared = before.keys() & after.keys()
    return "test/misses" in shared and all(f"{before[n]:{PRINTED}}" == f"{after[n]:{PRINTED}}" for n in shared)


def first_step(before: Outcome, after: Outcome) -> tuple[int, int] | None:
    """The first step, as (epoch, step) from 1, whose losses' bits differ."""
    if before.losses is None or after.losses is None:
        return None
    losses = before.losses.tolist(), after.losses.tolist()
    if not (epoch := judge.parting(*losses)):
        return None
    return epoch, judge.parting(*(side[epoch - 1] if epoch <= len(side) else [] for side in losses)) or 1


def causes(then: Account, now: Account) -> Iterator[Cause]:
    """What differs between the inputs of two runs of other weights. What is not known of one side is not compared."""
    changes = {part.what: part.change for part in judge.compare(then, now) if part.same is False}
    if then.get("signature") is None:
        said = (f"{name} {change}" for name, change in changes.items() if name != "key")
        differing = "; ".join(said) or "nothing known differs"
        yield Cause("former", f"{FORMER}; {differing}")
        return
    found = _causes(changes)
    yield from (Cause(kind, detail) for kind, detail in found.items())
    if not found and "key" in changes:
        yield Cause("unknown", "run.key differs, but nothing that is known of its parts does")
    elif not found:
        yield Cause("broken", f"run.key is the same, so the weights have to be, on every machine. {BROKEN}")


def _causes(changes: Mapping[str, str]) -> dict[str, str]:
    """A signature is of code, block and training digits: where these differ, sources tell whether the code does."""
    code, signature = changes.get("code"), changes.get("signature")
    said = f"other sources, whose change the signature does not see: {code}" if code else ""
    if signature and (code or not changes.keys() & {"data", "parameters"}):
        said = f"it computes something else: signature {signature}" + (f", source.sha256 {code}" if code else "")
    found = {name: changes.get(name, "") for name in ("data", "code", "parameters", "conformance")} | {"code": said}
    return {name: detail for name, detail in found.items() if detail}
