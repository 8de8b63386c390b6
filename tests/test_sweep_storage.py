"""Where trials are kept: files cut off by kills, bad addresses, many processes, a database, more than one machine."""

import itertools
import json
import multiprocessing
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from mlflow import MlflowClient
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial
from safetensors.torch import save_file

from conftest import (
    ROOT,
    SMALL,
    files_of,
    mlflow_server,
    run,
    small_disk,
    wait_for,
)
from lenet import tracking
from lenet.cli import cli
from lenet.digits.data import load_digits
from lenet.runtime.errors import InputError
from lenet.sweep import storage as storages
from lenet.sweep.coordinator import Coordinator
from lenet.sweep.settings import Settings
from lenet.sweep.study import Plan
from test_sweep import started, sweep_command

SETTINGS = {
    "seed": 1, "run_seed": 1, "batch": 4, "objectives": ["validation/error"], "sampler": {"kind": "random"},
    "pruner": {"kind": "none"},
}  # fmt: skip
PLAN = Plan("modern", SETTINGS, {"batch_size": [32, 64]}, {"epochs": 3}, "digits", "signature", {"optuna": "5"})
WAITING = create_trial(state=TrialState.WAITING, params={}, distributions={})
FILES = ["sqlite", "journal"]
NETWORK = "198.51.100"  # for documentation and tests


def known(storage: BaseStorage) -> list[tuple]:
    """Everything that a storage has of its trials."""
    return [
        (study.study_name, study.user_attrs, trial.number, trial.state, trial.value, trial.params, trial.user_attrs,
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
    study = storages.begin(storage, "study", PLAN)
    first, second, _ = (storage.create_new_trial(study, template_trial=WAITING) for _ in range(3))
    for trial in (first, second):
        assert storage.set_trial_state_values(trial, TrialState.RUNNING)
        storage.set_trial_intermediate_value(trial, 1, 0.1 + 0.2)
    storage.set_trial_state_values(first, TrialState.COMPLETE, [0.1])
    return path


LINE = b'{"op_code":8,"worker_id":"killed","trial_id":1,"user_attr":{"reason":"%s"}}\n' % (b"x" * 9000)


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
    storages.begin(storage, "study", PLAN)
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
    "address", ["", "optuna.db", "sqlite:///", "journal:///", "sqlite://trials.db", "mysql://h/d", "postgres://h/d"]
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
        ("postgresql://lenet:{}@127.0.0.1:1/trials", "postgresql://***@127.0.0.1:1/trials: connection failed"),
        ("postgresql+psycopg://lenet:{}@127.0.0.1:1/trials", "Connection refused"),
        ("postgresql://lenet:{}@/trials?host=/nowhere", "postgresql://***@/trials?host=***: "),
        ("postgresql://127.0.0.1:1/trials?user=lenet&password={}", "trials?user=***&password=***: connection failed"),
        ("postgresql://lenet:{}@127.0.0.1:port/trials", "postgresql://***@127.0.0.1:port/trials: "),
        ("postgresql+none://lenet:{}@127.0.0.1/trials", "postgresql+none://***@127.0.0.1/trials: names no storage"),
        ("mysql://127.0.0.1/trials?pass%77ord={}", "mysql://127.0.0.1/trials?pass%77ord=***: names no storage"),
        ("mysql://lenet:{}@127.0.0.1/trials", "mysql://***@127.0.0.1/trials: names no storage of trials"),
    ],
)
@pytest.mark.parametrize("password", ["swordfish", "sword%40fish", "sword:/fish"])
def test_no_password_is_shown_of_a_database_that_cannot_be_had(address: str, said: str, password: str) -> None:
    found = refused(address.format(password))
    assert said in found
    assert "fish" not in found


def test_an_at_sign_in_a_password_is_no_host_s_begin() -> None:
    said = "postgresql://***@127.0.0.1:1/trials: an @ in a password is written %40"
    assert refused("postgresql://lenet:sword@fish@127.0.0.1:1/trials") == said


@pytest.mark.parametrize("scheme", FILES)
def test_a_place_that_cannot_be_written_or_is_something_else_is_refused(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, content in (("text", "some text\nof two lines\n"), ("line", "one line"), ("data", '{"one": "line"}\n')):
        (tmp_path / name).write_text(content)
        said = refused(f"{scheme}:///{tmp_path / name}")
        assert said.startswith(f"{scheme}:///{tmp_path / name}: ")
        assert scheme == "journal" or said.endswith("; move it away, and studies begin anew")
        assert (tmp_path / name).read_text() == content
    for name in ("folder", "text/study.db"):
        assert refused(f"{scheme}:///{tmp_path / name}").startswith(f"{scheme}:///{tmp_path / name}: ")


def test_a_journal_is_no_database_and_a_database_no_journal(tmp_path: Path) -> None:
    for scheme, other in (FILES, FILES[::-1]):
        storages.begin(storages.connect(f"{scheme}:///{tmp_path / scheme}"), "study", PLAN)
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
            storages.begin(storage, f"study {number}", replace(PLAN, data="x" * 2000))


@pytest.mark.parametrize("scheme", FILES)
def test_a_relative_file_starts_at_the_main_checkout(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, copy, inner = tmp_path / "a%41?{b}", tmp_path / "copy", tmp_path / "a%41?{b}" / "src" / "inner"
    for folder in (main / ".dvc", copy / ".dvc", inner):
        folder.mkdir(parents=True)
    address = f"{scheme}:///kept/trials"
    monkeypatch.chdir(inner)
    storages.begin(storages.connect(address), "one", PLAN)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(main))  # as in DVC's temporary copies
    assert set(storages.names(storages.connect(address))) == {"one"}
    assert set(storages.names(storages.connect(storages.absolute(address)))) == {"one"}
    assert (main / "kept" / "trials").exists()
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
        storages.begin(storage, "study", PLAN)
    return found


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(PLAN, variant="original-tanh"), "variant"),
        (replace(PLAN, data="other"), "the training digits"),
        (replace(PLAN, signature="other"), "what the code computes"),
        (replace(PLAN, packages={"optuna": "4"}), "Optuna"),
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
            storages.begin(storage, "study", other)
        assert str(caught.value).startswith(f"study study was begun with other {named}; ")
        assert storages.begin(storage, "study", replace(PLAN)) == number
        assert storage.get_study_user_attrs(number) == before
        assert storages.plan_of(storage, number) == PLAN
        another = storages.begin(storage, f"with other {named}", other)
        assert storages.plan_of(storage, another) == other


@pytest.mark.parametrize("scheme", FILES)
def test_a_study_deleted_under_its_coordinator_is_one_line(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    storage = storages.connect(f"{scheme}:///trials")
    study = storages.begin(storage, "study", PLAN)
    for _ in range(3):
        storage.create_new_trial(study, template_trial=WAITING)
    coordinator = Coordinator(
        storage, "study", study, PLAN, 3, nullcontext, see=lambda trials: storage.delete_study(study)
    )  # fmt: skip
    with pytest.raises(InputError, match="study: it has been deleted from its storage"), storages.asking("study"):
        coordinator.run()
    assert storages.names(storage) == {}
    with pytest.raises(KeyError, match="fault"), storages.asking("study"):
        raise KeyError("fault of ours")


def awkward() -> list[float]:
    """Floats that lose something in fewer than 17 digits or 64 bits."""
    return [0.1 + 0.2, 1 / 3, 0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 2.0**53 + 2, 1 - 2**-53]


def check_floats(connect: Callable[[], BaseStorage]) -> None:
    """Write values, params and values by epoch, and read them again by a new connection."""
    numbers, choices = awkward(), [1 / 3, 16, 32.0, True, "relu"]
    storage = connect()
    study = storages.begin(storage, "floats", PLAN)
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
    return [repr(n) for n in (trial.value, *errors, trial.params["lr"], trial.user_attrs["history"][0]["loss"])]


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
    return storages.begin(storage, "study", PLAN)


def check_beginnings(address: str) -> None:
    """Of a fresh storage."""
    found = side_by_side(open_and_begin, address)
    storage = storages.connect(address)
    assert found == [storages.names(storage)["study"]] * PROCESSES
    assert len(storage.get_all_studies()) == 1
    assert storages.plan_of(storage, found[0]) == PLAN


@pytest.mark.slow
@pytest.mark.parametrize("scheme", FILES)
def test_processes_that_open_a_fresh_storage_at_once_begin_one_study(scheme: str, tmp_path: Path) -> None:
    for i in range(5):
        check_beginnings(f"{scheme}:///{tmp_path / str(i)}")


# A database


def postgresql_programs() -> str | None:
    """The folder of PostgreSQL's server programs."""
    places = [*os.environ["PATH"].split(os.pathsep), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    found = shutil.which("initdb", path=os.pathsep.join(places))
    return str(Path(found).resolve().parent) if found else None


@pytest.fixture(scope="module")
def postgresql() -> Iterator[int]:
    """The port of a PostgreSQL server of the test's own, which refuses to be root's; it has a user lenet."""
    programs = postgresql_programs()
    if not programs:
        pytest.skip("there is no PostgreSQL server: no program initdb")
    owner: dict[str, Any] = {}
    if os.getuid() == 0:
        if "postgres" not in {user.pw_name for user in pwd.getpwall()}:
            pytest.skip("PostgreSQL's server does not run as root, and there is no user postgres")
        owner = {"user": "postgres", "group": "postgres", "extra_groups": []}
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="postgresql") as name:
        folder = Path(name)
        if owner:
            shutil.chown(folder, "postgres", "postgres")
        words = ["-D", str(folder / "data"), "-A", "trust", "-U", "lenet", "--no-sync", "--locale=C"]
        subprocess.run([f"{programs}/initdb", *words], check=True, stdout=subprocess.DEVNULL, cwd=folder, **owner)
        with (folder / "data" / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {NETWORK}.0/24 trust\n")
        words = ["-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-h", "*", "-F"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen([f"{programs}/postgres", *words], stdout=log, stderr=log, cwd=folder, **owner)
        try:
            wait_for(lambda: b"ready to accept connections" in (folder / "log").read_bytes())
            yield port
        finally:
            server.send_signal(signal.SIGQUIT)  # at once; nothing of it is kept
            server.wait()


Database = Callable[[str], str]


@pytest.fixture
def database(postgresql: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Makes an empty database of this name, and tells its address. Connections of this process end with the test."""
    opened = []

    def remember(*arguments: object, **options: object) -> RDBStorage:
        opened.append(RDBStorage(*arguments, **options))
        return opened[-1]

    def make(name: str) -> str:
        with psycopg.connect(f"postgresql://lenet@127.0.0.1:{postgresql}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://lenet@127.0.0.1:{postgresql}/{name}"

    monkeypatch.setattr(storages, "RDBStorage", remember)
    yield make
    for storage in opened:
        storage.engine.dispose()


@pytest.mark.slow
def test_a_database_begins_one_study_and_keeps_numbers_bit_for_bit(database: Database) -> None:
    address = database("fresh")
    check_beginnings(address)
    check_floats(lambda: storages.connect(address))


# Whole studies

TRIALS, BATCH = SMALL["trials"], SMALL["batch"]


@pytest.fixture(scope="module")
def built(studied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(studied, tmp_path_factory.mktemp("built") / "copy", symlinks=True))


def ended(process: subprocess.Popen[str], status: int = 0) -> list[str]:
    """The lines that a process has said on standard error until it has ended, with this status."""
    said = process.communicate(timeout=200)[1]
    assert process.returncode == status, said
    return said.splitlines()


def only_study(address: str) -> tuple[BaseStorage, int]:
    storage = storages.connect(address)
    wait_for(lambda: storages.names(storage))
    (study,) = storages.names(storage).values()
    return storage, study


def kill_in_the_middle_of_a_trial(storage: BaseStorage, study: int) -> int:
    """SIGKILL a worker; tell its trial's number."""

    def is_halfway(trial: FrozenTrial) -> bool:
        return trial.state == TrialState.RUNNING and 0 < len(trial.intermediate_values) < 4

    while True:
        for trial in filter(is_halfway, storage.get_all_trials(study)):
            worker = int(trial.user_attrs["process"].rpartition(":")[2].partition("@")[0])
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.2)  # for what it has said to arrive
            if is_halfway(storage.get_trial(trial._trial_id)):
                os.kill(worker, signal.SIGKILL)
                return trial.number
            os.kill(worker, signal.SIGCONT)
        assert not storage.get_study_user_attrs(study).get("ended"), "no worker was killed"
        time.sleep(0.01)


@pytest.mark.slow
def test_four_workers_on_a_database_one_of_them_killed_give_the_same_study(
    built: Path, alone: dict[str, bytes], database: Database
) -> None:
    address = database("killed")
    words = ["modern", "--workers", "4", "--storage", address, "--out", "killed"]
    with started(*sweep_command(*words), cwd=built, LENET_TRACK="0") as coordinator:
        storage, study = only_study(address)
        killed = kill_in_the_middle_of_a_trial(storage, study)
        ended(coordinator)
    trials = storage.get_all_trials(study)
    assert {trial.number: trial.user_attrs["deaths"] for trial in trials if "deaths" in trial.user_attrs} == {killed: 1}
    assert len({trial.user_attrs["process"] for trial in trials}) > 1
    assert files_of(built / "killed") | {"study.json": b""} == alone | {"study.json": b""}  # it has the study's name


# More than one machine


@dataclass(frozen=True)
class Host:
    """A machine with a clone of the checkout, and nothing else of it but the training digits.

    Attributes:
        folder: the clone.
        enter: the words before a command that let it run there.
        main: the address of the first machine, as seen from there.
    """

    folder: Path
    enter: tuple[str, ...]
    main: str

    def sweep(self, *words: str, **environment: str) -> AbstractContextManager[subprocess.Popen[str]]:
        return started(*self.enter, *sweep_command(*words), cwd=self.folder, LENET_TRACK="1", **environment)


@contextmanager
def host(number: int, built: Path, folder: Path) -> Iterator[Host]:
    """A host with a network and a name of its own. Where these cannot be made, it is the same machine as the first."""
    run("git", "clone", "-q", str(built), str(folder), cwd=built)
    (folder / "data").mkdir()
    shutil.copy(built / "data" / "train.safetensors", folder / "data")
    name = f"ln{os.getpid()}-{number}"
    here, there = (f"{NETWORK}.{4 * number + i}" for i in (1, 2))
    rename = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name)
    made = all(
        succeeds(*command.split())
        for command in (
            f"ip netns add {name}",
            f"ip link add {name}a type veth peer name {name}b netns {name}",
            f"ip addr add {here}/30 dev {name}a",
            f"ip link set {name}a up",
            f"ip -n {name} addr add {there}/30 dev {name}b",
            f"ip -n {name} link set {name}b up",
        )
    ) and succeeds(*rename, "true")
    try:
        yield Host(folder, ("ip", "netns", "exec", name, *rename), here) if made else Host(folder, (), "127.0.0.1")
    finally:
        succeeds("ip", "netns", "del", name)


def succeeds(*command: str) -> bool:
    """Whether there is such a command, and it does."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.slow
def test_workers_of_other_hosts_give_the_same_study_and_those_that_would_not_are_refused(
    built: Path, alone: dict[str, bytes], database: Database, tmp_path: Path
) -> None:
    address = database("hosts")
    port = address.partition("127.0.0.1:")[2]
    with ExitStack() as stack:
        _, uri = stack.enter_context(mlflow_server(tmp_path))
        first, second = (stack.enter_context(host(i, built, tmp_path / str(i))) for i in (1, 2))
        there = f"postgresql://lenet@{first.main}:{port}"
        words = ["modern", "--study", "far", "--workers", "0", "--storage"]
        coordinator = stack.enter_context(
            started(
                *sweep_command(*words, address, "--out", "far"), cwd=built, LENET_TRACK="1", MLFLOW_TRACKING_URI=uri
            )
        )
        storage, study = only_study(address)
        wait_for(lambda: len(storage.get_all_trials(study)) == SMALL["batch"])

        order = second.folder / "src" / "lenet" / "digits" / "data.py"
        sources = order.read_text()
        order.write_text(sources.replace('"order", epoch)', '"order", epoch + 1)'))
        few = load_digits(built / "data" / "train.safetensors")[:1000]
        save_file({part: getattr(few, part).clone() for part in ("images", "labels", "index")}, tmp_path / "few")
        far = f"postgresql://lenet@{second.main}:{port}"
        under_way = "study far is under way elsewhere; `lenet sweep --join` adds workers to it"
        refused = [
            (under_way, started(*sweep_command(*words, address), cwd=built)),
            (under_way, started(*sweep_command(*words, address), cwd=first.folder)),
            (under_way, first.sweep(*words, there)),
            ("the training digits here are not those", first.sweep("--join", there, "--data", str(tmp_path / "few"))),
            ("the code here does not compute what the study's does", second.sweep("--join", far)),
        ]
        beside = [(said, stack.enter_context(process)) for said, process in refused]
        for said, process in beside:
            lines = ended(process, 2)
            assert lines[-1].startswith("lenet: error: ")
            assert said in lines[-1]
            assert len(lines) == 1 or lines[0].startswith("lenet: checking whether ")
        assert {trial.state for trial in storage.get_all_trials(study)} == {TrialState.WAITING}

        order.write_text(sources + "# a comment\n")
        held = [trial._trial_id for trial in storage.get_all_trials(study)]
        for trial in held:  # until both workers are there
            storage.set_trial_state_values(trial, TrialState.RUNNING)
            storage.set_trial_user_attr(trial, "process", tracking.this_process())
        workers = [
            stack.enter_context(first.sweep("--join", there)),
            stack.enter_context(second.sweep("--study", "far", LENET_SWEEP_JOIN=far)),
        ]
        assert [worker.stderr.readline() for worker in workers] == ["lenet: working for study far\n"] * 2
        for trial in held:
            storage.set_trial_state_values(trial, TrialState.WAITING)
        ended(coordinator)
        said = [ended(worker) for worker in workers]
        late = stack.enter_context(first.sweep("--join", there, "--study", "far", ATEN_CPU_CAPABILITY="default"))
        assert ended(late) == ["lenet: working for study far"]
        order.write_text(sources)

    executed = [[int(re.match(r"far: trial (\d+): ", line)[1]) for line in lines] for lines in said]
    assert all(executed)
    assert sorted(itertools.chain.from_iterable(executed)) == list(range(SMALL["trials"]))
    if first.enter:
        hosts = {trial.user_attrs["process"].partition(":")[0] for trial in storage.get_all_trials(study)}
        assert hosts == {first.enter[-1], second.enter[-1]}
    assert files_of(built / "far") | {"study.json": b""} == alone | {"study.json": b""}  # it has the study's name
    for other in (first, second):
        assert run("git", "status", "--short", cwd=other.folder).stdout == ""
        assert not (other.folder / "mlflow.db").exists()
    store = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = store.get_experiment_by_name("lenet5-sweeps")
    trials = store.search_runs([experiment.experiment_id], "tags.kind = 'trial'")
    assert sorted(int(one.data.tags["trial"]) for one in trials) == list(range(SMALL["trials"]))


def test_the_guide_names_options_and_variables_that_exist() -> None:
    text = (ROOT / "docs" / "how-to" / "scale-a-study.md").read_text()
    commands = cli.commands["sweep"].commands
    known = {name: {o for one in command.params for o in one.opts} for name, command in commands.items()}
    calls = re.findall(r"lenet,? sweep,? (.*)", text)
    assert len(calls) >= 8
    for words in calls:
        command = known.get(words.split()[0], known["run"])
        assert set(re.findall(r"(?<!\w)--[a-z-]+", words)) <= command, words
    variables = {one.envvar for one in commands["run"].params if one.envvar}
    assert set(re.findall(r"LENET_\w+", text)) <= variables
    for settings in re.findall(r"`sweep\.(\w+)`", text):
        assert settings in Settings.model_fields
