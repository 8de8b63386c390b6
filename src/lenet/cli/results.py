"""The commands that run the pipelines and show what came out."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenet.cli.base import (
    HERE,
    cores,
    digits_option,
    job,
    merged,
    path_option,
    scheduler_option,
    stage,
    tracking_option,
)
from lenet.runtime import layout

if TYPE_CHECKING:
    from rich.table import Table

    from lenet.params.schema import Params, Variant


@job
def check(params: "Params") -> None:
    """Validate params.yaml, including blocks that are not compared.

    \b
    Example: lenet check
    """
    from lenet.sweep.settings import settings

    counts = f"{len(params.variants)} variants, {len(list(params.runs()))} runs, {len(settings(params).spaces)} studies"
    print(f"params.yaml is valid: {counts}", file=sys.stderr)


@job
@click.argument("variant")
def summary(params: "Params", variant: str) -> None:
    """Print a variant's layers and their sizes.

    \b
    Example: lenet summary original-tanh
    """
    from lenet.runtime.screen import Screen

    Screen().print(layer_table(variant, params.variant(variant)))


def layer_table(name: str, variant: "Variant") -> "Table":
    """A network's layers for a terminal."""
    from rich.table import Table

    from lenet.networks import layer_table as module

    view = Table("layer", "kind", "input", "output", "kernel/stride", title=name)
    for column in ("connections", "multiply-acc.", "parameters"):
        view.add_column(column, justify="right")
    view.add_column("parameter formula")
    for row in module.layers(variant.network):
        numbers = (f"{number:,}" for number in (row.connections, row.macs, row.parameters))
        view.add_row(row.name, row.kind, row.inputs, row.outputs, row.kernel, *numbers, row.formula)
    view.add_section()
    total = module.totals(variant.network)
    numbers = (f"{total[name]:,}" for name in ("connections", "multiply_accumulates", "parameters"))
    view.add_row("total", "", "", "", "", *numbers, "")
    return view


@job
@click.argument("names", metavar="[NAME]…", nargs=-1)
@click.option("--jobs", type=click.IntRange(min=1), help="Stages at a time; by default the number of cores.")
@scheduler_option("Let the workers of a Dask cluster train, a process each.")
@tracking_option
@stage
@merged
def repro(params: "Params", names: tuple[str, ...], jobs: int | None, scheduler: str | None, track: bool) -> None:
    """Run the stages that are out of date.

    All of the main pipeline, or those that a NAME needs: a run, as VARIANT-SEED, or an experiment, a folder of
    experiments/. Independent stages run side by side, and seeds of one variant in one process. An experiment also runs
    what it needs of the main pipeline.

    \b
    Example: lenet repro modern-1 original-tanh-1
             lenet repro --jobs 4 ladder
             lenet repro paper --scheduler tls://head:8786
    """
    from lenet.pipeline import scheduling as module

    if not track:
        os.environ["LENET_TRACK"] = "0"  # for the stages
    trainings = 0
    if scheduler:
        from lenet import cluster

        os.environ["LENET_SCHEDULER"] = scheduler
        with cluster.opened(scheduler, 0) as client:
            trainings = max(1, len(client.scheduler_info()["workers"]))
    try:
        module.repro(params, names, module.Room(jobs or cores(), trainings), track)
    except module.StageFailed:
        raise SystemExit(1) from None


@job
@click.argument("names", metavar="[EXPERIMENT]…", nargs=-1)
@tracking_option
@merged
def pull(params: "Params", names: tuple[str, ...], track: bool) -> None:
    """Get the published runs without training.

    Their files come from DVC's remote, the folder published/ in Git; then come MNIST, the report, and MLflow's record.
    Of an EXPERIMENT, a folder of experiments/, only what makes up its networks is published: the rest has to be
    computed.

    \b
    Example: lenet pull
             lenet pull paper
    """
    from lenet.pipeline import pull as module

    module.pull(names)
    if track:
        complete(params)


@job
@merged
def results(params: "Params") -> None:
    """Print the comparison's table.

    \b
    Example: lenet results
    """
    from lenet.report import results_table as module
    from lenet.runs import current
    from lenet.runtime.screen import Screen

    content = module.load(layout.REPORTS)
    Screen().print(module.table(content))
    if not module.is_of(content, params, current.records(params)):
        print(
            "lenet: warning: these are not the runs of params.yaml as it is now; `make repro` computes them",
            file=sys.stderr,
        )


@job
@click.argument("name")
def card(params: "Params", name: str) -> None:
    """Print a model card, or the data card.

    Of a variant's published runs, or of the data set `mnist`: Markdown with the metadata that the Hugging Face hub
    reads, from metrics and params.yaml.

    \b
    Example: lenet card modern > README.md
    """
    from lenet import cards

    print(cards.card(params, name))


@job
@click.option("--reports", type=HERE, default=layout.REPORTS, show_default=True, help="The folder of the report.")
def report(params: "Params", reports: Path) -> None:
    """Redraw the report's page and plots from comparison.json.

    Stage compare draws them as well.

    \b
    Example: lenet report
    """
    from lenet.report import draw as module

    module.draw(reports)


@job
@click.argument("names", metavar="[VARIANT-SEED]…", nargs=-1)
@digits_option("--test", layout.TEST, "The test digits, for the examples.")
@path_option("--out", layout.REPORTS / "draw.html", "The page.")
@merged
def draw(params: "Params", names: tuple[str, ...], test: Path, out: Path) -> None:
    """Write a page where one draws a digit, and trained networks answer.

    One file that needs no server and no network. It has the runs named, or else the first seeds of original-sigmoid,
    lecun1998, modern and frontier, as far as they are trained here.

    \b
    Example: lenet draw
             lenet draw modern-1 modern-2 --out two.html
    """
    from lenet.canvas import page

    print(f"{out}: {', '.join(page.write(params, names, test, out))}", file=sys.stderr)


@job
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="On 127.0.0.1.")
def ui(params: "Params", port: int) -> None:
    """Serve MLflow's pages with this project's runs.

    \b
    Example: lenet ui --port 5001
    """
    from lenet import tracking

    tracking.serve(port)


@job
@merged
def sync(params: "Params") -> None:
    """Complete MLflow's record from files.

    Adds what is missing where the store could not be reached, and everything to an empty store. A second call adds
    nothing.

    \b
    Example: MLFLOW_TRACKING_URI=http://127.0.0.1:5000 lenet sync
    """
    complete(params)


def complete(params: "Params") -> None:
    """Complete MLflow's record, and tell of it."""
    from lenet import tracking

    counts = []
    for name, added in tracking.sync(params):
        counts.append(added)
        if added:
            print(f"{name}: {added} additions", file=sys.stderr)
    print(f"{len(counts)} runs, {sum(map(bool, counts))} of them completed: {tracking.shown()}", file=sys.stderr)
