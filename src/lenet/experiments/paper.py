"""Of experiments/paper: runs of the paper's recipe beside the paper's own numbers."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from lenet.digits.data import Digits, load_digits, to_inputs
from lenet.digits.epochs import present
from lenet.evaluation.rounding import rounded
from lenet.experiments import lecun1998
from lenet.experiments.experiment import Answers, Experiment, changed
from lenet.networks import layer_table
from lenet.networks.lenet5 import LeNet5
from lenet.params.loading import PATH, flatten
from lenet.params.schema import MaximumLikelihood, Network, Variant
from lenet.report import statistics
from lenet.runs import readers
from lenet.runtime import layout
from lenet.runtime.errors import ParamsError
from lenet.runtime.files import json_of, read_json, reading
from lenet.training import optimizer
from lenet.training.levenberg import at_start, curvatures
from lenet.training.module import LeNet
from lenet.training.optimizer import StochasticDiagonalLM

RECIPES = PLAIN, DISTORTED = "lecun1998", "lecun1998-distorted"
BESIDE = ("modern", "original-tanh")  # variants whose misses are compared with Fig. 8's, too
EXACT = 20  # digits over which the exact second derivatives are averaged


class Paper(Experiment):
    """experiments/paper/params.yaml."""

    baselines: Annotated[tuple[str, ...], Field(strict=False)]

    def result(self, answers: Answers, home: Path) -> dict[str, Any]:
        """What the paper's recipe gives here beside what the paper reports."""
        for name in RECIPES:
            if name not in self.train:
                raise ParamsError(f"{home / PATH}: train must have {name}; it has {', '.join(self.train)}")
        params, digits = answers.params, load_digits(layout.of_main(layout.TRAIN))
        signatures = answers.signatures(dict.fromkeys((*self.train, *BESIDE)))
        wrong = {name: answers.wrong(name) for name in (*RECIPES, *BESIDE)}
        content = {
            "seeds": list(self.seeds),
            "signatures": signatures,
            "variants": {name: _variant(params.variant(name), name, answers, home) for name in self.train},
            "verdict": statistics.pairs({name: wrong[name] for name in RECIPES})[0].verdict,
            "figure_8": {name: overlap(one) for name, one in wrong.items()},
            "missed_by": {name: wrong[name][:, list(lecun1998.MISSED)].sum(0).tolist() for name in RECIPES},
            "rejection": {name: answers.rejection(name) for name in RECIPES},
            "layers": [asdict(row) for row in layer_table.layers(params.variant(PLAIN).network)],
            "step_sizes": {
                name: [step_sizes(params.variant(name), seed, digits) for seed in self.seeds] for name in RECIPES
            },
            "curvature": curvature_ratios(params.variant(PLAIN), self.seeds[0], digits),
            "classifiers": [read_json(home / "baselines" / f"{name}.json") for name in self.baselines],
        }
        return rounded(content) | {
            "block": flatten(params.variant(PLAIN)),
            "with_distortions": _changes(*map(params.variant, RECIPES)),
        }


def _variant(variant: Variant, name: str, answers: Answers, home: Path) -> dict[str, Any]:
    """A recipe's errors, its error in each pass while training and after each pass on the test digits, of each seed."""
    distorted = variant.distortion.kind != "none"
    reported = lecun1998.DISTORTED_ERROR if distorted else lecun1998.SIZES.get(variant.train_size)
    found = answers.describe(name)
    errors = [one["error"] for one in found["seeds"].values()]
    return {
        "train_size": variant.train_size,
        "distorted": distorted,
        **found,
        "published": reported,
        "seeds_not_above": None if reported is None else sum(error <= reported for error in errors),
        "train_errors": [_train_errors(answers.folders, f"{name}-{seed}") for seed in answers.seeds],
        "test_errors": [
            [misses / found["count"] for misses in _misses(home / layout.METRICS / f"{name}-{seed}.json")]
            for seed in answers.seeds
        ],
    }


def _changes(one: Variant, other: Variant) -> dict[str, Any]:
    """What the other block has in the leaves in which the two differ."""
    theirs = flatten(other)
    return {name: theirs[name] for name in sorted(changed(one, other)) if name in theirs}


def _train_errors(folders: Sequence[Path], run: str) -> list[float]:
    history = next(folder / run / "history.csv" for folder in folders if (folder / run).exists())
    return readers.read(history, readers.history)["train/error"].tolist()


def _misses(path: Path) -> list[int]:
    with reading(path):
        return json_of(path.read_bytes())["epochs"]["misses"]


def overlap(wrong: np.ndarray) -> dict[str, Any]:
    """How many of the 82 digits of the paper's Fig. 8 runs miss.

    Args:
        wrong: whether a seed's network misses a digit, boolean (seeds, digits).

    Returns:
        ``misses``, those of each seed, and means over seeds: how many are ``shared`` with the paper's, how many would
        be by ``chance``, and how many ``two_seeds`` share with each other (None for one seed).
    """
    misses = wrong.sum(1)
    both = [int((one & other).sum()) for one, other in combinations(wrong, 2)]
    return {
        "misses": misses.tolist(),
        "shared": float(wrong[:, list(lecun1998.MISSED)].sum(1).mean()),
        "chance": float((misses * len(lecun1998.MISSED) / wrong.shape[1]).mean()),
        "two_seeds": sum(both) / len(both) if both else None,
    }


def step_sizes(variant: Variant, seed: int, digits: Digits) -> list[float]:
    """The smallest and the largest of the parameters' learning rates in the first pass."""
    module = LeNet(variant, seed)
    rule = optimizer.build(variant.optimizer, module.network.parameters())
    assert isinstance(rule, StochasticDiagonalLM)
    presented = present(variant, seed, digits.split(variant)[0], 1)
    rule.set_curvatures(at_start(module.network, seed, 1, presented))
    sizes = torch.cat([size.flatten() for size in rule.step_sizes()])
    return [float(sizes.min()), float(sizes.max())]


def curvature_ratios(variant: Variant, seed: int, digits: Digits) -> dict[str, float]:
    """The second derivatives that steps rest on, as multiples of the exact Gauss–Newton ones, at the beginning.

    They leave out the cross terms between the places of a weight, and between units: in C5 and F6 nothing is lost. The
    ratio is that of the sums over a layer's weights.
    """
    network = LeNet5(cast(Network, variant.network)).initialise(variant.initialisation, seed)
    few = digits[:EXACT]
    inputs = to_inputs(few.images, variant.pixels)
    half = MaximumLikelihood(loss="mle", factor=0.5)
    estimated = curvatures(network, inputs, few.labels.long(), half, "constant")
    exact = exact_curvatures(network, inputs)
    names = [name for name, _ in network.named_parameters()]
    return {name: float(ours.sum() / exact[name].sum()) for name, ours in zip(names, estimated, strict=True)}


def exact_curvatures(network: LeNet5, inputs: Float[Tensor, "n 1 32 32"]) -> dict[str, Tensor]:
    """The diagonal of the Gauss–Newton matrix of half the squared distance: Σ_j (∂x_j/∂θ)² over F6's states x.

    By name, averaged over digits.
    """
    names, parameters = zip(*network.named_parameters(), strict=True)
    total = [torch.zeros_like(parameter) for parameter in parameters]
    seen: list[Tensor] = []
    hook = network.output.register_forward_hook(lambda layer, given, result: seen.append(given[0]))
    for one in inputs.split(1):
        network(one)
        for state in seen.pop()[0]:
            for sum_, part in zip(total, torch.autograd.grad(state, parameters, retain_graph=True), strict=True):
                sum_ += part.square() / len(inputs)
    hook.remove()
    return dict(zip(names, total, strict=True))
