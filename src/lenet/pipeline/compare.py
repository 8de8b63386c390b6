"""Stage compare: all runs → the variants' summary, and the comparison's numbers, from which the page is drawn."""

from pathlib import Path

from lenet import tracking
from lenet.evaluation.rounding import rounded
from lenet.params.schema import Params
from lenet.report import comparison, draw, experiments
from lenet.runtime import processes
from lenet.runtime.files import write_json


def compare(params: Params, runs: Path, studies: Path, summary_out: Path, reports: Path, track: bool) -> None:
    """Compare all runs of ``compare`` × ``seeds``, write the summary and the numbers, and draw the page from these.

    The page and the pictures follow the builds of matplotlib and freetype: no outputs of DVC's.

    Args:
        params: which variants and seeds.
        runs: the folder that holds a folder per run.
        studies: the folder of what `make ladder`, `sizes` and `frontier` make; the report says what is missing.
        summary_out: where the variants' means go.
        reports: the folder for comparison.json, comparison.html and the figures.
        track: tag the compared runs in MLflow as the current ones.

    Raises:
        InputError: a run is missing or faulty, or its test digits are not the others'; a study's file is faulty.
    """
    write(params, runs, studies, summary_out, reports)
    draw.draw(reports)
    if track:
        tracking.compared(params, runs, summary_out, reports)


def write(params: Params, runs: Path, studies: Path, summary_out: Path, reports: Path) -> None:
    """Write the stage's outputs, the summary and comparison.json: the same bytes on every machine.

    Arguments and errors are those of ``compare``.
    """
    by_variant = {
        name: [comparison.read(runs / f"{name}-{seed}", summary_out.parent) for seed in params.seeds]
        for name in params.compare
    }
    comparison.check_alike(by_variant)
    content = rounded(comparison.describe(by_variant)) | {
        "ladder": experiments.ladder(studies / "ladder.json"),
        "frontier": experiments.frontier(studies / "frontier.json"),
        "sizes": experiments.sizes(studies / "sizes.json"),
    }
    processes.check()
    write_json(summary_out, comparison.summarise(content))
    write_json(reports / "comparison.json", content)
