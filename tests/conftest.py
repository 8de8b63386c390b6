"""What tests share: real digits, a small checkout of this project, and checked array shapes."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from types import CodeType
from typing import Any

import jaxtyping
import pytest

SHAPED = ("arithmetic", "digits", "networks", "training", "evaluation", "inference")
CHECKED = 16
CALLS: Counter[CodeType] = Counter()
"""Calls of each function in a test so far, up to CHECKED."""


def first_calls(jaxtyped: Callable[..., Callable], **options: object) -> Callable:
    """Shapes are checked in a test's first calls of a function: in all calls it takes most of a training's time."""

    def decorate(function: Any) -> Any:
        if isinstance(function, type):
            return jaxtyped(**options)(function)
        checked = None

        @wraps(function)
        def call(*args: object, **kwargs: object) -> object:
            nonlocal checked
            if CALLS[function.__code__] == CHECKED:
                return function(*args, **kwargs)
            CALLS[function.__code__] += 1
            checked = checked or jaxtyped(**options)(function)
            return checked(*args, **kwargs)

        return call

    return decorate


jaxtyping.jaxtyped = partial(first_calls, jaxtyping.jaxtyped)
with jaxtyping.install_import_hook([f"lenet.{name}" for name in SHAPED], "beartype.beartype"):
    from lenet.pipeline import (
        evaluate,  # noqa: F401
        train,  # noqa: F401  these import the others; shapes in signatures are checked in tests
    )

import requests
import torch
from filelock import FileLock
from ruamel.yaml import YAML
from safetensors.torch import save_file

from leftovers import pytest_sessionfinish, pytest_sessionstart  # noqa: F401
from lenet import cli
from lenet.digits import fetch
from lenet.digits.data import Digits, load_digits
from lenet.networks.lenet5 import LeNet5
from lenet.params import loading, schema
from lenet.pipeline import signing
from lenet.runtime import layout, processes
from lenet.tracking import store
from lenet.training import checkpoint, fingerprint, signature

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in what it starts in the background
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONWARNINGS": "ignore",
}
"""For commands that tests start: this environment's programs first."""
PROBE = (sys.executable, str(ROOT / "tests" / "probe.py"))


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    own_surroundings(monkeypatch)
    CALLS.clear()


def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the caller's settings, nor another's."""
    for name in (
        "MLFLOW_TRACKING_URI", "DVC_ROOT", "DVC_EXP_NAME", "LENET_TRACK", "LENET_DATA_DIR", "LENET_SWEEP_STORAGE",
        "LENET_SCHEDULER", "MAKEFLAGS", "LENET_AHEAD",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])


@pytest.fixture(scope="session")
def params() -> schema.Params:
    """The project's own params.yaml."""
    return loading.load(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four real IDX files, fetched once by the project's own stage."""
    folder = ROOT / ".pytest_cache" / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    present = ROOT / "data" / "raw"
    with FileLock(folder.with_suffix(".lock")):
        if present.exists() and "LENET_DATA_DIR" not in os.environ:
            os.environ["LENET_DATA_DIR"] = str(present)
            fetch.fetch(folder)
            del os.environ["LENET_DATA_DIR"]
        else:
            fetch.fetch(folder)
    return folder


@pytest.fixture(scope="session")
def prepared(mnist: Path, params: schema.Params) -> Path:
    """A folder with train.safetensors and test.safetensors of the real digits."""
    from lenet.digits.prepare import prepare

    folder = mnist.parent / "prepared"
    with FileLock(mnist.with_suffix(".lock")):
        prepare(params.data, mnist, folder / "train.safetensors", folder / "test.safetensors", folder / "digests.json")
    return folder


@pytest.fixture(scope="session")
def digits(prepared: Path) -> Digits:
    """The 60,000 training digits."""
    return load_digits(prepared / "train.safetensors")


@pytest.fixture(scope="session")
def small_digits(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ``prepared`` with 400 digits in each file."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("train.safetensors", "test.safetensors"):
        part = load_digits(prepared / name)[:400]
        save_file({kind: getattr(part, kind).clone() for kind in ("images", "labels", "index")}, folder / name)
    return folder


@pytest.fixture(scope="session")
def few(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 32 of the training digits, for tests/probe.py."""
    path = tmp_path_factory.mktemp("few") / "digits.safetensors"
    save_file({name: getattr(digits, name)[:32].clone() for name in ("images", "labels", "index")}, path)
    return path


@pytest.fixture(scope="session")
def probed(few: Path) -> dict[str, Any]:
    """What tests/probe.py finds in this environment on this processor."""
    return json.loads(run(*PROBE, str(few), cwd=ROOT).stdout)


@pytest.fixture(scope="session", autouse=True)
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Locks, journals and checkpoints of trainings in this process go elsewhere than into this checkout.

    And MLflow makes one store for all: it takes seconds, and a copy of it none.
    """
    folder = tmp_path_factory.mktemp("kept")
    create, locks = store._create, processes.locks

    def copy_store(database: Path) -> None:
        (database.parent / store.ARTIFACTS).mkdir(exist_ok=True)
        shutil.copy(shared(tmp_path_factory, "store/mlflow.db", create), database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_create", copy_store)
        patch.setattr(layout, "kept", lambda what: folder / what)
        patch.setattr(processes, "locks", lambda: folder if Path.cwd() == ROOT else locks())
        yield


@pytest.fixture(scope="module")
def unsigned() -> Iterator[None]:
    """In this process a block on its digits stands for its signature, which takes longer than a small training."""

    def of(variant: schema.Variant, digits: Digits) -> str:
        return fingerprint.json_sha256([fingerprint.block_sha256(variant), signature.digits_sha256(digits)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signing, "of", of)
        yield


class Stop(Exception):
    """What ends a training in place of a kill."""


class Stopping(checkpoint.Checkpoints):
    """Stops the training after so many saves."""

    def __init__(self, folder: Path, name: str, saves: int, seed: int | None = None) -> None:
        super().__init__(folder, name, seed)
        self.saves = saves

    def save(self, state: checkpoint.State) -> None:
        super().save(state)
        self.saves -= 1
        if not self.saves:
            raise Stop


OUTPUTS = ("squashed", "softmax", "rbf", "adaptive-rbf")
POOLINGS = [
    schema.TrainablePooling(kind="trainable", coefficient=1.5, bias=0.25),
    schema.TrainablePooling(kind="trainable-sum", coefficient=0.375, bias=0.25),
    *(schema.FixedPooling(kind=kind) for kind in ("average", "max")),
]


def randomised(network: LeNet5, seed: int = 3) -> LeNet5:
    """Every parameter random, biases and coefficients too, so that nothing hides behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.uniform_(-0.4, 0.4, generator=generator)
    return network


def shared(temporary: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A place in a session's temporary folder that is filled once, for all test processes. Work on copies."""
    base = temporary.getbasetemp()
    place = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    place.parent.mkdir(exist_ok=True)
    with FileLock(f"{place}.lock"):
        if not (whole := Path(f"{place}.whole")).exists():
            with pytest.MonkeyPatch.context() as patch:
                own_surroundings(patch)
                make(place)
            whole.touch()
    return place


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, mnist: Path) -> Path:
    """A committed checkout whose pipeline has run once, of two variants; ``said`` beside it holds what that said."""

    def make(folder: Path) -> None:
        small_checkout(folder, 2, seeds=[1], compare=["original-tanh", "modern"])
        words = lenet_command("repro")
        done = run(*words, cwd=folder, timeout=500, LENET_DATA_DIR=str(mnist), SHELL="/usr/sbin/nologin")
        folder.with_name("said").write_text(done.stderr)
        commit(folder, "results")

    return shared(tmp_path_factory, "published/checkout", make)


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return copied(published, tmp_path / "copy")


def copied(published: Path, folder: Path) -> Path:
    """A copy of it, store and cache included; its current runs are this checkout's."""
    shutil.copytree(published, folder, symlinks=True)
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        words = "UPDATE tags SET value = replace(value, ?, ?) WHERE key = 'checkout'"
        connection.execute(words, (str(published), str(folder)))
    return folder


SMALL = {
    "seed": 5, "seeds": [1], "trials": 12, "batch": 4, "objectives": ["validation/error"],
    "sampler": {"kind": "tpe", "startup": 4}, "pruner": {"kind": "successive-halving", "first": 1, "keep": 2},
}  # fmt: skip
SPACE = {
    "optimizer": [
        {"kind": "adam", "lr": {"low": 1e-4, "high": 1e-1, "scale": "log"}, "beta1": 0.9, "beta2": 0.999,
         "weight_decay": 0.0},
        {"kind": "sgd", "lr": {"low": 1e-3, "high": 1.0, "scale": "log"}, "momentum": [0.0, 0.9], "weight_decay": 0.0},
    ],
    "batch_size": [16, 32],
}  # fmt: skip


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Path:
    """A checkout with training digits alone, whose study of `modern` takes seconds. Work on copies.

    One worker has computed it in one go, in ``alone.db``; ``alone`` holds what is published of it.
    """

    def make(folder: Path) -> None:
        small_checkout(folder, 4, seeds=[1], compare=["modern"])
        edit_params(folder, lambda content: content["sweep"].update(**SMALL, spaces={"modern": SPACE}))
        edit_params(folder, lambda content: content["variants"]["modern"].update(train_size=600, validation_size=300))
        commit(folder, "a small study")
        (folder / "data").mkdir()
        shutil.copy(prepared / "train.safetensors", folder / "data")
        words = "sweep", "modern", "--workers", "1", "--storage", "sqlite:///alone.db", "--out", "alone", "--no-track"
        run(*lenet_command(*words), cwd=folder)

    return shared(tmp_path_factory, "studied", make)


Checkout = Callable[..., Path]


def files_of(folder: Path) -> dict[str, bytes]:
    """The files in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def alone(studied: Path) -> dict[str, bytes]:
    """What is published of the study that one worker has computed in one go."""
    return files_of(studied / "alone")


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """``small_checkout`` in a folder of the test."""
    return partial(small_checkout, tmp_path / "checkout")


HARDEST = """

# for a test: 5 passes over 1,000 disturbed test digits in place of 22 over 10,000
from dataclasses import replace
DISTURBANCES = {name: replace(kind, levels=(kind.none, kind.levels[-1])) for name, kind in DISTURBANCES.items()}
def curves(recogniser, digits, every=curves):
    return every(recogniser, digits[:1000])
"""


PATIENT = """

PATIENCE = 300.0  # for a test: on a busy machine the store answers late
"""


def small_checkout(folder: Path, epochs: int = 1, **overrides: object) -> Path:
    """Make ``folder`` a Git repository of this project's present files whose variants train in seconds.

    Robustness is measured at the hardest levels alone, and on few digits.

    ``small_checkout(folder, seeds=[1], compare=["modern"])`` overrides top-level values of params.yaml.
    """
    names = _run(["git", "ls-files", "-co", "--exclude-standard", "-z"], ROOT).split("\0")
    for name in filter(None, names):
        path = ROOT / name
        if (path.is_file() or path.is_symlink()) and not {"metrics", "dvc.lock", "published"} & {*Path(name).parts}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / name, follow_symlinks=False)
    for name, more in (("evaluation/robustness.py", HARDEST), ("tracking/recorder.py", PATIENT)):
        with (folder / "src" / "lenet" / name).open("a") as file:
            file.write(more)
    small = {"epochs": epochs, "train_size": 1500, "validation_size": 500}
    edit_params(folder, lambda content: content.update(overrides))
    for home in layout.homes(folder):
        edit_params(home, lambda content: [block.update(small) for block in content.get("variants", {}).values()])
    _run(["git", "init", "-q"], folder)
    commit(folder, "start")
    return folder


def edit_params(folder: Path, edit: Callable[[dict], object]) -> None:
    """Change params.yaml in a checkout, its comments kept."""
    yaml = YAML()
    path = folder / "params.yaml"
    content = yaml.load(path.read_text())
    edit(content)
    with path.open("w") as file:
        yaml.dump(content, file)


def declared_plots(folder: Path) -> int:
    """How many pictures `dvc plots show` has of a pipeline."""
    return len(YAML(typ="safe").load((folder / "dvc.yaml").read_text())["plots"])


def commit(folder: Path, message: str) -> None:
    _run(["git", "add", "-A"], folder)
    _run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message], folder)


def _run(command: list[str], cwd: Path) -> str:
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout


def run(
    *command: str, cwd: Path, status: int | None = 0, timeout: float = 240, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of this environment and expect an exit status (None: any)."""
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | ENVIRONMENT | environment, capture_output=True, text=True, timeout=timeout
    )
    assert status is None or done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def refused(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that ends with exit status 2 says."""
    monkeypatch.setattr("sys.argv", ["lenet", *words.split()])
    for name in ("gc.set_threshold", "atexit.register", "lenet.runtime.processes.follow_parents"):
        monkeypatch.setattr(name, lambda *given: None)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def lenet_command(*words: str) -> list[str]:
    """The command line on the code of the folder it runs in, as dvc.yaml calls it."""
    return ["env", "PYTHONPATH=src", sys.executable, "-m", "lenet", *words]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own at a folder."""
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """MLflow's own server on a store in a folder, and its address; artifacts go through it."""
    with socket.create_server(("127.0.0.1", 0)) as once:
        port = once.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", f"{folder}/proxied", "--serve-artifacts", "--workers", "1",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    environment = os.environ | ENVIRONMENT | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, text=True, start_new_session=True
        )
    try:
        wait_for(lambda: server_answers(port))
        yield server, f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def server_answers(port: int) -> bool:
    """Whether MLflow's server is up."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=5).ok
    except requests.RequestException:
        return False


def wait_for(condition: Callable[[], object]) -> None:
    """Until something is so; a test's own time limit ends it, as a busy machine takes its time."""
    while not condition():
        time.sleep(0.05)
