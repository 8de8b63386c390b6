"""MLflow's record again, from journals and outputs: completed, or rebuilt in an empty store."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from lenet.params.schema import Params
from lenet.runs import current
from lenet.runs.record import Record
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.tracking import journal, store
from lenet.tracking.journal import Entry
from lenet.tracking.live import entry_of
from lenet.tracking.mirror import Mirror, is_of, mirror_comparison, outputs

PATIENCE = 120.0  # seconds for another process that works on the same run


def sync(params: Params) -> Iterator[tuple[str, int]]:
    """Complete the record of every training that has outputs here, or was meant for this store; then the comparison.

    Whatever is there already stays as it is, so that a second call adds nothing. Running trainings are left alone.

    Yields:
        A run's name, and how many things MLflow's record of it lacked, as soon as it is complete.

    Raises:
        InputError: the store cannot be reached, or a file is faulty.
    """
    with journal.lock("sync", -1):
        try:
            client = store.open_store()
            store.end_dead_runs(client)
            done = set()
            for entry, files in _everything(params):
                mirror = Mirror(client, entry, PATIENCE)
                mirror.update(files)
                entry.forget_outputs()
                done.add((entry.record.name, entry.record.key))
                yield entry.record.name, mirror.added
            records = current.records(params)
            if done >= {(one.name, one.key) for one in records} and is_of(layout.REPORTS, layout.METRICS, records):
                with journal.lock("comparison", PATIENCE):
                    added = mirror_comparison(client, records, layout.SUMMARY, layout.REPORTS)
                yield "comparison", added
            store.mark(client, current.present(params))
        except (InputError, GeneratorExit):
            raise
        except Exception as error:
            raise InputError(f"{store.shown()}: the store does not take the record ({store.reason(error)})") from None


def _everything(params: Params) -> Iterator[tuple[Entry, Mapping[str, Path]]]:
    """Each training to be recorded, with its output files by name; those with present outputs first."""
    seen = set()
    for folder in current.folders(params):
        record = Record.read(folder / "run.json")
        found = journal.of(record)
        if found and _runs(found):  # trained again
            continue
        entry = entry_of(record, layout.mlflow_experiment(folder))
        seen.add(entry.folder)
        yield entry, entry.kept() | outputs(record, folder)
    for entry in journal.entries():
        if entry.folder in seen or store.masked(entry.store) != store.shown() or _runs(entry):
            continue
        if entry.status == "RUNNING":
            entry.status, entry.ended = "KILLED", entry.latest
        yield entry, entry.kept()


def _runs(entry: Entry) -> bool:
    return entry.status == "RUNNING" and store.may_live(entry.tags.get("process", ""))
