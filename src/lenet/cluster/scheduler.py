"""The cluster that computes for a command: started on this machine, or one that is there.

A scheduler runs whatever it is sent. So one that is started here listens on 127.0.0.1 alone and asks for certificates,
which live in memory as long as it does; and one that is there is spoken to by TLS, unless it is on this machine.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from distributed import Client, LocalCluster

from lenet.runtime.errors import InputError

PATIENCE = 30  # seconds for a scheduler to answer
LEGAL = "tls://HOST:PORT, or tcp://127.0.0.1:PORT for a scheduler or a tunnel on this machine"


@contextmanager
def opened(address: str | None, workers: int) -> Iterator[Client]:
    """The cluster of a scheduler; without an address one of so many workers on this machine, which end with it.

    Raises InputError if there is none, or if others could listen to what it is told.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is said in lines of our own
    with _connected(address) if address else _started(workers) as client:
        print(f"lenet: Dask's dashboard: {client.dashboard_link}", file=sys.stderr, flush=True)
        yield client


@contextmanager
def _connected(address: str) -> Iterator[Client]:
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        port = None
    if not port or scheme not in ("tcp", "tls"):
        raise InputError(f"--scheduler {address}: names no scheduler; legal: {LEGAL}")
    if scheme == "tcp" and host not in ("127.0.0.1", "localhost", "::1"):
        raise InputError(
            f"--scheduler {address}: without TLS, anybody on the way could run code here and there; legal: {LEGAL}"
        )
    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{address}: {reason(error)}; `dask scheduler` starts one") from None
    with client:
        yield client


@contextmanager
def _started(workers: int) -> Iterator[Client]:
    try:
        local = LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, host="127.0.0.1", security=True,
            dashboard_address="127.0.0.1:0", memory_limit=0, silence_logs=logging.CRITICAL,
            scheduler_kwargs={"allowed_failures": 0},  # workers.py tries again
            preload=["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],  # Ctrl-C is for this process
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        raise InputError(f"no worker starts on this machine: {reason(error)}") from None

    async def end() -> None:
        await asyncio.gather(*(worker.close(timeout=1) for worker in local.workers.values()), return_exceptions=True)

    with local, Client(local) as client:
        try:
            yield client
        finally:
            local.sync(end)  # what they compute is not waited for


def reason(error: BaseException) -> str:
    """What is at the bottom of an error, in one line."""
    while error.__cause__ and not isinstance(error.__cause__, asyncio.CancelledError):
        error = error.__cause__
    said = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, TimeoutError) and not said:
        return "no answer in time"
    return said if isinstance(error, InputError | OSError) and said else f"{type(error).__name__}: {said}"
