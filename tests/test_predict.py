"""Answers to pictures: what the packaged model takes, how a picture becomes an image, and `lenet predict`."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lenet import networks
from lenet.digits.data import Digits
from lenet.evaluation import recognition
from lenet.inference import model as packaged
from lenet.inference import pictures
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


# a picture becomes an image


def drawn(image: np.ndarray, size: tuple[int, int] = (200, 200)) -> Image.Image:
    """An image as a picture, light on dark."""
    return Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)


def as_read(picture: Image.Image, kind: str, tmp_path: Path, **how: object) -> np.ndarray:
    file = tmp_path / f"picture.{kind}"
    picture.save(file, **how)
    return pictures.read(file)


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two images, grey levels."""
    return float(np.abs(one.astype(float) - other).mean())


def test_a_picture_s_digit_fills_20_pixels_about_its_centre_of_mass() -> None:
    """Worked out by hand: a box of 60×30 becomes 20×10, and its middle is the field's."""
    picture = np.full((300, 400), 220, np.float32)
    picture[30:90, 340:370] = 20
    expected = np.zeros((28, 28), np.uint8)
    expected[4:24, 10:20] = 255  # the middles of 20 and of 10 pixels are half-way between two: to the even place
    found = pictures.normalise(picture)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(pictures.normalise(240 - picture), found)
    heavy = picture.copy()
    heavy[30:36, 200:340] = 20  # a bar to the left: wider than high
    found = pictures.normalise(heavy)
    rows, columns = (np.flatnonzero(found.any(axis)) for axis in (1, 0))
    assert len(columns) == 20
    assert len(rows) == 7  # 60 of 170 × 20
    centre = [(found * np.arange(28)).sum() / found.sum(), (found.T * np.arange(28)).sum() / found.sum()]
    assert centre == pytest.approx([14, 14], abs=0.5)


def test_mnist_s_own_images_are_centred_as_pictures_are(digits: Digits) -> None:
    """By the convention of ``CENTRE``, which is measured: the mean of the digits' centres of mass."""
    ink = digits.images[:5000].double()
    rows = (ink.sum(2) * torch.arange(28)).sum(1) / ink.sum((1, 2))
    assert rows.mean() == pytest.approx(pictures.CENTRE, abs=0.02)
    assert (rows - pictures.CENTRE).abs().max() < 1


def test_a_picture_and_its_negative_become_the_same_image(images: np.ndarray) -> None:
    for image in images:
        picture = np.asarray(drawn(image))
        light, dark = (pictures.normalise(one.astype(np.float32)) for one in (picture, 255 - picture))
        np.testing.assert_array_equal(light, dark)
        assert apart(light, image) < 20


def test_every_kind_of_file_and_colour_becomes_the_same_image(images: np.ndarray, tmp_path: Path) -> None:
    light = drawn(images[0])
    dark = ImageOps.invert(light)
    expected = pictures.normalise(np.asarray(light, np.float32))
    red = Image.merge("RGB", [Image.new("L", light.size, 255), dark, dark])  # ink of pure red on white
    ink = Image.new("L", light.size, 0)
    transparent = Image.merge("RGBA", [ink, ink, ink, light])
    white = Image.merge("RGBA", [ImageOps.invert(ink)] * 3 + [light])
    sixteen = Image.fromarray(np.asarray(light).astype(np.uint16) * 40)
    rotated = dark.transpose(Image.Transpose.ROTATE_90)
    upright = Image.Exif()
    upright[0x0112] = 6  # to be shown turned by 90° clockwise
    large = drawn(images[0], (4000, 4000))
    found = {
        "png": as_read(light, "png", tmp_path),
        "dark": as_read(dark, "png", tmp_path),
        "jpeg": as_read(dark, "jpeg", tmp_path, quality=90),
        "tiff": as_read(light, "tiff", tmp_path, compression="tiff_lzw"),
        "rgb": as_read(dark.convert("RGB"), "png", tmp_path),
        "red": as_read(red, "png", tmp_path),
        "palette": as_read(dark.convert("RGB").quantize(64), "png", tmp_path),
        "bilevel": as_read(dark.convert("1", dither=Image.Dither.NONE), "png", tmp_path),
        "cmyk": as_read(dark.convert("CMYK"), "jpeg", tmp_path, quality=90),
        "16 bits": as_read(sixteen, "png", tmp_path),
        "float": as_read(Image.fromarray(np.asarray(light, np.float32) / 255), "tiff", tmp_path),
        "grey on nothing": as_read(dark.convert("LA"), "png", tmp_path),
        "black on nothing": as_read(transparent, "png", tmp_path),
        "white on nothing": as_read(white, "png", tmp_path),
        "orientation": as_read(rotated, "jpeg", tmp_path, quality=90, exif=upright),
        "large": as_read(large, "png", tmp_path),
    }
    for kind, picture in found.items():
        assert picture.dtype == np.float32, kind
        assert apart(pictures.normalise(picture), expected) < 6, kind
    assert max(found["large"].shape) < 2000
    np.testing.assert_array_equal(pictures.normalise(found["16 bits"]), expected)


def test_noise_and_margins_do_not_change_the_image_much(images: np.ndarray) -> None:
    """A photograph's paper: noise, a dark side, much room around."""
    generator = np.random.default_rng(1)
    for image in images:
        paper = np.full((300, 400), 230.0, np.float32)
        paper[60:160, 250:350] -= np.asarray(drawn(image, (100, 100)), np.float32) * 0.7
        clean = pictures.normalise(paper)
        shaded = paper + generator.normal(0, 4, paper.shape) + np.linspace(-12, 12, 400)
        assert apart(pictures.normalise(shaded.astype(np.float32)), clean) < 15  # of another digit it is 40


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: np.full((30, 40), 200, np.float32), "^an empty picture: nothing but one grey, 200 to 200 of 255$"),
        (lambda: np.linspace(0, 9, 400, dtype=np.float32).reshape(20, 20), "^an empty picture: .* 0 to 9 of 255$"),
        (lambda: np.tile(np.linspace(0, 255, 99, dtype=np.float32), (99, 1)), "^no digit stands out from the"),
    ],
)  # fmt: skip
def test_a_picture_without_a_digit_is_refused(make, said: str) -> None:
    with pytest.raises(InputError, match=said):
        pictures.normalise(make())


def test_a_file_that_is_no_picture_is_refused_in_a_line(tmp_path: Path, images: np.ndarray) -> None:
    file = tmp_path / "file"
    png = io.BytesIO()
    drawn(images[0]).save(png, "png")
    gif = io.BytesIO()
    drawn(images[0]).save(gif, "gif")
    for content, said in (
        (b"", "no picture; PNG, JPEG, TIFF, IDX images and .npy can be read"),
        (b"text", "no picture; "),
        (gif.getvalue(), "no picture; "),
        (png.getvalue()[:-800], "a damaged picture "),
        (png.getvalue()[:100] + bytes(99) + png.getvalue()[199:], "a damaged picture "),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=said) as caught:
            pictures.read(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [10_000, 30_000])
def test_a_picture_with_too_many_pixels_is_refused_before_it_is_decoded(side: int, tmp_path: Path) -> None:
    """The header alone tells it: there is no pixel in this file. Of so many Pillow warns, or refuses them itself."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", side, side, 8, 0, 0, 0, 0)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(InputError, match=r"^more than 89,000,000 pixels; scale the picture down$"):
        pictures.read(bomb)
    with pytest.raises(InputError, match=r"^more than 89,000,000 pixels"):
        pictures.grey_of(np.broadcast_to(np.uint8(0), (side, side)))
