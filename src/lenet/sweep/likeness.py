"""A study judged by how closely its trials' errors while training follow a published curve."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from optuna.trial import TrialState, create_trial

from lenet.sweep.result import Result

LEAST = 3  # epochs that tell something


def by_likeness(result: Result, curve: Sequence[float]) -> Result:
    """The same trials with another value: the distance of their training errors from a curve.

    The distance is the mean over a trial's epochs of |ln(its error / the curve's)|: 0.1 is a tenth off on average.
    Trials that were pruned are judged by the epochs they have, those with fewer than three are left out, and all others
    count as complete.

    Args:
        result: a study, with training errors.
        curve: errors by epoch, fractions of 1.
    """
    trials = []
    for trial in result.trials:
        errors = [row["train/error"] for row in trial.user_attrs["history"]]
        if len(errors) >= LEAST:
            again = create_trial(
                state=TrialState.COMPLETE, value=distance(errors, curve), params=trial.params,
                distributions=trial.distributions, user_attrs=trial.user_attrs,
                intermediate_values=trial.intermediate_values,
            )  # fmt: skip
            again.number = trial.number
            trials.append(again)
    return replace(result, trials=trials)


def distance(errors: Sequence[float], curve: Sequence[float]) -> float:
    """The mean of |ln(error / the curve's)| over the epochs that both have; infinite where an error is 0."""
    ours, theirs = (np.asarray(each[: min(len(errors), len(curve))]) for each in (errors, curve))
    with np.errstate(divide="ignore"):
        return float(np.abs(np.log(ours / theirs)).mean())
