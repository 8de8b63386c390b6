"""The notebook: reads and explains, defines and trains nothing, and its outputs are those of the present results."""

import ast
import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import ROOT

NOTEBOOK = ROOT / "notebooks" / "comparison.ipynb"


@pytest.fixture
def committed() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook: nbformat.NotebookNode) -> list[list[tuple[str, str]]]:
    """What each cell of code shows: its tables and verdicts, and for a picture that it is one."""
    shown = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            data = [output.get("data", {"stream": output.get("text")}) for output in cell.outputs]
            shown.append([("picture", "") if "image/png" in one else min(one.items()) for one in data])
    return shown


def test_it_defines_and_trains_nothing_and_was_run_in_order(committed: nbformat.NotebookNode) -> None:
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    source = "\n".join(line for cell in cells for line in cell.source.splitlines() if not line.startswith("%"))
    tree = ast.parse(source)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
    assert not {"fit", "train"} & {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type in ("error", "stream")]
    assert sum(shown == [("picture", "")] for shown in outputs(committed)) == 8


def test_its_numbers_are_those_of_metrics(committed: nbformat.NotebookNode) -> None:
    """In a fresh clone, where nothing has been computed yet: the committed outputs beside the committed metrics."""
    shown = "\n".join(output["data"]["text/plain"] for cell in committed.cells for output in cell.get("outputs", []))
    summary = json.loads((ROOT / "metrics" / "summary.json").read_text())
    for variant in summary:
        files = sorted((ROOT / "metrics").glob(f"{variant}-[0-9]*.json"))
        misses = [json.loads(path.read_text())["test"]["misses"] for path in files]
        assert str(misses) in shown, variant


@pytest.mark.results
def test_it_shows_the_present_results(committed: nbformat.NotebookNode) -> None:
    present = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(present, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    assert outputs(present) == outputs(committed)


def test_it_lies_where_the_house_has_notebooks() -> None:
    assert [path.name for path in Path(ROOT / "notebooks").glob("*.ipynb")] == [NOTEBOOK.name]
