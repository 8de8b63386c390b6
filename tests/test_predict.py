"""Answers to pictures: what the packaged model takes, how a picture becomes an image, and `lenet predict`."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from lenet import networks
from lenet.digits.data import Digits
from lenet.evaluation import recognition
from lenet.inference import model as packaged
from lenet.params.schema import Params
from lenet.runs.record import Record
from lenet.runtime.errors import InputError


@pytest.fixture(scope="module")
def model(params: Params) -> packaged.Model:
    """A network as it is before its training: what it answers is not the subject."""
    block = params.variants["modern"]
    network = networks.build(block.network).initialise(block.initialisation, 1)
    return packaged.Model(recognition.Recogniser(Record("modern", 1, block, "key", "data", "signature"), network))


@pytest.fixture(scope="module")
def images(digits: Digits) -> np.ndarray:
    return digits.images[:5].numpy()


# the packaged model


def test_the_model_takes_images_in_every_form_that_leaves_no_doubt(model: packaged.Model, images: np.ndarray) -> None:
    expected = model.predict(images)
    frozen = images.copy()
    frozen.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (
            frozen, images[:, ::-1][:, ::-1], images.astype(np.int64), images.astype(np.float32), images / 255,
            (images / 255).astype(np.float32), images.tolist(), torch.from_numpy(images),
        ):  # fmt: skip
            found = model.predict(same)
            np.testing.assert_array_equal(found["digit"], expected["digit"])
            np.testing.assert_array_equal(found["scores"], expected["scores"])
    assert model.predict(images[0])["digit"].tolist() == expected["digit"][:1].tolist()
    assert model.predict(images[:0])["scores"].shape == (0, 10)
    ink = images > 127
    np.testing.assert_array_equal(model.predict(ink)["scores"], model.predict(ink * np.uint8(255))["scores"])
    writable = images.copy()
    assert packaged.as_images(writable) is writable


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda images: images[:, :20], r"shape \(5, 20, 28\); expected \(n, 28, 28\), or \(28, 28\) for one image$"),
        (lambda images: np.stack([images] * 3, -1), r"shape \(5, 28, 28, 3\); .*; take the mean of colours"),
        (lambda images: images[0].ravel(), r"an array of shape \(784,\)"),
        (lambda images: images.astype(float) * 0.5, "fractions from 0 to 127.5: neither of 1 nor grey levels"),
        (lambda images: images.astype(int) * 2, "values from 0 to 510; expected uint8, 0 background … 255 ink"),
        (lambda images: images / 255 - 0.5, "values from -0.5 to 0.5"),
        (lambda images: np.where(images > 9, np.nan, 0.0), "values from nan to nan"),
        (lambda images: images.astype(object), "an array of object; expected uint8"),
        (lambda images: np.full((1, 28, 28), "7"), "an array of <U1; expected uint8"),
        (lambda images: [images[0].tolist(), [[1]]], "no array of images: .*inhomogeneous"),
    ],
)  # fmt: skip
def test_what_the_model_refuses_it_tells_in_a_line(model: packaged.Model, images: np.ndarray, make, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        model.predict(make(images))
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_images_that_look_dark_on_light_are_answered_with_one_warning(
    model: packaged.Model, images: np.ndarray, digits: Digits
) -> None:
    with pytest.warns(UserWarning, match="^3 of 5 images look dark on light; .* give 255 - images$") as told:
        model.predict(np.concatenate([255 - images[:3], images[3:]]))
    assert len(told) == 1
    with pytest.warns(UserWarning, match="^the image looks dark on light"):
        model.predict(255 - images[0])
    few = digits.images[:5000].numpy()
    assert not packaged.inverted(few).any()
    assert packaged.inverted(255 - few).all()


def test_a_model_is_loaded_by_either_kind_of_path(model: packaged.Model, tmp_path: Path, images: np.ndarray) -> None:
    from safetensors.torch import save_file

    recogniser = model.recogniser
    save_file(recogniser.network.state_dict(), tmp_path / "weights.safetensors")
    recogniser.record.with_weights("digest").write(tmp_path / "run.json")
    for path in (tmp_path, str(tmp_path)):
        np.testing.assert_array_equal(packaged.load(path).predict(images)["scores"], model.predict(images)["scores"])
    with pytest.raises(InputError, match=r"nowhere/run\.json: No such file"):
        packaged.load("nowhere")
