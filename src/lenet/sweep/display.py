"""What a study shows while it runs: a table in a else a line for each trial that has ended."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from optuna.trial import FrozenTrial, TrialState
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lenet.runtime.screen import Screen
from lenet.sweep.study import STATES

Trials = Sequence[FrozenTrial]


@contextmanager
def board(name: str, count: int) -> Iterator[Callable[[Trials], None]]:
    """The display of a study of so many trials; to be called with all of them now and then."""
    shown = _Board(name, count)
    console = Screen(stderr=True)
    if console.is_terminal:
        with Live(console=console, get_renderable=shown.table, refresh_per_second=2) as live:
            yield shown.see
            live.update(shown.table())
    else:
        yield shown.tell


class _Board:
    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count
        self.trials: Trials = ()
        self.began = time.monotonic()
        self.before: int | None = None
        self.told: set[int] = set()

    def see(self, trials: Trials) -> None:
        self.trials = trials
        if self.before is None:
            self.before = self._ended()

    def tell(self, trials: Trials) -> None:
        """A line for each trial that has ended since the last call."""
        first = self.before is None
        self.see(trials)
        fresh = [trial for trial in trials if trial.state.is_finished() and trial.number not in self.told]
        self.told |= {trial.number for trial in fresh}
        if first and fresh:
            print(f"{self.name}: continues after {len(fresh)} trials", file=sys.stderr, flush=True)
            return
        for trial in fresh:
            print(f"{self.name}: {line(trial)}; {self.state()}", file=sys.stderr, flush=True)

    def state(self) -> str:
        """Done, best, pruned, failed and the time that is left."""
        found = Counter(STATES[trial.state] for trial in self.trials)
        best = min((t.values for t in self.trials if t.state == TrialState.COMPLETE and t.values), default=None)
        shown = f"best {best[0]:.2%}, " if best else ""
        counts = ", ".join(f"{found[state]} {state}" for state in ("complete", "pruned", "failed"))
        return f"{self._ended()} of {self.count} done, {shown}{counts}{self._left()}"

    def table(self) -> Table:
        view = Table.grid(padding=(0, 2))
        view.add_row(Text(self.name, "bold"), self.state())
        for trial in self.trials:
            if trial.state == TrialState.RUNNING:
                view.add_row(f"  trial {trial.number}", f"{_epochs(trial)}  {values_of(trial)}")
        return view

    def _ended(self) -> int:
        return sum(trial.state.is_finished() for trial in self.trials)

    def _left(self) -> str:
        done, seconds = self._ended() - (self.before or 0), time.monotonic() - self.began
        if not done or self._ended() >= self.count:
            return ""
        left = seconds / done * (self.count - self._ended())
        return f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"


def line(trial: FrozenTrial) -> str:
    """An ended trial in one line."""
    what = trial.user_attrs.get("reason") or _epochs(trial)
    return f"trial {trial.number} {STATES[trial.state]}, {what}, {values_of(trial)}"


def _epochs(trial: FrozenTrial) -> str:
    errors = trial.intermediate_values
    epochs = trial.user_attrs["block"]["epochs"]
    return f"epoch {len(errors)}/{epochs}" + (f", error {errors[max(errors)]:.2%}" if errors else "")


def values_of(trial: FrozenTrial) -> str:
    """What a trial tries."""
    return ", ".join(f"{name} {value}" for name, value in trial.params.items())
