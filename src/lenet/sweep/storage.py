"""Where a study's trials are kept: a sqlite file, a journal file, or a PostgreSQL database."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, get_storage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.sweep.study import Plan

PATIENCE = 60  # seconds for another process's write
LINE = 2**20  # bytes; longer than any line of a journal
JOURNAL = b'{"op_code":'  # how one begins
LEGAL = "sqlite:///FILE, journal:///FILE, postgresql://USER@HOST/DATABASE"
GONE = "Record does not exist."
"""What Optuna says of a study or trial that it does not find."""
FAULTS = (SQLAlchemyError, StorageInternalError, OSError)
"""What a storage that fails raises."""


def default() -> str:
    """One sqlite file of the main checkout, also from DVC's temporary copies."""
    return layout.sqlite(layout.root() / "optuna.db")


def absolute(address: str) -> str:
    """An address that means the same from every folder; a relative file starts at the main checkout."""
    scheme, _, file = address.partition(":///")
    return f"{scheme}:///{layout.root() / file}" if scheme == "journal" and file else layout.absolute(address)


def connect(address: str) -> BaseStorage:
    """Open a storage, made if it is not there. Raises InputError if it cannot be had."""
    address = absolute(address)
    scheme, _, file = address.partition(":///")
    try:
        if scheme == "journal" and file:
            return _journal(Path(file))
        if sqlite := layout.sqlite_file(address):
            return _sqlite(sqlite, address)
        if re.match(r"postgresql(\+psycopg)?://", address):
            return _postgresql(address)
    except (*FAULTS, ImportError, RuntimeError, ValueError) as error:
        raise InputError(f"{layout.masked(address)}: {_reason(error)}") from None
    raise InputError(f"{layout.masked(address)}: names no storage of trials; legal: {LEGAL}")


def begin(storage: BaseStorage, name: str, plan: Plan) -> int:
    """Optuna's id of a study, made if it is not there.

    Raises:
        InputError: the study is there, of another plan.
    """
    try:
        study = optuna.create_study(
            study_name=name, storage=storage, directions=["minimize"] * len(plan.objectives), load_if_exists=True
        )
    except optuna.exceptions.OptunaError as error:
        raise InputError(f"study {name}: {_reason(error)}") from None
    if "plan" not in study.user_attrs:
        study.set_user_attr("plan", plan.to_json())
        study.set_metric_names(plan.objectives)
    elif before := Plan.read(study.user_attrs["plan"]).differences(plan):
        raise InputError(
            f"study {name} was begun with other {', '.join(before)}; name a new one by --study, or take the default"
        )
    return study._study_id


def names(storage: BaseStorage) -> dict[str, int]:
    """The studies of ours that a storage has, by name, with Optuna's ids."""
    found = storage.get_all_studies()
    return {study.study_name: study._study_id for study in found if "plan" in study.user_attrs}


def plan_of(storage: BaseStorage, study_id: int) -> Plan:
    """A study's plan, as it was begun with."""
    return Plan.read(storage.get_study_user_attrs(study_id)["plan"])


def _journal(path: Path) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        with path.open("rb") as file:
            if not JOURNAL.startswith(file.read(len(JOURNAL))):  # writing would damage it
                raise ValueError("it is no journal of Optuna's")
    return JournalStorage(JournalFileBackend(str(path), _RepairingLock(path)))


def _sqlite(path: Path, address: str) -> BaseStorage:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=PATIENCE):  # two that make the tables at a time break them
        storage = RDBStorage(address, engine_kwargs={"connect_args": {"timeout": PATIENCE}})
    event.listen(storage.engine, "connect", _side_by_side)
    event.listen(storage.engine, "begin", _one_at_a_time)
    storage.engine.dispose()
    return get_storage(storage)


def _postgresql(address: str) -> BaseStorage:
    if "@" in (make_url(address).host or ""):
        raise ValueError("an @ in a password is written %40")
    driver = address.replace("postgresql://", "postgresql+psycopg://", 1)
    encoding = {"client_encoding": "utf8"}  # also of a database without one
    engine = create_engine(driver, connect_args=encoding)
    with engine.begin() as alone:
        alone.exec_driver_sql(f"SELECT pg_advisory_xact_lock({int.from_bytes(b'lenet')})")
        storage = RDBStorage(driver, engine_kwargs={"pool_pre_ping": True, "connect_args": encoding})
    engine.dispose()
    return get_storage(storage)


class _RepairingLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal file, which cuts off the half line of a writer that was killed.

    Otherwise the next line would be added to it, and the file could never be read again.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def acquire(self) -> bool:
        super().acquire()
        try:
            self._repair()
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        with suppress(RuntimeError):  # taken away, as it was held for long: the line is written all the same
            super().release()

    def _repair(self) -> None:
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with self.path.open("rb+") as file:
            before = max(0, self.path.stat().st_size - LINE)
            file.seek(before)
            start, line = _last_line(file.read())
            try:
                json.loads(line)
                sound = line.endswith(b"\n")
            except ValueError:
                sound = False
            if not sound:
                file.truncate(before + start)


def _last_line(content: bytes) -> tuple[int, bytes]:
    """Where the last line begins, and the line."""
    start = content.rfind(b"\n", 0, len(content) - 1) + 1
    return start, content[start:]


def _side_by_side(connection: sqlite3.Connection, _record: object) -> None:
    """A reader, as Optuna's dashboard, does not stop a writer; transactions are begun by ``_one_at_a_time`` alone."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.isolation_level = None


def _one_at_a_time(connection: Connection) -> None:
    """Between what a transaction reads and what it writes no other one comes: else two workers have one trial."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _reason(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error.__cause__ or error
    said = (str(cause).strip().splitlines() or [type(error).__name__])[0]
    return said + "; move it away, and studies begin anew" * bool(layout.DAMAGED.search(said))


@contextmanager
def asking(what: str) -> Iterator[None]:
    """A storage that fails is bad input, and so is one from which somebody has deleted the study."""
    try:
        yield
    except FAULTS as error:
        raise InputError(f"{what}: {_reason(error)}") from None
    except KeyError as error:
        if error.args != (GONE,):
            raise
        raise InputError(f"{what}: it has been deleted from its storage; the same command begins it anew") from None
