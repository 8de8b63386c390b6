"""The small network of today, and distorted digits: what they compute, and that their chance is keyed."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from lenet import networks
from lenet.digits.data import Digits, to_inputs
from lenet.digits.distortion import affine_maps, distort, draw
from lenet.networks import layer_table
from lenet.networks.convnet import ConvNet
from lenet.params.schema import AffineDistortion, ConvNetwork, Params, Pixels, Variant
from lenet.training import fingerprint

PIXELS = Pixels(background=-0.1, ink=1.175)
STILL = {"kind": "affine", "rotation": 0.0, "scale": 0.0, "squeeze": 0.0, "shear": 0.0, "translation": 0.0}


def only(**extent: float) -> AffineDistortion:
    """A distortion of one kind alone."""
    return AffineDistortion.model_validate(STILL | extent)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def frontier(params: Params) -> Variant:
    """`frontier-distorted` for a few digits."""
    sizes = {"epochs": 2, "train_size": 330, "validation_size": 70, "batch_size": 32}
    return params.variants["frontier-distorted"].model_copy(update=sizes)


def plain(section: ConvNetwork) -> nn.Sequential:
    """The network of torch's own modules alone, as convnet.py describes it."""
    layers: list[nn.Module] = []
    maps = 1
    for i, stage in enumerate(section.stages):
        for j, one in enumerate(stage):
            layers.append(nn.Conv2d(maps, one.maps, one.size, padding=one.padding, bias=False))
            if j + 1 == len(stage) and i + 1 < len(section.stages):
                layers.append(nn.MaxPool2d(2))
            layers += [nn.BatchNorm2d(one.maps), nn.ReLU()]
            maps = one.maps
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, 10)]
    return nn.Sequential(*layers, *head)


def renamed(plain: nn.Sequential, network: ConvNet) -> None:
    """Give the plain network the other's parameters and statistics."""
    plain.load_state_dict(dict(zip(plain.state_dict(), network.state_dict().values(), strict=True)))


@pytest.mark.parametrize("name", ["frontier", "frontier-distorted"])
def test_the_frontier_has_no_more_parameters_than_modern(params: Params, name: str) -> None:
    count = layer_table.totals(params.variants[name].network)["parameters"]
    assert count == sum(p.numel() for p in plain(params.variants[name].network).parameters())
    assert count <= layer_table.totals(params.variants["modern"].network)["parameters"] == 61_706


def test_its_layers_are_counted_by_hand() -> None:
    section = ConvNetwork.model_validate(
        {
            "stages": [[{"maps": 2, "size": 5, "padding": 0}], [{"maps": 3, "size": 3, "padding": 1}]],
        }
    )
    rows = {row.name: row for row in layer_table.layers(section)}
    assert list(rows) == ["C1", "S2", "N2", "C3", "N3", "mean", "output"]
    assert (rows["C1"].parameters, rows["C1"].formula) == (50, "5×5×1 × 2")
    assert rows["C1"].macs == rows["C1"].connections == 50 * 24 * 24
    assert (rows["N2"].parameters, rows["C3"].parameters, rows["N3"].parameters) == (4, 54, 6)
    assert (rows["output"].parameters, rows["output"].formula) == (40, "(3 + 1) × 10")
    assert rows["mean"].macs == rows["N3"].macs
    assert layer_table.totals(section)["parameters"] == 50 + 4 + 54 + 6 + 40


def test_it_computes_what_torch_s_own_modules_do(frontier: Variant, digits: Digits) -> None:
    network = networks.build(frontier.network).initialise(frontier.initialisation, 3)
    assert isinstance(network, ConvNet)
    other = plain(frontier.network)
    renamed(other, network)
    with torch.no_grad():  # statistics of some digits
        network(to_inputs(digits[:200].images, frontier.pixels))
    renamed(other, network)
    inputs = to_inputs(digits[200:250].images, frontier.pixels)
    cropped = inputs[:, :, 2:-2, 2:-2]
    with networks.in_use(network), torch.no_grad():
        ours, theirs = network(inputs), other.eval()(cropped)
    assert (ours - theirs).abs().max() < 2e-4 * theirs.abs().max()  # states are on a grid of 2^−14
    assert network.training


def test_weights_start_within_their_bounds(frontier: Variant) -> None:
    network = networks.build(frontier.network).initialise(frontier.initialisation, 3)
    weights = [layer.weight for layer in network.children() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(weights) == 6
    for weight in weights:
        bound = frontier.initialisation.scale / weight[0].numel() ** frontier.initialisation.exponent
        assert 0.9 * bound < weight.abs().max() <= bound
    assert network.output.bias.eq(0).all()
    again = networks.build(frontier.network).initialise(frontier.initialisation, 3)
    assert fingerprint.tensors_sha256(again.state_dict()) == fingerprint.tensors_sha256(network.state_dict())


# distortions


def fields(digits: Digits, count: int = 50) -> Tensor:
    return to_inputs(digits[:count].images, PIXELS)


def test_a_distortion_of_nothing_changes_nothing(digits: Digits) -> None:
    before = fields(digits)
    torch.testing.assert_close(distort(before, draw(50, only(), generator()), PIXELS), before, rtol=0, atol=2e-6)


def test_whole_pixels_are_moved_exactly(digits: Digits) -> None:
    """A map whose source is three pixels to the right and one down moves the digit to the left and up."""
    before = fields(digits)
    still = torch.tensor([[1.0, 0, 3], [0, 1, 1]])
    after = distort(before, still.expand(len(before), 2, 3), PIXELS)
    torch.testing.assert_close(after[:, :, :-1, :-3], before[:, :, 1:, 3:], rtol=0, atol=2e-6)
    assert after[:, :, -1].sub(PIXELS.background).abs().max() < 1e-6  # background comes in


@pytest.mark.parametrize(
    "how", [{"rotation": 30.0}, {"scale": 0.3}, {"squeeze": 0.2}, {"shear": 0.4}, {"translation": 2.0}]
)
def test_fields_are_resampled_as_scipy_does(digits: Digits, how: dict) -> None:
    before = fields(digits, 8)
    maps = affine_maps(8, only(**how), generator(4))
    after = distort(before, maps, PIXELS)
    centre = 15.5
    for one, made, entry in zip(before.numpy()[:, 0], after.numpy()[:, 0], maps.double().numpy(), strict=True):
        matrix = entry[::-1, 1::-1]  # rows and columns in scipy's order: y, x
        offset = centre + entry[::-1, 2] - matrix @ [centre, centre]
        expected = ndimage.affine_transform(one, matrix, offset, order=1, mode="constant", cval=PIXELS.background)
        np.testing.assert_allclose(made, expected, atol=2e-4)


def test_maps_are_drawn_uniformly_from_their_ranges() -> None:
    n = 20_000
    turn = affine_maps(n, only(rotation=20.0), generator())
    angle = torch.rad2deg(torch.atan2(turn[:, 1, 0], turn[:, 0, 0]))
    torch.testing.assert_close(turn[:, :, :2].det(), torch.ones(n))
    size = affine_maps(n, only(scale=0.2), generator())[:, 0, 0].log()
    squeezed = affine_maps(n, only(squeeze=0.1), generator())
    torch.testing.assert_close(squeezed[:, 0, 0] * squeezed[:, 1, 1], torch.ones(n))
    sheared = affine_maps(n, only(shear=0.3), generator())
    moved = affine_maps(n, only(translation=2.0), generator())
    assert sheared[:, 1, 0].eq(0).all()
    drawn = [
        (angle, 20), (size, 0.2), (squeezed[:, 0, 0].log(), 0.1), (sheared[:, 0, 1], 0.3),
        (moved[:, 0, 2], 2), (moved[:, 1, 2], 2),
    ]  # fmt: skip
    for values, extent in drawn:
        assert values.abs().max() == pytest.approx(extent, rel=0.01)
        assert abs(values.mean()) < 0.03 * extent
        assert values.std() == pytest.approx(extent / math.sqrt(3), rel=0.03)  # of a uniform distribution
    assert abs(torch.corrcoef(moved[:, :, 2].T)[0, 1]) < 0.03


def test_every_digit_has_a_map_of_its_own_and_of_each_epoch(digits: Digits) -> None:
    same = to_inputs(digits[:1].images, PIXELS).expand(4, 1, 32, 32)
    once, again, other = (distort(same, draw(4, only(translation=2.0), generator(i)), PIXELS) for i in (1, 1, 2))
    assert torch.equal(once, again)
    assert not torch.equal(once[0], once[1])
    assert not torch.equal(once, other)
