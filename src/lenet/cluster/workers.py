"""Workers that have proved to compute as this process does; they have the training digits, and execute jobs.

Dask would also give jobs to a worker whose plugin has failed. So a worker that has proved fit gets a resource of this
session's name, and a job asks for it. And as Dask suspects all jobs that lie at a worker that dies, none is submitted
before a worker is free.
"""

import asyncio
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, Worker, WorkerPlugin, get_worker
from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.protocol.pickle import dumps, loads

from lenet.arithmetic import conformance
from lenet.cluster.scheduler import reason
from lenet.digits.data import Digits
from lenet.runtime.errors import InputError
from lenet.training import fingerprint

DEATHS = 2  # of its workers end a job
POLL = 0.5  # seconds between looks at the cluster
PATIENCE = 300  # seconds for the digits to come to a worker


class Died(Exception):
    """What a job ends with whose worker has died twice."""


class Withdrawn(BaseException):
    """What ends a job on its worker that nobody waits for any more."""


@dataclass(frozen=True)
class Ended:
    """How a job has ended: what its function gave, or raised."""

    value: Any = None
    error: Exception | None = None


@dataclass
class Job:
    """One that has not ended; without a future it waits for a worker."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    future: Future | None = None
    deaths: int = 0


@dataclass
class Workers:
    """Those of a cluster that are fit for this session's jobs."""

    client: Client
    name: str = field(default_factory=lambda: f"lenet-{uuid4().hex}")
    jobs: dict[int | str, Job] = field(default_factory=dict)
    _came: "queue.SimpleQueue[Any]" = field(default_factory=queue.SimpleQueue)
    _fit: bool = False  # one has been there; if it dies, another one may come in its place
    _told: set[str] = field(default_factory=set)

    def free(self) -> int:
        """How many more jobs than there are could begin at once. Raises InputError if no worker is fit."""
        there = self.client.scheduler_info()["workers"]
        refused = {event["worker"]: event["refused"] for _, event in self.client.get_events(f"{self.name}-refused")}
        lines = {address: f"worker {address} is refused: {why}" for address, why in refused.items()}
        fit = sum(bool(worker["resources"].get(self.name)) for worker in there.values())
        self._fit |= bool(fit)
        if there and not self._fit and there.keys() <= refused.keys():
            raise InputError("\n".join(lines[address] for address in there))
        if not fit:
            lines[""] = "no fit worker is there; waiting for one"
        for address in lines.keys() - self._told:
            print(f"lenet: {lines[address]}", file=sys.stderr, flush=True)
        self._told = {*lines}
        return fit - len(self.jobs)

    def submit(self, name: int | str, function: Callable[..., Any], *arguments: Any) -> None:
        """Have ``function(digits, tell, *arguments)`` computed by a worker; ``tell`` takes what MessagePack does."""
        self.jobs[name] = Job(function, arguments)

    def reports(self) -> Iterator[tuple[Any, Any]]:
        """By jobs' names what they have told since the last look, and how they ended (``Ended``), or soon do.

        Raises InputError if the scheduler is gone.
        """
        waiting = [name for name, job in self.jobs.items() if not job.future]
        for name in waiting[: max(0, self.free() + len(waiting))] if waiting else []:
            self._begin(name, self.jobs[name])
        with suppress(queue.Empty):
            came = self._came.get(timeout=POLL)
            while True:
                name, what = came
                if isinstance(what, Future):
                    what = self._ended(self.jobs[name])
                if isinstance(what, Ended):
                    del self.jobs[name]
                    yield name, what
                elif what is not None and name in self.jobs:
                    yield name, what
                came = self._came.get_nowait()

    def _begin(self, name: int | str, job: Job) -> None:
        job.future = self.client.submit(
            loads, dumps(_Call(self.name, name, job.function, job.arguments)), pure=False,
            key=f"{job.function.__module__}-{self.name}-{name}-{job.deaths}", resources={self.name: 1},
        )  # fmt: skip
        job.future.add_done_callback(lambda future: self._came.put((name, future)))

    def _ended(self, job: Job) -> Ended | None:
        """How a job has ended; None if it is tried again."""
        assert job.future
        if job.future.status == "cancelled":
            raise InputError("the scheduler is gone; the same command goes on, on another one, too")
        try:
            return Ended(job.future.result())
        except KilledWorker as error:
            job.future, job.deaths = None, job.deaths + error.allowed_failures + 1
            died = Died(f"its worker died {job.deaths} times (out of memory?)")
            return Ended(error=died) if job.deaths >= DEATHS else None
        except Exception as error:
            return Ended(error=error)


@contextmanager
def admitted(client: Client, digits: Digits, prove: Callable[[Digits], None]) -> Iterator[Workers]:
    """The workers that are fit, now and later; with this process their jobs end, too.

    Args:
        client: the cluster's.
        digits: all training digits.
        prove: raises InputError on a worker whose jobs would come out otherwise than here.

    Raises:
        InputError: a worker has not got this package.
    """
    workers, kept = Workers(client), _Kept(digits)
    client.subscribe_topic(workers.name, lambda event: workers._came.put((event[1]["job"], event[1]["told"])))
    for address, answer in client.run(conformance.faults, on_error="return").items():
        if isinstance(answer, BaseException) and not isinstance(answer, CommClosedError):  # then it has gone meanwhile
            raise InputError(f"worker {address} is refused: {reason(answer)}; it needs this commit's environment")
    for plugin in (kept, _Admission(workers.name, kept.name, prove)):
        try:
            client.register_plugin(plugin)
        except CommClosedError:  # a worker has gone meanwhile; if it was the scheduler, this fails, too
            client.register_plugin(plugin)
    try:
        yield workers
    finally:
        with suppress(Exception):  # the scheduler may be gone
            client.cancel([job.future for job in workers.jobs.values() if job.future])
            client.unregister_worker_plugin(workers.name)


class _Kept(WorkerPlugin):
    """The training digits. A worker gets them once, whoever needs them, and a late one when it comes."""

    idempotent = True

    def __init__(self, digits: Digits) -> None:
        self.digits, self.sha256 = digits, fingerprint.tensors_sha256(vars(digits))
        self.name = f"lenet-digits-{self.sha256}"


class _Admission(WorkerPlugin):
    """Has a worker prove what it computes before its first job."""

    def __init__(self, name: str, kept: str, prove: Callable[[Digits], None]) -> None:
        self.name, self.kept, self.prove = name, kept, dumps(prove)  # what it imports may take long, or be missing

    async def setup(self, worker: Worker) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while self.kept not in worker.plugins:  # another session may be sending them
                    await asyncio.sleep(POLL)
            kept: Any = worker.plugins[self.kept]
            self.digits = kept.digits
            await asyncio.to_thread(self._check, kept.sha256)  # meanwhile the worker answers
        except Exception as error:
            worker.log_event(f"{self.name}-refused", {"refused": reason(error)})
            return
        await worker.set_resources(**{self.name: 1})
        if worker.status == Status.running:  # jobs without a worker are given only to one that comes, or goes on
            worker.status = Status.paused
            worker.status = Status.running

    def _check(self, sha256: str) -> None:
        if fingerprint.tensors_sha256(vars(self.digits)) != sha256:
            raise InputError("the training digits have not arrived as they were sent")
        conformance.check()
        loads(self.prove)(self.digits)


class _Call:
    """A call of ``_execute`` for a worker: a scheduler, which unpickles what it is sent, may lack this package."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return _execute, self.arguments


def _execute(session: str, job: int | str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    worker = get_worker()
    key = worker.get_current_task()

    def tell(content: Any) -> None:
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise Withdrawn
        worker.log_event(session, {"job": job, "told": content})

    admission: Any = worker.plugins[session]
    return function(admission.digits, tell, *arguments)
