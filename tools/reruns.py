"""`make reruns`: rerun the published runs whose bits have not been seen again yet, and keep what came of it.

`python -m tools.reruns [VARIANT]…` does so for some variants, `--read FILE` takes what `lenet rerun --all --json` has
printed on this machine. A run that was found bitwise stays as it is while its run.key does. What is kept is written
after each variant: after Ctrl-C the same command goes on.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from lenet import cards
from lenet.cards import Published
from lenet.params import loading
from lenet.runtime.files import write_json

TOLD = ("grade", "date", "machine")
KEPT = Path(__file__).with_suffix(".json")
Kept = dict[str, dict[str, str]]
"""A run's name → its ``key``, ``weights.sha256``, the rerun's ``grade``, ``date`` (UTC) and ``machine``."""


def read() -> Kept:
    """What is known of reruns."""
    found: Kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def holds(entry: Mapping[str, str], run: Mapping[str, str]) -> bool:
    """Whether an entry is of the run that is published now, whose digests are ``run``."""
    return all(entry[name] == run[name] for name in ("key", "weights.sha256"))


def missing(kept: Kept, published: Iterable[Published]) -> dict[str, list[str]]:
    """The runs of each variant that are not known to give their bits again."""
    found: dict[str, list[str]] = {}
    for one in published:
        for seed, content in one.runs.items():
            entry = kept.get(name := f"{one.name}-{seed}")
            if not (entry and holds(entry, content["run"]) and entry["grade"] == "bitwise"):
                found.setdefault(one.name, []).append(name)
    return found


def merge(kept: Kept, told: Any, published: Iterable[Published], date: str, machine: str) -> Kept:
    """Add verdicts on published runs.

    Args:
        kept: what is known.
        told: what ``lenet rerun --json`` has printed, of one run or of many.
        published: the published variants; a verdict on another run than theirs says nothing of them.
        date: of the reruns.
        machine: that computed them.

    Returns:
        Both, in the order of names. A bitwise verdict on the published run stays.
    """
    runs = {f"{one.name}-{seed}": content["run"] for one in published for seed, content in one.runs.items()}
    reports = [one.get("report") for one in told] if isinstance(told, list) else [told]
    new = {name: entry for name, entry in kept.items() if name in runs and holds(entry, runs[name])}
    for report in reports:
        name, key = (report["run"]["name"], report["run"]["key"]) if report and report["verdict"] else ("", "")
        proved = new.get(name, {}).get("grade") == "bitwise"
        if name in runs and key == runs[name]["key"] and not proved:
            digests = {one: runs[name][one] for one in ("key", "weights.sha256")}
            new[name] = {**digests, "grade": report["verdict"]["grade"], "date": date, "machine": machine}
    return dict(sorted(new.items()))


def table(kept: Kept, published: Iterable[Published]) -> Iterator[str]:
    """Lines of Markdown: a count, then a row for the seeds of a variant that have the same to tell."""
    rows: list[tuple[Published, list[int], tuple[str, ...]]] = []
    for one in published:
        groups: dict[tuple[str, ...], list[int]] = {}
        for seed, content in one.runs.items():
            entry = kept.get(f"{one.name}-{seed}")
            known = entry if entry and holds(entry, content["run"]) else {}
            groups.setdefault(tuple(known.get(word, "–") for word in TOLD), []).append(seed)
        rows += [(one, seeds, told) for told, seeds in groups.items()]
    counts = [(len(seeds), told[0]) for _, seeds, told in rows]
    whole, rerun, bitwise = (
        sum(count for count, grade in counts if fits(grade))
        for fits in (lambda grade: True, lambda grade: grade != "–", lambda grade: grade == "bitwise")
    )
    yield f"Of {whole} published runs, {rerun} have been rerun since they were published: {bitwise} bitwise.\n"
    yield "| rerun of | seeds | `weights.sha256` begins with | held out | grade | date | machine |"
    yield "|---|---|---|---|---|---|---|"
    for one, seeds, told in rows:
        digests = " · ".join(one.runs[seed]["run"]["weights.sha256"][:8] for seed in seeds)
        held_out = f"{one.first['digits']['held_out']:,}"
        yield f"| `{one.name}` | {', '.join(map(str, seeds))} | {digests} | {held_out} | {' | '.join(told)} |"


def rerun(names: Sequence[str]) -> Any:
    """What ``lenet rerun --json`` prints of some runs; an empty list if it could not do any."""
    command = [sys.executable, "-m", "lenet", "rerun", "--json", "--accept", "different", *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode == 130:
        raise KeyboardInterrupt
    return json.loads(done.stdout) if done.stdout else []


def here() -> str:
    """The processor's name, and the instruction set that torch uses."""
    from benchmarks import suite

    found = suite.machine()
    return f"{found['processor']}, {found['instructions']}"


@click.command()
@click.argument("variants", nargs=-1)
@click.option("--read", "file", type=click.File(), help="Take what `lenet rerun --all --json` has printed here.")
def main(variants: tuple[str, ...], file: Any) -> None:
    """Rerun what is published and not proved yet; all VARIANTS or some."""
    published = cards.published(loading.load())
    if unknown := set(variants) - set(published):
        raise click.UsageError(f"no published runs of {', '.join(sorted(unknown))}; there are: {', '.join(published)}")
    kept, machine = read(), here()

    def keep(told: Any) -> Kept:
        found = merge(kept, told, published.values(), f"{datetime.now(UTC):%Y-%m-%d}", machine)
        write_json(KEPT, found)
        return found

    if file:
        keep(json.load(file))
        return
    for variant, names in missing(kept, published.values()).items():
        if not variants or variant in variants:
            print(f"rerunning {', '.join(names)}", file=sys.stderr, flush=True)
            kept = keep(rerun(names))
    left = sum(map(len, missing(kept, published.values()).values()))
    print(f"{KEPT.name}: {left} published runs are not proved yet", file=sys.stderr)


if __name__ == "__main__":
    main()
