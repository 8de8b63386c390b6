"""Where trials are kept: files cut off by kills, bad addresses, many processes, a database, more than one machine."""

import json
import multiprocessing
import os
import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from conftest import small_disk
from lenet.errors import InputError
from lenet.sweep import storage as storages
from lenet.sweep.study import Plan
from lenet.sweep.worker import Worker

SETTINGS = {
    "seed": 1, "run_seed": 1, "batch": 4, "objectives": ["validation/error"], "sampler": {"kind": "random"},
    "pruner": {"kind": "none"},
}  # fmt: skip
PLAN = Plan("modern", SETTINGS, {"batch_size": [32, 64]}, {"epochs": 3}, "digits", "sources", {"torch": "2"})
WAITING = create_trial(state=TrialState.WAITING, params={}, distributions={})
FILES = ["sqlite", "journal"]


def known(storage: BaseStorage) -> list[tuple]:
    """Everything that a storage has of its trials."""
    return [
        (study.study_name, study.user_attrs, trial.number, trial.state, trial.values, trial.params, trial.user_attrs,
         trial.intermediate_values, trial.datetime_start)
        for study in storage.get_all_studies()
        for trial in storage.get_all_trials(study._study_id)
    ]  # fmt: skip


# A journal that was cut off


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal with a study of three trials, one of them complete and one begun."""
    path = tmp_path / "study.log"
    storage = storages.connect(f"journal:///{path}")
    study = storages.begin(storage, "study", PLAN, "canary")
    first, second, _ = (storage.create_new_trial(study, template_trial=WAITING) for _ in range(3))
    for trial in (first, second):
        assert storage.set_trial_state_values(trial, TrialState.RUNNING)
        storage.set_trial_intermediate_value(trial, 1, 0.1 + 0.2)
    storage.set_trial_state_values(first, TrialState.COMPLETE, [0.1])
    return path


LINE = b'{"op_code":8,"worker_id":"killed","trial_id":1,"user_attr":{"beat":"%s"}}\n' % (b"x" * 9000)


@pytest.mark.parametrize(
    "last",
    [LINE[:1], LINE[:40], LINE[:8500], LINE[:-2], LINE[:-1], b"\0" * 300, b"\xff\xfe{\n", b"{]\n"],
    ids=["one byte", "its begin", "most of it", "a bracket less", "no line's end", "zeros", "no text", "no JSON"],
)
def test_a_journal_cut_off_by_a_kill_loses_its_last_line_alone(journal: Path, last: bytes) -> None:
    before = journal.read_bytes()
    other = storages.connect(f"journal:///{journal}")  # of a process that was there before
    expected = known(other)
    assert len(expected) == 3
    with journal.open("ab") as file:
        file.write(last)

    found = storages.connect(f"journal:///{journal}")
    assert known(found) == known(other) == expected  # reading is not disturbed, and mends nothing
    assert journal.read_bytes() == before + last

    (study,) = storages.names(found).values()
    found.create_new_trial(study, template_trial=WAITING)
    other.set_trial_intermediate_value(other.get_trial_id_from_study_id_trial_number(study, 1), 2, 0.5)
    bare = known(JournalStorage(JournalFileBackend(str(journal))))  # without anything of this project
    assert known(found) == known(other) == bare
    assert len(bare) == 4
    assert bare[1][-2] == {1: 0.1 + 0.2, 2: 0.5}
    assert [bare[0], bare[2]] == [expected[0], expected[2]]
    after = journal.read_bytes()
    assert after.startswith(before)
    assert len([json.loads(line) for line in after.splitlines()]) == len(before.splitlines()) + 2


def test_a_journal_is_whole_after_the_kill_of_its_very_first_write(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    path.write_bytes(LINE[:7])
    storage = storages.connect(f"journal:///{path}")
    storages.begin(storage, "study", PLAN, "canary")
    assert storages.names(JournalStorage(JournalFileBackend(str(path)))) == {"study": 0}


def test_a_writer_whose_lock_was_taken_away_while_it_stood_still_goes_on(journal: Path) -> None:
    lock = Path(f"{journal}.lock")
    storage = storages.connect(f"journal:///{journal}")
    append = os.fsync

    def stand_still(descriptor: int) -> None:
        lock.unlink()
        append(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", stand_still)
        storage.set_trial_intermediate_value(storage.get_trial_id_from_study_id_trial_number(0, 1), 2, 0.5)
    assert known(storages.connect(f"journal:///{journal}"))[1][-2] == {1: 0.1 + 0.2, 2: 0.5}


# Addresses


def refused(address: str) -> str:
    """What is said of an address, in one line."""
    with pytest.raises(InputError) as caught:
        storages.connect(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "address", ["", "optuna.db", "sqlite:///", "journal:///", "sqlite://trials.db", "mysql://u@h/d", "postgres://u@h/d"]
)
def test_an_address_that_names_no_storage_is_told_the_legal_ones(address: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert refused(address).startswith(f"{address}: names no storage of trials; legal: sqlite:///FILE, journal:///")
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"{tmp_path}.lock").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://lenet:{}@127.0.0.1:1/trials", "postgresql://lenet:…@127.0.0.1:1/trials: connection failed"),
        ("postgresql+psycopg://lenet:{}@127.0.0.1:1/trials", "Connection refused"),
        ("postgresql://lenet:{}@/trials?host=/nowhere", "postgresql://lenet:…@/trials?host=/nowhere: "),
        ("postgresql://127.0.0.1:1/trials?user=lenet&password={}", "trials?user=lenet&password=…: connection failed"),
        ("postgresql://lenet:{}@127.0.0.1:port/trials", "postgresql://lenet:…@127.0.0.1:port/trials: "),
        ("postgresql+none://lenet:{}@127.0.0.1/trials", "postgresql+none://lenet:…@127.0.0.1/trials: "),
        ("mysql://lenet:{}@127.0.0.1/trials", "mysql://lenet:…@127.0.0.1/trials: names no storage of trials"),
    ],
)
@pytest.mark.parametrize("password", ["swordfish", "sword%40fish", "sword:/fish"])
def test_no_password_is_shown_of_a_database_that_cannot_be_had(address: str, said: str, password: str) -> None:
    found = refused(address.format(password))
    assert said in found
    assert "fish" not in found


def test_an_at_sign_in_a_password_is_no_host_s_begin() -> None:
    said = "postgresql://lenet:…@127.0.0.1:1/trials: an @ in a password is written %40"
    assert refused("postgresql://lenet:sword@fish@127.0.0.1:1/trials") == said


@pytest.mark.parametrize("scheme", FILES)
def test_a_place_that_cannot_be_written_or_is_something_else_is_refused(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, content in (("text", "some text\nof two lines\n"), ("line", "one line"), ("data", '{"one": "line"}\n')):
        (tmp_path / name).write_text(content)
        assert refused(f"{scheme}:///{tmp_path / name}").startswith(f"{scheme}:///{tmp_path / name}: ")
        assert (tmp_path / name).read_text() == content
    for name in ("folder", "text/study.db"):
        assert refused(f"{scheme}:///{tmp_path / name}").startswith(f"{scheme}:///{tmp_path / name}: ")


def test_a_journal_is_no_database_and_a_database_no_journal(tmp_path: Path) -> None:
    for scheme, other in (FILES, FILES[::-1]):
        storages.begin(storages.connect(f"{scheme}:///{tmp_path / scheme}"), "study", PLAN, "canary")
        before = (tmp_path / scheme).read_bytes()
        refused(f"{other}:///{tmp_path / scheme}")
        assert (tmp_path / scheme).read_bytes() == before


@pytest.mark.parametrize("scheme", FILES)
def test_a_full_disk_is_one_line(scheme: str, tmp_path: Path) -> None:
    with small_disk(tmp_path, "8k"):
        with pytest.raises(InputError, match=r"disk is full|No space left") as caught:
            fill(f"{scheme}:///{tmp_path}/study")
        assert "\n" not in str(caught.value)


def fill(address: str) -> None:
    with storages.asking("study"):
        storage = storages.connect(address)
        for number in range(9):
            storages.begin(storage, f"study {number}", replace(PLAN, data="x" * 2000), "canary")


@pytest.mark.parametrize("scheme", FILES)
def test_a_relative_file_starts_at_the_main_checkout(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, copy, inner = tmp_path / "main", tmp_path / "copy", tmp_path / "main" / "src" / "inner"
    for folder in (main / ".dvc", copy / ".dvc", inner):
        folder.mkdir(parents=True)
    address = f"{scheme}:///kept/trials"
    monkeypatch.chdir(inner)
    storages.begin(storages.connect(address), "one", PLAN, "canary")
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(main))  # as in DVC's temporary copies
    assert set(storages.names(storages.connect(address))) == {"one"}
    assert set(storages.names(storages.connect(f"{scheme}:///{main}/kept/trials"))) == {"one"}
    monkeypatch.delenv("DVC_ROOT")
    assert storages.names(storages.connect(address)) == {}
    assert (copy / "kept" / "trials").exists()
    assert storages.absolute("postgresql://lenet@db/trials") == "postgresql://lenet@db/trials"


# What stands in a storage


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> list[BaseStorage]:
    """A sqlite file and a journal, each with a study."""
    folder = tmp_path_factory.mktemp("begun")
    found = [storages.connect(f"{scheme}:///{folder / scheme}") for scheme in FILES]
    for storage in found:
        storages.begin(storage, "study", PLAN, "canary")
    return found


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(PLAN, variant="original-tanh"), "variant"),
        (replace(PLAN, data="other"), "the training digits"),
        (replace(PLAN, source="other"), "the sources"),
        (replace(PLAN, packages={"torch": "3"}), "the packages"),
        (replace(PLAN, space={"batch_size": [16, 32]}, base={"epochs": 4}), "space, base"),
        (replace(PLAN, settings=SETTINGS | {"batch": 8, "seed": 2}), "seed, batch"),
        (replace(PLAN, data="other", settings=SETTINGS | {"run_seed": 2}), "the training digits, run_seed"),
        (replace(PLAN, settings=SETTINGS | {"objectives": ["validation/error", "parameters"]}), "objectives"),
    ],
)
def test_a_study_of_another_plan_is_refused_and_what_differs_named(
    begun: list[BaseStorage], other: Plan, named: str
) -> None:
    for storage in begun:
        number = storages.names(storage)["study"]
        before = storage.get_study_user_attrs(number)
        with pytest.raises(InputError) as caught:
            storages.begin(storage, "study", other, "canary")
        assert str(caught.value).startswith(f"study study was begun with other {named}; ")
        assert storages.begin(storage, "study", replace(PLAN), "another canary") == number
        assert storage.get_study_user_attrs(number) == before
        assert storages.plan_of(storage, number) == PLAN
        another = storages.begin(storage, f"with other {named}", other, "canary")
        assert storages.plan_of(storage, another) == other


def awkward() -> list[float]:
    """Floats that lose something in fewer than 17 digits or 64 bits."""
    chance = random.Random(1)
    drawn = (struct.unpack("<d", chance.randbytes(8))[0] for _ in range(12))
    return [0.1 + 0.2, 1 / 3, 0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 2.0**53 + 2, 1 - 2**-53,
            *(abs(number) for number in drawn if abs(number) < float("inf"))]  # fmt: skip


def check_floats(connect: Callable[[], BaseStorage]) -> None:
    """Write values, params and values by epoch, and read them again by a new connection."""
    numbers, choices = awkward(), [1 / 3, 16, 32.0, True, "relu"]
    storage = connect()
    study = storages.begin(storage, "floats", PLAN, "canary")
    wide = FloatDistribution(0.0, 1.7976931348623157e308)
    for i, number in enumerate(numbers):
        proposed = create_trial(
            state=TrialState.WAITING,
            params={"lr": number, "choice": choices[i % 5]},
            distributions={"lr": wide, "choice": CategoricalDistribution(choices)},
            user_attrs={"history": [{"loss": number}]},
        )
        trial = storage.create_new_trial(study, template_trial=proposed)
        storage.set_trial_state_values(trial, TrialState.RUNNING)
        for epoch, error in enumerate((number, number / 3), start=1):
            storage.set_trial_intermediate_value(trial, epoch, error)
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [number])
    found = sorted(connect().get_all_trials(study), key=lambda trial: trial.number)
    assert len(found) == len(numbers)
    for i, (number, trial) in enumerate(zip(numbers, found, strict=True)):
        assert bits(trial) == [repr(n) for n in (number, number, number / 3, number, number)]
        assert repr(trial.params["choice"]) == repr(choices[i % 5])


def bits(trial: FrozenTrial) -> list[str]:
    """A trial's floats; ``repr`` tells any two apart."""
    errors = [trial.intermediate_values[epoch] for epoch in (1, 2)]
    return [repr(n) for n in (*trial.values, *errors, trial.params["lr"], trial.user_attrs["history"][0]["loss"])]


@pytest.mark.parametrize("scheme", FILES)
def test_numbers_come_back_bit_for_bit(scheme: str, tmp_path: Path) -> None:
    check_floats(lambda: storages.connect(f"{scheme}:///{tmp_path / 'study'}"))


# Several processes

PROCESSES = 4
FORK = multiprocessing.get_context("fork")  # what they import is there


def side_by_side(act: Callable[..., object], *arguments: object) -> list:
    """What a function gives in several processes at once. It is handed a barrier; an exception is given as text."""
    barrier, answers = FORK.Barrier(PROCESSES), FORK.Queue()

    def answer() -> None:
        try:
            answers.put(act(barrier, *arguments))
        except BaseException as error:
            barrier.abort()
            answers.put(f"{type(error).__name__}: {error}")

    processes = [FORK.Process(target=answer) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    return found


def open_and_begin(barrier: "multiprocessing.synchronize.Barrier", address: str) -> int:
    barrier.wait()
    storage = storages.connect(address)
    return storages.begin(storage, "study", PLAN, "canary")


def check_beginnings(address: str) -> None:
    """Of a fresh storage."""
    found = side_by_side(open_and_begin, address)
    storage = storages.connect(address)
    assert found == [storages.names(storage)["study"]] * PROCESSES
    assert len(storage.get_all_studies()) == 1
    assert storages.plan_of(storage, found[0]) == PLAN


def claim_all(barrier: "multiprocessing.synchronize.Barrier", address: str) -> list[int]:
    storage = storages.connect(address)
    worker = Worker(storage, storages.names(storage)["study"], PLAN, None, Path(), print)
    barrier.wait()
    found = []
    while trial := worker._claim():
        found.append(trial.number)
    return found


def check_claims(address: str) -> None:
    """No two workers have one trial."""
    storage = storages.connect(address)
    study = storages.begin(storage, "study", PLAN, "canary")
    for _ in range(16):
        storage.create_new_trial(study, template_trial=WAITING)
    claimed = [number for numbers in side_by_side(claim_all, address) for number in numbers]
    assert Counter(claimed) == Counter(range(16))
    assert {trial.state for trial in storage.get_all_trials(study)} == {TrialState.RUNNING}


@pytest.mark.parametrize("scheme", FILES)
def test_no_trial_is_given_to_two_workers(scheme: str, tmp_path: Path) -> None:
    check_claims(f"{scheme}:///{tmp_path / 'study'}")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", FILES)
def test_processes_that_open_a_fresh_storage_at_once_begin_one_study(scheme: str, tmp_path: Path) -> None:
    for i in range(5):
        check_beginnings(f"{scheme}:///{tmp_path / str(i)}")
