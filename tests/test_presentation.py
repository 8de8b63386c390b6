"""What an epoch presents: the order, the pool of distorted copies, and the paper's distortions."""

import pytest
import torch

from lenet.digits.data import Digits, to_inputs
from lenet.digits.distortion import paper_maps
from lenet.digits.epochs import Chunks, present
from lenet.params.schema import PaperDistortion, Params, Pixels, Variant

PIXELS = Pixels(background=-0.1, ink=1.175)
PAPER = {"kind": "paper", "copies": 0, "shrink": [0.77, 1.4], "squeeze": 0.1, "shear": 0.14, "translation": 2.0}


def variant(params: Params, **changes: object) -> Variant:
    return Variant.model_validate(params.variants["lecun1998"].model_dump(mode="json") | changes)


def test_an_order_is_constant_or_new_in_each_epoch(params: Params, digits: Digits) -> None:
    few = digits[:1000]
    constant, shuffled = (variant(params, order=order) for order in ("constant", "shuffled"))
    assert torch.equal(present(constant, 1, few, 1).order, present(constant, 1, few, 2).order)
    assert not torch.equal(present(constant, 1, few, 1).order, present(constant, 2, few, 1).order)
    assert not torch.equal(present(shuffled, 1, few, 1).order, present(shuffled, 1, few, 2).order)
    assert sorted(present(constant, 1, few, 1).order.tolist()) == list(range(1000))


def test_parts_are_the_digits_of_the_order(params: Params, digits: Digits) -> None:
    shown = present(variant(params), 1, digits[:100], 1)
    pixels = shown.variant.pixels
    for part in (slice(10, 13), torch.tensor([10, 11, 12])):
        assert torch.equal(shown.inputs(part), to_inputs(digits.images[shown.order[10:13]], pixels))
        assert shown.labels(part).tolist() == digits.labels[shown.order[10:13]].tolist()
    parts = list(Chunks(64, 150, 64))
    assert parts == [slice(64, 128), slice(128, 150)]
    assert len(Chunks(64, 150, 64)) == 2


def test_every_digit_and_copy_of_the_pool_is_presented_once_in_ten_epochs_and_again(
    params: Params, digits: Digits
) -> None:
    few, pool = digits[:50], variant(params, distortion=PAPER | {"copies": 9})
    shown = [present(pool, 3, few, epoch) for epoch in range(1, 21)]
    seen: dict[int, set[tuple[float, ...]]] = {}
    for one in shown[:10]:
        for digit, its in zip(one.order.tolist(), one.maps.flatten(1).tolist(), strict=True):
            seen.setdefault(digit, set()).add(tuple(its))
    as_it_is = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert len(seen) == 50
    assert all(len(maps) == 10 and as_it_is in maps for maps in seen.values())
    for first, second in zip(shown[:10], shown[10:], strict=True):
        assert torch.equal(first.order, second.order)
        assert torch.equal(first.maps, second.maps)
    assert not torch.equal(shown[0].maps, shown[1].maps)
    there = next(i for i, its in enumerate(shown[0].maps.flatten(1).tolist()) if tuple(its) == as_it_is)
    whole = to_inputs(few.images[shown[0].order[there : there + 1]], pool.pixels)
    torch.testing.assert_close(shown[0].inputs(slice(there, there + 1)), whole, rtol=0, atol=2e-6)


def test_fresh_draws_differ_from_epoch_to_epoch(params: Params, digits: Digits) -> None:
    fresh = variant(params, distortion=PAPER)
    one, other = present(fresh, 1, digits[:50], 1), present(fresh, 1, digits[:50], 2)
    assert torch.equal(one.order, other.order)
    assert not torch.equal(one.maps, other.maps)
    assert torch.equal(one.maps, present(fresh, 1, digits[:50], 1).maps)


def test_the_paper_s_maps_are_those_fitted_to_its_figure() -> None:
    """Source of the pixel (x, y): a(x − 15.5) + b(y − 18.5) + 15.5 + tx, d(y − 26) + 26 + ty, in pixels from 0."""
    how = PaperDistortion.model_validate(PAPER)
    maps = paper_maps(5000, how, torch.Generator().manual_seed(1)).double()
    a, b, d = maps[:, 0, 0], maps[:, 0, 1], maps[:, 1, 1]
    assert maps[:, 1, 0].eq(0).all()
    tx = maps[:, 0, 2] + 3 * b
    ty = maps[:, 1, 2] - 10.5 * (1 - d)
    squeeze, shrink = (a / d).sqrt(), (a * d).sqrt()
    drawn = [(shrink, 0.77, 1.4), (squeeze, 0.9, 1.1), (b / d, -0.14, 0.14), (tx, -2, 2), (ty, -2, 2)]
    for values, low, high in drawn:
        assert low - 1e-5 <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high + 1e-5
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))
