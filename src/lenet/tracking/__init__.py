"""The MLflow record of runs, and the only part that imports mlflow. It never stops or changes a training.

A training has one run, found by its tag ``run.key``; later stages add to it. The training keeps a journal (journal.py);
a thread beside it copies the journal into MLflow, and `lenet sync` does the same afterwards for whatever is missing
there. What fails is said once, on standard error, and the stage goes on.

Read in this order: ``store`` (where records lie), ``mirror`` (one training's run), ``recorder`` (a thread that is
bounded in time), ``live`` (beside a training), ``logger`` (the same for Lightning), ``sync`` (all of it again, from
files), ``check`` (whether it is so), ``lookup`` (what is known of a run; it only looks), ``models`` (loaded for use),
``reruns`` and ``sweeps`` (their own runs).
"""

from lenet.tracking.check import check
from lenet.tracking.live import Run, compared, evaluated, mark_current, training
from lenet.tracking.lookup import Tracked, lookup
from lenet.tracking.mirror import TRAINED, digest_tags, numbers_of
from lenet.tracking.models import load_model
from lenet.tracking.registry import promote, register, versions
from lenet.tracking.reruns import reran, trainings
from lenet.tracking.store import EXPERIMENT, end_dead_runs, find, may_live, open_store, serve, shown, this_process
from lenet.tracking.sweeps import StudyRecord, TrialRecord, study
from lenet.tracking.sync import sync

__all__ = [
    "EXPERIMENT", "TRAINED", "Run", "StudyRecord", "Tracked", "TrialRecord", "check", "compared", "digest_tags",
    "end_dead_runs", "evaluated", "find", "load_model", "lookup", "mark_current", "may_live", "numbers_of",
    "open_store", "promote", "register", "reran", "serve", "shown", "study", "sync", "this_process", "training",
    "trainings", "versions",
]  # fmt: skip
