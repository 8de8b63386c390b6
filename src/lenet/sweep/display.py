"""What a study shows while it runs: a line for each trial that has ended."""

import sys
import time
from collections import Counter
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from lenet.sweep.study import STATES


class Display:
    """Of a study of so many trials; called with all of them now and then."""

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self.began = time.monotonic()
        self.before: int | None = None
        self.told: set[int] = set()

    def __call__(self, trials: Sequence[FrozenTrial]) -> None:
        ended = [trial for trial in trials if trial.state.is_finished()]
        fresh = [trial for trial in ended if trial.number not in self.told]
        self.told |= {trial.number for trial in fresh}
        if self.before is None:
            self.before = len(ended)
            if ended:
                self._say(f"continues after {len(ended)} trials")
            return
        for trial in fresh:
            self._say(f"{line(trial)}; {self._state(ended)}")

    def _say(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)

    def _state(self, ended: Sequence[FrozenTrial]) -> str:
        """Done, best, pruned, failed and the time that is left."""
        found = Counter(STATES[trial.state] for trial in ended)
        best = min((t.values for t in ended if t.state == TrialState.COMPLETE), default=None)
        shown = f"best {best[0]:.2%}, " if best else ""
        counts = ", ".join(f"{found[state]} {state}" for state in ("complete", "pruned", "failed"))
        return f"{len(ended)} of {self.count} done, {shown}{counts}{self._left(len(ended))}"

    def _left(self, count: int) -> str:
        done, seconds = count - (self.before or 0), time.monotonic() - self.began
        if not done or count >= self.count:
            return ""
        left = seconds / done * (self.count - count)
        return f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"


def line(trial: FrozenTrial) -> str:
    """An ended trial, and what it tried, in one line."""
    errors, epochs = trial.intermediate_values, trial.user_attrs["block"]["epochs"]
    reached = f"epoch {len(errors)}/{epochs}" + (f", error {errors[max(errors)]:.2%}" if errors else "")
    tried = ", ".join(f"{name} {value}" for name, value in trial.params.items())
    return f"trial {trial.number} {STATES[trial.state]}, {trial.user_attrs.get('reason') or reached}, {tried}"
