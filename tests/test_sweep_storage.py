"""Where trials are kept: bad addresses, many processes, a database; and more than one machine."""

import multiprocessing
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from conftest import (
    ROOT,
    SMALL,
    files_of,
    run,
    small_disk,
    wait_for,
)
from lenet.cli import cli
from lenet.runtime.errors import InputError
from lenet.sweep import storage as storages
from lenet.sweep.coordinator import Coordinator
from lenet.sweep.settings import Settings
from lenet.sweep.study import Plan
from test_cluster import dask, dask_scheduler
from test_sweep import started, sweep_command, workers_of

SETTINGS = {
    "seed": 1, "seeds": [1], "batch": 4, "objectives": ["validation/error"], "sampler": {"kind": "random"},
    "pruner": {"kind": "none"},
}  # fmt: skip
PLAN = Plan("modern", SETTINGS, {"batch_size": [32, 64]}, {"epochs": 3}, "digits", "signature", {"optuna": "5"})
WAITING = create_trial(state=TrialState.WAITING, params={}, distributions={})
NETWORK = "198.51.100"  # for documentation and tests


def known(storage: BaseStorage) -> list[tuple]:
    """Everything that a storage has of its trials."""
    return [
        (study.study_name, study.user_attrs, trial.number, trial.state, trial.value, trial.params, trial.user_attrs,
         trial.intermediate_values, trial.datetime_start)
        for study in storage.get_all_studies()
        for trial in storage.get_all_trials(study._study_id)
    ]  # fmt: skip


# Addresses


def refused(address: str) -> str:
    """What is said of an address, in one line."""
    with pytest.raises(InputError) as caught:
        storages.connect(address)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["", "optuna.db", "sqlite:///", "journal:///trials.log", "sqlite://trials.db", "mysql://h/d", "postgres://h/d"],
)
def test_an_address_that_names_no_storage_is_told_the_legal_ones(address: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert refused(address).startswith(
            f"{address}: names no storage of trials; legal: sqlite:///FILE, postgresql://"
        )
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


def test_a_place_that_cannot_be_written_or_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, content in (("text", "some text\nof two lines\n"), ("line", "one line"), ("data", '{"one": "line"}\n')):
        (tmp_path / name).write_text(content)
        said = refused(f"sqlite:///{tmp_path / name}")
        assert said.startswith(f"sqlite:///{tmp_path / name}: ")
        assert said.endswith("; move it away, and studies begin anew")
        assert (tmp_path / name).read_text() == content
    for name in ("folder", "text/study.db"):
        assert refused(f"sqlite:///{tmp_path / name}").startswith(f"sqlite:///{tmp_path / name}: ")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with small_disk(tmp_path, "8k"):
        with pytest.raises(InputError, match=r"disk is full|No space left") as caught:
            fill(f"sqlite:///{tmp_path}/study")
        assert "\n" not in str(caught.value)


def fill(address: str) -> None:
    with storages.asking("study"):
        storage = storages.connect(address)
        for number in range(9):
            storages.begin(storage, f"study {number}", replace(PLAN, data="x" * 2000))


def test_a_relative_file_starts_at_the_main_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    main, copy, inner = tmp_path / "a%41?{b}", tmp_path / "copy", tmp_path / "a%41?{b}" / "src" / "inner"
    for folder in (main / ".dvc", copy / ".dvc", inner):
        folder.mkdir(parents=True)
    address = "sqlite:///kept/trials"
    monkeypatch.chdir(inner)
    storages.begin(storages.connect(address), "one", PLAN)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(main))  # as in DVC's temporary copies
    assert set(storages.names(storages.connect(address))) == {"one"}
    assert (main / "kept" / "trials").exists()
    monkeypatch.delenv("DVC_ROOT")
    assert storages.names(storages.connect(address)) == {}
    assert (copy / "kept" / "trials").exists()


# What stands in a storage


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> BaseStorage:
    """A sqlite file with a study."""
    storage = storages.connect(f"sqlite:///{tmp_path_factory.mktemp('begun')}/trials.db")
    storages.begin(storage, "study", PLAN)
    return storage


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(PLAN, variant="original-tanh"), "variant"),
        (replace(PLAN, data="other"), "the training digits"),
        (replace(PLAN, signature="other"), "what the code computes"),
        (replace(PLAN, packages={"optuna": "4"}), "Optuna"),
        (replace(PLAN, space={"batch_size": [16, 32]}, base={"epochs": 4}), "space, base"),
        (replace(PLAN, settings=SETTINGS | {"batch": 8, "seed": 2}), "seed, batch"),
        (replace(PLAN, data="other", settings=SETTINGS | {"seeds": [2]}), "the training digits, seeds"),
        (replace(PLAN, settings=SETTINGS | {"objectives": ["validation/error", "parameters"]}), "objectives"),
    ],
)
def test_a_study_of_another_plan_is_refused_and_what_differs_named(begun: BaseStorage, other: Plan, named: str) -> None:
    number = storages.names(begun)["study"]
    before = begun.get_study_user_attrs(number)
    with pytest.raises(InputError) as caught:
        storages.begin(begun, "study", other)
    assert str(caught.value).startswith(f"study study was begun with other {named}; ")
    assert storages.begin(begun, "study", replace(PLAN)) == number
    assert begun.get_study_user_attrs(number) == before
    assert storages.plan_of(begun, number) == PLAN
    another = storages.begin(begun, f"with other {named}", other)
    assert storages.plan_of(begun, another) == other


def test_a_study_deleted_under_its_coordinator_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    storage = storages.connect("sqlite:///trials")
    study = storages.begin(storage, "study", PLAN)
    for _ in range(3):
        storage.create_new_trial(study, template_trial=WAITING)
    workers = nullcontext(SimpleNamespace(free=lambda: 1, submit=None))
    coordinator = Coordinator(
        storage, "study", study, PLAN, 3, lambda: workers, see=lambda trials: storage.delete_study(study)
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


def test_numbers_come_back_bit_for_bit(tmp_path: Path) -> None:
    check_floats(lambda: storages.connect(f"sqlite:///{tmp_path / 'study'}"))


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
    """One study with the others, and at their side one of its own."""
    barrier.wait()
    storage = storages.connect(address)
    own = storages.begin(storage, f"study {os.getpid()}", PLAN)
    for _ in range(5):
        trial = storage.create_new_trial(own, template_trial=WAITING)
        storage.set_trial_state_values(trial, TrialState.RUNNING)
        storage.set_trial_intermediate_value(trial, 1, 0.5)
        storage.set_trial_state_values(trial, TrialState.COMPLETE, [0.5])
    return storages.begin(storage, "study", PLAN)


def check_beginnings(address: str) -> None:
    """Of a fresh storage."""
    found = side_by_side(open_and_begin, address)
    storage = storages.connect(address)
    names = storages.names(storage)
    assert found == [names.pop("study")] * PROCESSES
    assert storages.plan_of(storage, found[0]) == PLAN
    assert [len(storage.get_all_trials(study)) for study in names.values()] == [5] * PROCESSES


@pytest.mark.slow
def test_processes_that_open_a_fresh_storage_at_once_begin_one_study(tmp_path: Path) -> None:
    for i in range(5):
        check_beginnings(f"sqlite:///{tmp_path / str(i)}")


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
        words = ["-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
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


@pytest.mark.slow
def test_four_workers_on_a_database_all_of_them_killed_once_give_the_same_study(
    built: Path, alone: dict[str, bytes], database: Database
) -> None:
    address = database("killed")
    words = ["modern", "--workers", "4", "--storage", address, "--out", "killed"]
    with started(*sweep_command(*words), cwd=built, LENET_TRACK="0") as coordinator:
        storage, study = only_study(address)
        wait_for(lambda: any(trial.intermediate_values for trial in storage.get_all_trials(study)))
        before = workers_of(coordinator)
        assert len(before) == 4
        for worker in before:  # others come in their places
            worker.kill()
        ended(coordinator)
    assert files_of(built / "killed") | {"study.json": b""} == alone | {"study.json": b""}  # it has the study's name


# More than one machine


@contextmanager
def host(number: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """A host with a network and a name of its own: the words that enter it, and the first machine's address there.

    Where these cannot be made, it is the same machine as the first.
    """
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
        yield (("ip", "netns", "exec", name, *rename), here) if made else ((), "127.0.0.1")
    finally:
        succeeds("ip", "netns", "del", name)


def succeeds(*command: str) -> bool:
    """Whether there is such a command, and it does."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def certificates(folder: Path) -> dict[str, str]:
    """A certificate for all, as Dask's own variables name it."""
    words = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=lenet -days 1"
    subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    files = {"CERT": str(folder / "cert.pem"), "KEY": str(folder / "key.pem")}
    roles = {f"{role}__{kind}": file for role in ("SCHEDULER", "WORKER", "CLIENT") for kind, file in files.items()}
    found = {f"TLS__{name}": file for name, file in {"CA_FILE": files["CERT"], **roles}.items()}
    return {f"DASK_DISTRIBUTED__COMM__{name}": it for name, it in (found | {"REQUIRE_ENCRYPTION": "True"}).items()}


ARITHMETICS = {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
OFF = "import torch\ntorch.set_flush_denormal(True)\n"


@pytest.mark.slow
def test_workers_of_other_hosts_give_the_same_study_and_those_that_would_not_are_refused(
    built: Path, alone: dict[str, bytes], database: Database, tmp_path: Path
) -> None:
    """By TLS, without a checkout or a disk that they share; one computes with other instructions, and is lost."""
    address, tls = database("hosts"), certificates(tmp_path)
    sources = shutil.copytree(built / "src", tmp_path / "other")
    order = sources / "lenet" / "digits" / "data.py"
    order.write_text(order.read_text().replace('"order", epoch)', '"order", epoch + 1)'))
    (tmp_path / "off.py").write_text(OFF)
    with ExitStack() as stack:
        hosts = [stack.enter_context(host(i)) for i in (1, 2)]
        _, found = stack.enter_context(dask_scheduler(tmp_path, "--protocol", "tls", **tls))
        port = found.rpartition(":")[2]

        def worker(i: int, *words: str, path: Path = built / "src", **environment: str) -> subprocess.Popen[bytes]:
            enter, main = hosts[i]
            folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            words = ("worker", "--nthreads", "1", *words, f"tls://{main}:{port}")
            environment |= tls | {"PYTHONPATH": str(path), "TMPDIR": str(folder)}
            return stack.enter_context(dask(*words, enter=enter, cwd=folder, **environment))

        def sweep(*words: str) -> subprocess.Popen[str]:
            words = ("modern", "--study", "far", "--scheduler", f"tls://127.0.0.1:{port}", *words)
            command = sweep_command(*words, "--storage", address, "--out", "far")
            return stack.enter_context(started(*command, cwd=built, LENET_TRACK="0", **tls))

        worker(0, path=sources)
        (line,) = [line for line in ended(sweep(), 2) if "dashboard" not in line and "waiting" not in line]
        said = "is refused: the code there does not compute what the study's does (signature); "
        assert line.startswith("lenet: error: worker tls://")
        assert said in line

        storage, study = only_study(address)
        storage.set_study_user_attr(study, "coordinator", "elsewhere:7@1.0")
        assert "if that has died, `--take-over` goes on with the study here" in ended(sweep(), 2)[-1]
        worker(1, "--preload", str(tmp_path / "off.py"))
        other = worker(1, **ARITHMETICS)
        coordinator = sweep("--take-over")
        wait_for(lambda: len([t for t in storage.get_all_trials(study) if t.state.is_finished()]) > 1)
        assert "is under way: process" in ended(sweep(), 2)[-1]
        other.kill()
        worker(0)
        lines = ended(coordinator)

    assert [line for line in lines if "refused: the code there does not" in line]
    assert [line for line in lines if "refused: this machine's arithmetic is off: subnormal numbers" in line]
    assert files_of(built / "far") | {"study.json": b""} == alone | {"study.json": b""}  # it has the study's name


def test_the_guide_names_options_that_exist() -> None:
    text = (ROOT / "docs" / "how-to" / "scale-out.md").read_text()
    commands = cli.commands["sweep"].commands
    known = {name: {o for one in command.params for o in one.opts} for name, command in commands.items()}
    calls = re.findall(r"lenet,? sweep,? (.*)", text)
    assert len(calls) >= 5
    for words in calls:
        command = known.get(words.split()[0], known["run"])
        assert set(re.findall(r"(?<!\w)--[a-z-]+", words)) <= command, words
    programs = set()
    for program, words in re.findall(r"dask,? (scheduler|worker|ssh),? (.*)", text):
        help_text = run(sys.executable, "-m", "dask", program, "--help", cwd=ROOT).stdout
        assert set(re.findall(r"(?<!\w)--[a-z-]+", words)) <= {*re.findall(r"--[a-z-]+", help_text)}, words
        programs.add(program)
    assert programs == {"scheduler", "worker", "ssh"}
    variables = {one.envvar for one in commands["run"].params if one.envvar}
    assert set(re.findall(r"LENET_\w+", text)) <= variables
    for settings in re.findall(r"`sweep\.(\w+)`", text):
        assert settings in Settings.model_fields
