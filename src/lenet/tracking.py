"""The MLflow record of runs, and the only module that imports mlflow. It never stops or changes a training.

A training has one run, found by its tag ``run.key``; later stages add to it. Whatever fails here is said once, on
standard error, and the stage goes on without a record.
"""

import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import psutil
from filelock import FileLock

from lenet import THREADS, current, figures, fingerprint, packaged
from lenet.config import flatten
from lenet.errors import InputError
from lenet.record import History, Record, Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

EXPERIMENT = "lenet5"
SAMPLING_SECONDS = 5  # of system metrics, so that they appear on runs of a minute
MISSES_SHOWN = 120  # in the figure of misclassified digits
INPUTS = ("src", "params.yaml", "dvc.yaml", "pyproject.toml", "requirements.lock", "requirements-numeric.lock")
"""What makes a result; a difference from the commit in one of these is ``git.dirty``."""

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")

P = ParamSpec("P")


def root() -> Path:
    """The main checkout's root, also from DVC's temporary copies for experiments."""
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"]).resolve()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


def uri() -> str:
    """Where runs are recorded: MLFLOW_TRACKING_URI, else one sqlite file in the main checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root() / 'mlflow.db'}"


def open_store() -> "MlflowClient":
    """Return a client on the store with its experiment in place, made once whoever comes first.

    Two processes that create one sqlite store at the same time leave it broken for good: hence the lock.
    """
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri())
    database = _database()
    if database and not _initialised(database):
        database.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{database}.lock"):
            if not _initialised(database):
                _create_experiment(database.parent / "mlartifacts")
                with closing(sqlite3.connect(database)) as connection:
                    connection.execute("PRAGMA journal_mode=WAL")  # readers and a writer side by side
    elif not database:
        _create_experiment(None)
    return mlflow.MlflowClient()


def _database() -> Path | None:
    scheme = "sqlite:///"
    return Path(uri().removeprefix(scheme)).absolute() if uri().startswith(scheme) else None


def _initialised(database: Path) -> bool:
    if not database.exists():
        return False
    with closing(sqlite3.connect(database, timeout=20)) as connection, suppress(sqlite3.OperationalError):
        return bool(connection.execute("SELECT 1 FROM experiments WHERE name = ?", (EXPERIMENT,)).fetchone())
    return False


def _create_experiment(artifacts: Path | None) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    if client.get_experiment_by_name(EXPERIMENT) is None:
        with suppress(mlflow.MlflowException):  # another process was first
            client.create_experiment(EXPERIMENT, artifact_location=str(artifacts) if artifacts else None)


def _harmless(method: Callable[P, None]) -> Callable[P, None]:
    """Let a method of Run fail without harm: say it once, then stay silent."""

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        run = args[0]
        assert isinstance(run, Run)
        if not run.on:
            return
        try:
            method(*args, **kwargs)
        except Exception as error:
            run.on = False
            print(
                f"lenet: warning: {run.record.name} goes on without its MLflow record: {_line(error)}", file=sys.stderr
            )

    return call


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Run:
    """The MLflow run of one training; every method is harmless."""

    def __init__(self, record: Record, experiment: str | None) -> None:
        self.record, self.on = record, experiment is not None
        self.id: str | None = None
        self.epochs_logged: set[int] = set()
        self.since = time.monotonic()

    @_harmless
    def start(self) -> None:
        """Open the run, or go on in the one that has this key."""
        import mlflow

        client = open_store()
        end_dead_runs(client)
        known = find(client, self.record)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        mlflow.set_system_metrics_sampling_interval(SAMPLING_SECONDS)
        run = mlflow.start_run(
            run_id=known.info.run_id if known else None,
            experiment_id=experiment.experiment_id,
            run_name=self.record.name,
            log_system_metrics=True,
        )
        self.id = run.info.run_id
        mlflow.set_tags(_tags(self.record) | ({} if known else {"current": "false"}))
        mlflow.log_params({"variant": self.record.variant, "seed": self.record.seed, **flatten(self.record.parameters)})
        if not (known and known.inputs and known.inputs.dataset_inputs):
            mlflow.log_input(_dataset(self.record), context="training")
        if known:
            self.epochs_logged = {m.step for m in client.get_metric_history(self.id, "train/loss")}
        self.since = time.monotonic()

    @_harmless
    def epoch(self, row: Row) -> None:
        """Log one row of the history, at step = epoch, in one call, with the epoch's wall time."""
        import mlflow

        seconds, self.since = time.monotonic() - self.since, time.monotonic()
        if row["epoch"] not in self.epochs_logged:
            numbers = {name: value for name, value in row.items() if isinstance(value, float)}
            mlflow.log_metrics(numbers | {"epoch_seconds": seconds}, step=int(row["epoch"]))

    @_harmless
    def trained(self, folder: Path, history: History) -> None:
        """Add what the training left in ``folder``, its figures and the loadable model."""
        import mlflow

        record = Record.read(folder / "run.json")
        mlflow.set_tags(_fingerprint_tags(record))
        with tempfile.TemporaryDirectory() as scratch:
            bundle = Path(scratch)
            for file in (*packaged.FILES, "history.csv", "trace"):
                shutil.copy(folder / file, bundle)
            kernels = figures.kernels(folder / "weights.safetensors")
            _save(bundle, learning_curve=figures.learning_curve(history), C1_kernels=kernels)
            mlflow.log_artifacts(scratch)
        made = mlflow.MlflowClient().get_run(str(self.id)).outputs
        if not (made and made.model_outputs):
            _log_model(folder, record)

    @_harmless
    def evaluated(
        self,
        metrics: dict[str, float],
        step: int,
        files: Sequence[Path],
        confusion: np.ndarray,
        missed: tuple[np.ndarray, Sequence[str]],
    ) -> None:
        """Add test metrics, files and figures to the run that has this record's key.

        Args:
            metrics: by name, logged at ``step``.
            step: the last epoch.
            files: kept as artifacts.
            confusion: counts (10, 10), digit by answer.
            missed: images (n, 28, 28) and captions of the misclassified digits; the first of them are drawn.
        """
        client = open_store()
        run = find(client, self.record)
        if run is None:
            raise LookupError("no run there has its run.key; it was trained with another store or without one")
        for name, value in metrics.items():
            if run.data.metrics.get(name) != value:
                client.log_metric(run.info.run_id, name, value, step=step)
        images, captions = missed
        gallery = figures.gallery(images[:MISSES_SHOWN], captions[:MISSES_SHOWN])
        with tempfile.TemporaryDirectory() as scratch:
            for file in files:
                shutil.copy(file, scratch)
            _save(Path(scratch), confusion=figures.confusion([(self.record.name, confusion)]), misclassified=gallery)
            client.log_artifacts(run.info.run_id, scratch)

    def end(self, status: str) -> None:
        """Close the run, if it was opened, as FINISHED, FAILED or KILLED; after a fault too."""
        if self.id:
            import mlflow

            with suppress(Exception):
                mlflow.end_run(status)


@contextmanager
def training(record: Record, experiment: str | None) -> Iterator[Run]:
    """The run of a training while it lasts; its status tells how it ended."""
    run = Run(record, experiment)
    run.start()
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.end(status)


def _save(folder: Path, **drawn: "Figure") -> None:
    """Write figures into ``folder``/figures."""
    (folder / "figures").mkdir()
    for name, figure in drawn.items():
        figures.save(figure, folder / "figures" / f"{name}.png")


def find(client: "MlflowClient", record: Record) -> "MlflowRun | None":
    """The run of this training, the oldest if there are several: by key and variant, as two names may share a block."""
    found = _search(client, f"tags.`run.key` = '{record.key}' and tags.variant = '{record.variant}'")
    return found[0] if found else None


def mark_current(found: current.Runs) -> None:
    """Tag exactly the runs behind the present outputs ``current = true``, in the main checkout; say so if it fails.

    In an experiment's copy nothing is marked: its outputs are not the workspace's.
    """
    if root() != Path.cwd():
        return
    mark = current.mark_of(found)  # before MLflow puts its address into the environment
    try:
        client = open_store()
        end_dead_runs(client)
        for run in _search(client, ""):
            is_current = str((run.info.run_name, run.data.tags.get("run.key")) in found).lower()
            if run.data.tags.get("current") != is_current:
                client.set_tag(run.info.run_id, "current", is_current)
        current.note(mark)
    except Exception as error:
        print(f"lenet: warning: the current runs are not marked in MLflow: {_line(error)}", file=sys.stderr)


def end_dead_runs(client: "MlflowClient") -> None:
    """Close as KILLED each run of this machine that is RUNNING though its process is gone."""
    for run in _search(client, "attributes.status = 'RUNNING'"):
        host, _, process = run.data.tags.get("process", "").rpartition(":")
        if host == socket.gethostname() and process not in map(_process, psutil.process_iter()):
            client.set_terminated(run.info.run_id, "KILLED")


def _process(process: psutil.Process) -> str:
    try:
        return f"{process.pid}@{process.create_time():.2f}"
    except psutil.Error:
        return ""


def _search(client: "MlflowClient", condition: str) -> "list[MlflowRun]":
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found: list[MlflowRun] = []
    token: str | None = None
    while experiment and token != "":
        page = client.search_runs(
            [experiment.experiment_id], condition, order_by=["attributes.start_time"], page_token=token
        )
        found += page
        token = page.token or ""
    return found


def _tags(record: Record) -> dict[str, Any]:
    tags = {
        "kind": "training",
        "variant": record.variant,
        "seed": record.seed,
        "git.commit": _git("rev-parse", "HEAD") or "none",
        "git.dirty": str(bool(_git("status", "--porcelain", "--", *INPUTS))).lower(),
        "environment.sha256": fingerprint.environment_sha256(),
        "threads": THREADS,
        "process": f"{socket.gethostname()}:{_process(psutil.Process())}",
    } | _fingerprint_tags(record)
    experiment = os.environ.get("DVC_EXP_NAME")
    return tags | ({"dvc.experiment": experiment} if experiment else {})


def _fingerprint_tags(record: Record) -> dict[str, str]:
    return {("run.key" if name == "key" else name): digest for name, digest in record.fingerprints.items()}


def _git(*words: str) -> str:
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _dataset(record: Record) -> Any:
    """The digits as an MLflow dataset. Its digest field holds 36 characters; the tag ``data.sha256`` has them all."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    source = CodeDatasetSource({"stage": "prepare", "data.sha256": record.data})
    return MetaDataset(source, name="mnist-train", digest=record.data[:36])  # type: ignore[abstract]


def _log_model(folder: Path, record: Record) -> None:
    """Log the model: weights as safetensors and the modules that run them, loaded without pickle and Lightning."""
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    with tempfile.TemporaryDirectory() as scratch:
        data, code = Path(scratch) / "run", Path(scratch) / "lenet"
        data.mkdir()
        code.mkdir()
        for file in packaged.FILES:
            shutil.copy(folder / file, data)
        for name in fingerprint.sources("packaged"):
            shutil.copy(fingerprint.PACKAGE / f"{name}.py", code)
        example = packaged.example()
        outputs = packaged.load(folder).predict(example)
        mlflow.pyfunc.log_model(
            name="model",
            loader_module="lenet.packaged",
            data_path=str(data),
            code_paths=[str(code)],
            signature=ModelSignature(
                Schema([TensorSpec(example.dtype, (-1, 28, 28))]),
                Schema([TensorSpec(array.dtype, (-1, *array.shape[1:]), name) for name, array in outputs.items()]),
            ),
            input_example=example,
            pip_requirements=packaged.requirements(),
            metadata=record.fingerprints,
        )


def serve(port: int) -> None:
    """Become `mlflow ui` on the store, made first if it is not there. Raises InputError if a server has it."""
    if not uri().startswith("sqlite:"):
        raise InputError(f"MLFLOW_TRACKING_URI is {uri()}; open that server's own pages")
    open_store()
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # eight processes fewer, and 1.4 GB
    os.execvp("mlflow", ["mlflow", "ui", "--backend-store-uri", uri(), "--port", str(port)])
