"""One trial, from its block to its outcome: a function of what it is given, on whatever machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna import TrialPruned
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet.digits.data import Digits
from lenet.params.schema import Variant
from lenet.pipeline import signing
from lenet.runs.record import Row
from lenet.runtime.errors import InputError
from lenet.sweep.study import Judge, Plan, objective_values, packages
from lenet.training import checkpoint
from lenet.training.fit import fit


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
    state, values = TrialState.FAIL, None

    def observe(row: Row) -> None:
        tell(row)
        rows.append(row)
        epoch, error = int(row["epoch"]), float(row["validation/error"])
        if epoch < block.epochs and judge.stops(epoch, error):
            raise TrialPruned

    try:
        block = Variant.model_validate(content)
        record = signing.identify(plan.variant, plan.run_seed, block, digits, signing.of_trial(block, digits))
        attrs["fingerprints"] = record.fingerprints
        with checkpoint.kept(f"{record.name}-trial", record.key) as checkpoints:
            try:
                start = checkpoints.latest()
                for row in start.history if start else []:
                    observe(row)
                fit(block, plan.run_seed, *digits.split(block), [observe], [checkpoints], start=start)
            except Exception:
                checkpoints.remove()
                raise
            checkpoints.remove()
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


def prove(plan: Plan, digits: Digits) -> None:
    """Raise InputError where a plan's trials would come out otherwise than where it was made."""
    if packages() != plan.packages:
        here, there = (found.get("optuna", "none") for found in (packages(), plan.packages))
        raise InputError(f"Optuna {here} is installed there, and the study is of {there}")
    if signing.of_trial(plan.example, digits) != plan.signature:
        raise InputError(
            "the code there does not compute what the study's does (signature); check out the study's commit"
        )
