"""The notebooks: read and explain, define and train nothing, and their outputs are those of the present results."""

import ast
import json
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import EXPERIMENTS, ROOT
from lenet.sweep import result
from lenet.sweep.study import Plan

NOTEBOOK = ROOT / "notebooks" / "comparison.ipynb"
SWEEPS = ROOT / "notebooks" / "sweeps.ipynb"
MATHEMATICS = ROOT / "notebooks" / "mathematics.ipynb"
STUDY = ROOT / "tests" / "study"


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


COMPUTED = sum((EXPERIMENTS / name / "result.json").exists() for name in ("ladder", "sizes"))
"""Of the studies whose figures the comparison's notebook draws."""


@pytest.mark.parametrize(("path", "pictures"), [(NOTEBOOK, 6 + COMPUTED), (SWEEPS, 0), (MATHEMATICS, 4)])
def test_it_defines_and_trains_nothing_and_was_run_in_order(path: Path, pictures: int) -> None:
    committed = nbformat.read(path, as_version=4)
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    source = "\n".join(line for cell in cells for line in cell.source.splitlines() if not line.startswith("%"))
    tree = ast.parse(source)
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Lambda)]
    assert not {"fit", "train"} & {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type in ("error", "stream")]
    assert sum(shown == [("picture", "")] for shown in outputs(committed)) == pictures


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


def test_they_lie_where_the_house_has_notebooks() -> None:
    assert sorted(path.name for path in Path(ROOT / "notebooks").glob("*.ipynb")) == [
        NOTEBOOK.name, MATHEMATICS.name, SWEEPS.name,
    ]  # fmt: skip


def test_the_mathematics_are_the_network_s(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asserts of every layer and gradient that they are PyTorch's; pictures aside it shows what is committed."""
    monkeypatch.setenv("LENET_DIGITS", str(prepared / "train.safetensors"))
    present = nbformat.read(MATHEMATICS, as_version=4)
    NotebookClient(present, timeout=300, resources={"metadata": {"path": str(MATHEMATICS.parent)}}).execute()
    assert outputs(present) == outputs(nbformat.read(MATHEMATICS, as_version=4))


def plain(notebook: nbformat.NotebookNode) -> str:
    """All text that it shows."""
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(one.get("text/markdown", "") + one.get("text/plain", "") for one in data)


def test_the_notebook_of_studies_was_run_on_what_is_published() -> None:
    """On the small study of the tests where there is none."""
    committed = plain(nbformat.read(SWEEPS, as_version=4))
    for folder in [path.parent for path in (EXPERIMENTS / "sweeps" / "studies").glob("*/study.json")] or [STUDY]:
        study = result.of_folder(folder)
        assert study.name in committed
        assert f"{study.best[0].number} ★" in committed
        assert f"{study.best[0].values[0]:.2%}" in committed


def test_the_notebook_of_studies_reads_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The small one of the tests; one where no trial is complete; one of several objectives, which are not pruned."""
    small = result.of_folder(STUDY)
    result.publish(small, tmp_path / "small")
    pruned = [trial for trial in small.trials if trial not in small.complete]
    result.publish(replace(small, name="without-best", trials=pruned), tmp_path / "none")
    settings = small.plan.settings | {"objectives": ["validation/error", "parameters"], "pruner": {"kind": "none"}}
    plan, complete = Plan(**small.plan.to_json() | {"settings": settings}), small.complete
    for trial in complete:
        trial.values = [*trial.values, 61_706.0]
    result.publish(replace(small, name="several", plan=plan, trials=complete), tmp_path / "several")
    monkeypatch.setenv("LENET_STUDIES", str(tmp_path))
    present = nbformat.read(SWEEPS, as_version=4)
    NotebookClient(present, timeout=300, resources={"metadata": {"path": str(SWEEPS.parent)}}).execute()
    shown = plain(present)
    assert not [o for cell in present.cells for o in cell.get("outputs", []) if o.output_type in ("error", "stream")]
    assert shown.index("without-best") < shown.index("several") < shown.index("modern-7f0c2d3c")
    assert "no complete trial" in shown
    assert "4.80% ± 0.96%" in shown  # √(0.048 × 0.952 / 500)
    assert shown.count("69%") == 1  # 68 of 24 × 9 epochs
    drawn = [len([one for one in cell if one[0] == "picture"]) for cell in outputs(present)]
    assert [count for count in drawn if count] == [3, 3, 3]  # no importances: they need ten complete trials
