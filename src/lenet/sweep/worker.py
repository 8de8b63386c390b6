"""A process that executes trials, one after the other, of a study that somebody else coordinates."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from optuna import TrialPruned
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from lenet.arithmetic import conformance
from lenet.digits.data import Digits, load_digits
from lenet.params.schema import Variant
from lenet.pipeline import signing
from lenet.runs.record import Row
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.sweep import storage as storages
from lenet.sweep.study import STATES, Judge, Plan, earlier, objective_values, packages
from lenet.tracking import this_process
from lenet.training import checkpoint, signature
from lenet.training.fit import fit

POLL = 0.5  # seconds between looks for a trial
BEAT = 10.0  # seconds between signs of life
PATIENCE = 900.0  # seconds without a sign of life of the coordinator


@dataclass(frozen=True)
class Worker:
    """One that has been let in.

    Attributes:
        storage: where the trials are.
        study_id: Optuna's.
        plan: the study's.
        digits: all training digits.
        say: called with a line for each trial.
    """

    storage: BaseStorage
    study_id: int
    plan: Plan
    digits: Digits
    say: Callable[[str], None]

    def work(self) -> None:
        """Execute trials until the study has ended."""
        watch = _Watch()
        while True:
            trial = self._claim()
            if trial is not None:
                self.execute(trial)
                continue
            attrs = self.storage.get_study_user_attrs(self.study_id)
            if attrs.get("ended"):
                return
            if watch.silence(attrs.get("coordinator")) > PATIENCE:
                self.say("nobody coordinates this study any more; ending")
                return
            time.sleep(POLL)

    def _claim(self) -> FrozenTrial | None:
        waiting = self.storage.get_all_trials(self.study_id, deepcopy=False, states=(TrialState.WAITING,))
        for trial in sorted(waiting, key=lambda trial: trial.number):
            with suppress(UpdateFinishedTrialError):
                if self.storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    self.storage.set_trial_user_attr(trial._trial_id, "process", this_process())
                    return self.storage.get_trial(trial._trial_id)
        return None

    def execute(self, trial: FrozenTrial) -> None:
        """Train a trial and keep what came of it. Interrupted, it is handed back."""
        number, place = trial.number, trial._trial_id
        handed_back = True
        try:
            with _alive(self.storage, place):
                state, values, reason = self._train(trial)
            handed_back = False
            with suppress(UpdateFinishedTrialError):  # another one has done it, after a long silence here
                if reason:
                    self.storage.set_trial_user_attr(place, "reason", reason)
                self.storage.set_trial_state_values(place, state, values)
            self.say(f"trial {number}: {STATES[state]} {reason or _numbers(values)}")
        finally:
            if handed_back:
                self.storage.set_trial_state_values(place, TrialState.WAITING)

    def _train(self, trial: FrozenTrial) -> tuple[TrialState, list[float] | None, str | None]:
        plan, rows = self.plan, list[Row]()
        others = self.storage.get_all_trials(self.study_id, deepcopy=False)
        judge = Judge(plan, earlier(others, plan.batch, trial.number), trial.number)

        def observe(row: Row) -> None:
            rows.append(row)
            self.storage.set_trial_intermediate_value(
                trial._trial_id, int(row["epoch"]), float(row["validation/error"])
            )
            self.storage.set_trial_user_attr(trial._trial_id, "history", rows)
            if row["epoch"] == block.epochs:
                return
            stopped = judge.stops(int(row["epoch"]), float(row["validation/error"]))
            for name, value in judge.rungs.items():
                self.storage.set_trial_system_attr(trial._trial_id, name, value)
            if stopped:
                raise TrialPruned

        try:
            block = Variant.model_validate(trial.user_attrs["block"])
            signed = signing.of_trial(block, self.digits)
            record = signing.identify(plan.variant, plan.run_seed, block, self.digits, signed)
            self.storage.set_trial_user_attr(trial._trial_id, "fingerprints", record.fingerprints)
            with checkpoint.kept(f"{record.name}-trial", record.key) as checkpoints:
                try:
                    start = checkpoints.latest()
                    for row in start.history if start else []:
                        observe(row)
                    fit(block, plan.run_seed, *self.digits.split(block), [observe], [checkpoints], start=start)
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException:
                    checkpoints.remove()
                    raise
                checkpoints.remove()
        except storages.FAULTS:  # not the trial's
            raise
        except TrialPruned:
            return TrialState.PRUNED, [float(rows[-1]["validation/error"])], None
        except Exception as error:
            said = (str(error).strip().splitlines() or [""])[0]
            return TrialState.FAIL, None, said if isinstance(error, InputError) else f"{type(error).__name__}: {said}"
        return TrialState.COMPLETE, objective_values(plan.objectives, block, rows), None


def join(address: str, name: str | None, data: Path) -> None:
    """Work for a study until it has ended.

    Args:
        address: the storage's.
        name: the study's; None for the only one that has not ended.
        data: the file of training digits.

    Raises:
        InputError: no such study, or this is no place for it.
    """
    storage = storages.connect(address)
    name, study_id = _find(storage, name, layout.masked(address))
    digits = load_digits(data)
    plan = storages.plan_of(storage, study_id)
    _admit(plan, digits)
    print(f"lenet: working for study {name}", file=sys.stderr, flush=True)

    def say(line: str) -> None:
        print(f"{name}: {line}", file=sys.stderr, flush=True)

    with storages.asking(f"study {name}"):
        Worker(storage, study_id, plan, digits, say).work()


def _find(storage: BaseStorage, name: str | None, address: str) -> tuple[str, int]:
    found = storages.names(storage)
    if name is None:
        going_on = [one for one in found if not storage.get_study_user_attrs(found[one]).get("ended")]
        if len(going_on) != 1:
            some = ", ".join(going_on) or "none"
            raise InputError(f"{address}: --study is needed to choose among the studies under way: {some}")
        name = going_on[0]
    if name not in found:
        raise InputError(f"{address}: no study {name}; there are: {', '.join(found) or 'none'}")
    return name, found[name]


def _admit(plan: Plan, digits: Digits) -> None:
    """Raise InputError where trials would come out otherwise than elsewhere."""
    conformance.check()
    if signature.digits_sha256(digits) != plan.data:
        raise InputError("the training digits here are not those of the study")
    if packages() != plan.packages:
        here, there = (found.get("optuna", "none") for found in (packages(), plan.packages))
        raise InputError(f"Optuna {here} is installed, and the study is of {there}")
    if signing.of_trial(plan.example, digits) != plan.signature:
        raise InputError(
            "the code here does not compute what the study's does (signature); check out the study's commit"
        )


class _Watch:
    """How long nobody has given a sign of life, by this machine's clock."""

    def __init__(self) -> None:
        self.seen: object = None
        self.since = time.monotonic()

    def silence(self, sign: object) -> float:
        if sign != self.seen:
            self.seen, self.since = sign, time.monotonic()
        return time.monotonic() - self.since


@contextmanager
def _alive(storage: BaseStorage, trial_id: int) -> Iterator[None]:
    """Signs of life beside a trial."""
    done = threading.Event()

    def beat() -> None:
        count = 0
        while not done.wait(BEAT):
            count += 1
            with suppress(Exception):  # the next one may come through
                storage.set_trial_user_attr(trial_id, "beat", count)

    thread = threading.Thread(target=beat, daemon=True, name="beat")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _numbers(values: list[float] | None) -> str:
    return ", ".join(f"{value:g}" for value in values or [])
