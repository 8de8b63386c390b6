"""IDX files, digits, network inputs and the batches of an epoch."""

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from ruamel.yaml import YAML
from safetensors.torch import save_file

from conftest import ROOT
from lenet.arithmetic.randomness import derive
from lenet.digits import prepare
from lenet.digits.data import IMAGES, LABELS, Digits, load_digits, read_idx, shuffled, to_inputs
from lenet.params.schema import Data, Params, Pixels
from lenet.runtime.errors import InputError
from lenet.training.fast_module import FastLeNet, Training


def idx(array: np.ndarray) -> bytes:
    """The IDX format as its authors define it: 0, 0, type 8 (unsigned byte), dimensions, sizes, bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape) + array.tobytes()


arrays = npst.arrays(np.uint8, npst.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=5))


@given(arrays)
@settings(max_examples=50)
def test_idx_is_read_as_it_is_defined(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(idx(array))
    assert np.array_equal(read_idx(path, IMAGES), array)


@given(arrays, st.data())
@settings(max_examples=50)
def test_no_cut_or_longer_idx_is_accepted(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, data: st.DataObject
) -> None:
    whole, path = idx(array), tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(InputError, match=str(path)):
        read_idx(path, IMAGES)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="announces"):
        read_idx(path, IMAGES)


def test_faults_of_idx_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "labels"
    with pytest.raises(InputError, match="No such file"):
        read_idx(path, LABELS)
    path.write_bytes(idx(np.zeros(3, np.uint8)))
    assert read_idx(path, LABELS).tolist() == [0, 0, 0]
    with pytest.raises(InputError, match="magic number 0x00000801, expected 0x00000803"):
        read_idx(path, IMAGES)
    path.write_bytes(idx(np.zeros(3, np.uint8))[:6])
    with pytest.raises(InputError, match="header"):
        read_idx(path, LABELS)


def test_inputs_hold_the_image_two_pixels_from_the_edge_of_background() -> None:
    images = torch.zeros(1, 28, 28, dtype=torch.uint8)
    images[0, 0, 0], images[0, 27, 27], images[0, 5, 7] = 255, 255, 51
    inputs = to_inputs(images, Pixels(background=-0.1, ink=1.175))
    assert inputs.shape == (1, 1, 32, 32)
    assert inputs[0, 0, 2, 2] == inputs[0, 0, 29, 29] == np.float32(1.175)
    assert inputs[0, 0, 7, 9] == pytest.approx(51 / 255 * 1.275 - 0.1)
    assert (inputs == np.float32(-0.1)).sum() == 32 * 32 - 3


def test_an_order_is_a_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    assert sorted(shuffled(1000, 7, 1).tolist()) == list(range(1000))
    torch.rand(3)
    assert torch.equal(shuffled(10, 7, 1), shuffled(10, 7, 1))
    others = [shuffled(1000, 7, 2), shuffled(1000, 8, 1), shuffled(1000, 7, 1)]
    assert len({tuple(order.tolist()) for order in others}) == 3


@given(st.integers(0, 2**62), st.integers(0, 100))
def test_derived_seeds_fit_torch_and_differ(seed: int, epoch: int) -> None:
    torch.Generator().manual_seed(derive(seed, "order", epoch))
    assert 0 <= derive(seed, "order", epoch) < 2**63
    assert derive(seed, "order", epoch) != derive(seed, "order", epoch + 1) != derive(seed, "initialisation")


# prepare


@given(npst.arrays(np.uint8, st.integers(1, 300), elements=st.integers(0, 9)), st.integers(0, 5))
def test_every_start_of_the_order_holds_each_class_in_proportion(labels: np.ndarray, seed: int) -> None:
    order = prepare.stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    for label in np.unique(labels):
        seen = np.cumsum(labels[order] == label)
        due = (labels == label).mean() * np.arange(1, len(labels) + 1)
        # a digit of rank r stands between r/m and (r+1)/m of the way; so does every other class
        assert np.abs(seen - due).max() <= len(np.unique(labels)) + 1


def test_the_digits_files_are_mnist(prepared: Path, mnist: Path) -> None:
    lock = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]["prepare"]
    train, test = load_digits(prepared / "train.safetensors"), load_digits(prepared / "test.safetensors")
    assert (len(train), len(test)) == (60_000, 10_000)
    images = read_idx(mnist / "train-images-idx3-ubyte", IMAGES)
    labels = read_idx(mnist / "train-labels-idx1-ubyte", LABELS)
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]  # the famous beginning
    assert np.array_equal(train.images.numpy(), images[train.index])
    assert np.array_equal(train.labels.numpy(), labels[train.index])
    assert sorted(train.index.tolist()) == list(range(60_000))
    (locked,) = [out["md5"] for out in lock["outs"] if out["path"] == "data/train.safetensors"]
    assert hashlib.md5((prepared / "train.safetensors").read_bytes()).hexdigest() == locked  # in the published order
    # class counts of MNIST as its authors' page has them
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    held_out = np.bincount(train.labels[:5000])
    assert np.abs(held_out - np.bincount(train.labels) / 12).max() < 2
    # test digits stay in file order; the first of the 82 errors of the paper's Fig. 8 is the 4 at 247
    assert test.index.tolist() == list(range(10_000))
    assert test.labels[247] == 4


def test_prepare_writes_the_same_bytes_again_and_others_for_another_seed(prepared: Path, mnist: Path, tmp_path) -> None:
    for seed, same in ((1998, True), (1, False)):
        prepare.prepare(Data(order_seed=seed), mnist, tmp_path / "train", tmp_path / "test", tmp_path / "digests")
        assert ((tmp_path / "train").read_bytes() == (prepared / "train.safetensors").read_bytes()) is same
        assert (tmp_path / "test").read_bytes() == (prepared / "test.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("train-images-idx3-ubyte", np.zeros((10, 28, 28), np.uint8), "10×28×28 images; MNIST has 60000×28×28"),
        ("train-images-idx3-ubyte", np.zeros((60000, 1, 1), np.uint8), "60000×1×1 images"),
        ("train-labels-idx1-ubyte", np.zeros(59999, np.uint8), "59999 labels; MNIST has 60000"),
        ("t10k-labels-idx1-ubyte", np.array([0] * 77 + [10] * 9923, np.uint8), "label 10 of digit 77; legal: 0 … 9"),
        ("t10k-labels-idx1-ubyte", np.zeros((10000, 1, 1), np.uint8), "magic number"),
    ],
)
def test_prepare_refuses_other_files_and_writes_nothing(
    mnist: Path, tmp_path: Path, name: str, array: np.ndarray, message: str
) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for file in mnist.iterdir():
        (raw / file.name).symlink_to(file)
    (raw / name).unlink()
    (raw / name).write_bytes(idx(array))
    with pytest.raises(InputError, match=message):
        prepare.prepare(Data(order_seed=0), raw, tmp_path / "train", tmp_path / "test", tmp_path / "digests")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


def test_a_digits_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        load_digits(tmp_path / "train.safetensors")
    (tmp_path / "junk").write_bytes(b"junk")
    save_file({"images": torch.zeros(1, 28, 28, dtype=torch.uint8)}, tmp_path / "weights")
    for name in ("junk", "weights"):
        with pytest.raises(InputError, match=f"{name}: not a digits file"):
            load_digits(tmp_path / name)


def test_every_variant_learns_from_its_training_digits_and_from_none_that_is_held_out(
    params: Params, digits: Digits
) -> None:
    """Validation takes the first digits of the prepared order, training those behind; each is there once."""
    for variant in params.variants.values():
        training, validation = digits.split(variant)
        held, learned = validation.index.tolist(), training.index.tolist()
        assert (len(held), len(learned)) == (variant.validation_size, variant.train_size)
        assert held == digits.index[: variant.validation_size].tolist()
        places = slice(variant.validation_size, variant.validation_size + variant.train_size)
        assert learned == digits.index[places].tolist()
        assert len({*held, *learned}) == len(held) + len(learned)


@pytest.mark.parametrize("name", ["modern", "lecun1998"])
def test_an_epoch_presents_each_training_digit_exactly_once(params: Params, digits: Digits, name: str) -> None:
    """By the loader that the pipeline trains with, from its first step and from one in the middle."""
    variant = params.variants[name].model_copy(update={"train_size": 1030, "validation_size": 70})
    training, validation = digits.split(variant)
    its = Training(variant, 3, len(training))
    module = FastLeNet(variant, [its], training, validation)
    for step in (0, 2):
        its.step = step
        seen = [place for chunk in module.train_dataloader() for place in its.presented.order[chunk].tolist()]
        every = its.presented.order.tolist()
        assert sorted(every) == list(range(1030))
        assert seen == every[step * variant.batch_size :]
        assert torch.equal(its.presented.digits.index, training.index)
