"""Workers of a Dask cluster: who is let in, what they are given, what becomes of jobs whose worker dies."""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

import jobs
from conftest import ENVIRONMENT, ROOT, wait_for
from lenet import cluster
from lenet.cluster import Ended, Workers, scheduler
from lenet.digits.data import Digits
from lenet.runtime.errors import InputError
from lenet.training.fingerprint import tensors_sha256


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
def dask(*words: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of Dask's beside the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *words], env=os.environ | ENVIRONMENT | environment,
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
    with dask(*words, **environment) as process:
        wait_for(lambda: file.exists() and file.read_text().endswith("}"))
        yield process, json.loads(file.read_text())["address"]


def dask_worker(address: str, **environment: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return dask("worker", "--nthreads", "1", address, **{"PYTHONPATH": path} | environment)


def test_a_worker_that_proves_unfit_gets_no_job_and_is_named(
    few: Digits, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that is there and of one that comes; and a scheduler that goes is told."""
    monkeypatch.setattr(scheduler, "PATIENCE", 3)  # for the scheduler that goes
    with ExitStack() as stack:
        program, address = stack.enter_context(dask_scheduler(tmp_path, "--host", "127.0.0.1"))
        client = stack.enter_context(cluster.opened(address, 1))
        refused = "worker tcp://.+ is refused: it computes otherwise$"
        for there in (False, True):
            workers = stack.enter_context(cluster.admitted(client, few, jobs.prove))
            if not there:
                assert workers.free() == 0
                assert "no fit worker is there; waiting for one" in capsys.readouterr().err
                stack.enter_context(dask_worker(address, UNFIT="1"))
            with pytest.raises(InputError, match=refused) as caught:
                wait_for(lambda: workers.free())  # noqa: B023
            (unfit,) = client.scheduler_info()["workers"]
            assert unfit in str(caught.value)
        fit = stack.enter_context(dask_worker(address))
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
        ("tcp://127.0.0.1:1", "Connection refused"),
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
