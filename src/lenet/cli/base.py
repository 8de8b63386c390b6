"""What all commands share: the group, the checked params.yaml, common options."""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lenet.runtime import layout
from lenet.runtime.errors import FaultyFile, InputError

HERE = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="lenet")
def cli() -> None:
    """Train, compare, tune and rerun LeNet-5 variants, reproducibly.

    Every command first validates params.yaml.

    Exit status: 0 done, 1 failed or different, 2 bad input; `lenet rerun` has more.
    """


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


def path_option(name: str, default: Path, description: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A path, by default where the layout has it."""
    return click.option(name, type=HERE, default=default, show_default=True, help=description)


def digits_option(name: str, default: Path, description: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A file of prepared digits; by default the layout's, of the digests in signatures/digits.json."""

    def found(context: click.Context, option: click.Parameter, given: Path | None) -> Path:
        from lenet.runtime.files import read_json

        path = given or layout.of_main(default)
        if not given and path.exists() and layout.DIGITS.exists():
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != read_json(layout.DIGITS).get(path.name):
                    raise FaultyFile(path, f"these are not the digits of {layout.DIGITS}")
        return path

    return click.option(name, type=HERE, callback=found, help=f"{description}  [default: {default}]")


def run_folder(run: Path) -> Path:
    """The folder of a run that is named by it, or as VARIANT-SEED. Raises InputError if there is none."""
    places = [run, *(home / layout.RUNS / run for home in layout.homes())]
    folder = next((place for place in places if place.is_dir()), None)
    if not folder:
        raise InputError(f"{run}: no folder, and there is no run of this name here; `lenet repro {run.name}` makes it")
    return folder


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def scheduler_option(what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The address of a Dask cluster."""
    words = f"{what} As tls://HOST:PORT; LENET_SCHEDULER sets it, too."
    return click.option("--scheduler", metavar="ADDRESS", envvar="LENET_SCHEDULER", help=words)


def tracking_option(function: Callable[..., None]) -> Callable[..., None]:
    """Whether a stage records itself."""
    return click.option(
        "--track/--no-track", default=True, envvar="LENET_TRACK", help="Record in MLflow; LENET_TRACK=0 turns it off."
    )(function)
