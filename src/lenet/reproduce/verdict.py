"""How much a rerun has in common with its run, where the two part, and what differs in what they were made of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lenet.reproduce.evidence import Inputs, Outcome
from lenet.reproduce.verify import judge_spread
from lenet.runtime.errors import InputError

GRADES = ("bitwise", "predictions", "metrics", "within-noise", "different")
"""The best first: the same weights, bit for bit; the same answers to all test digits; the same metrics as printed;
misses as far apart as those of the variant's seeds; none of these."""
PRINTED = ".4g"
RIGHT = "right"
"""What a run's tag ``conformance`` says where every operation is as the arithmetic needs it."""
BROKEN = "Something is broken: the machine, a library in a way that the conformance check does not see, or this project"


@dataclass(frozen=True)
class Stage:
    """What one stage made again.

    Attributes:
        name: the stage.
        reproduced: what came out, in short.
        same: whether it is what came out then; None if that is not known.
        note: how they differ.
    """

    name: str
    reproduced: str
    same: bool | None
    note: str = ""


@dataclass(frozen=True)
class Cause:
    """What differs between the inputs of a run and of its rerun.

    Attributes:
        kind: data, code, parameters or conformance; ``broken`` where bits have to be the same and are not; of runs from
            before signatures also environment, threads or hardware; ``unknown`` where nothing known differs.
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
        stages: prepare, train and evaluate.
        step: the first step whose loss differs, as (epoch, step), both from 1; None if none does, or it is not known.
        epoch: the first epoch, from 1, after which the weights differ; None likewise.
        causes: what differs in the inputs.
    """

    grade: str
    how: str
    stages: Sequence[Stage]
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


def judge(then: tuple[Inputs, Outcome], now: tuple[Inputs, Outcome], misses_of_seeds: Sequence[int]) -> Verdict:
    """Compare a rerun with its run.

    Args:
        then: what the run was made of, and what came of it.
        now: the same of the rerun.
        misses_of_seeds: the test misses of the variant's published seeds, for the spread.

    Raises:
        InputError: the same weights, and something else that follows from the same training is not the same.
    """
    (inputs, before), (new_inputs, after) = then, now
    if before.weights == after.weights and (contradiction := contradictory(before, after)):
        raise InputError(f"the weights are the same, bit for bit, but {contradiction}: one of the two was not computed")
    grade, how = _grade(before, after, misses_of_seeds)
    step, epoch = first_step(before, after), first_epoch(before, after)
    causes = [] if grade == "bitwise" else list(differences(inputs, new_inputs))
    if grade != "bitwise" and not causes:
        causes = [_unexplained(inputs, new_inputs)]
    return Verdict(grade, how, [*_stages(inputs, before, new_inputs, after)], step, epoch, causes)


def contradictory(before: Outcome, after: Outcome) -> str:
    """Of two trainings with the same weights, what is not the same; empty where all that is known is."""
    if (step := first_step(before, after)) is not None:
        return f"the loss of step {step[1]} in epoch {step[0]} is not"
    if (epoch := first_epoch(before, after)) is not None:
        return f"the weights after epoch {epoch} are not"
    if before.answers is not None and after.answers is not None and before.answers != after.answers:
        return "the answers to the test digits are not"
    if before.misses is not None and after.misses is not None and before.misses != after.misses:
        return f"the test misses are not: {before.misses} then, {after.misses} now"
    return ""


def _grade(before: Outcome, after: Outcome, misses_of_seeds: Sequence[int]) -> tuple[str, str]:
    if before.weights == after.weights:
        return "bitwise", "the weights are the same, bit for bit"
    if before.answers is not None and before.answers == after.answers:
        return "predictions", "different weights, but the same answer to every test digit"
    if same_as_printed(before.numbers, after.numbers):
        return "metrics", "different weights, but the same metrics to four digits"
    if before.misses is None or after.misses is None:
        return "different", "different weights, and the test misses of one of the two are unknown"
    spread = judge_spread("", [before.misses], [after.misses], misses_of_seeds)
    if spread.same:
        return "within-noise", f"different weights; {spread.how}"
    return "different", spread.how


def same_as_printed(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    """Whether all metrics that both have are the same to four digits; the test misses have to be among them."""
    shared = before.keys() & after.keys()
    return "test/misses" in shared and all(f"{before[n]:{PRINTED}}" == f"{after[n]:{PRINTED}}" for n in shared)


def first_step(before: Outcome, after: Outcome) -> tuple[int, int] | None:
    """The first step, as (epoch, step) from 1, whose losses' bits differ."""
    if before.losses is None or after.losses is None:
        return None
    if before.losses.shape[1] != after.losses.shape[1]:
        return 1, 1
    epochs = min(len(before.losses), len(after.losses))
    places = np.argwhere(before.losses[:epochs] != after.losses[:epochs])
    return (int(places[0][0]) + 1, int(places[0][1]) + 1) if len(places) else None


def first_epoch(before: Outcome, after: Outcome) -> int | None:
    """The first epoch, from 1, after which the weights differ."""
    pairs = zip(before.epochs, after.epochs, strict=False)
    return next((epoch for epoch, (one, other) in enumerate(pairs, 1) if one != other), None)


def differences(then: Inputs, now: Inputs) -> Iterator[Cause]:
    """What differs between inputs, class by class. What is not known of one side is not compared."""
    if _differ(then.data, now.data):
        yield Cause("data", f"other digits: data.sha256 {_short(then.data)} → {_short(now.data)}")
    yield from (_code if then.portable else _older_code)(then, now)
    if changed := _changed_parameters(then, now):
        yield Cause("parameters", changed)
    yield from (_conformance if then.portable else _machine)(then, now)


def _code(then: Inputs, now: Inputs) -> Iterator[Cause]:
    """A signature is of code, block and training digits: where these differ, sources tell whether the code does."""
    sources = f"source.sha256 {_short(then.source)} → {_short(now.source)}"
    others = _differ(then.source, now.source)
    if others and not _differ(then.signature, now.signature):
        yield Cause("code", f"other sources, whose change the signature does not see: {sources}")
    elif others:
        signatures = f"signature {_short(then.signature)} → {_short(now.signature)}"
        yield Cause("code", f"it computes something else: {signatures}, {sources}")
    elif _differ(then.signature, now.signature) and not (
        _differ(then.data, now.data) or _changed_parameters(then, now)
    ):
        yield Cause("code", f"it computes something else: signature {_short(then.signature)} → {_short(now.signature)}")


def _conformance(then: Inputs, now: Inputs) -> Iterator[Cause]:
    for when, side in (("then", then), ("here", now)):
        if side.conformance not in (None, RIGHT):
            yield Cause("conformance", f"off {when}: {side.conformance}")


def _older_code(then: Inputs, now: Inputs) -> Iterator[Cause]:
    if _differ(then.source, now.source) and not _differ(then.threads, now.threads):  # which stood in a source file
        yield Cause("code", f"other source modules: source.sha256 {_short(then.source)} → {_short(now.source)}")


def _machine(then: Inputs, now: Inputs) -> Iterator[Cause]:
    """What the bits of older runs also depended on."""
    threads = _differ(then.threads, now.threads)
    packages = _changed(then.packages, now.packages) if then.packages and now.packages else ""
    if packages or _differ(then.build, now.build):
        yield Cause("environment", packages or f"another build of torch: {then.build} → {now.build}")
    if threads:
        yield Cause("threads", f"{then.threads} → {now.threads}")
    explained = packages or threads or _differ(then.build, now.build)
    if _differ(then.canary, now.canary) and not explained:
        if _differ(then.processor, now.processor):
            yield Cause("hardware", f"another instruction set: {then.processor} → {now.processor}")
        elif then.processor and then.build:
            yield Cause("environment", "the same packages compute otherwise: another build, or settings of it")
        else:
            yield Cause("hardware", "another processor or build: the canary differs")


def _unexplained(then: Inputs, now: Inputs) -> Cause:
    """Other weights, and no input that is known differs."""
    if _differ(then.key, now.key):
        return Cause("unknown", "run.key differs, but nothing that is known of its parts does")
    if then.portable:
        return Cause("broken", f"run.key is the same, so the weights have to be, on every machine. {BROKEN}")
    return Cause("unknown", "run.key is the same, and nothing that is known of its parts differs")


def _changed_parameters(then: Inputs, now: Inputs) -> str:
    return _changed(then.parameters, now.parameters) if then.parameters and now.parameters else ""


def _stages(inputs: Inputs, before: Outcome, new_inputs: Inputs, after: Outcome) -> Iterator[Stage]:
    def stage(name: str, what: str, one: Any, other: Any, note: str = "") -> Stage:
        same = None if one is None or other is None else one == other
        return Stage(name, f"{what} {_short(other)}", same, note if same is False else "")

    yield stage("prepare", "data.sha256", inputs.data, new_inputs.data)
    yield stage("train", "weights.sha256", before.weights, after.weights)
    tested = stage("evaluate", "answers.sha256", before.answers, after.answers)
    misses = f"test misses {before.misses} → {after.misses}"
    yield Stage("evaluate", f"{after.misses} misses, {tested.reproduced}", tested.same, "" if tested.same else misses)


def _changed(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    names = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    return ", ".join(f"{name} {then.get(name, 'absent')} → {now.get(name, 'absent')}" for name in names)


def _differ(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one != other


def _short(digest: Any) -> str:
    return "unknown" if digest is None else str(digest)[:12]
