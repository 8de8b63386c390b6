"""The comparison's table, as the terminal, the report and the README show it. Light: it waits for no torch."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from lenet.params.schema import Params
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.runtime.files import read_json


class Comparison(BaseModel):
    """comparison.json, as far as what reads it would not say what it lacks."""

    variants: dict[str, dict[str, Any]]
    seeds: list[int] = []
    hardest: list[dict[str, Any]] = []
    frontier: dict[str, Any] | None = None


def load(reports: Path) -> dict[str, Any]:
    """Read reports/comparison.json. Raises InputError if there is none yet, or it is damaged."""
    path = reports / "comparison.json"
    if not path.exists():
        raise InputError(f"{path} is missing; `make repro` makes it")
    return read_json(path, Comparison)


def digest(reports: Path) -> str:
    """SHA-256 of reports/comparison.json; the page drawn from it names it."""
    return hashlib.sha256((reports / "comparison.json").read_bytes()).hexdigest()


def is_drawn(reports: Path) -> bool:
    """Whether the page is of the present numbers, if there are any. After `dvc checkout` it may be of others."""
    if not (reports / "comparison.json").exists():
        return True
    page = reports / "comparison.html"
    return page.exists() and digest(reports) in page.read_text(encoding="utf-8")


def is_of(content: dict[str, Any], params: Params, records: Sequence[Record]) -> bool:
    """Whether the comparison is of params.yaml's runs, and these are here with the blocks that it has now."""
    found = [(name, int(seed)) for name, variant in content["variants"].items() for seed in variant["seeds"]]
    here = [(one.variant, one.seed) for one in records if one.parameters == params.variants.get(one.variant)]
    return sorted(found) == sorted(params.runs()) == sorted(here)


def with_frontier(content: Mapping[str, Any]) -> dict[str, Any]:
    """The compared variants, then those that the frontier's result has beside them."""
    frontier = content.get("frontier") or {"variants": {}}
    return content["variants"] | {n: found for n, found in frontier["variants"].items() if n not in content["variants"]}


def table(content: dict[str, Any]) -> Table:
    """The comparison for a terminal; with the frontier's variants where their runs are of the same arithmetic."""
    view = Table("variant", "what", title="Misclassified test digits, weights of the last epoch")
    for column in ("misses of each seed", "error, % (mean ± sd)", "validation, %", "parameters"):
        view.add_column(column, justify="right")
    alike = content["frontier"] and not is_former(content["frontier"])
    for name, found in (with_frontier(content) if alike else content["variants"]).items():
        view.add_row(name, found["what"], *cells(found))
    return view


FORMER = "Computed before the portable arithmetic; another processor may give slightly different numbers."


def is_former(study: Mapping[str, Any]) -> bool:
    """Whether a published experiment's runs have no signature: then its numbers stand beside no others."""
    return not study.get("signatures")


def cells(found: dict[str, Any]) -> tuple[str, str, str, str]:
    """A variant's numbers as every table shows them: misses, error ± sd, validation error, parameters."""
    misses = " · ".join(str(seed["misses"]) for seed in found["seeds"].values())
    sd = "" if found["test_error_sd"] is None else f" ± {100 * found['test_error_sd']:.2f}"
    validation = f"{100 * found['validation_error']:.2f}" if "validation_error" in found else "–"
    return misses, f"{100 * found['test_error']:.2f}{sd}", validation, f"{found['network']['parameters']:,}"
