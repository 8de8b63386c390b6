"""One trial, from its block to its outcome: a function of what it is given, on whatever machine."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from math import fsum
from typing import Any

from optuna import TrialPruned
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet.digits.data import Digits
from lenet.params.schema import Variant
from lenet.pipeline import signing
from lenet.runs.record import Record, Row
from lenet.runtime.errors import InputError
from lenet.sweep.study import Judge, Plan, objective_values, packages
from lenet.training import checkpoint
from lenet.training.fast_module import Training
from lenet.training.fit import fit_all


def execute(
    digits: Digits, tell: Callable[[Row], None], plan: Plan, number: int, content: Mapping[str, Any],
    before: Sequence[FrozenTrial],
) -> FrozenTrial:  # fmt: skip
    """Train a trial, from its checkpoint if there is one; what comes of it.

    Args:
        digits: all training digits.
        tell: called with each row.
        plan: the study's.
        number: the trial's.
        content: its block.
        before: all trials of the batches before its own, in order.
    """
    judge, rows, attrs = Judge(plan, before, number), list[Row](), dict[str, Any]()
    state, values, latest = TrialState.FAIL, None, list[Row]()

    def observe(row: Row) -> None:
        """Of one seed; an epoch is judged when all seeds have come to its end."""
        latest.append(row)
        if len(latest) < len(plan.seeds):
            return
        rows.append(mean(latest))
        latest.clear()
        tell(rows[-1])
        epoch, error = int(rows[-1]["epoch"]), float(rows[-1]["validation/error"])
        if epoch < block.epochs and judge.stops(epoch, error):
            raise TrialPruned

    try:
        block = Variant.model_validate(content)
        signed = signing.of_trial(block, digits)
        records = [signing.identify(plan.variant, seed, block, digits, signed) for seed in plan.seeds]
        attrs["fingerprints"] = {**records[0].fingerprints, "key": " ".join(record.key for record in records)}
        _train(records, digits, observe)
        state, values = TrialState.COMPLETE, objective_values(plan.objectives, block, rows)
    except TrialPruned:
        state, values = TrialState.PRUNED, [float(rows[-1]["validation/error"])]
    except OSError:  # a full disk is no fault of the trial
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or [""])[0]
        attrs["reason"] = said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"
    attrs |= {"history": rows} if rows else {}
    return create_trial(state=state, values=values, user_attrs=attrs, system_attrs=judge.rungs)


def _train(records: Sequence[Record], digits: Digits, observe: Callable[[Row], None]) -> None:
    """Train a trial's seeds side by side, from their checkpoints if all of these are of one moment."""
    block, trainings = records[0].parameters, []
    train, validation = digits.split(block)
    with ExitStack() as stack:
        kept = [stack.enter_context(checkpoint.kept(f"{r.name}-trial", r.key, r.seed)) for r in records]
        starts = [checkpoints.latest() for checkpoints in kept]
        if len({start and (start.epoch, start.step) for start in starts}) > 1:
            starts = [None] * len(records)
        trainings = [
            Training(block, record.seed, len(train), [observe], start)
            for record, start in zip(records, starts, strict=True)
        ]
        try:
            for rows in zip(*(training.history for training in trainings), strict=True):
                for row in rows:
                    observe(row)
            for training in fit_all(block, trainings, train, validation, kept):
                if training.fault:
                    raise training.fault
        finally:
            error = sys.exception()
            if error is None or isinstance(error, Exception):  # else it is interrupted, and goes on some time
                for checkpoints in kept:
                    checkpoints.remove()


def mean(rows: Sequence[Row]) -> Row:
    """The mean of several seeds' rows of an epoch; of one seed its row."""
    if len(rows) == 1:
        return rows[0]
    floats = [name for name, value in rows[0].items() if isinstance(value, float)]
    return {"epoch": rows[0]["epoch"]} | {name: fsum(float(row[name]) for row in rows) / len(rows) for name in floats}


def prove(plan: Plan, digits: Digits) -> None:
    """Raise InputError where a plan's trials would come out otherwise than where it was made."""
    if packages() != plan.packages:
        here, there = (found.get("optuna", "none") for found in (packages(), plan.packages))
        raise InputError(f"Optuna {here} is installed there, and the study is of {there}")
    if signing.of_trial(plan.example, digits) != plan.signature:
        raise InputError(
            "the code there does not compute what the study's does (signature); check out the study's commit"
        )
