"""Workers of a Dask cluster: who is let in, what they are given, what becomes of jobs whose worker dies."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from distributed import Client
from ruamel.yaml import YAML

import jobs
import test_side_by_side
from conftest import ENVIRONMENT, ROOT, files_of, lenet_command, run, wait_for
from lenet import cluster
from lenet.cluster import Ended, Workers, scheduler
from lenet.digits.data import Digits
from lenet.params.schema import Params
from lenet.pipeline import elsewhere, signing
from lenet.pipeline.train import train
from lenet.runs.record import Row
from lenet.runtime.errors import Diverged, InputError
from lenet.training.fingerprint import tensors_sha256
from lenet.training.fit import Fitted


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two processes of this machine."""
    with cluster.opened(None, 2) as found:
        yield found


@pytest.fixture(scope="module")
def few(digits: Digits) -> Digits:
    return digits[:100]


@pytest.fixture
def workers(client: Client, few: Digits) -> Iterator[Workers]:
    with cluster.admitted(client, few, jobs.prove) as found:
        wait_for(lambda: found.free() == 2)
        yield found


def outcomes(workers: Workers) -> tuple[dict[Any, Ended], list[Any]]:
    """How all jobs have ended, and what they have told."""
    ends, told = {}, []
    while workers.jobs:
        for job, report in workers.reports():
            if isinstance(report, Ended):
                ends[job] = report
            else:
                told.append(report)
    return ends, told


def test_jobs_have_the_digits_and_their_arguments_and_tell(workers: Workers, few: Digits) -> None:
    for number in range(2):
        workers.submit(number, jobs.whose, number, "x")
    assert workers.free() == 0
    ends, told = outcomes(workers)
    assert {job: end.value[1:] for job, end in ends.items()} == {
        number: (tensors_sha256(vars(few)), (number, "x")) for number in range(2)
    }
    assert len({end.value[0] for end in ends.values()} - {os.getpid()}) == 2  # each in a process of its own
    assert sorted(what["arguments"] for what in told) == [(0, "x"), (1, "x")]
    workers.submit("raises", jobs.fail)
    assert repr(outcomes(workers)[0]["raises"].error) == "ValueError('a fault of the job')"


def test_a_job_whose_worker_dies_is_done_again_and_ends_at_the_second_death(workers: Workers, tmp_path: Path) -> None:
    for times in (1, 2):
        (tmp_path / str(times)).mkdir()
        workers.submit(times, jobs.die, tmp_path / str(times), times)
    ends, _ = outcomes(workers)
    assert ends[1] == Ended(2)
    assert str(ends[2].error) == "its worker died 2 times (out of memory?)"
    assert isinstance(ends[2].error, cluster.Died)
    wait_for(lambda: workers.free() == 2)  # those in their places have proved fit, too
    workers.submit("after", jobs.whose)
    assert outcomes(workers)[0]["after"].value[1]


def test_a_job_that_nobody_waits_for_ends(client: Client, few: Digits, tmp_path: Path) -> None:
    with cluster.admitted(client, few, jobs.prove) as workers:
        workers.submit(0, jobs.go_on, tmp_path / "ended")
        wait_for(lambda: list(workers.reports()))
    wait_for((tmp_path / "ended").exists)


def test_nobody_else_reaches_a_cluster_of_this_machine(client: Client) -> None:
    """It listens on 127.0.0.1 alone, and who has no certificate gets no answer; with the command it is gone."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [one for each in processes for one in each.net_connections() if one.status == psutil.CONN_LISTEN]
    assert len(listening) >= 4  # the scheduler, its page, two workers
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
    address = client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    port = int(address.rpartition(":")[2])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(plain) as stranger,
    ):
        stranger.recv(1)


# A scheduler that is there


@contextmanager
def dask(*words: str, enter: Sequence[str] = (), cwd: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of Dask's beside the test."""
    process = subprocess.Popen(
        [*enter, sys.executable, "-m", "dask", *words], env=os.environ | ENVIRONMENT | environment, cwd=cwd,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@contextmanager
def dask_scheduler(folder: Path, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """One that is there, and its address."""
    file = folder / "scheduler.json"
    words = ("scheduler", "--scheduler-file", str(file), "--port", "0", "--dashboard-address", "127.0.0.1:0", *words)
    with dask(*words, cwd=folder, **environment) as process:
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        yield process, json.loads(file.read_text())["address"]


def dask_worker(folder: Path, address: str, **environment: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return dask("worker", "--nthreads", "1", address, cwd=folder, **{"PYTHONPATH": path} | environment)


def test_a_worker_that_proves_unfit_gets_no_job_and_is_named(
    few: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is there and of one that comes; and a scheduler that goes is told."""
    monkeypatch.setattr(scheduler, "PATIENCE", 5)  # for the scheduler that goes
    with ExitStack() as stack:
        program, address = stack.enter_context(dask_scheduler(tmp_path, "--host", "127.0.0.1"))
        client = stack.enter_context(cluster.opened(address, 1))
        refused = "(?m)worker tcp://.+ is refused: it computes otherwise$"
        for there in (False, True):
            workers = stack.enter_context(cluster.admitted(client, few, jobs.prove))
            if not there:
                assert workers.free() == 0
                assert "no fit worker is there; waiting for one" in capsys.readouterr().err
                stack.enter_context(dask_worker(tmp_path, address, UNFIT="1"))
            with pytest.raises(InputError, match=refused) as caught:
                wait_for(lambda: workers.free())  # noqa: B023
            (unfit,) = client.scheduler_info()["workers"]
            assert unfit in str(caught.value)
        fit = stack.enter_context(dask_worker(tmp_path, address))
        wait_for(lambda: len(client.scheduler_info()["workers"]) == 2)
        wait_for(workers.free)
        assert re.search(refused, capsys.readouterr().err.strip())
        for number in range(3):
            workers.submit(number, jobs.whose)
        ends, _ = outcomes(workers)
        assert not [end.error for end in ends.values() if end.error]
        assert {psutil.Process(end.value[0]).ppid() for end in ends.values()} == {fit.pid}
        workers.submit("endless", jobs.go_on, tmp_path / "ended")
        wait_for(lambda: list(workers.reports()))
        program.kill()
        with pytest.raises(InputError, match="the scheduler is gone"):
            wait_for(lambda: not list(workers.reports()) and not workers.jobs)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("head", "names no scheduler; legal: tls://HOST:PORT"),
        ("tls://head", "names no scheduler"),
        ("tls://head:port", "names no scheduler"),
        ("ws://127.0.0.1:8786", "names no scheduler"),
        ("tcp://10.0.0.1:8786", "without TLS, anybody on the way could run code here and there; legal: tls://"),
        ("tcp://head:8786", "without TLS"),
        ("tls://127.0.0.1:1", "TLS"),
        ("tcp://127.0.0.1:1", "`dask scheduler` starts one"),
    ],
)
def test_an_address_that_is_no_scheduler_s_or_open_to_all_is_one_line(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "PATIENCE", 1)
    with pytest.raises(InputError, match=re.escape(said)) as caught, cluster.opened(address, 1):
        pass
    assert "\n" not in str(caught.value)
    assert address in str(caught.value)


# Trainings


@pytest.fixture
def steep(params: Params) -> Params:
    """With seeds 1 and 3 it ends well, with 2 it diverges."""
    return params.model_copy(update={"variants": {"modern": test_side_by_side.steep(params.variants["modern"], 5.0)}})


@pytest.mark.slow
def test_the_train_stage_lets_a_worker_compute(
    steep: Params, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker has other vector instructions; files, faults and lines are as of this process."""
    data, other = (
        prepared / "train.safetensors",
        {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
    )
    with (
        dask_scheduler(tmp_path, "--host", "127.0.0.1") as (_, address),
        dask_worker(tmp_path, address, **other),
    ):
        outs = {seed: tmp_path / f"modern-{seed}" for seed in (1, 2, 3)}
        with pytest.raises(Diverged, match="of 3 trainings these have diverged: modern-2"):
            train(steep, "modern", outs, data, None, None, scheduler=address)
    said = capsys.readouterr().err
    assert "lenet: modern-2: the training diverged: C3.weight: a magnitude of" in said
    assert "modern-3: epoch 3/3" in said
    assert not outs[2].exists()
    for seed in (1, 3):
        train(steep, "modern", {seed: tmp_path / "here"}, data, None, None)
        assert files_of(outs[seed]) == files_of(tmp_path / "here")


def test_a_worker_that_signs_otherwise_trains_nothing(steep: Params, digits: Digits, tmp_path: Path) -> None:
    variant = steep.variants["modern"]
    records = {1: signing.identify("modern", 1, variant, digits, signature="0" * 64)}
    with (
        dask_scheduler(tmp_path, "--host", "127.0.0.1") as (_, address),
        dask_worker(tmp_path, address),
        pytest.raises(InputError, match="is refused: its code signs the block otherwise; it needs this commit's"),
    ):
        list(elsewhere.trained_there(address, records, digits, {1: []}))


def test_weights_that_change_on_the_way_are_refused() -> None:
    row: Row = {"epoch": 1, "weights.sha256": tensors_sha256({"a": torch.ones(2)})}
    sent = Fitted({"a": torch.ones(2)}, [row], torch.zeros(1, 1), {})
    assert elsewhere._checked((1, sent)) == (1, sent)
    with pytest.raises(InputError, match="seed 1: the weights have not arrived as they were sent"):
        elsewhere._checked((1, replace(sent, weights={"a": torch.zeros(2)})))


@pytest.mark.slow
def test_lenet_repro_on_a_cluster_gives_the_published_bits(copy: Path, tmp_path: Path, mnist: Path) -> None:
    """A worker is killed in its training, and another one does it again; nothing that Git has changes."""
    yaml = YAML(typ="safe")
    for folder in (copy / "runs", copy / ".dvc" / "cache"):
        shutil.rmtree(folder)
    lock = yaml.load(copy / "dvc.lock")
    (copy / "dvc.lock").unlink()
    with ExitStack() as stack:
        _, address = stack.enter_context(dask_scheduler(tmp_path, "--host", "127.0.0.1"))
        for _ in range(2):
            stack.enter_context(dask_worker(tmp_path, address))
        environment = os.environ | ENVIRONMENT | {"LENET_DATA_DIR": str(mnist)}
        command = subprocess.Popen([*lenet_command("repro", "--scheduler", address)], cwd=copy, env=environment)
        with Client(address) as client:
            wait_for(lambda: any(client.processing().values()))
            busy = next(worker for worker, tasks in client.processing().items() if tasks)
            os.kill(client.run(os.getpid, workers=[busy])[busy], signal.SIGKILL)
        assert command.wait() == 0
    assert yaml.load(copy / "dvc.lock") == lock  # its stages may stand in another order
    run("git", "restore", "dvc.lock", cwd=copy)
    assert run("git", "status", "--porcelain", cwd=copy).stdout == ""
