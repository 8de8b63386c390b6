"""Asks for trials, batch by batch, has them computed, and writes down what comes of them: nobody else writes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from filelock import FileLock, Timeout
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from lenet.cluster import Died, Ended, Workers, reason
from lenet.runs.record import Row
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.sweep import storage as storages
from lenet.sweep.study import Plan, earlier, proposals
from lenet.sweep.trial import execute
from lenet.tracking import may_live, this_process

Trials = Sequence[FrozenTrial]


@dataclass
class Coordinator:
    """Of one study.

    Attributes:
        storage: where the trials are.
        name: the study's.
        study_id: Optuna's.
        plan: what its trials are a function of.
        count: how many trials there are to be.
        admitted: admits workers, when the first are needed.
        see: called now and then with all trials.
        take_over: from a coordinator of another machine, of which nobody here can tell whether it lives.
    """

    storage: BaseStorage
    name: str
    study_id: int
    plan: Plan
    count: int
    admitted: Callable[[], AbstractContextManager[Workers]]
    see: Callable[[Trials], None]
    take_over: bool = False
    _rows: dict[int, list[Row]] = field(default_factory=dict)

    def run(self) -> None:
        """Until all trials have ended; what an earlier call has left unfinished goes on.

        Raises:
            InputError: somebody else coordinates this study, or no worker can work.
        """
        with ExitStack() as stack, self._alone():
            self._hand_back()
            workers: Workers | None = None
            for first in range(0, self.count, self.plan.batch):
                self._ask(first)
                while left := self._left(min(first + self.plan.batch, self.count)):
                    workers = workers or stack.enter_context(self.admitted())
                    self._advance(workers, left)

    def _ask(self, first: int) -> None:
        """Put the trials of a batch into the storage, but for those that are there."""
        if (owner := self._attrs().get("coordinator")) != this_process():
            raise InputError(f"study {self.name} has been taken over by another process: {owner}")
        trials = self._trials()
        last = min(first + self.plan.batch, self.count)
        if len(trials) < last:
            for proposed in proposals(self.plan, trials[:first], last - first)[len(trials) - first :]:
                self.storage.create_new_trial(self.study_id, template_trial=proposed)

    def _left(self, count: int) -> Trials:
        """Of the first so many trials those that have not ended."""
        trials = self._trials()
        self.see(trials)
        return [trial for trial in trials[:count] if not trial.state.is_finished()]

    def _advance(self, workers: Workers, left: Trials) -> None:
        """Begin as many trials as there are workers for, and write down what has come of others."""
        if waiting := [trial for trial in left if trial.state == TrialState.WAITING]:
            for trial in waiting[: max(0, workers.free())]:
                workers.submit(trial.number, execute, *self._begin(trial))
        for number, report in workers.reports():
            trial = next(trial for trial in left if trial.number == number)
            if not isinstance(report, Ended):
                self._note(trial, report)
            elif isinstance(report.error, Died):
                self._end(trial, create_trial(state=TrialState.FAIL, user_attrs={"reason": str(report.error)}))
            elif report.error:
                raise InputError(f"trial {number} cannot be computed: {reason(report.error)}")
            else:
                self._end(trial, report.value)

    def _begin(self, trial: FrozenTrial) -> tuple[Plan, int, dict[str, Any], Trials]:
        """What a trial's outcome is a function of, besides the digits."""
        self._rows[trial.number] = []
        self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        before = earlier(self._trials(), self.plan.batch, trial.number)
        return self.plan, trial.number, trial.user_attrs["block"], before

    def _note(self, trial: FrozenTrial, row: Row) -> None:
        """Write a row down; one that begins anew on another worker tells the same again."""
        rows, epoch = self._rows[trial.number], int(row["epoch"])
        if epoch > len(rows):
            rows.append(row)
            self.storage.set_trial_intermediate_value(trial._trial_id, epoch, float(row["validation/error"]))
            self.storage.set_trial_user_attr(trial._trial_id, "history", rows)

    def _end(self, trial: FrozenTrial, outcome: FrozenTrial) -> None:
        for row in outcome.user_attrs.get("history", []):
            self._note(trial, row)
        for name, value in outcome.user_attrs.items():
            self.storage.set_trial_user_attr(trial._trial_id, name, value)
        for name, value in outcome.system_attrs.items():
            self.storage.set_trial_system_attr(trial._trial_id, name, value)
        self.storage.set_trial_state_values(trial._trial_id, outcome.state, outcome.values)

    def _trials(self) -> list[FrozenTrial]:
        found = self.storage.get_all_trials(self.study_id, deepcopy=False)
        return sorted(found, key=lambda trial: trial.number)

    def _hand_back(self) -> None:
        """What is under way has nobody that waits for it."""
        for trial in self._trials():
            if trial.state == TrialState.RUNNING:
                self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _attrs(self) -> dict[str, Any]:
        return self.storage.get_study_user_attrs(self.study_id)

    def _own(self, process: str) -> None:
        self.storage.set_study_user_attr(self.study_id, "coordinator", process)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Raises InputError if the study has another coordinator; one of another machine is believed to live."""
        owner = str(self._attrs().get("coordinator", ""))
        host, _, process = owner.rpartition(":")
        taken = f"study {self.name} is under way: process {process.partition('@')[0]} of {host or 'this machine'}"
        folder = layout.kept("sweeps")
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(FileLock(folder / f"{self.name}.lock", timeout=0))
            except Timeout:
                raise InputError(f"{taken}; wait for it, or end it") from None
            if owner and may_live(owner):
                if host == this_process().rpartition(":")[0]:
                    raise InputError(f"{taken}; wait for it, or end it")
                if not self.take_over:
                    raise InputError(f"{taken}; if that has died, `--take-over` goes on with the study here")
            self._own(this_process())
            try:
                yield
            finally:
                with suppress(*storages.FAULTS, KeyError):
                    if self._attrs().get("coordinator") == this_process():
                        self._hand_back()
                        self._own("")
