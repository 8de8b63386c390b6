"""Disturbances against plain arrays, and curves of networks whose answers are known."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from conftest import randomised
from lenet.digits.data import Digits, to_inputs
from lenet.evaluation import robustness
from lenet.evaluation.recognition import Recogniser
from lenet.networks.lenet5 import LeNet5
from lenet.params.schema import FixedPooling, Network, Params, Pixels
from lenet.runs.record import Record
from lenet.runtime.errors import InputError

PIXELS = Pixels(background=-0.1, ink=1.175)


def recogniser(params: Params, network: LeNet5, pixels: Pixels = PIXELS) -> Recogniser:
    variant = params.variants["modern"].model_copy(update={"pixels": pixels})
    return Recogniser(Record("modern", 1, variant, "key", "data", "signature", "weights"), network)


def modern() -> LeNet5:
    pooling = FixedPooling(kind="average")
    return LeNet5(Network(activation="relu", pooling=pooling, C3="dense", output="softmax"))


@pytest.fixture
def fields(digits: Digits) -> Tensor:
    return to_inputs(digits[:12].images, PIXELS)


def shifted(fields: Tensor, x: int, y: int) -> Tensor:
    """Moved by x to the right and y down, pixel by pixel; background comes in."""
    moved = torch.full_like(fields, PIXELS.background)
    for line in range(32):
        for column in range(32):
            if 0 <= line - y < 32 and 0 <= column - x < 32:
                moved[..., line, column] = fields[..., line - y, column - x]
    return moved


@pytest.mark.parametrize("name", robustness.DISTURBANCES)
def test_the_undisturbed_level_leaves_every_bit(fields: Tensor, name: str) -> None:
    kind = robustness.DISTURBANCES[name]
    assert kind.none in kind.levels
    assert torch.equal(kind.apply(fields, kind.none, torch.arange(12), PIXELS), fields)


def test_a_translation_is_the_array_moved_left_right_up_and_down_in_turn(fields: Tensor) -> None:
    index = torch.tensor([5, 4, 7, 6, 1, 0, 3, 2, 9, 8, 11, 10])  # places in the MNIST file: they have the turns
    ways = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    for pixels in robustness.DISTURBANCES["translation"].levels:
        moved = robustness.DISTURBANCES["translation"].apply(fields, pixels, index, PIXELS)
        for i, place in enumerate(index.tolist()):
            x, y = ways[place % 4]
            assert torch.equal(moved[i], shifted(fields[i], int(pixels) * x, int(pixels) * y))


def test_moving_by_two_pixels_loses_no_ink_as_the_border_takes_it(fields: Tensor) -> None:
    full = to_inputs(torch.full((4, 28, 28), 255, dtype=torch.uint8), PIXELS)
    for pixels, lost in ((2, 0), (3, 28)):  # then one line, or column, of the image
        for matrix in robustness.translations(pixels):
            moved = robustness.warp(full, matrix)
            assert (moved == full.max()).sum() == 4 * (28 * 28 - lost)
            assert moved.unique().tolist() == pytest.approx([-0.1, 1.175])


def test_a_quarter_turn_is_rot90_either_way(fields: Tensor) -> None:
    for matrix, quarters in zip(robustness.rotations(90), (1, -1), strict=True):
        torch.testing.assert_close(robustness.warp(fields, matrix), torch.rot90(fields, quarters, (2, 3)))
    ours = robustness.DISTURBANCES["rotation"].apply(fields, 90, torch.arange(12), PIXELS)
    torch.testing.assert_close(ours[::2], torch.rot90(fields[::2], 1, (2, 3)))
    torch.testing.assert_close(ours[1::2], torch.rot90(fields[1::2], -1, (2, 3)))


def square(side: int) -> Tensor:
    """A filled square in the middle of the field."""
    image = torch.zeros(1, 28, 28, dtype=torch.uint8)
    start = 14 - side // 2
    image[0, start : start + side, start : start + side] = 255
    return to_inputs(image, PIXELS)


@pytest.mark.parametrize("factor", robustness.DISTURBANCES["scale"].levels)
def test_a_scale_multiplies_height_and_width(factor: float) -> None:
    (matrix,) = robustness.scalings(factor)
    ink = (robustness.warp(square(12), matrix) - PIXELS.background) / (PIXELS.ink - PIXELS.background)
    assert ink[0, 0, 16].sum() == pytest.approx(12 * factor, abs=0.5)
    assert ink[0, 0, :, 16].sum() == pytest.approx(12 * factor, abs=0.5)
    torch.testing.assert_close(ink, ink.flip(2))  # about the centre
    torch.testing.assert_close(ink, ink.flip(3))


def test_a_shear_moves_lines_sideways_in_proportion_to_their_height(fields: Tensor) -> None:
    # lines lie at 15.5, 14.5, … above the centre; with a slope of 2 they move by odd numbers of pixels
    for matrix, sign in zip(robustness.shears(2), (1, -1), strict=True):
        sheared = robustness.warp(fields, matrix)
        for line in range(32):
            moved = shifted(fields, sign * (31 - 2 * line), 0)
            torch.testing.assert_close(sheared[:, :, line], moved[:, :, line])


def test_noise_inverts_the_stated_fraction_of_pixels(digits: Digits) -> None:
    fields, index = to_inputs(digits[:200].images, PIXELS), digits[:200].index
    for level in robustness.DISTURBANCES["salt-and-pepper"].levels:
        noisy = robustness.salt_and_pepper(fields, level, index, PIXELS)
        changed = noisy != fields
        count = fields.numel()
        deviation = math.sqrt(level * (1 - level) / count)
        assert float(changed.double().mean()) == pytest.approx(level, abs=5 * deviation)
        torch.testing.assert_close((noisy + fields)[changed], torch.full((int(changed.sum()),), -0.1 + 1.175))


def test_noise_belongs_to_level_and_digit_and_to_no_network(digits: Digits) -> None:
    part = digits[:40]
    # another network's pixel values, another company, another order
    others = Pixels(background=0.0, ink=1.0)

    def hit(level: float, which: list[int], pixels: Pixels) -> Tensor:
        fields = to_inputs(part.images[which], pixels)
        return robustness.salt_and_pepper(fields, level, part.index[which], pixels) != fields

    base = hit(0.1, [3, 1, 2], PIXELS)
    assert torch.equal(base, hit(0.1, [*range(40)], others)[[3, 1, 2]])
    assert not torch.equal(base[0], base[1])
    assert not (hit(0.05, [3, 1, 2], PIXELS) <= base).all()


def left_or_right() -> LeNet5:
    """Answers 0 if most ink lies in the field's columns 4 … 15, 1 if it lies in 16 … 23."""
    network = modern()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.C1.weight[0, 0, 2, 2] = 1  # S2's column c holds the field's 2c + 2 and 2c + 3
        network.C3.weight[0, 0, 2, 1] = 1  # S4's column c holds the field's 4c + 4 … 4c + 7
        cells = network.C5.weight.view(120, 16, 5, 5)
        cells[0, 0, :, :3] = 1
        cells[1, 0, :, 3:] = 1
        for layer in (network.F6, network.output):
            layer.weight[0, 0] = layer.weight[1, 1] = 1
    return network


def test_the_curves_of_a_network_that_tells_left_from_right(params: Params) -> None:
    """Upright bars in column 14 or 15 of the field, all labelled as left; the answers follow with a pencil."""
    images = torch.zeros(8, 28, 28, dtype=torch.uint8)
    images[:4, 4:24, 13] = 255  # column 15: one pixel to the right is too far
    images[4:, 4:24, 12] = 255  # column 14: two are
    digits = Digits(images, torch.zeros(8, dtype=torch.uint8), torch.arange(8))
    found = robustness.curves(recogniser(params, left_or_right(), Pixels(background=0.0, ink=1.0)), digits)
    assert found["translation"]["levels"] == [0, 1, 2, 3, 4, 5]
    assert found["translation"]["errors"] == [0, 1 / 8, 2 / 8, 2 / 8, 2 / 8, 2 / 8]
    assert found["scale"]["errors"] == [0] * 6  # about the centre, left stays left


def test_a_network_that_always_says_three_is_wrong_about_the_others_at_every_level(
    params: Params, digits: Digits
) -> None:
    network = modern()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.output.bias[3] = 1
    part = digits[:30]
    others = sum(label != 3 for label in part.labels.tolist()) / 30
    found = robustness.curves(recogniser(params, network), part)
    assert {name: curve["unit"] for name, curve in found.items()} == {
        "translation": "pixels", "rotation": "degrees", "scale": "factor",
        "shear": "pixels per pixel", "salt-and-pepper": "fraction of pixels",
    }  # fmt: skip
    for curve in found.values():
        assert set(curve) == {"unit", "levels", "errors"}
        assert curve["levels"] == sorted(set(curve["levels"]))
        assert len(curve["levels"]) in range(5, 8)
        assert curve["errors"] == [others] * len(curve["levels"])


def test_the_undisturbed_error_is_the_plain_one_whatever_the_number_of_digits(
    params: Params, digits: Digits, monkeypatch
) -> None:
    monkeypatch.setattr(robustness, "BATCH", 50)
    examined = recogniser(params, randomised(modern()))
    part = digits[: robustness.BATCH + 7]
    plain = float((examined.scores(part.images).argmax(1) != part.labels).double().mean())
    found = robustness.curves(examined, part)
    for name, curve in found.items():
        assert curve["errors"][curve["levels"].index(robustness.DISTURBANCES[name].none)] == plain
    assert robustness.curves(examined, part) == found
    parts = [robustness.curves(examined, some) for some in (part[: robustness.BATCH], part[robustness.BATCH :])]
    for name, curve in found.items():
        sizes = robustness.BATCH, 7
        sums = [
            sum(round(n * error) for n, error in zip(sizes, errors, strict=True))
            for errors in zip(*(one[name]["errors"] for one in parts), strict=True)
        ]
        assert [round(len(part) * error) for error in curve["errors"]] == sums


def test_outputs_that_are_not_finite_are_refused(params: Params, digits: Digits, monkeypatch) -> None:
    network = randomised(modern())
    endless = replace(robustness.DISTURBANCES["shear"], apply=lambda fields, *rest: torch.full_like(fields, math.inf))
    monkeypatch.setattr(robustness, "DISTURBANCES", {"shear": endless})
    with pytest.raises(InputError, match=r"^modern-1: the outputs at shear 0.2 pixels per pixel are not finite"):
        robustness.curves(recogniser(params, network), digits[:3])
    network.output.bias.data[0] = math.nan
    with pytest.raises(InputError, match="without disturbance are not finite"):
        robustness.curves(recogniser(params, network), digits[:3])
