"""Where MLflow's record lies: one sqlite file of the main checkout, or whatever MLFLOW_TRACKING_URI names."""

import logging
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock

from lenet.runs.current import Runs
from lenet.runs.record import Record, Row
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import whole
from lenet.runtime.layout import masked

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory
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
_LOCK_SECONDS = 20  # for a store that somebody else has locked; MLflow's own figure
_MAKING_SECONDS = 120  # for whoever makes the store
_SAME_SECONDS = 5  # two processes of one number begin further apart; computed begins of one differ by less

making = threading.Event()
"""Set while this process waits for a new or old store to be made ready, which takes many seconds."""

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own patience is minutes a call
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each file
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # there our results go


def uri() -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, else one sqlite file in the main checkout.

    A sqlite file's relative path, too, starts there: else each of DVC's temporary copies would have a file of its own.
    """
    return layout.absolute(os.environ.get("MLFLOW_TRACKING_URI") or layout.STORE)


def shown() -> str:
    """The same address, fit to be printed and kept."""
    return masked(uri())


def open_store() -> "MlflowClient":
    """Return a client on the store, made, upgraded and moved along as needed, once whoever comes first.

    Two processes that create one sqlite store at the same time leave it broken for good: hence the lock. A store of an
    older MLflow is upgraded after a copy of it is made. MLflow keeps absolute paths of artifacts; if the store has been
    moved or copied with its artifacts, they are set right.

    Raises:
        InputError: the store is of another MLflow's schema, or its upgrade failed.
    """
    import mlflow

    configure()
    database = _database()
    if database and not _is_ready(database):
        database.parent.mkdir(parents=True, exist_ok=True)
        if database.exists():
            _check_free(database)  # from here on waiting means that one of us is at work
        making.set()
        try:
            with FileLock(f"{database}.lock", timeout=_MAKING_SECONDS):
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

        configure()
        return mlflow.MlflowClient()  # a server's own: it is asked later
    if not database.exists():
        return None
    with _connection(database) as connection:
        ours = bool(_schema(connection) and _place(connection))
    return open_store() if ours else None


def experiment_id(client: "MlflowClient", name: str) -> str:
    """The id of an experiment, made if it is not there, and restored with its runs if somebody has deleted it.

    A server chooses its own place for artifacts.
    """
    import mlflow

    found = client.get_experiment_by_name(name)
    if found and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        _tell_restored(f"experiment {name}")
    if found is None:
        database = _database()
        with suppress(mlflow.MlflowException):  # another process was first
            return client.create_experiment(name, _place_of(database) if database else None)
        found = client.get_experiment_by_name(name)
    if found is None:
        raise LookupError(f"no experiment {name!r}, and none can be made")
    return str(found.experiment_id)


def search(client: "MlflowClient", condition: str, deleted: bool = False) -> "list[MlflowRun]":
    """The runs of all our experiments that meet a condition, or those that somebody has deleted, the oldest first."""
    from mlflow.entities import ViewType
    from mlflow.utils import get_results_from_paginated_fn

    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    experiments = client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
    if not experiments:
        return []
    places = [one.experiment_id for one in experiments]
    oldest = ["attributes.start_time"]
    found: list[MlflowRun] = get_results_from_paginated_fn(
        lambda most, token: client.search_runs(places, condition, view, most, oldest, token), 1000
    )
    return found


def reclaim(client: "MlflowClient", condition: str, tag: str = "run.key") -> "list[MlflowRun]":
    """The runs that meet a condition, as ``search``; one that was deleted is restored if no other has its tag's value.

    Another one made in its place would be a second one as soon as somebody restores the first.
    """
    found = search(client, condition)
    for run in search(client, condition, deleted=True):
        if run.data.tags.get(tag) not in [other.data.tags.get(tag) for other in found]:
            client.restore_run(run.info.run_id)
            _tell_restored(f"run {run.info.run_name} ({run.info.run_id[:8]})")
            found.append(client.get_run(run.info.run_id))
    return found


def run_of(client: "MlflowClient", experiment: str, condition: str, **new: Any) -> "tuple[MlflowRun, bool]":
    """The run that meets a condition, restored if it was deleted; else a new one of an experiment, and that it is."""
    place = experiment_id(client, experiment)
    found = reclaim(client, condition)
    return (found[0], False) if found else (client.create_run(place, **new), True)


def add(
    client: "MlflowClient",
    run_id: str,
    tags: Mapping[str, str] = MappingProxyType({}),
    params: Mapping[str, object] = MappingProxyType({}),
    points: Iterable[tuple[str, float, int, int]] = (),
) -> int:
    """Log tags, parameters and metrics (name, value, milliseconds, step), if there are any; return how many things."""
    from mlflow.entities import Metric, Param, RunTag

    metrics = [Metric(*point) for point in points]
    if metrics or params or tags:
        given = [Param(name, str(value)) for name, value in params.items()]
        client.log_batch(run_id, metrics, given, [RunTag(*pair) for pair in tags.items()])
    return len(metrics) + len(params) + len(tags)


def points(history: Iterable[Row], time: int) -> Iterator[tuple[str, float, int, int]]:
    """The numbers of a history, as ``add`` takes them."""
    for row in history:
        yield from ((name, value, time, int(row["epoch"])) for name, value in row.items() if isinstance(value, float))


def link(run: "MlflowRun", text: str) -> str:
    """A run in MLflow's pages, as Markdown."""
    return f"[{text}](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id})"


def _tell_restored(what: str) -> None:
    print(f"lenet: {what} was deleted in MLflow, and is restored", file=sys.stderr)


def training_of(record: Record) -> str:
    """The condition that the runs of a training meet: by key, variant and seed, as two names may share a block."""
    names = f"tags.variant = '{record.variant}' and tags.seed = '{record.seed}'"
    return f"tags.kind = 'training' and tags.`run.key` = '{record.key}' and {names}"


def find(client: "MlflowClient", record: Record) -> "MlflowRun | None":
    """The run of this training, the oldest if there are several."""
    return next(iter(search(client, training_of(record))), None)


def identity(run: "MlflowRun") -> tuple[str, str]:
    """Name and key of a training, by the tags that it began with: what MLflow displays, anybody may change."""
    tags = run.data.tags
    return f"{tags.get('variant', '')}-{tags.get('seed', '')}", tags.get("run.key", "")


def is_current(run: "MlflowRun") -> bool:
    """Whether a run is tagged current, and not by another checkout, which has outputs of its own."""
    tags = run.data.tags
    host, _, folder = tags.get("checkout", "").partition(":")
    elsewhere = _database() is None and host not in ("", socket.gethostname())  # else the file is here, and so is it
    there = folder and Path(folder) != layout.root() and Path(folder).is_dir()
    return tags.get("current") == "true" and not (elsewhere or there)


def end_dead_runs(client: "MlflowClient") -> None:
    """Close as KILLED each run of this machine that is RUNNING though its process is gone."""
    for run in search(client, "attributes.status = 'RUNNING'"):
        if not may_live(run.data.tags.get("process", "")):
            client.set_terminated(run.info.run_id, "KILLED")


def mark(client: "MlflowClient", found: Runs) -> int:
    """Tag exactly the trainings behind the present outputs ``current = true``; return how many are not there.

    What another checkout has tagged stays.
    """
    trainings = search(client, "tags.kind = 'training'")
    here = {"current": "true", "checkout": f"{socket.gethostname()}:{layout.root()}"}
    for run in trainings:
        tags = run.data.tags
        wanted = here if identity(run) in found else {"current": "false"}
        if wanted is here or is_current(run) or "current" not in tags:
            for name in wanted:
                if tags.get(name) != wanted[name]:
                    client.set_tag(run.info.run_id, name, wanted[name])
    return len(found - set(map(identity, trainings)))


def this_process() -> str:
    """Machine and process, as the tag ``process`` holds them."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}@{process.create_time():.2f}"


def may_live(process: str) -> bool:
    """Whether the process of a tag may still be running: it is of another machine, or it is."""
    host, _, identity = process.rpartition(":")
    number, _, begin = identity.partition("@")
    if host != socket.gethostname():
        return True
    try:
        found = psutil.Process(int(number))
        is_it = abs(found.create_time() - float(begin)) < _SAME_SECONDS
        return is_it and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


@contextmanager
def asking() -> Iterator[None]:
    """A store that does not answer is bad input."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{shown()}: the store cannot be read ({reason(error)})") from None


def reason(error: BaseException) -> str:
    """An error in one line, without passwords; of a connection that failed, why."""
    if found := re.search(
        r"HTTPS?ConnectionPool\(host='(.+?)', port=(\d+)\).*\[Errno -?\d+\] ([^'\")]+)", str(error), re.S
    ):
        return f"{found[1]}:{found[2]}: {found[3]}"
    said = masked((str(error).strip().splitlines() or [type(error).__name__])[0])
    damaged = layout.DAMAGED.search(said)
    return said + "; move it away, and `lenet sync` records what files here tell of" * bool(damaged)


def serve(port: int) -> None:
    """Become `mlflow ui` on the store, made if it is not there. Raises InputError if a server has it or the port."""
    if _database() is None:
        raise InputError(f"MLFLOW_TRACKING_URI is {shown()}; open that server's own pages")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(f"port {port} cannot be had ({error.strerror}); --port chooses another") from None
    try:
        open_store()
    except (OSError, sqlite3.Error, RuntimeError) as error:
        raise InputError(f"{shown()}: the store cannot be opened ({reason(error)})") from None
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # eight processes fewer, and 1.4 GB
    os.environ.setdefault("MLFLOW_WORKERS", "1")  # of four for one visitor: 0.5 GB in place of 1.3
    mlflow = [sys.executable, "-m", "mlflow"]
    os.execv(sys.executable, [*mlflow, "ui", "--backend-store-uri", uri(), "--port", str(port)])


def configure() -> None:
    """Tell MLflow where the store is, and to be silent: whatever fails is raised, and told in one line."""
    import mlflow

    for name in ("mlflow", "alembic", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(uri())


def _database() -> Path | None:
    return layout.sqlite_file(uri())


def _place_of(database: Path) -> str:
    """Where a store's artifacts go: beside it."""
    return layout.artifacts(database.parent / ARTIFACTS)


def _is_ready(database: Path) -> bool:
    """Whether a store has its experiment, the present schema and its artifacts where it says."""
    if not database.exists():
        return False
    with _connection(database) as connection:
        return _schema(connection) == _newest() and bool(_place(connection)) and not _moved(connection, database)


def _check_free(database: Path) -> None:
    """Raise sqlite3.OperationalError if a process keeps the store locked."""
    with _connection(database) as connection:
        connection.execute("BEGIN IMMEDIATE")


def _make_ready(database: Path) -> None:
    """Create, upgrade or relocate; the caller holds the lock."""
    import mlflow

    schema = ""
    if database.exists():
        with _connection(database) as connection:
            schema = _schema(connection)
    if not schema:
        _create(database)
    elif schema != _newest():
        _upgrade(database, schema)
    experiment_id(mlflow.MlflowClient(), EXPERIMENT)
    with _connection(database) as connection, connection:
        connection.execute("PRAGMA journal_mode=WAL")  # readers and a writer side by side
        if old := _moved(connection, database):
            for table, column in _PLACES:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (_place_of(database), len(old) + 1, old, len(old) + 1, f"{old}/"),
                )


def _create(database: Path) -> None:
    """Make an empty store, whole or not at all: MLflow cannot finish one that was begun."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    (database.parent / ARTIFACTS).mkdir(exist_ok=True)  # so that a copy of the store has a place of its own
    with whole(database) as beside:
        beside.unlink(missing_ok=True)  # of one that was killed
        store = SqlAlchemyStore(layout.sqlite(beside), _place_of(database))
        try:
            store.create_experiment(EXPERIMENT, _place_of(database))
        finally:
            store.engine.dispose()


def _upgrade(database: Path, schema: str) -> None:
    if schema not in {revision.revision for revision in _migrations().walk_revisions()}:
        raise InputError(
            f"{database}: its schema {schema} is none that MLflow {metadata.version('mlflow')} knows; it is untouched. "
            "Install the MLflow that wrote it, move it away, or set MLFLOW_TRACKING_URI to another store"
        )
    backup = database.with_name(f"{database.name}.{schema}")
    _copy(database, backup)
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", layout.sqlite(database)]
    done = subprocess.run(upgrade, capture_output=True, text=True)
    if done.returncode:
        _copy(backup, database)
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise InputError(
            f"{database}: MLflow cannot upgrade its schema {schema}; it is as it was. "
            f"Install the MLflow that wrote it, or move it away ({said[-1]})"
        )
    print(f"lenet: {database.name} was of an older MLflow and is upgraded; as it was: {backup.name}", file=sys.stderr)


def _copy(source: Path, target: Path) -> None:
    """Copy a database as SQLite does it, so that what is in its log counts too."""
    with _connection(source) as one, _connection(target) as other:
        one.backup(other)


def _migrations() -> "ScriptDirectory":
    import mlflow.store.db_migrations
    from alembic.script import ScriptDirectory

    (folder,) = mlflow.store.db_migrations.__path__
    return ScriptDirectory(folder)


def _newest() -> str:
    """The schema of the installed MLflow: the one migration that no other follows."""
    return str(_migrations().get_current_head())


def _schema(connection: sqlite3.Connection) -> str:
    """A store's schema; empty if the file holds nothing. Raises InputError for another program's file."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not tables:
        return ""
    if not tables >= {"alembic_version", "experiments"}:
        raise InputError(f"{shown()}: a database, but none of MLflow's; set MLFLOW_TRACKING_URI to another, or to none")
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else ""


def _place(connection: sqlite3.Connection) -> str:
    """Where our experiment says that its artifacts are; empty without one."""
    found = connection.execute("SELECT artifact_location FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone()
    return str(found[0]) if found else ""


def _moved(connection: sqlite3.Connection, database: Path) -> str:
    """The folder that the store takes for that of its artifacts, if it is another one than the one beside it."""
    old, here = _place(connection), database.parent / ARTIFACTS
    return old if old != _place_of(database) and Path(old).name == ARTIFACTS and here.is_dir() else ""


def _connection(database: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(database, timeout=_LOCK_SECONDS))
