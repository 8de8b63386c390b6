"""`lenet diff`: what differs between trainings: parameters, identity, code, environment, metrics and answers.

Where something is not known of a run, that is said; nothing is guessed from what is known of another.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats

from lenet.evaluation import judge
from lenet.params.schema import Params
from lenet.runs import readers
from lenet.runtime import snapshot
from lenet.runtime.errors import InputError, visible
from lenet.tracking.lookup import LEGAL, Tracked, lookup

IDENTITY = (
    "run.key", "weights.sha256", "data.sha256", "signature", "git.commit", "git.dirty", "environment.sha256",
    "processor", "conformance", "threads",
)  # fmt: skip
FIRST = 10  # indices of digits shown
DIGEST = 12  # characters of a digest shown
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}

Labelled = Mapping[str, Tracked]
"""The runs by their labels, in the order asked for."""
T = TypeVar("T")


@dataclass(frozen=True)
class Section:
    """One kind of difference.

    Attributes:
        title: what is compared.
        columns: whose cells they are.
        rows: what differs, and a cell a column.
        notes: what is not known, and how to read the rows.
        compared: whether anything could be compared; then no rows mean the same.
    """

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    notes: Sequence[str] = ()
    compared: bool = True


def look_up(references: Sequence[str], params: Params) -> dict[str, Tracked]:
    """Find runs, and label each by its name, with its key where two share a name.

    Raises:
        InputError: fewer than two, one named twice, or one that cannot be found.
    """
    if len(references) < 2:
        raise InputError(f"lenet diff takes two runs or more, not {len(references)}; legal: {LEGAL}")
    found = [lookup(reference, params) for reference in references]
    if len({(run.name, run.key) for run in found}) < len(found):
        raise InputError(f"lenet diff takes different runs; {', '.join(references)} names one twice")
    names = [run.name for run in found]
    return {run.name if names.count(run.name) == 1 else f"{run.name} {run.key[:DIGEST]}": run for run in found}


def sections(runs: Labelled) -> Iterator[Section]:
    """All kinds of difference, in the order of causes and effects."""
    yield _parameters(runs)
    yield _identity(runs)
    yield _code(runs)
    yield _environment(runs)
    yield _metrics(runs)
    yield _answers(runs)


def show(runs: Labelled, code: bool, console: Console) -> None:
    """Print which runs are compared, and the sections; with ``code`` the sources' unified diffs too."""
    found = [*sections(runs)]  # a faulty file shows before anything is printed
    for label, run in runs.items():
        where = f"MLflow run {run.id}" if run.id else "not in MLflow, from files"
        console.print(Text(f"{label}: {where}, run.key {run.key[:DIGEST]}…"), soft_wrap=True)
        _print_notes(run.notes, console)
    for section in found:
        verdict = "" if section.rows else ": same" if section.compared else ": unknown"
        console.print(Text(f"\n{section.title}", "bold").append(verdict, "not bold"))
        if section.rows:
            table = Table("", *section.columns)
            for name, cells in section.rows.items():
                table.add_row(Text(name), *(Text(cell) for cell in cells))
            console.print(table)
        _print_notes(section.notes, console)
        if code and section.title == "code":
            for line in unified(runs):
                console.print(Text(visible(line), _COLOURS.get(line[:1], "")), soft_wrap=True)


def unified(runs: Labelled) -> Iterator[str]:
    """The lines of the unified diffs of all differing sources, each run's against the first run's."""
    (first, before), *others = _known(runs, _sources).items()
    for label, after in others:
        for path in sorted({*before, *after}):
            old, new = (
                f"{run}/{path}" if path in has else "/dev/null" for run, has in ((first, before), (label, after))
            )
            yield from difflib.unified_diff(before.get(path, []), after.get(path, []), old, new, lineterm="")


def mcnemar(only_first: int, only_other: int) -> float:
    """The exact two-sided p of McNemar's test: of the digits that one alone has right, is each as likely either's?

    (McNemar 1947; exact as a sign test, Dietterich 1998.) It tells whether these two networks' errors differ, not
    whether two recipes do: that takes several seeds.
    """
    both = only_first + only_other
    return float(stats.binomtest(only_first, both, 0.5).pvalue) if both else 1.0


def _parameters(runs: Labelled) -> Section:
    return _compared("parameters", runs, lambda run: run.parameters or None, "no parameters known of")


def _identity(runs: Labelled) -> Section:
    """Digests and surroundings; what no run is known by is a note."""
    known = [{name: run.tags[name][:DIGEST] for name in IDENTITY if name in run.tags} for run in runs.values()]
    differing = judge.differing(*known)
    rows = {name: [word or "unknown" for word in differing[name]] for name in IDENTITY if name in differing}
    nowhere = [name for name in IDENTITY if not any(name in tags for tags in known)]
    return Section("identity", [*runs], rows, [f"unknown of all: {', '.join(nowhere)}"] if nowhere else [])


def _environment(runs: Labelled) -> Section:
    """Packages; where a list is missing, equal digests of the lists still tell that they are the same."""
    section = _compared("environment", runs, Tracked.packages, "no list of packages with")
    digests = {run.tags.get("environment.sha256") for run in runs.values()}
    if section.notes and len(digests) == 1 and None not in digests:
        return Section("environment", [*runs], {}, ["by environment.sha256"])
    return section


def _compared(title: str, runs: Labelled, read: Callable[[Tracked], Mapping[str, str] | None], missing: str) -> Section:
    """Values by name: those that are not the same in all runs of which they are known."""
    known = _known(runs, read)
    rows = {name: [word or "–" for word in words] for name, words in sorted(judge.differing(*known.values()).items())}
    return Section(title, [*known], rows, _missing(runs, known, missing), len(known) > 1)


def _code(runs: Labelled) -> Section:
    """Lines added to and removed from each source file of the first run."""
    known = _known(runs, _sources)
    notes = _missing(runs, known, "no source snapshot with")
    if len(known) < 2:
        return Section("code", [], {}, notes, compared=False)
    (first, before), *others = known.items()
    names = sorted({path for files in known.values() for path in files})
    rows = {path: [_changed(before.get(path), after.get(path)) for _, after in others] for path in names}
    rows = {path: cells for path, cells in rows.items() if any(cells)}
    how = [f"lines added and removed, against {first}"] if rows else []
    return Section("code", [label for label, _ in others], rows, how + notes)


def _sources(run: Tracked) -> Mapping[str, list[str]] | None:
    """Lines of each source file of the snapshot, by path."""
    files = run.parse("source/source.zip", snapshot.read)
    return None if files is None else {name: _lines(content) for name, content in files.items()}


def _lines(content: bytes) -> list[str]:
    """The lines, each byte in them: no two sources have the same ones."""
    *lines, rest = content.decode(errors="surrogateescape").split("\n")
    return [*lines, f"{rest}\n\\ No newline at end of file"] if rest else lines


def _changed(before: list[str] | None, after: list[str] | None) -> str:
    """``+added −removed`` lines; empty where nothing is changed."""
    if before == after:
        return ""
    lines = [*difflib.unified_diff(before or [], after or [], lineterm="", n=0)][2:]
    counts = " ".join(f"{sign}{sum(line.startswith(sign) for line in lines)}" for sign in "+-")
    return counts + (" (new)" if before is None else " (absent)" if after is None else "")


def _metrics(runs: Labelled) -> Section:
    """Last values, and differences from the first run's; not of time and machine, which say nothing of the network."""
    first = next(iter(runs.values()))
    rows, notes = {}, []
    for name, values in sorted(judge.differing(*(run.metrics for run in runs.values())).items()):
        if not name.startswith("system/") and name != "epoch_seconds":
            rows[name] = ["–" if values[0] is None else f"{values[0]:.6g}"]
            for run, value in zip([*runs.values()][1:], values[1:], strict=True):
                comparable = not name.endswith("/loss") or _objective(run) == _objective(first) != {}
                rows[name].append(_beside(values[0] if comparable else None, value))
    others = [label for label, run in runs.items() if _objective(run) != _objective(first) or not _objective(first)]
    if others and any(name.endswith("/loss") for name in rows):
        notes.append(
            f"losses of different objectives are different quantities, so they are not subtracted: {', '.join(others)}"
        )
    for label, run in runs.items():
        if run.parameters == first.parameters and (epoch := _parting(first, run)):
            notes.append(f"{label}, of the same parameters as the first run, has another history from epoch {epoch} on")
    unknown = {label: run for label, run in runs.items() if not run.metrics}
    notes += [f"no history known of {label}" for label, run in runs.items() if not run.history]
    notes += [f"no test results known of {label}" for label, run in runs.items() if "test/misses" not in run.metrics]
    return Section("metrics", [*runs], rows, notes, len(runs) - len(unknown) > 1)


def _objective(run: Tracked) -> dict[str, str]:
    return {name: value for name, value in run.parameters.items() if name.startswith("objective.")}


def _beside(first: float | None, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if first is None else f"{value:.6g} ({value - first:+.3g})"


def _parting(first: Tracked, other: Tracked) -> int | None:
    """The first epoch in which two histories differ in what both hold; None where they do not or are not known."""
    if not (first.history and other.history):
        return None
    shared = first.history[0].keys() & other.history[0].keys()
    return judge.parting(*([{n: row.get(n) for n in shared} for row in run.history] for run in (first, other)))


def _answers(runs: Labelled) -> Section:
    """The test digits: how many are answered differently, and whose answers are right."""
    known = _known(runs, _predictions)
    notes = _missing(runs, known, "no answers to test digits with")
    if len(known) < 2:
        return Section("answers", [], {}, notes, compared=False)
    (first, before), *others = known.items()
    tested = {label: after for label, after in others if before["label"].equals(after["label"])}
    notes += [f"{label} was tested on other digits than {first}" for label, _ in others if label not in tested]
    judged = {label: _judged(before, after) for label, after in tested.items()}
    cells = {label: counted for label, counted in judged.items() if counted}
    if cells:
        notes += [f"{label} answers every digit as {first} does" for label in judged if label not in cells]
    names = (
        f"of {len(before):,} test digits answered differently", f"right only in {first}", "right only in the other",
        "exact McNemar p", f"first {FIRST} indices",
    )  # fmt: skip
    rows = {name: [counted[i] for counted in cells.values()] for i, name in enumerate(names)} if cells else {}
    return Section("answers", [f"{label}, against {first}" for label in cells], rows, notes, bool(tested))


def _predictions(run: Tracked) -> pd.DataFrame | None:
    """Label and answer by the digit's index in the MNIST test file."""

    def table(text: bytes) -> pd.DataFrame:
        return readers.predictions(text)[readers.COUNTS].set_index("index").sort_index()

    return run.parse("predictions.csv", table)


def _judged(before: pd.DataFrame, after: pd.DataFrame) -> tuple[str, ...] | None:
    """The cells of two runs' answers; None if they are the same."""
    differing = before.index[before["answer"] != after["answer"]]
    right, right_after = (table["answer"] == table["label"] for table in (before, after))
    only, only_after = int((right & ~right_after).sum()), int((right_after & ~right).sum())
    indices = ", ".join(map(str, differing[:FIRST]))
    found = (str(len(differing)), str(only), str(only_after), f"{mcnemar(only, only_after):.3g}", indices)
    return found if len(differing) else None


def _known(runs: Labelled, read: Callable[[Tracked], T | None]) -> dict[str, T]:
    """What could be read, by label."""
    found = ((label, read(run)) for label, run in runs.items())
    return {label: value for label, value in found if value is not None}


def _missing(runs: Labelled, known: Mapping[str, object], what: str) -> list[str]:
    return [f"{what} {label}" for label in runs if label not in known]


def _print_notes(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.print(Text(f"  {note}", "dim"), soft_wrap=True)
