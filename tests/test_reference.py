"""Outputs and every gradient of every variant, beside an independent implementation in NumPy."""

import json

import numpy as np
import pytest
from torch import Tensor, nn

import reference
from conftest import ROOT, randomised
from lenet import networks
from lenet.digits.data import Digits, to_inputs
from lenet.networks.codes import codes
from lenet.networks.lenet5 import LeNet5
from lenet.params import loading
from lenet.params.schema import Variant
from lenet.training import objective

PARAMS = loading.load(ROOT / "params.yaml")
KINDS = {
    json.dumps([variant.network.model_dump(mode="json"), variant.objective.model_dump(mode="json")]): name
    for name, variant in reversed(PARAMS.variants.items())
}
"""A variant of each kind of network and loss; others differ in how they are trained."""
LECUN = PARAMS.variants["lecun1998"].model_dump(mode="json")
OTHERS = {
    "lecun1998, equation 9": LECUN | {"objective": {"loss": "map", "factor": 0.01, "j": 1.0}},
    "lecun1998, learned codes": LECUN
    | {
        "objective": {"loss": "map", "factor": 0.01, "j": 1.0},
        "network": LECUN["network"] | {"output": "adaptive-rbf"},
    },
}
VARIANTS = {name: PARAMS.variants[name] for name in KINDS.values()} | {
    name: Variant.model_validate(block) for name, block in OTHERS.items()
}


DISTANCE = 2e-3
"""Of a tensor in single precision and on grids, as a fraction of its largest element."""


def ours(network: nn.Module, variant: Variant, inputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    scores = network(inputs)
    objective.build(variant).loss(scores, labels).backward()
    return scores.detach(), {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", VARIANTS)
def test_outputs_and_gradients_are_those_of_the_formulas(name: str, digits: Digits) -> None:
    variant = VARIANTS[name]
    network = networks.build(variant.network).initialise(variant.initialisation, 1)
    if isinstance(network, LeNet5):
        randomised(network)
    inputs, labels = to_inputs(digits[:3].images, variant.pixels), digits[:3].labels.long()
    scores, gradients = ours(network, variant, inputs, labels)
    held = {name: parameter.detach().double().numpy() for name, parameter in network.named_parameters()}
    its_codes = held.get("output.weight", codes().double().numpy())
    formulas = reference.Network(variant.model_dump(mode="json"), held, its_codes)
    x = inputs.double().numpy()
    loss = formulas.learn(x, labels.numpy())
    truth = formulas.run(x)
    assert np.abs(truth - scores.numpy()).max() < DISTANCE * np.abs(truth).max()
    assert loss == pytest.approx(objective.build(variant).loss(scores, labels).item(), rel=DISTANCE)
    for parameter, gradient in gradients.items():
        theirs = formulas.gradients[parameter]
        assert theirs.shape == tuple(gradient.shape)
        largest = np.abs(theirs).max()
        assert largest > 0, parameter
        assert np.abs(theirs - gradient.numpy()).max() < DISTANCE * largest, parameter


def test_the_formulas_gradients_are_differences_of_their_losses(digits: Digits) -> None:
    """So that the reference does not only agree with torch: central differences of its own loss."""
    for name in ("lecun1998, learned codes", "original-sigmoid", "frontier"):
        variant = VARIANTS[name]
        network = networks.build(variant.network).initialise(variant.initialisation, 1)
        held = {key: parameter.detach().double().numpy() for key, parameter in network.named_parameters()}
        inputs, labels = to_inputs(digits[:2].images, variant.pixels).double().numpy(), digits[:2].labels.long().numpy()
        block = variant.model_dump(mode="json")

        def loss(parameters: dict[str, np.ndarray], block: dict = block, x=inputs, y=labels) -> float:
            found = reference.Network(block, parameters, parameters.get("output.weight", np.zeros(0)))
            return found._loss(found.run(x), y)[0]

        formulas = reference.Network(block, held, held.get("output.weight", np.zeros(0)))
        formulas.learn(inputs, labels)
        random = np.random.default_rng(0)
        for key, value in held.items():
            place = tuple(random.integers(size) for size in value.shape)
            ends = []
            for step in (1e-5, -1e-5):
                moved = value.copy()
                moved[place] += step
                ends.append(loss(held | {key: moved}))
            slope = (ends[0] - ends[1]) / 2e-5
            assert slope == pytest.approx(formulas.gradients[key][place], rel=1e-4, abs=1e-7), (name, key)


def test_the_formulas_need_neither_torch_nor_the_project() -> None:
    text = (ROOT / "tests" / "reference.py").read_text()
    assert "import torch" not in text
    assert "lenet import" not in text
