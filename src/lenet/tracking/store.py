"""Where MLflow's record lies: one sqlite file of the main checkout, or whatever MLFLOW_TRACKING_URI names."""

import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from filelock import FileLock

from lenet import journal
from lenet.current import Runs
from lenet.errors import InputError
from lenet.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

EXPERIMENT = "lenet5"
"""The experiment of the pipeline's runs; others are named after it, ``lenet5-…``."""
ARTIFACTS = "mlartifacts"
"""The folder of artifacts, beside the sqlite file."""
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Where MLflow keeps absolute paths."""
_SCHEME = "sqlite:///"

making = threading.Event()
"""Set while this process waits for a new or old store to be made ready, which takes many seconds."""

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own patience is minutes a call
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # one a file


def uri() -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, else one sqlite file in the main checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{_SCHEME}{journal.root() / 'mlflow.db'}"


def is_absent() -> bool:
    """Whether the store is a file that is not there yet."""
    database = _database()
    return database is not None and not database.exists()


def open_store() -> "MlflowClient":
    """Return a client on the store, made, upgraded and moved along as needed, once whoever comes first.

    Two processes that create one sqlite store at the same time leave it broken for good: hence the lock. A store of an
    older MLflow is upgraded after a copy of it is made. MLflow keeps absolute paths of artifacts; if the store has been
    moved or copied with its artifacts, they are set right.

    Raises:
        InputError: the store is of a newer MLflow, or its upgrade failed.
    """
    import mlflow

    _address()
    database = _database()
    if database and not _is_ready(database):
        database.parent.mkdir(parents=True, exist_ok=True)
        making.set()
        try:
            with FileLock(f"{database}.lock"):
                if not _is_ready(database):
                    _make_ready(database)
        finally:
            making.clear()
    client = mlflow.MlflowClient()
    if not database:
        experiment_id(client, EXPERIMENT)
    return client


def look() -> "MlflowClient | None":
    """Return a client on the store if it has our experiment, else None: nothing is made where there is nothing.

    Raises:
        InputError: the store is of a newer MLflow, or its upgrade failed.
    """
    database = _database()
    if database is None:
        import mlflow

        _address()
        return mlflow.MlflowClient()  # a server's own: it is asked later
    if not database.exists():
        return None
    with _connection(database) as connection:
        ours = bool(_schema(connection) and _place(connection))
    return open_store() if ours else None


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of an experiment, made if it is not there. A server chooses its own place for artifacts."""
    import mlflow

    found = client.get_experiment_by_name(name)
    if found is None:
        database = _database()
        with suppress(mlflow.MlflowException):  # another process was first
            return client.create_experiment(name, str(database.parent / ARTIFACTS) if database else None)
        found = client.get_experiment_by_name(name)
    if found is None:
        raise LookupError(f"no experiment {name!r}, and none can be made")
    return str(found.experiment_id)


def search(client: "MlflowClient", condition: str) -> "list[MlflowRun]":
    """The runs of all our experiments that meet a condition, the oldest first."""
    experiments = client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
    found: list[MlflowRun] = []
    token: str | None = None
    while experiments and token != "":
        page = client.search_runs(
            [one.experiment_id for one in experiments], condition, order_by=["attributes.start_time"], page_token=token
        )
        found += page
        token = page.token or ""
    return found


def find(client: "MlflowClient", record: Record) -> "MlflowRun | None":
    """The run of this training, the oldest if there are several: by key and variant, as two names may share a block."""
    condition = f"tags.`run.key` = '{record.key}' and tags.variant = '{record.variant}' and tags.kind = 'training'"
    found = search(client, condition)
    return found[0] if found else None


def end_dead_runs(client: "MlflowClient") -> None:
    """Close as KILLED each run of this machine that is RUNNING though its process is gone."""
    for run in search(client, "attributes.status = 'RUNNING'"):
        if not may_live(run.data.tags.get("process", "")):
            client.set_terminated(run.info.run_id, "KILLED")


def mark(client: "MlflowClient", found: Runs) -> int:
    """Tag exactly the trainings behind the present outputs ``current = true``; return how many are not there."""
    trainings = search(client, "tags.kind = 'training'")
    pairs = {run.info.run_id: (str(run.info.run_name), str(run.data.tags.get("run.key"))) for run in trainings}
    for run in trainings:
        is_current = str(pairs[run.info.run_id] in found).lower()
        if run.data.tags.get("current") != is_current:
            client.set_tag(run.info.run_id, "current", is_current)
    return len(found - set(pairs.values()))


def this_process() -> str:
    """Machine and process, as the tag ``process`` holds them."""
    return f"{socket.gethostname()}:{_identity(psutil.Process())}"


def may_live(process: str) -> bool:
    """Whether the process of a tag may still be running: it is of another machine, or it is."""
    host, _, identity = process.rpartition(":")
    return host != socket.gethostname() or identity in map(_identity, psutil.process_iter())


def reason(error: BaseException) -> str:
    """An error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def serve(port: int) -> None:
    """Become `mlflow ui` on the store, made first if it is not there. Raises InputError if a server has it."""
    if not uri().startswith("sqlite:"):
        raise InputError(f"MLFLOW_TRACKING_URI is {uri()}; open that server's own pages")
    open_store()
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # eight processes fewer, and 1.4 GB
    os.execvp("mlflow", ["mlflow", "ui", "--backend-store-uri", uri(), "--port", str(port)])


def _identity(process: psutil.Process) -> str:
    try:
        return f"{process.pid}@{process.create_time():.2f}"
    except psutil.Error:
        return ""


def _address() -> None:
    """Tell MLflow where the store is; it need not say more than its warnings."""
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri())


def _database() -> Path | None:
    return Path(uri().removeprefix(_SCHEME)).absolute() if uri().startswith(_SCHEME) else None


def _is_ready(database: Path) -> bool:
    """Whether a store has its experiment, the present schema and its artifacts where it says."""
    if not database.exists():
        return False
    with _connection(database) as connection:
        return _schema(connection) == _newest() and bool(_place(connection)) and not _moved(connection, database)


def _make_ready(database: Path) -> None:
    """Create, upgrade or relocate; the caller holds the lock."""
    import mlflow

    if database.exists():
        with _connection(database) as connection:
            schema = _schema(connection)
        if schema and schema != _newest():
            _upgrade(database, schema)
    experiment_id(mlflow.MlflowClient(), EXPERIMENT)
    with _connection(database) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")  # readers and a writer side by side
        if old := _moved(connection, database):
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ?",
                    (str(database.parent / ARTIFACTS), len(old) + 1, old, f"{old}/%"),
                )


def _upgrade(database: Path, schema: str) -> None:
    backup = database.with_name(f"{database.name}.{schema}")
    with _connection(database) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", f"{_SCHEME}{database}"], capture_output=True, text=True
    )
    if done.returncode:
        shutil.move(backup, database)
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise InputError(
            f"{database}: MLflow cannot upgrade its schema {schema}; it is untouched. "
            f"Install the MLflow that wrote it, or move it away ({said[-1]})"
        )
    print(f"lenet: {database.name} was of an older MLflow and is upgraded; as it was: {backup.name}", file=sys.stderr)


def _newest() -> str:
    """The schema of the installed MLflow: the one migration that no other follows."""
    import mlflow.store.db_migrations
    from alembic.script import ScriptDirectory

    (folder,) = mlflow.store.db_migrations.__path__
    return str(ScriptDirectory(folder).get_current_head())


def _schema(connection: sqlite3.Connection) -> str:
    """A store's schema; empty if it has none."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return ""
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else ""


def _place(connection: sqlite3.Connection) -> str:
    """Where our experiment says that its artifacts are; empty without one."""
    found = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    return str(found[0]) if found else ""


def _moved(connection: sqlite3.Connection, database: Path) -> str:
    """The folder that the store takes for that of its artifacts, if it is another one than the one beside it."""
    old, here = _place(connection), database.parent / ARTIFACTS
    return old if old != str(here) and Path(old).name == ARTIFACTS and here.is_dir() else ""


@contextmanager
def _connection(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        yield connection
