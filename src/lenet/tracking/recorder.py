"""Work on the store beside whatever it records, in a thread that is waited for only as long as the store answers."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from lenet.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient

SECONDS = 5.0  # between two rounds, so that system metrics appear on runs of a minute
PATIENCE = 6.0  # seconds that a stage waits at its end for a store that does not answer
PATIENCE_KILLED = 3.0  # the same of one that is asked to end, whether the store answers or not
PAUSE = 10.0  # seconds after a fault until the store is tried again

SYNC = "`lenet sync` completes it"

P = ParamSpec("P")
T = TypeVar("T")


class Recorder(threading.Thread):
    """Works on the store in rounds until ``finish``, and then a last one. After a fault it begins again, later.

    The first fault is told, and no other, whichever thread meets it.

    Args:
        lacks: what there is after a fault, for example ``modern-1 goes on without its MLflow record``.
        begin: is given a client, and gives a round.
        remedy: what helps after a fault.
    """

    def __init__(self, lacks: str, begin: "Callable[[MlflowClient], Callable[[], object]]", remedy: str = SYNC) -> None:
        super().__init__(daemon=True, name="mlflow")
        self.lacks, self.begin, self.remedy = lacks, begin, remedy
        self.told, self.over = threading.Lock(), threading.Event()
        self.complete = False
        self.asked = math.inf  # since when the store has not answered a question

    def run(self) -> None:
        work: Callable[[], object] | None = None
        resume = 0.0
        while not self.complete:
            last = self.over.is_set()
            try:
                if last or time.monotonic() >= resume:
                    work = work or self.begin(self._client())
                    work()
                    self.complete = last
            except Exception as error:
                work, resume = None, time.monotonic() + PAUSE
                self.tell(error)
                if last:
                    return
            if not last:
                self.over.wait(SECONDS)

    def finish(self, killed: bool = False) -> bool:
        """Do the last round, or the only one of a thread that has not been started; tell whether all is done."""
        self.over.set()
        if not self.ident:
            self.start()
        patience = PATIENCE_KILLED if killed else PATIENCE
        if killed:
            self.join(patience)
        made = 0.0  # making a new store may take longer
        while not killed and self.is_alive() and time.monotonic() - max(self.asked, made) <= patience:
            self.join(0.05)
            if store.making.is_set():
                made = time.monotonic()
        if not self.complete:
            self.tell(TimeoutError(f"the store has not answered for {patience:.0f} seconds"))
        return self.complete

    def tell(self, error: Exception) -> None:
        if self.told.acquire(blocking=False):
            warn(f"{self.lacks} ({store.reason(error)})", self.remedy)

    @contextmanager
    def harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.tell(error)

    def ask(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.asked = time.monotonic()
        try:
            return question(*args, **kwargs)
        finally:
            self.asked = math.inf

    def _client(self) -> "MlflowClient":
        import mlflow  # noqa: F401  takes seconds, which are not the store's

        return cast("MlflowClient", _Asking(self.ask(store.open_store), self.ask))


class _Asking:
    """A client whose every call is a question to the store."""

    def __init__(self, client: "MlflowClient", ask: Callable[..., Any]) -> None:
        self.client, self.ask = client, ask

    def __getattr__(self, name: str) -> Any:
        return partial(self.ask, getattr(self.client, name))


def bounded(what: str, action: "Callable[[MlflowClient], object]", remedy: str = SYNC) -> bool:
    """Do something with the store as long as it answers; tell whether it was done, and say so if it was not."""
    return Recorder(f"{what} is not in MLflow", lambda client: partial(action, client), remedy).finish()


@contextmanager
def ending(end: Callable[[str], None]) -> Iterator[None]:
    """Call with how the block ended: FINISHED, KILLED or FAILED."""
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        end(status)


def warn(text: str, remedy: str = SYNC) -> None:
    """Say on standard error what a record lacks, and what helps."""
    print(f"lenet: warning: {text}; {remedy}", file=sys.stderr)
