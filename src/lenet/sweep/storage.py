"""Where a study's trials are kept: a sqlite file, or a PostgreSQL database. One process writes a study's."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import SQLAlchemyError

from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.sweep.study import Plan

PATIENCE = 60  # seconds for another process's write
LEGAL = "sqlite:///FILE, postgresql://USER@HOST/DATABASE"
GONE = "Record does not exist."
"""What Optuna says of a study or trial that it does not find."""
FAULTS = (SQLAlchemyError, StorageInternalError, OSError)
"""What a storage that fails raises."""


def default() -> str:
    """One sqlite file of the main checkout, also from DVC's temporary copies."""
    return layout.sqlite(layout.root() / "optuna.db")


def connect(address: str) -> BaseStorage:
    """Open a storage, made if it is not there. Raises InputError if it cannot be had."""
    address = layout.absolute(address)
    try:
        if sqlite := layout.sqlite_file(address):
            sqlite.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{sqlite}.lock", timeout=PATIENCE):  # two that make the tables at a time break them
                return get_storage(RDBStorage(address, engine_kwargs={"connect_args": {"timeout": PATIENCE}}))
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
