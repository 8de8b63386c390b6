"""The commands that ask whether runs are the same."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenet.cli.base import cores, job, merged, scheduler_option, stage, tracking_option
from lenet.runtime import layout
from lenet.runtime.errors import InputError, visible

if TYPE_CHECKING:
    from lenet.params.schema import Params


@job
@click.argument("references", metavar="[RUN]…", nargs=-1)
@click.option(
    "--preflight",
    is_flag=True,
    help="Stop before the first stage; exit status 0 if the same command without it may end bitwise, else 3.",
)
@click.option("--env", is_flag=True, help="Use a new virtual environment with the run's own requirements.lock.")
@click.option(
    "--accept",
    type=click.Choice(["bitwise", "predictions", "metrics", "within-noise", "different"]),
    default="bitwise",
    show_default=True,
    help="Exit with status 0 for this grade and better ones.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--trust-sources", is_flag=True, help="Execute sources from the tracking store even if no commit here has them."
)
@click.option("--all", "everything", is_flag=True, help="Rerun all finished runs.")
@click.option("--filter", "condition", help="With --all: only runs that match this MLflow filter.")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="Of several: stages at a time; by default the number of cores."
)
@scheduler_option("Let the workers of a Dask cluster train, if they compute as the run's sources do.")
@tracking_option
@stage
@merged
def rerun(
    params: "Params",
    references: tuple[str, ...],
    preflight: bool,
    env: bool,
    accept: str,
    as_json: bool,
    trust_sources: bool,
    everything: bool,
    condition: str | None,
    jobs: int | None,
    scheduler: str | None,
    track: bool,
) -> None:
    """Repeat recorded runs, and grade the results.

    A run is rebuilt from its own sources, parameters and data; seeds of one variant by the same sources together.
    Sources are executed only if a commit of this repository has them, or with --trust-sources.

    A RUN is an MLflow run id, a run.key, the first 8 characters or more of either, or VARIANT-SEED of the present
    results. Your files are not touched.

    Exit status: 0 the grade of --accept or a better one, 4 a weaker one, 1 different, 2 it cannot be rerun.

    \b
    Example: lenet rerun modern-1
             lenet rerun --all --filter "tags.variant = 'modern'" --accept within-noise
    """
    from lenet.reproduce import many, view

    if everything == bool(references) or (condition and not everything):
        raise InputError("name a RUN, or --all, which --filter can restrict")
    if scheduler:
        os.environ["LENET_SCHEDULER"] = scheduler  # for the stages
    how = many.How(accept, preflight, env, track, trust_sources)
    try:
        if len(references) == 1:
            raise SystemExit(view.show(params, references[0], how, as_json))
        runs = many.all_runs(params, condition) if everything else [(one, one) for one in references]
        raise SystemExit(view.show_all(params, runs, how, jobs or cores(), as_json))
    except KeyboardInterrupt:
        print("lenet: interrupted; nothing is left of this rerun", file=sys.stderr)
        raise SystemExit(130) from None


@job
@click.argument("names", metavar="[VARIANT-SEED]…", nargs=-1)
@click.option("--against", default="HEAD", show_default=True, help="The Git revision with the published results.")
@click.option("--here", is_flag=True, help="Compute nothing: compare what this checkout has computed.")
@click.option(
    "--signatures", is_flag=True, help="Recompute signatures under all instruction sets and numbers of threads."
)
@stage
@merged
def verify(params: "Params", names: tuple[str, ...], against: str, here: bool, signatures: bool) -> None:
    """Recompute the published results, and compare.

    All runs, or only those named, in a clean copy of the commit. Exit status 1 if a bit differs. Experiments with
    results of an older arithmetic are listed and skipped.

    \b
    Example: lenet verify modern-1 original-tanh-1
             lenet verify --here --against HEAD~1
             lenet verify --signatures modern
    """
    from lenet.reproduce import verify as module
    from lenet.runs import stale
    from lenet.runtime.screen import Screen

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if here and signatures:
        raise InputError("--here and --signatures exclude each other; give one of them")
    for line in stale.pipelines():
        print(line)
    if signatures:
        differing = 0
        for line in module.signatures(params, against, names, module.settings(), tell):
            differing += 1
            print(line, flush=True)
        raise SystemExit(differing > 0)
    parts = module.verify(params, against, Path(), names) if here else module.compute(against, names, cores(), tell)
    Screen().print(module.table(parts))
    if not all(part.same for part in parts):
        raise SystemExit(1)


@job
@click.argument("names", metavar="[VARIANT-SEED]…", nargs=-1)
@click.option("--deep", is_flag=True, help="Also recompute all results from weights and test digits.")
@merged
def doctor(params: "Params", names: tuple[str, ...], deep: bool) -> None:
    """Check that lock file, outputs, record and machine agree.

    Checks dvc.lock, outputs, MLflow's record, the installed packages and the arithmetic of this machine, for everything
    here or for the runs named. Experiments with results of an older arithmetic are listed and skipped.

    Lists each disagreement; exit status 1 if there is one.

    \b
    Example: lenet doctor --deep
    """
    from lenet.reproduce import doctor as module
    from lenet.runs import stale

    sound = True
    for line in stale.pipelines():
        print(line)
    for name, faults in module.examine(params, names, deep):
        print(f"{name}: {'they agree' if not faults else ''}".rstrip())
        for fault in faults:
            print(f"  {visible(fault)}")
        sound = sound and not faults
    if not sound:
        raise SystemExit(1)


@job
@click.argument("references", metavar="RUN RUN…", nargs=-1)
@click.option("--code", is_flag=True, help="Also print unified diffs of the sources.")
@merged
def diff(params: "Params", references: tuple[str, ...], code: bool) -> None:
    """Show what differs between runs.

    That is their parameters, code, environment, metrics and answers to the test digits.

    A RUN is an MLflow run id, a run.key, the first 8 characters or more of either, or VARIANT-SEED of the present
    results; each is compared with the first. The exit status is 0 whether they differ or not.

    \b
    Example: lenet diff modern-1 modern-2
    """
    from lenet.reproduce import diff as module
    from lenet.runtime.screen import Screen

    found = module.look_up(references, params)
    module.show(found, code, Screen())


@job
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
def clean(params: "Params", dry_run: bool) -> None:
    """Remove what killed commands have left.

    Removes folders of reruns, trained results that no stage has taken, and checkpoints that no training of params.yaml
    would continue from.

    \b
    Example: lenet clean --dry-run
    """
    from lenet.reproduce import clean as module

    for path, why in module.clean(params, layout.TRAIN, dry_run):
        print(f"{path}: {why}")
