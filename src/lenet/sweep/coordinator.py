"""Asks for trials, batch by batch, starts workers, and sees to it that every trial ends."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lenet.runtime import layout, processes
from lenet.runtime.errors import InputError
from lenet.sweep import storage as storages
from lenet.sweep.study import Plan, proposals
from lenet.sweep.worker import BEAT
from lenet.tracking import may_live, this_process

POLL = 0.3  # seconds between looks at the trials
SILENCE = 6 * BEAT  # after so many seconds without a sign of life a worker elsewhere is taken for dead
DEATHS = 2  # of its workers fail a trial
ADDRESS = "LENET_SWEEP_JOIN"
"""Environment variable: the storage's address, which may hold a password, for the workers."""

Trials = Sequence[FrozenTrial]


@dataclass
class Process:
    """A worker of this machine."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


@dataclass
class Coordinator:
    """Of one study.

    Attributes:
        storage: where the trials are.
        address: the storage's.
        name: the study's.
        study_id: Optuna's.
        plan: what its trials are a function of.
        count: how many trials there are to be.
        jobs: how many workers to start here; 0: they join from elsewhere.
        worker: the command line's words of a worker, after the study's name.
        see: called now and then with all trials.
    """

    storage: BaseStorage
    address: str
    name: str
    study_id: int
    plan: Plan
    count: int
    jobs: int
    worker: Sequence[str]
    see: Callable[[Trials], None]
    workers: list[Process] = field(default_factory=list)
    signs: dict[int, tuple[object, float]] = field(default_factory=dict)
    beats: tuple[int, float] = (0, 0.0)
    inherited: set[tuple[int, str]] = field(default_factory=set)

    def run(self) -> None:
        """Until all trials have ended; what an earlier call has left unfinished goes on.

        Raises:
            InputError: somebody else coordinates this study, or no worker can work.
        """
        with self._alone():
            self._beat()
            self._set("ended", False)
            running = (trial for trial in self._trials() if trial.state == TrialState.RUNNING)
            self.inherited = {(trial.number, trial.user_attrs.get("process", "")) for trial in running}
            try:
                for first in range(0, self.count, self.plan.batch):
                    self._ask(first)
                    self._wait(min(first + self.plan.batch, self.count))
                self._set("ended", True)
                self._let_end()
            finally:
                self._stop()
            self.see(self._trials())

    def _ask(self, first: int) -> None:
        """Put the trials of a batch into the storage, but for those that are there."""
        trials = self._trials()
        last = min(first + self.plan.batch, self.count)
        if len(trials) < last:
            for proposed in proposals(self.plan, trials[:first], last - first)[len(trials) - first :]:
                self.storage.create_new_trial(self.study_id, template_trial=proposed)

    def _wait(self, count: int) -> None:
        """Until the first so many trials have ended."""
        while True:
            trials = self._trials()
            self.see(trials)
            if all(trial.state.is_finished() for trial in trials[:count]):
                return
            self._beat()
            self._tend_workers(trials)
            for trial in trials:
                self._hand_back_if_dead(trial)
            time.sleep(POLL)

    def _trials(self) -> list[FrozenTrial]:
        found = self.storage.get_all_trials(self.study_id, deepcopy=False)
        return sorted(found, key=lambda trial: trial.number)

    def _tend_workers(self, trials: Trials) -> None:
        """Start workers, also in place of those that died at a trial. One that died without any gives the reason."""
        for worker in list(self.workers):
            status = worker.process.poll()
            if status is None:
                continue
            self.workers.remove(worker)
            identity = f":{worker.process.pid}@"
            had = any(identity in trial.user_attrs.get("process", "") for trial in trials)
            if status > 0 and not had:
                raise InputError(f"study {self.name}: no worker can work: {worker.last_words}")
        while len(self.workers) < self.jobs:
            self.workers.append(self._start())

    def _start(self) -> Process:
        folder = layout.kept("sweeps")
        folder.mkdir(parents=True, exist_ok=True)
        logs = (folder / f"{self.name}-{number}.log" for number in itertools.count(1))
        log = next(log for log in logs if log not in [worker.log for worker in self.workers])
        command = [sys.executable, "-m", "lenet", "sweep", "--study", self.name, *self.worker]
        environment = os.environ | {ADDRESS: self.address}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        return Process(process, log)

    def _hand_back_if_dead(self, trial: FrozenTrial) -> None:
        """Let a trial be executed again whose worker is gone; gone twice, it has failed.

        What an earlier coordinator has left running does not count: its workers end with it.
        """
        if trial.state != TrialState.RUNNING or not self._is_dead(trial):
            return
        counted = (trial.number, trial.user_attrs.get("process", "")) not in self.inherited
        deaths = int(trial.user_attrs.get("deaths", 0)) + counted
        with suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial._trial_id, "deaths", deaths)
            if deaths < DEATHS:
                self.storage.set_trial_user_attr(trial._trial_id, "process", "")
                self.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
            else:
                reason = f"its worker died {deaths} times (out of memory?)"
                self.storage.set_trial_user_attr(trial._trial_id, "reason", reason)
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        process = trial.user_attrs.get("process", "")
        if process and not may_live(process):
            return True
        if process and _is_of_this_machine(process):
            return False  # and alive
        sign = (process, trial.user_attrs.get("beat"), trial.datetime_start)
        now = time.monotonic()
        if self.signs.get(trial.number, (None, 0.0))[0] != sign:
            self.signs[trial.number] = (sign, now)
        return now - self.signs[trial.number][1] > SILENCE

    def _beat(self) -> None:
        count, last = self.beats
        if time.monotonic() - last > BEAT:
            self.beats = (count + 1, time.monotonic())
            self._set("coordinator", f"{this_process()} {count + 1}")

    def _set(self, name: str, value: object) -> None:
        self.storage.set_study_user_attr(self.study_id, name, value)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Raises InputError if the study has another living coordinator."""
        folder = layout.kept("sweeps")
        folder.mkdir(parents=True, exist_ok=True)
        taken = InputError(f"study {self.name} is under way elsewhere; `lenet sweep --join` adds workers to it")
        try:
            with FileLock(folder / f"{self.name}.lock", timeout=0):
                if self._is_coordinated():
                    raise taken
                try:
                    yield
                finally:
                    with suppress(*storages.FAULTS):
                        self._set("coordinator", "")
        except Timeout:
            raise taken from None

    def _is_coordinated(self) -> bool:
        """Whether another process does so: of this machine, or it gives a new sign of life within two beats."""
        sign = self._sign()
        process = sign.rpartition(" ")[0]
        if not process or not may_live(process):
            return False
        if _is_of_this_machine(process):
            return True
        print(f"lenet: checking whether {process.split('@')[0]} still coordinates the study", file=sys.stderr)
        time.sleep(2 * BEAT)
        return self._sign() not in (sign, "")

    def _sign(self) -> str:
        return str(self.storage.get_study_user_attrs(self.study_id).get("coordinator", ""))

    def _let_end(self) -> None:
        """The workers of this machine see for themselves that there is nothing left to do."""
        end = time.monotonic() + processes.GRACE
        for worker in self.workers:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.1, end - time.monotonic()))

    def _stop(self) -> None:
        """Interrupted, the workers hand their trials back."""
        for worker in self.workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGTERM)
        for worker in self.workers:
            try:
                worker.process.wait(2 * processes.GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.wait()


def _is_of_this_machine(process: str) -> bool:
    return process.rpartition(":")[0] == this_process().rpartition(":")[0]
