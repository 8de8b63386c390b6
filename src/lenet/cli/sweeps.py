"""The commands of Optuna's studies."""

import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenet.cli.base import HERE, cli, cores, digits_option, job_of, scheduler_option, stage, tracking_option
from lenet.runtime import layout
from lenet.runtime.errors import InputError

if TYPE_CHECKING:
    from lenet.params.schema import Params


class _Studies(click.Group):
    """`lenet sweep WORDS` is `lenet sweep run WORDS` unless the first word is a command of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of `run`, which are given without its name, before the commands."""
        run = self.commands["run"]
        with click.Context(run, parent=ctx) as of_run, formatter.section("Options of lenet sweep VARIANT"):
            options = (one for one in run.get_params(of_run) if isinstance(one, click.Option))
            formatter.write_dl([shown for one in options if (shown := one.get_help_record(of_run))])
        self.format_commands(ctx, formatter)


@cli.group(cls=_Studies, options_metavar="", subcommand_metavar="VARIANT [OPTIONS] | COMMAND …")
def sweep() -> None:
    """Tune a variant with Optuna, on validation digits.

    `lenet sweep VARIANT` computes the study that `sweep` in params.yaml describes, or continues it. It may be
    interrupted at any time.

    \b
    Example: lenet sweep modern
             lenet sweep show modern
             lenet sweep promote modern
    """


storage_option = click.option(
    "--storage", envvar="LENET_SWEEP_STORAGE", help="The storage of trials; by default sqlite:///optuna.db."
)


@job_of(sweep)
@click.argument("variant", required=False)
@click.option("--all", "everything", is_flag=True, help="All compared variants, one after the other.")
@click.option("--trials", type=click.IntRange(min=1), help="Number of trials; by default as in params.yaml.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Worker processes on this machine; by default the number of cores."
)
@scheduler_option("Let the workers of a Dask cluster compute.")
@storage_option
@click.option("--study", help="The study's name; by default derived from all that it depends on.")
@click.option("--take-over", is_flag=True, help="Go on with a study whose coordinator on another machine has died.")
@digits_option("--data", layout.TRAIN, "The training digits.")
@click.option("--out", type=HERE, help="A folder for the trials as CSV, the best ones and the plan as JSON.")
@tracking_option
@stage
def run_job(
    params: "Params",
    variant: str | None,
    everything: bool,
    trials: int | None,
    workers: int | None,
    scheduler: str | None,
    storage: str | None,
    study: str | None,
    take_over: bool,
    data: Path,
    out: Path | None,
    track: bool,
) -> None:
    """Compute a study, or continue it.

    \b
    Example: lenet sweep modern --trials 30 --workers 2
             lenet sweep modern --scheduler tls://head:8786
    """
    from lenet.sweep.settings import settings

    if everything == (variant is not None):
        raise InputError("name one VARIANT, or --all")
    if scheduler and workers:
        raise InputError("--workers starts a cluster here, and --scheduler names one that is there; give one of them")
    names = params.compare if everything else [str(variant)]
    made = settings(params)
    for name in names:
        made.check(params.variant(name), name)

    from lenet import cluster
    from lenet.sweep import job
    from lenet.sweep import storage as storages

    address = storage or storages.default()
    try:
        with ExitStack() as stack:
            client = cache(lambda: stack.enter_context(cluster.opened(scheduler, workers or cores())))
            if scheduler:  # processes here are started for trials that are left
                client()
            for name in names:
                place = out / name if out and everything else out
                options = job.Options(trials, client, address, study, data, place, track, take_over)
                job.tell(job.sweep(params, made, name, options))
    except KeyboardInterrupt:
        print("lenet: interrupted; the same command continues", file=sys.stderr)
        raise SystemExit(130) from None


@job_of(sweep)
@click.argument("study")
@storage_option
@click.option("--out", type=HERE, help="The page; by default reports/STUDY.html.")
def show(params: "Params", study: str, storage: str | None, out: Path | None) -> None:
    """Print a study's best trials and what mattered, and write a page.

    STUDY is a study's name, a variant (for its last study here, or else the published one), or the folder of a
    published study.

    \b
    Example: lenet sweep show modern
    """
    from lenet.runtime.screen import Screen
    from lenet.sweep import report, result
    from lenet.sweep import storage as storages

    found = result.find(study, storage or storages.default())
    console = Screen()
    console.print(report.best_table(found))
    if report.importances(found):
        console.print(report.importance_table(found))
    else:
        print(f"no importances: they need {report.WEIGHABLE} complete trials of one objective", file=sys.stderr)
    page = out or layout.REPORTS / f"{found.name}.html"
    report.write(found, page)
    print(f"the page: {page}", file=sys.stderr)


@job_of(sweep)
@click.argument("study")
@click.option("--trial", type=click.IntRange(min=0), help="The trial's number; by default the best one's.")
@storage_option
def promote(params: "Params", study: str, trial: int | None, storage: str | None) -> None:
    """Write a study's winner into params.yaml.

    Replaces only what differs, and prints the difference. `dvc repro` then gives the validation error that the trial
    had.

    \b
    Example: lenet sweep promote modern
    """
    from lenet.params.loading import PATH
    from lenet.sweep import promote as module
    from lenet.sweep import result
    from lenet.sweep import storage as storages

    print(module.promote(result.find(study, storage or storages.default()), trial, PATH))
