"""Losses worked out with a pencil, decision rules, optimizers and schedules."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lenet.params.schema import SGD, Adam, ConstantSchedule, CosineSchedule, Params, Variant
from lenet.training import objective, optimizer


def variant(params: Params, loss: dict, output: str) -> Variant:
    block = params.variants["modern"].model_dump()
    return Variant.model_validate(block | {"objective": loss, "network": block["network"] | {"output": output}})


def test_mean_squared_error_sums_over_classes_and_averages_over_samples(params: Params) -> None:
    mse = objective.build(variant(params, {"loss": "mse", "off": 0.0, "on": 1.0}, "squashed"))
    outputs = torch.full((2, 10), 0.5)
    outputs[1] = 0.0
    outputs[1, 4] = 1.0
    # first sample: ten classes off by ½ → 10/4; second: right → 0; mean 5/4. The mean over classes would be 1/8.
    assert mse.loss(outputs, torch.tensor([3, 4])).item() == pytest.approx(1.25)


def in_double(loss: dict, output: str, scores: Tensor, labels: Tensor) -> Tensor:
    """The mean loss in torch's own functions."""
    if loss["loss"] == "cross-entropy":
        return F.cross_entropy(scores, labels)
    right = F.one_hot(labels, 10).double()
    if loss["loss"] == "mse":
        targets = loss["off"] + (loss["on"] - loss["off"]) * right
        return ((torch.softmax(scores, 1) if output == "softmax" else scores) - targets).square().sum(1).mean()
    penalties = loss["factor"] * scores
    rest = 0.0
    if loss["loss"] == "map":
        rest = torch.log(math.exp(-loss["j"]) + torch.exp(-penalties).sum(1))
    return ((penalties * right).sum(1) + rest).mean()


@pytest.mark.parametrize(
    ("loss", "output"),
    [
        ({"loss": "mse", "off": 0.0, "on": 1.0}, "squashed"),
        ({"loss": "mse", "off": -1.0, "on": 1.0}, "squashed"),
        ({"loss": "mse", "off": 0.0, "on": 1.0}, "softmax"),
        ({"loss": "cross-entropy"}, "softmax"),
        ({"loss": "mle", "factor": 0.5}, "rbf"),
        ({"loss": "map", "factor": 0.5, "j": 1.0}, "rbf"),
    ],
)
def test_the_gradient_is_the_loss_s(params: Params, loss: dict, output: str) -> None:
    criterion = objective.build(variant(params, loss, output))
    chance = torch.Generator().manual_seed(1)
    scores = 4 * torch.randn(7, 10, generator=chance)
    labels = torch.randint(10, (7,), generator=chance)
    if output == "rbf":
        scores = scores.abs()
    exact = scores.double().requires_grad_()
    expected = in_double(loss, output, exact, labels)
    ours = scores.requires_grad_()
    value = criterion.loss(ours, labels)
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    (slope,) = torch.autograd.grad(expected, exact)
    gradient = criterion.gradient(scores.detach(), labels, len(labels))
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=2e-7)
    assert torch.equal(torch.autograd.grad(3 * value, ours)[0], gradient * 3)


def test_maximum_likelihood_is_the_right_class_s_penalty(params: Params) -> None:
    mle = objective.build(variant(params, {"loss": "mle", "factor": 0.5}, "rbf"))
    distances = torch.tensor([[4.0] * 9 + [2.0], [8.0] * 10])
    assert mle.loss(distances, torch.tensor([9, 0])).item() == pytest.approx((0.5 * 2 + 0.5 * 8) / 2)
    assert mle.decide(distances).tolist() == [9, 0]  # the nearest code
    assert mle.probabilities is None


def test_maximum_a_posteriori_has_a_class_for_rubbish(params: Params) -> None:
    """Equation 9: penalties ln 2 and nine of ln 4, rubbish's ln 8, so that e^−j + Σ e^−y = 1/8 + 1/2 + 9/4 = 23/8."""
    map_ = objective.build(variant(params, {"loss": "map", "factor": 1.0, "j": math.log(8)}, "rbf"))
    distances = torch.tensor([[math.log(2)] + [math.log(4)] * 9])
    assert map_.loss(distances, torch.tensor([0])).item() == pytest.approx(math.log(2) + math.log(23 / 8))
    assert map_.loss(distances, torch.tensor([5])).item() == pytest.approx(math.log(4) + math.log(23 / 8))
    gradient = map_.gradient(distances, torch.tensor([0]), 1)
    assert gradient[0].tolist() == pytest.approx([1 - 4 / 23] + [-2 / 23] * 9, abs=1e-6)
    # wrong classes that are further away than rubbish are hardly pushed any further
    far = map_.gradient(torch.tensor([[0.0] + [50.0] * 9]), torch.tensor([0]), 1)
    assert far[0, 1:].abs().max() < 1e-20


def test_equal_codes_are_the_collapse_that_only_maximum_a_posteriori_avoids(params: Params) -> None:
    """All codes and states equal: every penalty 0, which is the least of eq. 8; eq. 9 is ln(e^−j + 10) there."""
    nothing, labels = torch.zeros(1, 10), torch.tensor([3])
    assert objective.build(variant(params, {"loss": "mle", "factor": 0.5}, "adaptive-rbf")).loss(nothing, labels) == 0
    map_ = objective.build(variant(params, {"loss": "map", "factor": 0.5, "j": 1.0}, "adaptive-rbf"))
    collapsed = map_.loss(nothing, labels).item()
    apart = map_.loss(torch.tensor([[50.0] * 3 + [0.0] + [50.0] * 6]), labels).item()
    assert apart < collapsed == pytest.approx(math.log(math.exp(-1) + 10))


def test_decisions_and_probabilities(params: Params) -> None:
    scores = torch.tensor([[0.0] * 9 + [1.0], [5.0] + [0.0] * 9])
    softmax = objective.build(variant(params, {"loss": "cross-entropy"}, "softmax"))
    squashed = objective.build(variant(params, {"loss": "mse", "off": 0.0, "on": 1.0}, "squashed"))
    assert softmax.decide(scores).tolist() == squashed.decide(scores).tolist() == [9, 0]
    assert softmax.probabilities(scores).sum(1).tolist() == pytest.approx([1, 1])
    assert softmax.probabilities(scores)[0, 9].item() == pytest.approx(math.e / (math.e + 9))
    assert squashed.probabilities is None  # ten squashed units are no distribution


def one_step(section: SGD | Adam, gradients: list[float]) -> list[float]:
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    rule = optimizer.build(section, [weight])
    path = []
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        rule.step()
        path.append(weight.item())
    return path


def test_optimizers_take_their_values_from_the_block() -> None:
    sgd = SGD(kind="sgd", lr=0.1, momentum=0.5, weight_decay=0.0)
    assert one_step(sgd, [1.0, 1.0]) == pytest.approx([0.9, 0.9 - 0.1 * 1.5])
    decayed = SGD(kind="sgd", lr=0.1, momentum=0.0, weight_decay=0.2)
    assert one_step(decayed, [1.0]) == pytest.approx([1 - 0.1 * 1.2])
    adam = Adam(kind="adam", lr=0.1, beta1=0.9, beta2=0.999, weight_decay=0.0)
    assert one_step(adam, [3.0]) == pytest.approx([0.9], abs=1e-6)  # Adam's first step is lr · sign
    adamw = Adam(kind="adamw", lr=0.1, beta1=0.9, beta2=0.999, weight_decay=0.5)
    assert one_step(adamw, [3.0]) == pytest.approx([0.95 - 0.1], abs=1e-6)  # decay is decoupled: 1 − 0.1 · 0.5 first
    fast = Adam(kind="adam", lr=0.1, beta1=0.0, beta2=0.5, weight_decay=0.0)
    # second step: v̂ = (½·½·1 + ½·9)/(1 − ¼) = 19/3, step = 0.1 · 3 / √(19/3)
    assert one_step(fast, [1.0, 3.0])[1] == pytest.approx(0.9 - 0.1 * 3 / math.sqrt(19 / 3), abs=1e-6)


def test_steps_are_the_paper_s_rates(params: Params) -> None:
    """But for a common factor, which the block chooses with its mu."""
    factors = [optimizer.factor(params.variants["lecun1998"].schedule, epoch, 20) for epoch in range(1, 21)]
    printed = [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8
    assert [5e-4 * factor for factor in factors] == pytest.approx(printed)


@given(st.floats(0, 1), st.integers(2, 50))
def test_cosine_falls_from_one_to_its_end(final: float, epochs: int) -> None:
    schedule = CosineSchedule(kind="cosine", final=final)
    factors = [optimizer.factor(schedule, epoch, epochs) for epoch in range(1, epochs + 1)]
    assert factors[0] == pytest.approx(1)
    assert factors[-1] == pytest.approx(final)
    assert factors == sorted(factors, reverse=True)
    assert factors[0] + factors[-1] == pytest.approx(factors[(epochs - 1) // 2] + factors[epochs // 2])  # symmetric


def test_constant_is_constant_and_one_epoch_is_the_first() -> None:
    assert {optimizer.factor(ConstantSchedule(kind="constant"), epoch, 9) for epoch in range(1, 10)} == {1.0}
    assert optimizer.factor(CosineSchedule(kind="cosine", final=0.0), 1, 1) == 1.0
