"""The paper's optimizer: steps by pencil, curvatures beside exact ones and beside the recursion in loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lenet.digits.data import Digits, to_inputs
from lenet.networks.lenet5 import LeNet5
from lenet.params import schema
from lenet.training import levenberg, optimizer

MLE = schema.MaximumLikelihood(loss="mle", factor=0.5)
MAP = schema.MaximumAPosteriori(loss="map", factor=0.5, j=20.0)


def lecun(pooling: str = "trainable-sum", output: str = "rbf") -> LeNet5:
    trainable = schema.TrainablePooling(kind=pooling, coefficient=0.5, bias=0.0)
    network = LeNet5(schema.Network(activation="scaled-tanh", pooling=trainable, C3="table", output=output))
    how = schema.Initialisation(scale=1.2, exponent=0.5, biases="random")
    return network.initialise(how, 1)


@pytest.fixture
def inputs(digits: Digits) -> Tensor:
    return to_inputs(digits[:2].images, schema.Pixels(background=-0.1, ink=1.175))


@pytest.fixture
def labels(digits: Digits) -> Tensor:
    return digits[:2].labels.long()


def near(ours: Tensor, truth: Tensor) -> None:
    """Within 10^−4 of the largest: what roundings to single precision and to grids amount to."""
    torch.testing.assert_close(ours.double(), truth.double(), rtol=0, atol=1e-4 * float(truth.abs().max()))


def by_name(network: LeNet5, inputs: Tensor, labels: Tensor, section, criterion: str = "constant") -> dict[str, Tensor]:
    found = levenberg.curvatures(network, inputs, labels, section, criterion)
    return dict(zip((name for name, _ in network.named_parameters()), found, strict=True))


# steps


def test_a_step_is_divided_by_the_curvature_and_mu() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    rule = optimizer.StochasticDiagonalLM([weight], lr=0.1, mu=0.5)
    rule.set_curvatures([torch.tensor([0.0, 0.5, 4.5])])
    assert rule.step_sizes()[0].tolist() == pytest.approx([0.2, 0.1, 0.02])
    weight.grad = torch.tensor([1.0, -2.0, 10.0])
    rule.step()
    assert weight.tolist() == pytest.approx([0.8, 1.2, 0.8])
    rule.param_groups[0]["lr"] = 0.0
    rule.step()
    assert weight.tolist() == pytest.approx([0.8, 1.2, 0.8])


def test_a_closure_is_evaluated_with_gradients() -> None:
    weight = nn.Parameter(torch.tensor([2.0]))
    rule = optimizer.StochasticDiagonalLM([weight], lr=1.0, mu=1.0)
    rule.set_curvatures([torch.tensor([1.0])])

    def closure() -> float:
        loss = weight.square().sum()
        loss.backward()
        return loss.item()

    assert rule.step(closure) == 4.0
    assert weight.item() == 2.0 - 4.0 / 2


# curvatures


def slope(state: np.ndarray) -> np.ndarray:
    """The derivative of 1.7159·tanh(2a/3) from its value."""
    return 1.7159 * 2 / 3 * (1 - (state / 1.7159) ** 2)


def recursion(network: LeNet5, field: np.ndarray, start: np.ndarray, share: float) -> dict[str, np.ndarray]:
    """App. C for one digit (32, 32), connection by connection: g is ∂²E/∂a², G is ∂²E/∂x²."""
    p = {name: value.detach().double().numpy() for name, value in network.named_parameters()}

    def f(a: np.ndarray) -> np.ndarray:
        return 1.7159 * np.tanh(2 * a / 3)

    c1, c3 = np.zeros((6, 28, 28)), np.zeros((16, 10, 10))
    for m, r, c in np.ndindex(c1.shape):
        c1[m, r, c] = (p["C1.weight"][m, 0] * field[r : r + 5, c : c + 5]).sum() + p["C1.bias"][m]
    c1 = f(c1)
    u2 = share * (c1[:, ::2, ::2] + c1[:, 1::2, ::2] + c1[:, ::2, 1::2] + c1[:, 1::2, 1::2])
    s2 = f(p["S2.weight"][:, None, None] * u2 + p["S2.bias"][:, None, None])
    kernels = [(out, i) for out, seen in enumerate(network.C3.table) for i in seen]
    for out in range(16):
        c3[out] = p["C3.bias"][out]
    for number, (out, i) in enumerate(kernels):
        for r, c in np.ndindex(10, 10):
            c3[out, r, c] += (p["C3.weight"][number] * s2[i, r : r + 5, c : c + 5]).sum()
    c3 = f(c3)
    u4 = share * (c3[:, ::2, ::2] + c3[:, 1::2, ::2] + c3[:, ::2, 1::2] + c3[:, 1::2, 1::2])
    s4 = f(p["S4.weight"][:, None, None] * u4 + p["S4.bias"][:, None, None])
    x4 = s4.reshape(-1)
    x5 = f(p["C5.weight"] @ x4 + p["C5.bias"])
    x6 = f(p["F6.weight"] @ x5 + p["F6.bias"])

    h = {}
    g6 = slope(x6) ** 2 * start
    h["F6.weight"], h["F6.bias"] = np.outer(g6, x5**2), g6
    g5 = slope(x5) ** 2 * ((p["F6.weight"] ** 2).T @ g6)
    h["C5.weight"], h["C5.bias"] = np.outer(g5, x4**2), g5
    g4 = (slope(x4) ** 2 * ((p["C5.weight"] ** 2).T @ g5)).reshape(16, 5, 5)
    h["S4.weight"], h["S4.bias"] = (g4 * u4**2).sum((1, 2)), g4.sum((1, 2))
    g3 = np.zeros((16, 10, 10))
    for m, r, c in np.ndindex(g3.shape):
        g3[m, r, c] = slope(c3[m, r, c]) ** 2 * (share * p["S4.weight"][m]) ** 2 * g4[m, r // 2, c // 2]
    h["C3.weight"], h["C3.bias"] = np.zeros((60, 5, 5)), g3.sum((1, 2))
    G2 = np.zeros((6, 14, 14))
    for number, (out, i) in enumerate(kernels):
        for r, c in np.ndindex(10, 10):
            h["C3.weight"][number] += g3[out, r, c] * s2[i, r : r + 5, c : c + 5] ** 2
            G2[i, r : r + 5, c : c + 5] += g3[out, r, c] * p["C3.weight"][number] ** 2
    g2 = slope(s2) ** 2 * G2
    h["S2.weight"], h["S2.bias"] = (g2 * u2**2).sum((1, 2)), g2.sum((1, 2))
    h["C1.weight"], h["C1.bias"] = np.zeros((6, 1, 5, 5)), np.zeros(6)
    for m, r, c in np.ndindex(6, 28, 28):
        g1 = slope(c1[m, r, c]) ** 2 * (share * p["S2.weight"][m]) ** 2 * g2[m, r // 2, c // 2]
        h["C1.weight"][m, 0] += g1 * field[r : r + 5, c : c + 5] ** 2
        h["C1.bias"][m] += g1
    return h


@pytest.mark.parametrize(("pooling", "share"), [("trainable-sum", 1.0), ("trainable", 0.25)])
@pytest.mark.parametrize("factor", [0.5, 1.0])
def test_curvatures_are_the_paper_s_recursion(
    pooling: str, share: float, factor: float, inputs: Tensor, labels: Tensor
) -> None:
    network = lecun(pooling)
    section = schema.MaximumLikelihood(loss="mle", factor=factor)
    found = by_name(network, inputs, labels, section)
    each = [recursion(network, one[0].double().numpy(), np.full(84, 2 * factor), share) for one in inputs]
    for name, ours in found.items():
        near(ours, torch.tensor(sum(h[name] for h in each) / len(each)))
        assert (ours >= 0).all()


def test_the_exact_criterion_is_the_loss_s_second_derivative_at_the_states(labels: Tensor) -> None:
    codes = lecun().output
    noise = 0.1 * torch.rand(2, 84, generator=torch.Generator().manual_seed(3))
    states = 0.2 * codes.weight[labels] + noise  # so near that several classes count
    found = levenberg._at_states(MAP, "exact", states, codes)

    def loss(x: Tensor, label: Tensor) -> Tensor:
        """Equation 9 in double precision."""
        penalties = MAP.factor * (x - codes.weight.double()).square().sum(1)
        return penalties[label] + torch.log(math.exp(-MAP.j) + torch.exp(-penalties).sum())

    for one, label, ours in zip(states.double(), labels, found, strict=True):
        hessian = torch.autograd.functional.hessian(lambda x, y=label: loss(x, y), one)
        near(ours, hessian.diagonal())
    assert levenberg._at_states(MAP, "constant", states, codes).eq(1).all()


def test_learned_codes_have_the_curvature_of_their_own_class(inputs: Tensor, labels: Tensor) -> None:
    found = by_name(lecun(output="adaptive-rbf"), inputs, labels, MLE)["output.weight"]
    share = torch.bincount(labels, minlength=10) / 2
    assert torch.equal(found, share[:, None].expand(10, 84))
