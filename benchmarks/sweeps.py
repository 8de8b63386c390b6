"""What pruning and TPE are worth in a study, which needs no clock; and trials an hour of one worker and of two."""

import itertools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

from optuna.storages import InMemoryStorage
from ruamel.yaml import YAML

from benchmarks.suite import Group, Results, Row
from lenet.cli import cores
from lenet.cluster import Ended, Workers
from lenet.digits.data import Digits, load_digits
from lenet.params import loading
from lenet.params.schema import Params
from lenet.sweep import result, storage
from lenet.sweep.coordinator import Coordinator
from lenet.sweep.result import Result
from lenet.sweep.settings import settings
from lenet.sweep.study import plan

DATA = Path("data/train.safetensors")
SMALL = {"train_size": 2000, "validation_size": 5000, "epochs": 12}  # a trial in seconds
TRIALS = 40
SHORT = {"train_size": 5000, "validation_size": 5000, "epochs": 12}  # a study in a minute or two

Content = dict[str, Any]
Course = list[tuple[int, float | None]]
"""Of a study: each trial's epochs, and its error if it was not pruned."""


def arms(sweep: Mapping[str, Any]) -> dict[str, Content]:
    """What of ``sweep`` each way changes; the first is what the others are compared with."""
    whole, random = {"pruner": {"kind": "none"}}, {"sampler": {"kind": "random"}}
    return {
        "TPE, no pruning": whole,
        "TPE, pruned": {"pruner": sweep["pruner"]},
        "random search, no pruning": random | whole,
        "random search, pruned": random | {"pruner": sweep["pruner"]},
    }


def pruning(repetitions: int) -> Results:
    """Studies of `modern`, a seed each, in every way: the epochs that were trained, and the error that was reached.

    The ways of a seed begin with the same trials. They run side by side, as nothing that is measured depends on time.
    """
    ways = arms(loading.load().sweep)
    with ProcessPoolExecutor(cores(), mp_context=get_context("spawn")) as pool:
        started = {
            name: [pool.submit(course, changes, seed) for seed in range(1, repetitions + 1)]
            for name, changes in ways.items()
        }
        return as_groups({name: [study.result() for study in studies] for name, studies in started.items()})


def course(changes: Mapping[str, Any], seed: int) -> Course:
    """The course of a study of `modern`.

    Args:
        changes: to ``sweep`` of params.yaml.
        seed: of what is tried, and of each training.
    """
    found = study(_params({"trials": TRIALS, "seed": seed, "seeds": [seed], **changes}, SMALL))
    complete = {trial.number: trial.values[0] for trial in found.complete}
    return [(len(trial.intermediate_values), complete.get(trial.number)) for trial in found.trials]


def study(params: Params) -> Result:
    """A study of `modern` in this process and in memory, trial by trial."""
    made, digits = settings(params), load_digits(DATA)
    of, place = plan(params, made, "modern", digits), InMemoryStorage()
    number, here = storage.begin(place, of.name, of), cast(Workers, _Here(digits))
    Coordinator(place, of.name, number, of, made.trials, lambda: nullcontext(here), see=lambda trials: None).run()
    return result.of_storage(place, of.name)


class _Here:
    """In place of a cluster's workers this process, trial by trial."""

    def __init__(self, digits: Digits) -> None:
        self.digits, self.ended = digits, list[tuple[int, Ended]]()

    def free(self) -> int:
        return 1

    def submit(self, name: int, function: Callable[..., Any], *arguments: Any) -> None:
        self.ended.append((name, Ended(function(self.digits, lambda row: None, *arguments))))

    def reports(self) -> Iterator[tuple[int, Ended]]:
        while self.ended:
            yield self.ended.pop()


def as_groups(found: Mapping[str, Sequence[Course]]) -> Results:
    """A group of epochs; one of the smallest errors in per cent, with paired differences from the first way.

    The ways without pruning are also shown as far as they were when the pruned study of their seed had ended.
    """
    epochs = [Row(name, [epochs_of(study) for study in studies]) for name, studies in found.items()]
    reached = {name: [100 * best(study) for study in studies] for name, studies in found.items()}
    first, *others = reached
    errors = [Row(first, reached[first])]
    errors += [Row(name, reached[name], difference(reached[name], reached[first])) for name in others]
    for sampler in ("TPE", "random search"):
        pruned = f"{sampler}, pruned"
        pairs = zip(found[f"{sampler}, no pruning"], found[pruned], strict=True)
        values = [100 * best(whole, epochs_of(stopped)) for whole, stopped in pairs]
        note = f"{difference(values, reached[pruned])} from {pruned}"
        errors.append(Row(f"{sampler}, no pruning, as many epochs as pruned", values, note))
    return Results(
        {},
        [
            Group("pruning: modern, epochs of a study", "epochs", epochs),
            Group("pruning: modern, best validation error", "%", errors),
        ],
    )


def epochs_of(study: Course) -> float:
    """All that were trained."""
    return float(sum(epochs for epochs, _ in study))


def best(study: Course, most: float = math.inf) -> float:
    """The smallest error of the trials that had ended after so many epochs."""
    ends = itertools.accumulate(epochs for epochs, _ in study)
    return min(error for end, (_, error) in zip(ends, study, strict=True) if error is not None and end <= most)


def difference(values: Sequence[float], baseline: Sequence[float]) -> str:
    """The mean of paired differences in words, with its standard error where there are two pairs or more."""
    found = [value - base for value, base in zip(values, baseline, strict=True)]
    spread = f" ± {statistics.stdev(found) / len(found) ** 0.5:.2f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):+.2f}{spread} points".replace("-", "−")


def workers(repetitions: int) -> Group:
    """Trials an hour of `lenet sweep modern`, start and end included, with two workers and with one, in turn."""
    counts = {"2 workers": 2, "1 worker": 1}
    rows = {name: Row(name, []) for name in counts}
    for seed in range(1, repetitions + 1):
        params = _params({"trials": TRIALS, "seed": seed}, SHORT)
        for name, count in counts.items():
            rows[name].values.append(3600 * TRIALS / command(params, count))
    return Group("sweep: modern, 1 and 2 workers", "trials/h", list(rows.values()))


def command(params: Params, workers: int) -> float:
    """Seconds of the whole command, recorded, in a folder of its own."""
    words = ["--data", str(DATA.resolve()), "--workers", str(workers)]
    with tempfile.TemporaryDirectory() as folder:
        with Path(folder, "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(params.model_dump(mode="json"), file)
        elsewhere = {
            "DVC_ROOT": folder, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "LENET_TRACK": "1",
            "LENET_SWEEP_STORAGE": f"sqlite:///{folder}/optuna.db",
        }  # fmt: skip
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "lenet", "sweep", "modern", *words, "--out", f"{folder}/study"],
            check=True, cwd=folder, env=os.environ | elsewhere, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return time.perf_counter() - start


def _params(sweep: Mapping[str, Any], block: Mapping[str, int]) -> Params:
    """Those of the project with changes to ``sweep`` and to `modern`."""
    content = loading.load().model_dump(mode="json")
    content["sweep"] |= sweep
    content["variants"]["modern"] |= block
    return loading.validate(content, "params.yaml")
