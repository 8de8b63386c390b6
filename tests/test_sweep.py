"""Studies: the same trials whoever computes them and however often they are interrupted; failures; the record."""

import ctypes
import io
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import psutil
import pytest
from distributed import Client, LocalCluster
from mlflow import MlflowClient
from mlflow.entities import Run
from optuna.trial import FrozenTrial, TrialState, create_trial

from conftest import ENVIRONMENT, ROOT, SMALL, SPACE, edit_params, files_of, lenet_command, refused, run, wait_for
from lenet import tracking
from lenet.cluster import admitted
from lenet.digits.data import Digits
from lenet.params.schema import Params
from lenet.pipeline import signing
from lenet.runs.record import Row
from lenet.runtime.errors import InputError
from lenet.sweep import display, result, storage
from lenet.sweep import trial as trials_module
from lenet.sweep.coordinator import Coordinator
from lenet.sweep.settings import parse, settings
from lenet.sweep.space import Space
from lenet.sweep.study import Judge, Plan, plan, proposals
from lenet.sweep.trial import execute, prove
from lenet.tracking import sweeps
from lenet.training import checkpoint, signature

pytestmark = pytest.mark.usefixtures("unsigned")


@pytest.fixture(scope="module")
def few(digits: Digits) -> Digits:
    return digits[:600]


def planned(params: Params, few: Digits, **changes: object) -> Plan:
    """A study of `modern` that takes a second a trial."""
    settings = parse({**SMALL, **changes, "spaces": {"modern": SPACE}})
    block = params.variants["modern"].model_copy(update={"train_size": 300, "validation_size": 200, "epochs": 4})
    return plan(params.model_copy(update={"variants": {"modern": block}}), settings, "modern", few)


@pytest.fixture(scope="module")
def here() -> Iterator[Client]:
    """A cluster whose one worker is a thread of this process."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
    ) as local, Client(local) as client:  # fmt: skip
        yield client


class Study:
    """A study that is computed in this process."""

    def __init__(self, of: Plan, few: Digits, where: Path, here: Client) -> None:
        self.plan, self.few = of, few
        self.storage = storage.connect(f"sqlite:///{where}/study.db")
        study_id = storage.begin(self.storage, of.name, of)
        self.coordinator = Coordinator(
            self.storage, of.name, study_id, of, 12, lambda: admitted(here, few, partial(prove, of)),
            see=lambda trials: None,
        )  # fmt: skip

    def compute(self, count: int) -> str:
        """So many trials; what is published of them."""
        self.coordinator.count = count
        self.coordinator.run()
        return self.published()

    def compute_in_order(self, count: int, order: Callable[[list[FrozenTrial]], list[FrozenTrial]]) -> str:
        """So many trials, those of a batch in an order of one's own."""
        self.coordinator.count = count
        self.coordinator._own(tracking.this_process())
        for first in range(0, count, self.plan.batch):
            self.coordinator._ask(first)
            for trial in order([t for t in self.coordinator._trials() if t.state == TrialState.WAITING]):
                outcome = execute(self.few, lambda row: None, *self.coordinator._begin(trial))
                self.coordinator._end(trial, outcome)
        return self.published()

    @property
    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.coordinator._trials()]

    def published(self) -> str:
        return result._to_csv(result.of_storage(self.storage, self.plan.name))


@pytest.fixture(scope="module")
def straight(params: Params, few: Digits, here: Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The trials of the study in one go."""
    return Study(planned(params, few), few, tmp_path_factory.mktemp("straight"), here).compute(12)


def test_a_study_goes_on_to_the_same_trials_in_whatever_order_a_batch_is_computed(
    params: Params, few: Digits, here: Client, straight: str, tmp_path: Path
) -> None:
    rows = pd.read_csv(io.StringIO(straight))
    assert set(rows["state"]) == {"complete", "pruned"}
    assert rows["run.key"].is_unique
    study = Study(planned(params, few), few, tmp_path, here)
    study.compute_in_order(3, list)
    study.compute_in_order(6, lambda trials: trials[::-1])  # the second batch is begun, the first completed
    chance = random.Random(1)
    assert study.compute_in_order(12, lambda trials: chance.sample(trials, len(trials))) == straight


def test_another_seed_gives_other_trials_and_the_same_seed_the_same(params: Params, few: Digits) -> None:
    first, again, other = (
        [trial.params for trial in proposals(planned(params, few, seed=seed), [], 4)] for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other
    of = planned(params, few)
    assert [trial.params for trial in proposals(of, [], 2)] == first[:2]  # the first of a batch are its beginning


def test_nothing_is_proposed_twice(params: Params, few: Digits) -> None:
    of = planned(params, few)
    history: list[FrozenTrial] = []
    for _ in range(5):
        history += [ended(trial, [0.1]) for trial in proposals(of, history, 4)]
    assert len({json.dumps(trial.params, sort_keys=True) for trial in history}) == 20


def ended(
    trial: FrozenTrial, errors: list[float], rungs: dict[str, float] | None = None, pruned: bool = False
) -> FrozenTrial:
    """A proposed trial as it is at its end."""
    return create_trial(
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE, value=errors[-1], params=trial.params,
        distributions=trial.distributions, user_attrs=trial.user_attrs, system_attrs=rungs or {},
        intermediate_values=dict(enumerate(errors, start=1)),
    )  # fmt: skip


def made(of: Plan, *what: Any, **more: Any) -> FrozenTrial:
    return ended(proposals(of, [], 1)[0], *what, **more)


def test_successive_halving_lets_one_in_so_many_go_on(params: Params, few: Digits) -> None:
    """Worked out by hand: keep = 2, rungs after epochs 1 and 2; the better half of those at a rung goes on."""
    of = planned(params, few)
    history = [
        made(of, [error, error / 2, error / 4], {"completed_rung_0": error, "completed_rung_1": error / 2})
        for error in (0.1, 0.2, 0.3, 0.4)
    ]
    assert not Judge(of, history, 4).stops(1, 0.15)  # of five, the best two go on: 0.1 and this
    assert Judge(of, history, 4).stops(1, 0.25)
    assert not Judge(of, history, 7).stops(1, 0.15)  # those beside it are not known
    judge = Judge(of, history, 5)
    assert not judge.stops(1, 0.05)
    assert judge.stops(2, 0.2)  # at this rung 0.05, 0.1, 0.15, 0.2 and this: it is not of the best two
    assert judge.rungs == {"completed_rung_0": 0.05, "completed_rung_1": 0.2}


def test_the_median_pruner_goes_by_complete_trials(params: Params, few: Digits) -> None:
    of = planned(params, few, pruner={"kind": "median", "first": 2, "startup": 3})
    history = [made(of, [0.5, error, error, error]) for error in (0.1, 0.2, 0.3)] + [made(of, [0.01], pruned=True)]
    judge = Judge(of, history, 4)
    assert not judge.stops(1, 0.9)  # before `first`
    assert judge.stops(2, 0.25)
    better = Judge(of, history, 4)
    assert [better.stops(epoch, 0.15) for epoch in (1, 2, 3)] == [False] * 3
    assert not Judge(of, history[:2], 4).stops(2, 0.9)  # too few are complete


def test_hyperband_prunes(params: Params, few: Digits) -> None:
    """In the brackets whose first rung is the first epoch, what is worse than all before, and never what is better."""
    of = planned(params, few, pruner={"kind": "hyperband", "first": 1, "keep": 2})
    history: list[FrozenTrial] = []
    for number in range(8):
        judge = Judge(of, history, number)
        assert not judge.stops(1, 0.5 - number / 100)
        history.append(made(of, [0.5 - number / 100] * 4, judge.rungs))
    stopped = {Judge(of, history, number).stops(1, 0.9) for number in range(8, 16)}
    assert stopped == {True, False}


def test_a_trial_that_raises_diverges_or_has_no_memory_is_failed_with_its_reason(
    params: Params, few: Digits, here: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(planned(params, few), few, tmp_path, here)
    fit_all, calls = trials_module.fit_all, iter(range(100))
    faults = {
        0: ValueError("something\nmore of it"),
        1: MemoryError(),
        2: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
        3: InputError("the training diverged: the loss is nan at step 3 of epoch 1"),
    }

    def faulty(*arguments: object, **options: object) -> object:
        call = next(calls)
        if call in faults:
            raise faults[call]
        return fit_all(*arguments, **options)

    monkeypatch.setattr(trials_module, "fit_all", faulty)
    rows = pd.read_csv(io.StringIO(study.compute(5)))
    assert rows["state"].tolist() == ["failed"] * 4 + ["complete"]
    assert rows["reason"].tolist()[:4] == [
        "ValueError: something",
        "MemoryError: ",
        "RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes",
        "the training diverged: the loss is nan at step 3 of epoch 1",
    ]


def test_a_learning_rate_that_diverges_fails_its_trial_alone(
    params: Params, few: Digits, here: Client, tmp_path: Path
) -> None:
    study = Study(planned(params, few), few, tmp_path, here)
    study.coordinator._own(tracking.this_process())
    study.coordinator.count = 2
    study.coordinator._ask(0)
    first = study.coordinator._trials()[0]
    block = json.loads(json.dumps(first.user_attrs["block"]))
    block["optimizer"] = {"kind": "sgd", "lr": 1e30, "momentum": 0.9, "weight_decay": 0.0}
    study.storage.set_trial_user_attr(first._trial_id, "block", block)
    rows = pd.read_csv(io.StringIO(study.compute_in_order(2, list)))
    assert (rows["state"] == "failed").tolist() == [True, False]
    assert "the training diverged: C5's inputs: a magnitude of inf at step 2 of epoch 1" in rows["reason"][0]


@pytest.mark.parametrize("fault", [SystemExit(143), optuna.exceptions.StorageInternalError("gone")])
def test_a_trial_that_was_interrupted_waits_again_and_goes_on_from_its_checkpoint(
    params: Params, few: Digits, here: Client, straight: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], fault: BaseException,
) -> None:  # fmt: skip
    """By SIGTERM, or by a storage that fails."""
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    study = Study(planned(params, few), few, tmp_path, here)
    told = study.storage.set_trial_intermediate_value

    def interrupted(trial_id: int, step: int, value: float) -> None:
        told(trial_id, step, value)
        if step == 3:
            raise fault

    monkeypatch.setattr(study.storage, "set_trial_intermediate_value", interrupted)
    with pytest.raises(type(fault)):
        study.compute(4)
    assert study.states == [TrialState.WAITING] * 4
    monkeypatch.undo()
    found, expected = (pd.read_csv(io.StringIO(text), dtype=str) for text in (study.compute(4), straight))
    assert found.equals(expected[:4][found.columns])
    assert "goes on after epoch" in capsys.readouterr().err


def test_a_trial_of_several_seeds_is_judged_by_their_mean_and_goes_on_from_their_checkpoints(
    params: Params, few: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when checkpoints are of different moments: then all seeds begin again."""

    def done(seeds: list[int], tell: Callable[[Row], None] = lambda row: None) -> FrozenTrial:
        of = planned(params, few, seeds=seeds, pruner={"kind": "none"})
        return execute(few, tell, of, 0, proposals(of, [], 1)[0].user_attrs["block"], [])

    def kill(row: Row) -> None:
        if row["epoch"] == 3:
            raise SystemExit

    ones, together = [done([seed]) for seed in (1, 2, 3)], done([1, 2, 3])
    histories = [one.user_attrs["history"] for one in ones]
    for row, *rows in zip(together.user_attrs["history"], *histories, strict=True):
        assert row["validation/error"] == fsum(its["validation/error"] for its in rows) / 3
        assert row["train/loss"] == fsum(its["train/loss"] for its in rows) / 3
    assert len({one.value for one in ones}) > 1
    assert together.value == together.user_attrs["history"][-1]["validation/error"]
    keys = [one.user_attrs["fingerprints"]["key"] for one in ones]
    assert together.user_attrs["fingerprints"]["key"] == " ".join(keys)
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    for lost in (0, 1):
        with pytest.raises(SystemExit):
            done([1, 2, 3], kill)
        folders = sorted(checkpoint.home().glob("modern-*-trial-*"))
        assert len(folders) == 3
        for file in sorted(folders[0].glob("*.safetensors"))[-lost:] if lost else []:
            file.unlink()
        again = done([1, 2, 3])
        assert (again.value, again.user_attrs) == (together.value, together.user_attrs)
        assert not list(checkpoint.home().glob("modern-*-trial-*/*.safetensors"))


def test_one_process_coordinates_a_study(params: Params, few: Digits, here: Client, tmp_path: Path) -> None:
    """A dead one of this machine is followed; of one of another machine, somebody has to say that it is dead."""
    study = Study(planned(params, few, batch=1), few, tmp_path, here)
    gone = subprocess.Popen(["true"])
    machine, _, _ = tracking.this_process().rpartition(":")
    gone.wait()
    with psutil.Popen(["sleep", "600"]) as alive:
        for owner, said in (
            (f"{machine}:{gone.pid}@1.0", ""),
            (
                f"{machine}:{alive.pid}@{alive.create_time():.2f}",
                f"is under way: process {alive.pid} of {machine}; wait for it",
            ),
            ("elsewhere:7@1.0", "process 7 of elsewhere; if that has died, `--take-over` goes on with the study here"),
        ):
            study.coordinator._own(owner)
            with pytest.raises(InputError, match=re.escape(said)) if said else nullcontext():
                study.compute(0)
            assert study.coordinator._attrs()["coordinator"] == (owner if said else "")
        alive.kill()
    study.coordinator.take_over = True
    study.compute(0)
    study.coordinator.see = lambda trials: study.coordinator._own("elsewhere:7@1.0")  # which takes it over now
    with pytest.raises(InputError, match="has been taken over by another process: elsewhere:7@1"):
        study.compute(2)
    assert study.coordinator._attrs()["coordinator"] == "elsewhere:7@1.0"


def test_several_objectives_are_a_front_without_pruning(
    params: Params, few: Digits, here: Client, tmp_path: Path
) -> None:
    of = planned(params, few, objectives=["validation/error", "parameters"], pruner={"kind": "none"})
    of = Plan(**{**of.to_json(), "space": {"network.C3": ["table", "dense"], "batch_size": [16, 32]}})
    of = Plan(**{**of.to_json(), "base": of.domains.rest(params.variants["modern"].model_dump() | {
        "train_size": 300, "validation_size": 200, "epochs": 2})})  # fmt: skip
    of = replace(of, signature=signing.of_trial(of.example, few))
    study = Study(of, few, tmp_path, here)
    study.compute(8)
    found = result.of_storage(study.storage, of.name)
    assert found.counts["complete"] == 8
    points = {trial.number: tuple(trial.values) for trial in found.complete}
    assert {parameters for _, parameters in points.values()} == {61_706.0, 60_806.0}
    front = [n for n, p in points.items() if not any(q != p and all(np.array(q) <= p) for q in points.values())]
    assert [trial.number for trial in found.best] == front


def test_a_plan_follows_all_that_trials_depend_on(params: Params, few: Digits) -> None:
    of = planned(params, few)
    assert planned(params, few, trials=99).digest == of.digest
    others = [
        planned(params, few, seed=6), planned(params, few, seeds=[2]), planned(params, few, batch=3),
        planned(params, few, sampler={"kind": "random"}), planned(params, few, pruner={"kind": "none"}),
        planned(params, few[:599]),
        *(Plan(**{**of.to_json(), part: other}) for part, other in (
            ("signature", "0"), ("packages", {"optuna": "1"}), ("space", {"batch_size": [1, 2]}), ("base", {}),
        )),
    ]  # fmt: skip
    assert len({one.digest for one in [of, *others]}) == 11
    assert of.differences(others[0]) == ["seed"]
    assert of.differences(others[5]) == ["the training digits", "what the code computes"]  # which are digits, too
    assert set(of.packages) == {"optuna"}  # which proposes; what others compute, the signature says


def test_a_plan_from_before_signatures_is_read_and_is_another_one(params: Params, few: Digits) -> None:
    of = planned(params, few)
    before = {name: part for name, part in of.to_json().items() if name != "signature"} | {"source": "s"}
    read = Plan.read(before | {"packages": {"torch": "2.13.0", **of.packages}})
    assert of.differences(read) == ["what the code computes", "Optuna"]
    assert read.domains.domains.keys() == of.domains.domains.keys()


def test_the_first_block_of_a_space_is_legal_whatever_the_space(params: Params, digits: Digits) -> None:
    made = settings(params)
    for name, space in made.spaces.items():
        base = Space(space, name).rest(params.variant(name).model_dump(mode="json"))
        example = Plan(name, {}, dict(space), base, "", "", {}).example
        assert signature.structure(example) == signature.structure(signature.structure(example))


def test_importing_the_command_line_takes_no_optuna_torch_or_dask() -> None:
    code = "import sys, lenet.cli, lenet.sweep.settings; print({'optuna', 'torch', 'dask'} & {*sys.modules})"
    assert run(sys.executable, "-c", code, cwd=ROOT).stdout == "set()\n"


def test_the_display_tells_done_best_pruned_failed_and_what_is_left(
    params: Params, few: Digits, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of = planned(params, few)
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    failed = create_trial(state=TrialState.FAIL, user_attrs={"reason": "no memory", "block": {"epochs": 4}})
    running = create_trial(state=TrialState.RUNNING, user_attrs={"block": {"epochs": 4}}, intermediate_values={1: 0.5})
    trials = [made(of, [0.5, 0.25]), made(of, [0.4], pruned=True), failed, running]
    for number, trial in enumerate(trials):
        trial.number = number
    see = display.Display("study", 11)
    see(trials[:1])
    now[0] = 120.0
    see(trials)
    see(trials)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "study: continues after 1 trials"
    assert said[1].startswith("study: trial 1 pruned, epoch 1/4, error 40.00%, optimizer.kind ")
    assert said[1].endswith(
        "; 3 of 11 done, best 25.00%, 1 complete, 1 pruned, 1 failed, about 8 min left"
    )  # two in two minutes, eight to go
    assert said[2].startswith("study: trial 2 failed, no memory")
    assert len(said) == 3


# The command itself


@pytest.fixture
def checkout(studied: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(studied, tmp_path / "copy", symlinks=True))


def sweep_command(*words: str) -> list[str]:
    return lenet_command("sweep", *words)


@pytest.mark.slow
def test_all_compared_variants_get_as_many_trials(checkout: Path) -> None:
    tanh = {"optimizer.lr": {"low": 1e-3, "high": 1e-2, "scale": "log"}}
    edit_params(checkout, lambda content: content.update(compare=["modern", "original-tanh"]))
    edit_params(checkout, lambda content: content["sweep"]["spaces"].update({"original-tanh": tanh}))
    run(*sweep_command("--all", "--trials", "3", "--workers", "2", "--out", "studies", "--no-track"), cwd=checkout)
    counts = {path.parent.name: len(pd.read_csv(path)) for path in checkout.glob("studies/*/trials.csv")}
    assert counts == {"modern": 3, "original-tanh": 3}


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_same_study(checkout: Path, alone: dict[str, bytes]) -> None:
    """By SIGKILL of the coordinator, or of it and all workers, after so many epochs; no process stays."""
    words = ("--workers", "2", "--out", "study", "--no-track")
    for epochs, everyone in itertools.product((0, 2), (False, True)):
        before = epochs_of(checkout)
        with started(*sweep_command("modern", *words), cwd=checkout) as process:
            wait_for(lambda: epochs_of(checkout) >= before + epochs and still_runs(process))  # noqa: B023
            children = psutil.Process(process.pid).children(recursive=True)
            for one in [psutil.Process(process.pid), *(children if everyone else [])]:
                one.kill()
            assert not psutil.wait_procs(children, 60)[1]
    run(*sweep_command("modern", *words), cwd=checkout)
    assert files_of(checkout / "study") == alone


@contextmanager
def started(*command: str, cwd: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs beside the test, and not after it."""
    process = subprocess.Popen(
        command, cwd=cwd, env=os.environ | ENVIRONMENT | environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def still_runs(process: subprocess.Popen) -> bool:
    assert process.poll() is None, "it has ended before"
    return True


def trials_of(folder: Path) -> list[FrozenTrial]:
    """Of the only study there."""
    if not (folder / "optuna.db").exists():
        return []
    try:
        found = storage.connect(f"sqlite:///{folder}/optuna.db")
        (name,) = storage.names(found)
        return found.get_all_trials(storage.names(found)[name])
    except (ValueError, InputError):  # it is being made
        return []


def epochs_of(folder: Path) -> int:
    return sum(len(trial.intermediate_values) for trial in trials_of(folder))


def workers_of(process: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes of a coordinator."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
def test_a_worker_s_first_death_executes_the_same_trial_again_and_a_second_fails_it(checkout: Path) -> None:
    edit_params(checkout, lambda content: content["variants"]["modern"].update(epochs=400))
    edit_params(checkout, lambda content: content["sweep"].update(trials=2, batch=1))
    words = ("modern", "--workers", "1", "--out", "study", "--no-track")
    with started(*sweep_command(*words), cwd=checkout) as process:
        for epochs in (1, 30):  # those of the first worker are told once
            wait_for(lambda: epochs_of(checkout) >= epochs and still_runs(process))  # noqa: B023
            assert [trial.state for trial in trials_of(checkout)] == [TrialState.RUNNING]
            (worker,) = workers_of(process)
            worker.kill()
        wait_for(lambda: len(trials_of(checkout)) > 1 and trials_of(checkout)[1].intermediate_values)
        children = psutil.Process(process.pid).children(recursive=True)
        for one in [psutil.Process(process.pid), *workers_of(process)]:  # as a terminal does
            one.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert not psutil.wait_procs(children, 10)[1]
    dead, other = trials_of(checkout)
    assert dead.state == TrialState.FAIL
    assert "its worker died 2 times" in dead.user_attrs["reason"]
    assert len(dead.intermediate_values) >= 30  # written while it ran
    assert other.state == TrialState.WAITING  # handed back
    assert "interrupted; the same command continues" in said
    assert "Traceback" not in said
    assert "distributed" not in said


AUDIT = """
import os, sys

def note(event, arguments):
    if event == "open" and arguments[0] != {path!r}:
        descriptor = os.open({path!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, str(arguments[0]).encode() + b"\\n")
        os.close(descriptor)

sys.addaudithook(note)
"""
IN_OPEN = 0x20


@pytest.mark.slow
def test_a_study_sees_no_test_digit(
    checkout: Path, alone: dict[str, bytes], prepared: Path, mnist: Path, tmp_path: Path
) -> None:
    """They are there, and nobody opens them; in ``alone`` they are not there, and the study is the same.

    However many workers there are.
    """
    shutil.copy(prepared / "test.safetensors", checkout / "data")
    shutil.copytree(mnist, checkout / "data" / "raw")
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(AUDIT.format(path=str(tmp_path / "opened")))
    with watched(checkout / "data", checkout / "data" / "raw") as seen:
        # safetensors opens files without Python's knowledge: the kernel tells of those
        command = sweep_command("modern", "--workers", "3", "--out", "study", "--no-track")
        command[1] = f"PYTHONPATH=src:{hook}"
        run(*command, cwd=checkout)
        names = seen()
    assert names == {"train.safetensors"}
    opened = (tmp_path / "opened").read_text()
    assert "params.yaml" in opened
    assert "t10k" not in opened
    assert "test.safetensors" not in opened
    assert files_of(checkout / "study") == alone


@contextmanager
def watched(*folders: Path) -> Iterator[Callable[[], set[str]]]:
    """Tells the names of files that anybody opens in folders (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    for folder in folders:
        assert libc.inotify_add_watch(descriptor, bytes(folder), IN_OPEN) >= 0

    def seen() -> set[str]:
        names = set()
        with suppress(BlockingIOError):
            while content := os.read(descriptor, 2**16):
                while content:
                    _, _, _, length = struct.unpack_from("iIII", content)
                    names.add(content[16 : 16 + length].rstrip(b"\0").decode())
                    content = content[16 + length :]
        return names - {""}  # the folder itself

    try:
        yield seen
    finally:
        os.close(descriptor)


def tracked(folder: Path) -> tuple[list[Run], list[Run]]:
    """The runs of studies, and of trials in order."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("lenet5-sweeps")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    trials = [found for found in runs if found.data.tags["kind"] == "trial"]
    return [found for found in runs if found.data.tags["kind"] == "study"], sorted(
        trials, key=lambda found: int(found.data.tags["trial"])
    )


@pytest.mark.slow
def test_the_record_is_live_goes_on_and_shows_every_trial(checkout: Path, alone: dict[str, bytes]) -> None:
    edit_params(checkout, lambda content: content["variants"]["modern"].update(epochs=8))
    words = ("modern", "--workers", "2", "--out", "study")
    run(*lenet_command("sync"), cwd=checkout)
    with started(*sweep_command(*words), cwd=checkout) as process:
        wait_for(lambda: tracked(checkout)[1] and any(found.data.metrics for found in tracked(checkout)[1]))
        ((study,), trials) = tracked(checkout)
        assert study.info.status == "RUNNING"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    ((study,), trials) = tracked(checkout)
    assert study.info.status == "KILLED"
    assert not [found for found in trials if found.info.status == "RUNNING"]
    run(*sweep_command(*words), cwd=checkout)
    before = [found.info.run_id for found in trials]
    ((study,), trials) = tracked(checkout)
    assert study.info.status == "FINISHED"
    assert [found.info.run_id for found in trials][: len(before)] == before
    rows = pd.read_csv(checkout / "study" / "trials.csv")
    assert [found.data.tags["state"] for found in trials] == rows["state"].tolist()
    ends = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    assert [found.info.status for found in trials] == [ends[state] for state in rows["state"]]
    client = MlflowClient(f"sqlite:///{checkout}/mlflow.db")
    for found, row in zip(trials, rows.itertuples(), strict=True):
        assert found.data.tags["mlflow.parentRunId"] == study.info.run_id
        assert found.data.tags["run.key"] == rows["run.key"][row.Index]
        assert found.data.tags["weights.sha256"] == rows["weights.sha256"][row.Index]
        points = client.get_metric_history(found.info.run_id, "validation/error")
        assert [(point.step, point.value) for point in sorted(points, key=lambda point: point.step)] == [
            (epoch, float(error)) for epoch, error in enumerate(row.errors.split(), start=1)
        ]
        assert {"train/loss", "train/error", "validation/loss", "learning_rate"} <= found.data.metrics.keys()
        assert found.data.params["batch_size"] == str(row.batch_size)
        assert found.data.params["optimizer.kind"] == rows["optimizer.kind"][row.Index]
    best = json.loads((checkout / "study" / "best.json").read_text())["best"]
    (winner,) = [found for found in trials if found.data.tags["trial"] == str(best["trial"])]
    assert study.data.tags["best.trial"] == str(best["trial"])
    assert study.data.tags["best.run"] == winner.info.run_id
    assert f"runs/{winner.info.run_id}" in study.data.tags["mlflow.note.content"]
    assert study.data.metrics["best/validation/error"] == best["validation/error"]
    assert {item.path for item in client.list_artifacts(study.info.run_id)} == {
        "trials.csv", "best.json", "study.json", "source",
    }  # fmt: skip
    again = run(*sweep_command(*words), cwd=checkout)
    assert "12 trials" in again.stdout
    assert len(tracked(checkout)[1]) == 12


def test_a_trial_s_record_is_made_once_and_completed_where_it_was_cut_off_or_deleted(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more numbers than MLflow takes at a time."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client = tracking.open_store()
    study = tracking.StudyRecord("study", "modern", "1", {}, lambda: ([], []))
    block = params.variants["modern"].model_dump(mode="json")
    rows = [
        {"epoch": epoch, "validation/error": 1 / epoch, "train/loss": 0.5, "weights.sha256": "w"}
        for epoch in range(1, 601)
    ]
    trial = tracking.TrialRecord(7, "complete", block, {"key": "k"}, rows, "", 1000, 2000)
    first = sweeps._Runs(client, study)
    first.update([trial], [7])
    (run_id,) = (run.info.run_id for run in first.trials.values())
    (whole,) = (run for run in client.search_runs(["2"]) if run.info.run_id == run_id)
    for tag, end in (("state", lambda: client.delete_tag(run_id, "state")), ("", lambda: client.delete_run(run_id))):
        end()
        again = sweeps._Runs(client, study)
        assert bool(again.trials) == (not tag)
        again.update([trial], [7])
    found = client.get_run(run_id)
    assert (found.data.to_dictionary(), found.info.lifecycle_stage) == (whole.data.to_dictionary(), "active")
    assert (found.data.tags["state"], found.data.tags["weights.sha256"]) == ("complete", "w")
    points = client.get_metric_history(run_id, "validation/error")
    assert [(point.step, point.value) for point in points] == [(row["epoch"], row["validation/error"]) for row in rows]


@pytest.mark.slow
def test_without_an_mlflow_store_a_study_goes_on(checkout: Path, alone: dict[str, bytes]) -> None:
    words = ("modern", "--workers", "1", "--out", "study")
    done = run(*sweep_command(*words), cwd=checkout, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert files_of(checkout / "study") == alone
    assert done.stderr.count("warning") == 1
    assert "goes on without its MLflow record" in done.stderr
    run(*sweep_command(*words), cwd=checkout)  # completes it
    ((study,), trials) = tracked(checkout)
    assert (study.info.status, len(trials)) == ("FINISHED", 12)


@pytest.mark.slow
def test_the_winner_retrained_by_the_pipeline_has_exactly_the_recorded_error(checkout: Path, mnist: Path) -> None:
    environment = {"LENET_DATA_DIR": str(mnist)}
    shutil.rmtree(checkout / "data")
    own = checkout / "experiments" / "sweeps"
    run(*lenet_command("repro", "prepare"), cwd=checkout, **environment)
    run("dvc", "repro", "report@modern", cwd=own, **environment)
    folder = own / "studies" / "modern"
    best = json.loads((folder / "best.json").read_text())["best"]
    assert "studies/modern/best.json" in run("dvc", "metrics", "show", "--json", cwd=own).stdout
    assert (folder / "report.html").stat().st_size > 10_000
    before = (checkout / "params.yaml").read_text()
    shown = run(*lenet_command("sweep", "promote", "modern"), cwd=checkout).stdout
    after = (checkout / "params.yaml").read_text()
    assert after != before
    assert shown.splitlines()[:2] == ["--- params.yaml", "+++ params.yaml"]
    modified = (folder / "trials.csv").stat().st_mtime_ns
    run("dvc", "repro", cwd=checkout, **environment)
    assert (folder / "trials.csv").stat().st_mtime_ns == modified  # it starts no study
    metrics = json.loads((checkout / "metrics" / "modern-1.json").read_text())
    assert metrics["validation"]["error"] == best["validation/error"]
    assert metrics["run"]["weights.sha256"] == best["weights.sha256"]
    assert metrics["run"]["key"] != best["run.key"]  # a trial's has the signature of its structure
    published = {path.name: path.read_bytes() for path in folder.iterdir()}
    run("dvc", "repro", "report@modern", cwd=own, **environment)  # the same study
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == published


@pytest.mark.slow
def test_bad_input_is_one_line_and_status_2(studied: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(studied)
    for words, expected in (
        ("lenet", "variant 'lenet' has no block"),
        ("original-tanh", "sweep.spaces has no original-tanh: nothing is to be tried; it has: modern"),
        ("modern --all", "name one VARIANT, or --all"),
        ("modern --scheduler tcp://10.0.0.1:8786", "without TLS, anybody on the way could run code"),
        ("modern --scheduler tcp://127.0.0.1:1 --workers 2", "give one of them"),
        ("modern --data none", "none is missing"),
        ("modern --storage mysql://x", "names no storage of trials; legal: sqlite:///FILE"),
        ("show nothing", "no study nothing; there are: "),
        ("promote modern", "variants.modern is not what study modern-"),  # the published one
    ):
        said = refused(f"sweep {words}", monkeypatch, capsys)
        assert expected in said
        assert said.count("\n") == 1


@pytest.mark.slow
def test_memory_that_runs_out_fails_a_trial_and_the_study_goes_on(checkout: Path) -> None:
    """A worker whose address space is limited, and a batch that does not fit into it."""
    space = {"batch_size": [16, 60_000], "optimizer.lr": {"low": 1e-3, "high": 1e-2, "scale": "log"}}
    edit_params(checkout, lambda content: content["variants"]["modern"].update(train_size=50_000, epochs=1))
    edit_params(checkout, lambda content: content["sweep"].update(trials=4, spaces={"modern": space}))
    limit = 6 * 2**30
    command = sweep_command("modern", "--workers", "1", "--out", "study", "--no-track")
    subprocess.run(
        command, cwd=checkout, env=os.environ | ENVIRONMENT, check=True, capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip
    rows = pd.read_csv(checkout / "study" / "trials.csv")
    assert set(rows["state"][rows["batch_size"] == 60_000]) == {"failed"}
    assert set(rows["state"][rows["batch_size"] == 16]) <= {"complete", "pruned"}
    assert rows["reason"].str.contains("memory", case=False).any()
