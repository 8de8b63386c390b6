"""`python -m benchmarks`: measure groups, print them, keep them, or compare their ratios with those that were kept."""

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks import costs, online, report, suite, sweeps, training
from benchmarks.suite import Group, Results, Row, Way
from lenet.cli import cores as available_cores
from lenet.params import loading
from lenet.training import checkpoint

BATCHES = (64, 128)  # beside each variant's own
CORES = available_cores()
OURS, READABLE, BARE, IN_C = "ours, tracked", "readable, bare loop", "(a) bare loop", "plain loops in C"
SEEDS = 5
TOGETHER = f"ours, {SEEDS} seeds side by side"
TARGETS: dict[tuple[str, int], dict[str, float]] = {
    ("original-sigmoid", 8): {OURS: 1.0, TOGETHER: 2.0},
    ("original-tanh", 8): {OURS: 1.0, TOGETHER: 2.0},
    ("modern", 64): {OURS: 1.2, TOGETHER: 1.3, READABLE: 0.2},
    ("modern", 128): {OURS: 1.2, TOGETHER: 1.3, READABLE: 0.2},
}
"""Of a variant and a batch size: how many times as fast as plain torch in a bare loop some ways are meant to be."""
OF_C = {OURS: 0.35, TOGETHER: 1.1}  # how many times as fast as loops in C on-line training is meant to be
SIGNED = 0.05  # of a training's time: the most that its signature is meant to take


def train(variant: str, batch_size: int, repetitions: int, compiler: bool = True) -> Group:
    """Ours, fast and readable, beside plain torch, (a) to (c), and (d) the core's matrix products."""
    at = (variant, batch_size)
    ways: dict[str, Way] = {
        OURS: (training.ours, at),
        TOGETHER: (training.ours, (*at, training.DIGITS, 1, True, SEEDS)),
        READABLE: (training.readable, at),
        "readable, Lightning's defaults": (training.readable_usual, at),
        BARE: (training.bare, at),
        "(b) DataLoader, Lightning's defaults": (training.usual, at),
        "(c) bare loop, torch.compile": (training.compiled, at),
        "(d) at the rate of matrix products": (training.bound, (variant,)),
    }
    if not (compiler and (shutil.which("g++") or shutil.which("clang++"))):
        del ways["(c) bare loop, torch.compile"]
    notes = {"(d) at the rate of matrix products": f"{training.flops(variant) / 1e6:.2f} MFLOP an image"}
    targets = TARGETS.get(at, {})
    beside = {way: (BARE, targets.get(way)) for way in ways if way.startswith(("ours", "readable"))}
    return suite.alternate(f"training: {variant}, batch {batch_size}", "images/s", ways, repetitions, notes, beside)


def on_line(repetitions: int, compiler: bool = True) -> Group:
    """The paper's recipe, digit by digit."""
    ways: dict[str, Way] = {
        OURS: (online.ours, ()),
        TOGETHER: (online.ours, (online.DIGITS, SEEDS)),
        "our passes in a bare loop": (online.passes, ()),
        "plain torch": (online.autograd, ()),
    }
    beside: dict[str, tuple[str, float | None]] = {}
    if compiler and online.COMPILER:
        ways[IN_C] = (online.c, ())
        beside = {way: (IN_C, OF_C.get(way)) for way in ways if way != IN_C}
    return suite.alternate("on-line: lecun1998", "updates/s", ways, repetitions, beside=beside)


def compilation(repetitions: int) -> Group:
    """What torch.compile costs before the first update."""
    params = loading.load()
    ways: dict[str, Way] = {
        f"torch.compile, {name}": (training.compilation, (name, params.variant(name).batch_size))
        for name in params.compare
    }
    with suite.Workers(ways) as workers:  # it compiles once
        return Group("compilation", "s", [Row(name, [workers.measure(name)]) for name in ways])


def cores(variant: str, repetitions: int) -> Group:
    """Images/s of one process, and of one on each core together."""
    at = (variant, loading.load().variant(variant).batch_size, 4 * training.DIGITS)
    ways: dict[str, Way] = {str(core): (training.ours, at) for core in range(CORES)}
    alone, together = [], []
    with suite.Workers(ways) as workers:
        for repetition in range(repetitions + 1):
            one = workers.measure("0")
            futures = [workers.start(name) for name in ways]
            both = sum(future.result() for future in futures)
            if repetition:  # the first warms up
                alone.append(one)
                together.append(both)
    return Group(
        f"cores: {variant}", "images/s", [Row(f"{CORES} processes together", together), Row("one process", alone)]
    )


def overhead(variant: str, repetitions: int) -> Group:
    """Two epochs of a variant's own training, from bare passes to the tracked training."""
    size = loading.load().variant(variant).batch_size
    at = (variant, size, 50_000 // size * size, 2)
    ways: dict[str, Way] = {
        "our passes in a bare loop": (training.passes, at),
        "and Lightning, history, trace": (training.ours, (*at, False)),
        "and tracking": (training.ours, (*at, True)),
    }
    return suite.alternate(f"overhead: {variant}", "images/s", ways, repetitions)


def evaluation(variant: str, repetitions: int) -> Group:
    """Answering 10,000 digits at once."""
    ways: dict[str, Way] = {
        "ours": (training.evaluation, (variant, "passes")),
        "readable modules": (training.evaluation, (variant, "modules")),
        "plain torch": (training.evaluation, (variant, "plain")),
    }
    return suite.alternate(f"evaluation: {variant}", "images/s", ways, repetitions)


def latency(variant: str, repetitions: int) -> Group:
    """Answering one digit."""
    ways: dict[str, Way] = {
        "packaged model, one digit": (training.latency, (variant, "packaged")),
        "plain torch": (training.latency, (variant, "plain")),
    }
    return suite.alternate(f"latency: {variant}", "ms", ways, repetitions)


def signature(variant: str, repetitions: int) -> Group:
    """What it takes to sign a variant's block beside a training of it. A study's trials share signatures."""
    training_row, signing = "a training", "its signature"
    ways: dict[str, Way] = {training_row: (training.whole, (variant,)), signing: (training.signing, (variant,))}
    notes = {training_row: "from the speed of its own batches"}
    return suite.alternate(f"signature: {variant}", "s", ways, repetitions, notes, {signing: (training_row, SIGNED)})


def writing(repetitions: int) -> Group:
    """What a training leaves on disk."""
    ways: dict[str, Way] = {"digests and files of a training": (training.writing, ("modern",))}
    return suite.alternate("writing", "s", ways, repetitions)


def checkpoints(variant: str, repetitions: int) -> Group:
    """A checkpoint's time beside the training between two."""
    saved = suite.alternate("", "ms", {"a checkpoint": (training.saving, (variant,))}, repetitions).rows[0]
    between = Row("training between two", [1000 * checkpoint.SECONDS] * repetitions)
    return Group(f"checkpoints: {variant}", "ms", [between, saved])


def plan(compiler: bool = True) -> dict[str, Callable[[int], Any]]:
    """Every group by its name, to be called with a number of repetitions."""
    params = loading.load()
    groups: dict[str, Callable[[int], Any]] = {}
    for name in params.compare:
        for size in sorted({params.variant(name).batch_size, *BATCHES}):
            groups[f"training: {name}, batch {size}"] = partial(train, name, size, compiler=compiler)
    groups["on-line: lecun1998"] = partial(on_line, compiler=compiler)
    if compiler:
        groups["compilation"] = compilation
    for kind, run in (
        ("cores", cores),
        ("overhead", overhead),
        ("evaluation", evaluation),
        ("latency", latency),
        ("signature", signature),
    ):
        for name in params.compare:
            groups[f"{kind}: {name}"] = partial(run, name)
    return groups | {
        "writing": writing,
        "stage: modern": costs.stage,
        "checkpoints: modern": partial(checkpoints, "modern"),
        "rerun: modern-1": costs.rerun,
        "training size": costs.size,
        "pruning: modern": sweeps.pruning,
        "sweep: modern, 1 and 2 workers": sweeps.workers,
        "pipeline": costs.pipeline,
    }


@click.command()
@click.argument("names", nargs=-1)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--keep", is_flag=True, help="Put the figures into benchmarks/results.json and the page on performance.")
@click.option("--compiler/--no-compiler", default=True, help="Whether to measure torch.compile, which needs one.")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="Warn of ratios that got worse.")
def main(names: tuple[str, ...], repetitions: int, keep: bool, compiler: bool, against: Path | None) -> None:
    """Measure the groups whose names start with one of NAMES, or all.

    Example: python -m benchmarks "training: modern" cores --repetitions 7
    """
    groups = {name: run for name, run in plan(compiler).items() if not names or name.startswith(names)}
    if not groups:
        raise click.UsageError(f"no group's name starts so; there are: {'; '.join(plan())}")
    results = Results(suite.machine())
    kept = Path(__file__).parent / "results.json"
    for name, run in groups.items():
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        found = run(repetitions)
        new = found if isinstance(found, Results) else Results(results.machine, [found])
        new.machine = results.machine
        results.merge(new)
        print(report.markdown(new).partition("\n\n")[2], flush=True)
        if keep:
            whole = suite.read(kept) if kept.exists() else Results({})
            whole.merge(new)
            whole.write(kept)
            report.write(whole)
    for line in suite.losses(results, suite.read(against)) if against else []:
        print(f"warning: slower than before: {line}")


if __name__ == "__main__":
    main()
