"""Stage compare: all runs → the variants' summary, and the comparison's numbers, from which the page is drawn."""

from pathlib import Path

from lenet import tracking
from lenet.evaluation.rounding import rounded
from lenet.params.schema import Params
from lenet.report import comparison, draw, experiments
from lenet.runtime import processes
from lenet.runtime.files import write_json


def compare(params: Params, runs: Path, beside: Path, summary_out: Path, reports: Path, track: bool) -> None:
    """Compare all runs of ``compare`` × ``seeds``, write the summary and the numbers, and draw the page from these.

    The page and the pictures follow the builds of matplotlib and freetype: no outputs of DVC's.

    Args:
        params: which variants and seeds.
        runs: the folder that holds a folder per run.
        beside: the folder of the experiments ladder, frontier and sizes; the report says which have no result.
        summary_out: where the variants' means go.
        reports: the folder for comparison.json, comparison.html and the figures.
        track: tag the compared runs in MLflow as the current ones.

    Raises:
        InputError: a run is missing or faulty, or its test digits are not the others'; a result is faulty.
    """
    write(params, runs, beside, summary_out, reports)
    draw.draw(reports)
    if track:
        tracking.compared(params, runs, summary_out, reports)


def write(params: Params, runs: Path, beside: Path, summary_out: Path, reports: Path) -> None:
    """Write the stage's outputs, the summary and comparison.json: the same bytes on every machine.

    Arguments and errors are those of ``compare``.
    """
    by_variant = {
        name: [comparison.read(runs / f"{name}-{seed}", summary_out.parent) for seed in params.seeds]
        for name in params.compare
    }
    comparison.check_alike(by_variant)
    content = rounded(comparison.describe(by_variant))
    content |= {name: experiments.read(beside, name) for name in experiments.KINDS}
    processes.check()
    write_json(summary_out, comparison.summarise(content))
    write_json(reports / "comparison.json", content)
