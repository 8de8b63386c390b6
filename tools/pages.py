"""MkDocs hook: what the pages show of published results, from Git alone: cards, and rows and tables at their marks."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import reruns
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from lenet import cards
from lenet.cards import Published
from lenet.params import loading
from lenet.params.schema import TRAINING_DIGITS
from lenet.report import results_table

PROJECT = Path(__file__).parents[1]
PARAMS = loading.load(PROJECT / loading.PATH)
PUBLISHED = cards.published(PARAMS, PROJECT)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Called by MkDocs once: cards of variants go into the navigation, by their experiments."""
    (listed,) = (part["Cards"] for part in config.nav or [] if "Cards" in part)
    for title, group in groups().items():
        listed.append({title: [{one.name: f"cards/{one.name}.md"} for one in group]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Called by MkDocs once: a page for each card."""
    for name in (cards.DATA, *PUBLISHED):
        files.append(File.generated(config, f"cards/{name}.md", content=cards.card(PARAMS, name, PROJECT)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for each page."""
    for mark, lines in MARKS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(lines()))
    return markdown


def groups() -> dict[str, list[Published]]:
    """The published variants by the experiments that publish them."""
    found: dict[str, list[Published]] = {}
    for one in PUBLISHED.values():
        found.setdefault(one.home.name or "compared", []).append(one)
    return found


def card_rows() -> Iterator[str]:
    """The data card, and a table of the others."""
    yield f"The data card: [MNIST]({cards.DATA}.md).\n"
    yield "| card | experiment | error, % (mean ± sd) | parameters |\n|---|---|---|---|"
    for title, group in groups().items():
        for one in group:
            _, error, _, parameters = results_table.cells(one.numbers)
            yield f"| [`{one.name}`]({one.name}.md) | {title} | {error} | {parameters} |"


def own_rows() -> Iterator[str]:
    """Rows of the table of others' errors: our networks that were trained on MNIST's whole training set."""
    for title, group in groups().items():
        for one in group if title in ("compared", "paper", "frontier") else ():
            digits = one.first["digits"]
            if digits["trained_on"] + digits["held_out"] == TRAINING_DIGITS:
                _, error, _, parameters = results_table.cells(one.numbers)
                way = f"{len(one.runs)} seeds, mean ± sd; last epoch; settings chosen on held-out digits"
                way += "; former arithmetic" if one.is_former else ""
                yield f"| **ours: `{one.name}`** | {parameters} | {error} | {way} | `{one.home / 'metrics'}` |"


def rerun_rows() -> Iterator[str]:
    """The table of reruns."""
    return reruns.table(reruns.read(), PUBLISHED.values())


MARKS: dict[str, Callable[[], Iterator[str]]] = {
    "<!-- generated: cards -->": card_rows,
    "<!-- generated: ours -->": own_rows,
    "<!-- generated: reruns -->": rerun_rows,
}
