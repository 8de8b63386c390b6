"""The two ways to compute one network: equal to the bit, near to formulas in double precision, the same anywhere."""

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reference
from conftest import OUTPUTS, POOLINGS, randomised
from lenet import networks
from lenet.arithmetic import exact
from lenet.arithmetic import nn as layers
from lenet.digits.data import Digits, to_inputs
from lenet.networks import fast
from lenet.networks.convnet import ConvNet
from lenet.networks.lenet5 import ACTIVATIONS, LeNet5
from lenet.params.schema import Network, Params, Variant
from lenet.runtime.errors import InputError
from lenet.training.fit import fit

KINDS = pytest.mark.parametrize(
    ("activation", "pooling", "C3", "output"),
    [*product(ACTIVATIONS, POOLINGS, ("table", "dense"), OUTPUTS)],
    ids=lambda value: getattr(value, "kind", value),
)


def by_passes(passes: fast.Passes, network: LeNet5, inputs: Tensor, dscores: Tensor) -> list[Tensor]:
    passes.inputs[0] = inputs
    (scores,) = passes.forward()
    passes.backward(dscores[None])
    return [scores, *(parameter.grad.clone() for parameter in network.parameters())]


def by_autograd(network: nn.Module, inputs: Tensor, dscores: Tensor) -> list[Tensor]:
    scores = network(inputs)
    return [scores.detach(), *torch.autograd.grad(scores, list(network.parameters()), dscores)]


def drawn(n: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Inputs, as large as those of digits times a scale, and a gradient at scores."""
    chance = torch.Generator().manual_seed(n)
    inputs = (torch.rand(n, 1, 32, 32, generator=chance) * 1.275 - 0.1) * scale
    return inputs, torch.randn(n, 10, generator=chance)


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


# equal to the bit


@KINDS
def test_passes_equal_the_modules(activation, pooling, C3, output) -> None:
    """Of inputs times 40, activations without a bound are beyond 2^3, and each digit has a grid of its own."""
    network = randomised(LeNet5(Network(activation=activation, pooling=pooling, C3=C3, output=output)))
    for n, scale in ((1, 40.0), (3, 1.0), (16, 40.0)):
        inputs, dscores = drawn(n, scale)
        inputs[0] *= 0.01  # of another magnitude than the rest
        ours = by_passes(fast.Passes([network], n), network, inputs, dscores)
        theirs = by_autograd(network, inputs, dscores)
        for name, a, b in zip(["scores", *dict(network.named_parameters())], ours, theirs, strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b), (name, n, scale)


DISTANCE = {"sigmoid": 1e-4, "scaled-tanh": 1e-4, "tanh": 1e-4, "relu": 2e-3}
"""Of tensors, as fractions of their largest elements. ReLU's values share a grid of 2^−14 up to 64."""


@KINDS
def test_they_are_near_to_the_documents_formulas_in_double_precision(activation, pooling, C3, output) -> None:
    """The mathematics, of scores and of every gradient."""
    kind = Network(activation=activation, pooling=pooling, C3=C3, output=output)
    network = randomised(LeNet5(kind))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.5)
    inputs, dscores = drawn(3)
    held = {name: parameter.detach().double().numpy() for name, parameter in network.named_parameters()}
    formulas = reference.Network({"network": kind.model_dump()}, held, network.output.weight.detach().double().numpy())
    scores = formulas.run(inputs.double().numpy())
    formulas.back(dscores.double().numpy())
    truth = {"scores": scores} | {name: formulas.gradients[name] for name in held}
    for (name, exact_), ours in zip(truth.items(), by_autograd(network, inputs, dscores), strict=True):
        largest, apart = np.abs(exact_).max(), np.abs(exact_ - ours.numpy()).max()
        assert largest > 0, name
        assert apart < DISTANCE[activation] * largest, name


def test_a_network_that_differs_is_refused(params: Params, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = params.variants["modern"].model_copy(update={"epochs": 1, "train_size": 64, "validation_size": 0})
    fit(variant, 1, digits[:64], digits[:0])
    monkeypatch.setitem(ACTIVATIONS, "relu", torch.abs)
    message = "Passes on cpu computes another network than the plain modules: the outputs differ; change both alike"
    with pytest.raises(InputError, match=message):
        fit(variant, 1, digits[:64], digits[:0])


@pytest.mark.parametrize(
    ("owner", "name", "change", "told"),
    [
        (fast._Weights, "give", lambda self, give: (self.grads[3:4].__imul__(1 + 2.0**-20), give(self)), "C1.weight"),
        (fast._Full, "backward", lambda self, back: (back(self), self.dbias[0, :1].__imul__(1.0001)), "C5.bias"),
    ],
)
def test_a_gradient_that_differs_in_a_last_bit_is_refused(
    params: Params, monkeypatch: pytest.MonkeyPatch, owner, name, change, told
) -> None:
    network = randomised(LeNet5(params.variants["modern"].network))
    networks.check(network, *drawn(5))
    inner = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self: change(self, inner))
    with pytest.raises(InputError, match=f"the gradient at {told} differ"):
        networks.check(network, *drawn(5))


# buffers and vectors


def test_nothing_of_other_batches_remains_in_the_buffers(params: Params, digits: Digits) -> None:
    network = randomised(LeNet5(params.variants["original-tanh"].network))
    images = to_inputs(digits[:16].images, params.variants["original-tanh"].pixels)
    passes, ones = fast.Passes([network], 8), torch.ones(8, 10)
    before = by_passes(passes, network, images[:8], ones)
    by_passes(passes, network, 40 * images[8:], -ones)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    by_passes(passes, network, images[:8], ones)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    after, fresh = (by_passes(its, network, images[:8], ones) for its in (passes, fast.Passes([network], 8)))
    assert equal(after, fresh)
    assert equal(after, before)


def test_gradients_are_set_even_where_an_optimizer_dropped_them(params: Params) -> None:
    network = randomised(LeNet5(params.variants["modern"].network))
    passes = fast.Passes([network], 2)
    expected = by_passes(passes, network, *drawn(2))
    network.zero_grad(set_to_none=True)
    assert equal(expected, by_passes(passes, network, *drawn(2)))


@pytest.mark.parametrize("move", ["load_state_dict", "to", "both"])
def test_a_network_s_vector_stays_its_parameters(params: Params, move: str) -> None:
    network = randomised(LeNet5(params.variants["lecun1998"].network))
    flat = fast.Flat([network])
    place = flat.matrix.data_ptr()
    assert fast.Flat([network]).matrix.data_ptr() == place
    if move != "to":
        network.load_state_dict({name: 2 * value for name, value in network.state_dict().items()})
    if move != "load_state_dict":
        network.to(torch.float64).to(torch.float32)  # other memory
    found = fast.Flat([network])
    assert (found.matrix.data_ptr() == place) == (move == "load_state_dict")
    assert torch.equal(found.matrix.detach()[0], torch.cat([p.detach().flatten() for p in network.parameters()]))
    by_passes(fast.Passes([network], 2, found), network, *drawn(2))
    with torch.no_grad():
        found.matrix.sub_(found.matrix.grad)
    for parameter, its, gradient in zip(
        network.parameters(), found.views(found.matrix.detach()[0]), found.gradients[0], strict=True
    ):
        assert torch.equal(parameter.detach(), its)
        assert torch.equal(parameter.grad, gradient)
    assert equal(by_passes(fast.Passes([network], 2), network, *drawn(2)), by_autograd(network, *drawn(2)))


@pytest.mark.parametrize("layer", ["C1", "C3", "C5", "F6", "output"])
def test_both_ways_name_the_place_of_a_number_that_is_not_finite(params: Params, layer: str) -> None:
    network = randomised(LeNet5(params.variants["modern"].network))
    passes = fast.Passes([network], 2)
    passes.inputs[0] = drawn(2)[0]
    with torch.no_grad():
        getattr(network, layer).weight.view(-1)[0] = torch.inf
    for compute in (passes.forward, lambda: network(passes.inputs[0])):
        with pytest.raises(exact.NotFinite, match=rf"^{layer}\.weight: a magnitude of inf"):
            compute()
    with torch.no_grad():
        getattr(network, layer).weight.view(-1)[0] = 0.1
    passes.inputs[0, 1, 0, 3, 3] = torch.nan
    for compute in (passes.forward, lambda: network(passes.inputs[0])):
        with pytest.raises(exact.NotFinite, match=r"^C1's inputs: a magnitude of nan"):
            compute()


# a digit's scores


NETWORKS = ["original-sigmoid", "original-tanh", "modern", "lecun1998", "tutorial", "frontier"]


@pytest.fixture(params=NETWORKS)
def variant(request: pytest.FixtureRequest, params: Params) -> Variant:
    return params.variants[request.param]


def in_use(variant: Variant, digits: Digits) -> networks.AnyNet:
    """A network with statistics of some digits, if it has any."""
    network = networks.build(variant.network).initialise(variant.initialisation, 3)
    if isinstance(network, ConvNet):
        with torch.no_grad():
            network(to_inputs(digits[:200].images, variant.pixels))
    return network.eval()


def test_a_digit_s_scores_depend_on_nothing_but_the_digit(variant: Variant, digits: Digits) -> None:
    """Alone, in any batch, in any order, in any slices, readable and fast; empty images and large inputs too."""
    network = in_use(variant, digits)
    inputs = to_inputs(digits[1000:1030].images, variant.pixels)
    inputs = torch.cat([inputs, 40 * inputs[:4], 1e-4 * inputs[4:6], torch.zeros(2, 1, 32, 32), 4000 * inputs[6:7]])
    count = len(inputs)
    with torch.no_grad():
        scores = network(inputs)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
        assert torch.equal(network(inputs[order]), scores[order])
        for size in (1, 7):
            assert torch.equal(torch.cat([network(part) for part in inputs.split(size)]), scores)
    for size in (1, 5, count):
        for its_order in (torch.arange(count), order):
            found = []
            for part in inputs[its_order].split(size):
                passes = networks.passes([network], len(part))
                passes.inputs[0] = part
                found.append(passes.forward()[0])
            assert torch.equal(torch.cat(found), scores[its_order])


def test_large_activations_are_beyond_the_common_grid(params: Params, digits: Digits) -> None:
    """So that the test above is of grids of single digits, too."""
    network = in_use(params.variants["modern"], digits)
    inputs = 40 * to_inputs(digits[1000:1004].images, params.variants["modern"].pixels)
    assert network.S2(torch.relu(network.C1(inputs))).abs().max() > 2.0**layers.UNBOUNDED


@pytest.mark.parametrize("n", [0, 1, 8, 9, 200, 203, 403])
def test_outputs_of_any_number_of_images_are_the_modules(params: Params, digits: Digits, n: int) -> None:
    variant = params.variants["original-sigmoid"]
    network = LeNet5(variant.network).initialise(variant.initialisation, 1)
    ours = networks.outputs(network, digits[:n].images, variant.pixels)
    with torch.no_grad():
        assert torch.equal(ours, network(to_inputs(digits[:n].images, variant.pixels)))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_outputs_of_passes_that_are_off_are_refused(params: Params, digits: Digits, monkeypatch) -> None:
    variant = params.variants["modern"]
    network = LeNet5(variant.network).initialise(variant.initialisation, 1)
    inner = fast._Full.forward
    monkeypatch.setattr(fast._Full, "forward", lambda self: (inner(self), self.y.value.__imul__(1 + 2.0**-20)))
    with pytest.raises(InputError, match="the fast passes give other outputs than the network"):
        networks.outputs(network, digits[:20].images, variant.pixels)


def test_networks_side_by_side_have_the_bits_of_each_alone(params: Params) -> None:
    """Their outputs and gradients."""
    for name in ("original-sigmoid", "original-tanh", "modern", "lecun1998"):
        kind = params.variants[name].network
        for count, n in ((2, 5), (5, 1)):
            its = [randomised(LeNet5(kind), seed) for seed in range(count)]
            given = [drawn(n, 1.0 + i) for i in range(count)]
            alone = [by_autograd(network, *its_own) for network, its_own in zip(its, given, strict=True)]
            inputs, dscores = (torch.stack(parts) for parts in zip(*given, strict=True))
            passes = fast.Passes(its, n)
            passes.inputs.copy_(inputs)
            scores = passes.forward()
            passes.backward(dscores)
            for i, network in enumerate(its):
                assert equal([scores[i], *(parameter.grad for parameter in network.parameters())], alone[i]), (name, i)
