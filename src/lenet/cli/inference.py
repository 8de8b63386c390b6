"""The commands that use trained networks, and the registry of models."""

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lenet.cli.base import HERE, digits_option, job, merged, run_folder
from lenet.runtime import layout
from lenet.runtime.errors import InputError, visible

if TYPE_CHECKING:
    from lenet.inference.predict import Answer, Network
    from lenet.params.schema import Params


@job
@click.argument("files", metavar="FILE…", type=HERE, nargs=-1, required=True)
@click.option(
    "--variant",
    metavar="NAME",
    help="Whose network answers; by default the first compared variant whose outputs are probabilities, modern.",
)
@click.option("--run", metavar="RUN", type=HERE, help="Whose network answers: a run's folder, or VARIANT-SEED.")
@click.option("--model", metavar="URI", help="Whose network answers: a model in MLflow, as runs:/ID/model.")
@click.option("--raw", is_flag=True, help="The pictures are 28×28, ink light on dark, and placed as MNIST's.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each picture.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table as CSV.")
@merged
def predict(
    params: "Params",
    files: tuple[Path, ...],
    variant: str | None,
    run: Path | None,
    model: str | None,
    raw: bool,
    as_json: bool,
    as_csv: bool,
) -> None:
    """Tell which digit a picture shows.

    A FILE is a PNG, JPEG or TIFF of one digit, of any size, dark on light or light on dark; IDX images or a .npy array;
    or a folder of these. A 28×28 image in an array is taken as it is if its edge is dark, as MNIST's; all other
    pictures are scaled and centred as MNIST's were.

    Each answer has a probability, or a confidence where outputs are no probabilities, and how many of the run's answers
    to MNIST's test digits with a like one were right. Of a variant the run with the first seed answers: no run is
    chosen by its results.

    Exit status: 0 all were answered, 2 some were refused: they are named on standard error.

    \b
    Example: lenet predict seven.png
             lenet predict --variant original-tanh --csv scans/ > answers.csv
             lenet predict --run modern-3 data/raw/t10k-images-idx3-ubyte.gz
    """
    from lenet.inference import files as module
    from lenet.inference import predict as answering

    if sum(bool(one) for one in (variant, run, model)) > 1:
        raise InputError("--variant, --run and --model exclude each other; give one of them")
    if as_json and as_csv:
        raise InputError("--json and --csv exclude each other; give one of them")
    with ExitStack() as stack:
        if model:
            network = _of_mlflow(params, model, Path(stack.enter_context(tempfile.TemporaryDirectory())))
        else:
            name = variant or answering.default(params)
            params.variant(name)
            network = answering.of_run(run_folder(run or Path(f"{name}-{params.seeds[0]}")))
        tell = _printer(network, as_json, as_csv)
        step, opened = stack.enter_context(_progress(sum(1 for _ in module.files(files))))
        answered = refused = 0
        for found in answering.answers(network, module.items(files, raw, opened)):
            if isinstance(found, answering.Answer):
                answered += 1
                tell(found)
                if found.warning:
                    _say(f"lenet: warning: {found.item.name}: {found.warning}")
            else:
                refused += 1
                _say(f"lenet: error: {found.name}: {found.fault}")
            step()
    if not answered + refused:
        raise InputError(f"{files[0]}: no picture in it; PNG, JPEG, TIFF, IDX images and .npy are taken")
    if refused:
        raise SystemExit(2)


@job
@click.argument("run", metavar="VARIANT|RUN")
@merged
def register(params: "Params", run: str) -> None:
    """Make a run's network a version of the registered model lenet5.

    In MLflow's registry, with the run's signature, input example and requirements, and its model card as the
    description. RUN is an MLflow run id, a run.key, or VARIANT-SEED. Of a VARIANT it is the run with the first seed: no
    run is chosen by its results.

    \b
    Example: lenet register modern
             lenet register original-tanh-3
    """
    from lenet import cards, tracking

    found = tracking.lookup(f"{run}-{params.seeds[0]}" if run in params.variants else run, params)
    variant = found.tags["variant"]
    published = cards.published(params)
    version, new = tracking.register(found, cards.card(params, variant) if variant in published else "")
    print(f"{found.name} is{'' if new else ' already'} version {version.number}: {version.uri}", file=sys.stderr)


@job
@digits_option("--data", layout.TRAIN, "The digits to train on, and the validation digits.")
@click.option("--prefer-small", is_flag=True, help="A version that is smaller and not worse by 0.3 points wins, too.")
@click.option("--force", "forced", type=click.IntRange(min=1), metavar="VERSION", help="Take this one, uncompared.")
@merged
def champion(params: "Params", data: Path, prefer_small: bool, forced: int | None) -> None:
    """Let the newest registered versions compete for the alias champion.

    Each version that is newer than the champion answers the digits of the training file that neither it nor the
    champion has learned from. The alias moves to the best of those that are better beyond chance: the 95 % interval of
    the paired difference excludes 0, corrected for the number of challengers. The version's tags tell why.

    Exit status: 0 the alias was moved, 1 it stays.

    \b
    Example: lenet champion
             lenet champion --force 3
    """
    from lenet.digits.data import load_digits
    from lenet.registry import gate

    outcome = gate.force(forced) if forced else gate.judge(load_digits(data), prefer_small)
    for one in outcome.comparisons:
        print(one.verdict)
    if outcome.winner is None:
        print(f"version {outcome.champion} stays champion", file=sys.stderr)
        raise SystemExit(1)
    outcome.promote()
    print(f"version {outcome.winner.number}, {outcome.winner.name}, is champion: {outcome.why}", file=sys.stderr)


def _of_mlflow(params: "Params", address: str, scratch: Path) -> "Network":
    """A model in MLflow, with what its run's test has shown, if that is known."""
    from lenet import tracking
    from lenet.inference import predict as answering
    from lenet.runs import readers

    record, answer = tracking.load_model(address, scratch)
    tested = {}
    try:
        known = tracking.lookup(record.key, params)
        if known.tags.get("weights.sha256") == record.weights:
            predictions = known.parse("predictions.csv", readers.predictions)
            tested = {} if predictions is None else answering.reliability(predictions, record.parameters)
    except InputError as error:
        print(f"lenet: warning: its test is not known: {visible(str(error))}", file=sys.stderr)
    return answering.Network(layout.masked(address), record.parameters, answer, tested)


def _printer(network: "Network", as_json: bool, as_csv: bool) -> "Callable[[Answer], object]":
    """What prints an answer to standard output."""
    from lenet.inference import predict as answering

    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answering.COLUMNS)
        return lambda answer: writer.writerow(answering.row(answer))
    if as_json:
        return lambda answer: print(json.dumps(answering.as_json(answer, network)))
    return lambda answer: print(visible(answering.text(answer, network)))


def _say(line: str) -> None:
    print(visible(line), file=sys.stderr)


@contextmanager
def _progress(count: int) -> Iterator[tuple[Callable[[], object], Callable[[int], object]]]:
    """A bar of so many files on a terminal.

    Returns:
        What to call after each picture, and what is told of each file how many pictures it has.
    """
    if not sys.stderr.isatty():
        yield (lambda: None), (lambda pictures: None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from lenet.runtime.screen import Screen

    columns = TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    # lines for standard output go through the bar only where that is a terminal, too: else they go to their file
    console, both = Screen(stderr=True), sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=both) as bar:
        task, total = bar.add_task("", total=count, visible=count > 1), count

        def opened(pictures: int) -> None:
            nonlocal total
            total += pictures - 1
            bar.update(task, total=total, visible=total > 1)

        yield (lambda: bar.advance(task)), opened
