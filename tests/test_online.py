"""On-line training: the fast updates beside autograd's, and a whole training beside a plain loop."""

from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import Stop, Stopping
from lenet import fingerprint
from lenet.arithmetic.randomness import derive
from lenet.config import Params, Variant
from lenet.digits.data import Digits, shuffled, to_inputs
from lenet.errors import InputError
from lenet.networks import online
from lenet.networks.lenet5 import ACTIVATIONS, C3_TABLE, LeNet5
from lenet.training import checkpoint, levenberg, objective, optimizer
from lenet.training.checkpoint import Checkpoints
from lenet.training.fit import Fitted, fit

PAPER = {"kind": "paper", "shrink": [0.77, 1.4], "squeeze": 0.1, "shear": 0.14, "translation": 2.0}
LOSSES = {"mle": {"loss": "mle", "factor": 0.5}, "map": {"loss": "map", "factor": 1.0, "j": 0.1}}


def changed(variant: Variant, **changes: object) -> Variant:
    """A variant with other values, by dotted name with underscores for dots."""
    block = variant.model_dump(mode="json")
    for path, value in changes.items():
        *sections, last = path.split("__")
        place = block
        for section in sections:
            place = place[section]
        place[last] = value
    return Variant.model_validate(block)


@pytest.fixture
def lecun(params: Params) -> Variant:
    return params.variants["lecun1998"]


def ready(variant: Variant, inputs: Tensor, labels: Tensor) -> tuple[LeNet5, levenberg.StochasticDiagonalLM]:
    network = LeNet5(variant.network).initialise(variant.initialisation, 3)
    rule = optimizer.build(variant.optimizer, network.parameters())
    rule.set_curvatures(levenberg.curvatures(network, inputs, labels, variant.objective, "constant"))
    return network, rule


@pytest.mark.parametrize(
    ("loss", "output", "C3", "pooling", "activation"),
    [
        *product(LOSSES, ("rbf", "adaptive-rbf"), ("table",), ("trainable-sum",), ("scaled-tanh",)),
        ("mle", "rbf", "dense", "trainable", "sigmoid"),
        ("map", "rbf", "table", "trainable", "relu"),
    ],
)
def test_updates_are_those_of_autograd_and_the_optimizer(
    lecun: Variant, digits: Digits, loss: str, output: str, C3: str, pooling: str, activation: str
) -> None:
    variant = changed(
        lecun, objective=LOSSES[loss], network__output=output, network__C3=C3, network__activation=activation,
        network__pooling__kind=pooling, initialisation__biases="random",
    )  # fmt: skip
    inputs, labels = to_inputs(digits[:60].images, variant.pixels), digits[:60].labels.long()
    network, rule = ready(variant, inputs, labels)
    criterion, expected = objective.build(variant), []
    for x, y in zip(inputs.split(1), labels.split(1), strict=True):
        network.zero_grad()
        scores = network(x)
        criterion.loss(scores, y).backward()
        rule.step()
        expected.append(scores.detach())
    fast, its_rule = ready(variant, inputs, labels)
    before = [parameter.detach().clone() for parameter in fast.parameters()]
    on_line = online.OnLine(fast, variant.objective)
    scores = torch.cat([on_line.updates(inputs[part], labels[part], its_rule) for part in (slice(25), slice(25, 60))])
    torch.testing.assert_close(scores, torch.cat(expected), rtol=1e-4, atol=1e-4)
    for ours, theirs, start in zip(fast.parameters(), network.parameters(), before, strict=True):
        moved = (theirs - start).abs().max()
        assert moved > 0
        assert (ours - theirs).abs().max() < 1e-4 * moved + 1e-6


def test_kernels_that_table_i_leaves_out_stay_zero(lecun: Variant, digits: Digits) -> None:
    inputs, labels = to_inputs(digits[:30].images, lecun.pixels), digits[:30].labels.long()
    network, rule = ready(lecun, inputs, labels)
    on_line = online.OnLine(network, lecun.objective)
    on_line.updates(inputs, labels, rule)
    kernels = on_line.layers[2].weight[:, :-1].view(16, 6, 25)
    for out, seen in enumerate(C3_TABLE):
        for i in range(6):
            assert kernels[out, i].any() == (i in seen)


def test_a_training_is_what_a_plain_loop_computes(lecun: Variant, digits: Digits) -> None:
    """Constant order, curvatures anew before each pass from keyed digits, rates by the steps of the schedule."""
    steps = [{"epochs": 1, "factor": 1.0}, {"epochs": 1, "factor": 0.4}]
    variant = changed(
        lecun, epochs=2, train_size=200, validation_size=50, schedule__steps=steps, optimizer__patterns=40
    )
    training, validation = digits[50:250], digits[:50]
    fitted = fit(variant, 5, training, validation)
    network = LeNet5(variant.network).initialise(variant.initialisation, 5)
    rule, criterion = optimizer.build(variant.optimizer, network.parameters()), objective.build(variant)
    order = shuffled(200, 5, 0)
    inputs, labels = to_inputs(training.images[order], variant.pixels), training.labels[order].long()
    for epoch, factor in ((1, 1.0), (2, 0.4)):
        rule.param_groups[0]["lr"] = variant.optimizer.lr * factor
        chance = torch.Generator().manual_seed(derive(5, "curvature", epoch))
        some = torch.randperm(200, generator=chance)[:40]
        rule.set_curvatures(
            levenberg.curvatures(network, inputs[some], labels[some], variant.objective, variant.optimizer.criterion)
        )
        losses = []
        for x, y in zip(inputs.split(1), labels.split(1), strict=True):
            network.zero_grad()
            loss = criterion.loss(network(x), y)
            loss.backward()
            rule.step()
            losses.append(loss.item())
        assert fitted.trace[epoch - 1].tolist() == pytest.approx(losses, rel=1e-4)
        assert fitted.history[epoch - 1]["learning_rate"] == variant.optimizer.lr * factor
    for name, theirs in network.state_dict().items():
        torch.testing.assert_close(fitted.weights[name], theirs, rtol=1e-3, atol=1e-5)
    again = fit(variant, 5, training, validation)
    assert fingerprint.tensors_sha256(again.weights) == fingerprint.tensors_sha256(fitted.weights)
    assert sum(tensor.numel() for tensor in fitted.weights.values()) == 60_000


def test_a_training_refuses_another_network_than_the_modules(
    lecun: Variant, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = changed(lecun, epochs=1, train_size=64)
    monkeypatch.setitem(ACTIVATIONS, "scaled-tanh", torch.tanh)
    with pytest.raises(InputError, match=r"online\.py computes another network than model\.py"):
        fit(variant, 1, digits[:64], digits[:0])


@pytest.mark.parametrize("distortion", [{"kind": "none"}, PAPER | {"copies": 2}, PAPER | {"copies": 0}])
def test_a_stopped_training_goes_on_bit_for_bit_snapshots_included(
    lecun: Variant, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distortion: dict
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    variant = changed(lecun, epochs=3, train_size=150, distortion=distortion, optimizer__patterns=20)

    def trained(*callbacks: Checkpoints, snapshots: bool = True) -> Fitted:
        start = callbacks[0].latest(snapshots) if callbacks else None
        return fit(variant, 4, digits[:150], digits[:0], callbacks=callbacks, start=start, snapshots=snapshots)

    whole = trained()
    for _ in range(3):
        with pytest.raises(Stop):
            trained(Stopping(tmp_path, "small", saves=3))
    parts = trained(Checkpoints(tmp_path, "small"))
    assert fingerprint.tensors_sha256(parts.weights) == fingerprint.tensors_sha256(whole.weights)
    assert fingerprint.tensors_sha256(parts.snapshots) == fingerprint.tensors_sha256(whole.snapshots)
    assert (parts.history, parts.trace.tolist()) == (whole.history, whole.trace.tolist())
    for number, row in enumerate(whole.history):
        its = {name: kept[number] for name, kept in whole.snapshots.items()}
        assert fingerprint.tensors_sha256(its) == row["weights.sha256"]


def test_snapshots_cannot_go_on_from_a_checkpoint_without(
    lecun: Variant, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    variant = changed(lecun, epochs=3, train_size=150, optimizer__patterns=20)
    with pytest.raises(Stop):
        fit(variant, 4, digits[:150], digits[:0], callbacks=[Stopping(tmp_path, "small", saves=3)])
    assert Checkpoints(tmp_path, "small").latest() is not None
    assert Checkpoints(tmp_path, "small").latest(with_snapshots=True) is None
    assert "it has no snapshots" in capsys.readouterr().err
