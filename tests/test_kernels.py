"""The fast passes beside the plain modules: outputs, all gradients, and that buffers keep nothing."""

from itertools import product

import pytest
import torch
from torch import Tensor

from conftest import OUTPUTS, POOLINGS, randomised
from lenet import networks
from lenet.config import Network, Params
from lenet.digits.data import Digits, to_inputs
from lenet.errors import InputError
from lenet.networks import kernels
from lenet.networks.lenet5 import ACTIVATIONS, LeNet5
from lenet.training import objective


def fast(passes: kernels.Passes, network: LeNet5, inputs: Tensor, dscores: Tensor) -> list[Tensor]:
    passes.inputs.copy_(inputs)
    scores = passes.forward()
    passes.backward(dscores)
    return [scores, *(parameter.grad.clone() for parameter in network.parameters())]


def plain(network: LeNet5, inputs: Tensor, dscores: Tensor) -> list[Tensor]:
    scores = network(inputs)
    return [scores.detach(), *torch.autograd.grad(scores, list(network.parameters()), dscores)]


def distance(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """The largest difference of a tensor, in units of its largest element."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("activation", "pooling", "C3", "output"),
    product(ACTIVATIONS, POOLINGS, ("table", "dense"), OUTPUTS),
    ids=lambda value: getattr(value, "kind", value),
)
def test_outputs_and_gradients_are_those_that_autograd_finds_for_the_modules(activation, pooling, C3, output) -> None:
    network = randomised(LeNet5(Network(activation=activation, pooling=pooling, C3=C3, output=output))).double()
    for n in (1, 3, 16):
        inputs, dscores = torch.rand(n, 1, 32, 32, dtype=torch.double), torch.rand(n, 10, dtype=torch.double)
        ours, theirs = fast(kernels.Passes(network, n), network, inputs, dscores), plain(network, inputs, dscores)
        assert [a.shape for a in ours] == [b.shape for b in theirs]
        assert distance(ours, theirs) < 1e-12


@pytest.mark.parametrize("n", [16, 64, 128])
@pytest.mark.parametrize("name", ["original-sigmoid", "original-tanh", "modern"])
def test_single_precision_is_as_near_to_double_as_the_modules_are(
    params: Params, digits: Digits, name: str, n: int
) -> None:
    variant = params.variants[name]
    network = LeNet5(variant.network).initialise(variant.initialisation, 1)
    exact = LeNet5(variant.network).initialise(variant.initialisation, 1).double()
    inputs, labels = to_inputs(digits[:n].images, variant.pixels), digits[:n].labels.long()
    scores = network(inputs).detach().requires_grad_()
    dscores = torch.autograd.grad(objective.build(variant).loss(scores, labels), scores)[0]
    truth = plain(exact, inputs.double(), dscores.double())
    ours = distance(fast(kernels.Passes(network, n), network, inputs, dscores), truth)
    theirs = distance(plain(network, inputs, dscores), truth)
    assert ours < 1e-5
    assert ours < 5 * theirs + 1e-6


def test_a_training_refuses_kernels_that_compute_another_network_than_the_modules(
    params: Params, digits: Digits, monkeypatch
) -> None:
    from lenet.training.fit import fit

    variant = params.variants["modern"].model_copy(update={"epochs": 1, "train_size": 64, "validation_size": 0})
    fit(variant, 1, digits[:64], digits[:0])
    monkeypatch.setitem(ACTIVATIONS, "relu", torch.tanh)
    with pytest.raises(InputError, match=r"kernels\.py computes another network than model\.py"):
        fit(variant, 1, digits[:64], digits[:0])


def test_nothing_of_another_batch_or_of_other_weights_is_left_in_the_buffers(params: Params, digits: Digits) -> None:
    variant = params.variants["original-tanh"]
    network = LeNet5(variant.network).initialise(variant.initialisation, 1)
    passes = kernels.Passes(network, 8)
    images = to_inputs(digits[:16].images, variant.pixels)
    first, second = images[:8], images[8:]
    before = fast(passes, network, first, torch.ones(8, 10))
    fast(passes, network, second, -torch.ones(8, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    fast(passes, network, first, torch.ones(8, 10))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    after = fast(passes, network, first, torch.ones(8, 10))
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    fresh = fast(kernels.Passes(network, 8), network, first, torch.ones(8, 10))
    assert all(torch.equal(a, b) for a, b in zip(before, fresh, strict=True))


def test_gradients_are_set_even_where_an_optimizer_dropped_them(params: Params) -> None:
    network = randomised(LeNet5(params.variants["modern"].network))
    passes = kernels.Passes(network, 2)
    expected = fast(passes, network, torch.ones(2, 1, 32, 32), torch.ones(2, 10))
    for parameter in network.parameters():
        parameter.grad = None
    again = fast(passes, network, torch.ones(2, 1, 32, 32), torch.ones(2, 10))
    assert all(torch.equal(a, b) for a, b in zip(expected, again, strict=True))


@pytest.mark.parametrize("n", [0, 1, 8, 9, 499, 500, 1203])
def test_outputs_of_any_number_of_images_are_the_modules(params: Params, digits: Digits, n: int) -> None:
    variant = params.variants["original-sigmoid"]
    network = LeNet5(variant.network).initialise(variant.initialisation, 1)
    ours = networks.outputs(network, digits[:n].images, variant.pixels)
    with torch.no_grad():
        theirs = network(to_inputs(digits[:n].images, variant.pixels))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())
