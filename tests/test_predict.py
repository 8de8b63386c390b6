"""Answers to pictures: what the packaged model takes, how a picture becomes an image, and `lenet predict`."""

import gzip
import io
import json
import re
import shutil
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from conftest import ROOT, refused
from lenet import cli, networks
from lenet.digits.data import Digits, load_digits
from lenet.evaluation import confidence, recognition, robustness
from lenet.evaluation.confidence import OUTPUTS
from lenet.inference import files, pictures
from lenet.inference import model as packaged
from lenet.inference import predict as predicting
from lenet.params.schema import Params
from lenet.pipeline import evaluate, train
from lenet.runs.record import Record
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from test_train import small_params


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


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (
            np.zeros((0, 28, 3), np.uint8),
            r"an array of uint8 and shape \(0, 28, 3\); expected a grey picture, or uint8 RGB",
        ),
        (np.zeros((9, 0)), r"an array of float64 and shape \(9, 0\)"),
        (np.zeros((9, 9, 3)), r"an array of float64 and shape \(9, 9, 3\)"),
        (np.array([[-1, 3]]), "values from -1 to 3; expected grey levels from 0"),
        (np.array([[0.0, np.nan]]), "values from nan to nan"),
        (np.array([[0, 70_000]]), "values from 0 to 70000"),
    ],
)
def test_an_array_that_is_no_picture_is_refused_in_a_line(array: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        pictures.grey_of(array)


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


# files and folders


def written(folder: Path, images: np.ndarray) -> None:
    """One set of images in each kind of file for arrays."""
    head = struct.pack(">4I", 0x0803, *images.shape)
    (folder / "some-idx3-ubyte").write_bytes(head + images.tobytes())
    (folder / "some-idx3-ubyte.gz").write_bytes(gzip.compress(head + images.tobytes()))
    np.save(folder / "bytes.npy", images)
    np.save(folder / "fractions.npy", images / 255)
    np.save(folder / "fortran.npy", np.asfortranarray(images.astype(np.float32)))


def found(*paths: Path, raw: bool = False) -> list[files.Item]:
    return list(files.items(paths, raw, lambda count: None))


def test_mnist_s_images_in_arrays_stay_as_they_are(tmp_path: Path, images: np.ndarray) -> None:
    written(tmp_path, images)
    np.save(tmp_path / "one.npy", images[2])
    for path in sorted(tmp_path.iterdir()):
        items = found(path)
        expected = images[2:3] if path.stem == "one" else images
        assert [item.fault for item in items] == [""] * len(expected)
        np.testing.assert_array_equal(np.stack([item.image for item in items]), expected)
    assert [item.name for item in found(tmp_path / "one.npy")] == [str(tmp_path / "one.npy")]
    assert [item.index for item in found(tmp_path / "bytes.npy")] == [0, 1, 2, 3, 4]


def test_other_arrays_are_pictures(tmp_path: Path, images: np.ndarray) -> None:
    """Dark on light, larger, with colours."""
    expected = pictures.normalise(np.asarray(drawn(images[0]), np.float32))
    light = np.asarray(drawn(images[0]))
    for name, array in (
        ("large", 255 - light), ("rgb", np.stack([light] * 3, -1)), ("fractions", light / 255),
        ("deep", light.astype(np.uint16) * 257), ("mask", light > 127),
    ):  # fmt: skip
        np.save(tmp_path / f"{name}.npy", array)
        (item,) = found(tmp_path / f"{name}.npy")
        assert item.image is not None, item
        assert apart(item.image, expected) < (6 if name == "mask" else 0.5), name
    np.save(tmp_path / "dark.npy", 255 - images)
    for item, image in zip(found(tmp_path / "dark.npy"), images, strict=True):
        np.testing.assert_array_equal(item.image, pictures.normalise(image.astype(np.float32)))
    raw = found(tmp_path / "dark.npy", raw=True)
    np.testing.assert_array_equal(np.stack([item.image for item in raw]), 255 - images)


def test_raw_pictures_stay_as_they_are(tmp_path: Path, images: np.ndarray) -> None:
    for kind in ("png", "tiff"):
        Image.fromarray(images[0]).save(tmp_path / f"raw.{kind}")
        (item,) = found(tmp_path / f"raw.{kind}", raw=True)
        np.testing.assert_array_equal(item.image, images[0])
    drawn(images[0]).save(tmp_path / "large.png")
    (item,) = found(tmp_path / "large.png", raw=True)
    assert item.fault == "200×200 pixels; --raw takes 28×28"


def test_folders_are_read_by_name_without_what_is_no_picture(tmp_path: Path, images: np.ndarray) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("z.png", "b/a.PNG", "b/.c.png", ".hidden/d.png"):
        Image.fromarray(images[0]).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("none")
    written(tmp_path / "b", images)
    names = [path.relative_to(tmp_path).as_posix() for path in files.files([tmp_path])]
    arrays = ["bytes.npy", "fortran.npy", "fractions.npy", "some-idx3-ubyte", "some-idx3-ubyte.gz"]
    assert names == ["z.png", "b/a.PNG", *(f"b/{name}" for name in arrays)]


def test_a_file_that_cannot_be_read_is_one_fault(tmp_path: Path, images: np.ndarray) -> None:
    whole = struct.pack(">4I", 0x0803, *images.shape) + images.tobytes()
    packed, cut = gzip.compress(whole), "cut off: its header announces 5 images, and 4 are whole"
    longer, labels = whole + b"\0", b"\0\0\x08\x01\0\0\0\1\7"
    nothing, large = struct.pack(">4I", 0x0803, 0, 28, 28), struct.pack(">4I", 0x0803, 1, 2**16, 2**16)
    for name, content, images_before, said in (
        ("short", whole[:-1], 4, cut), ("short-gz", gzip.compress(whole[:-1]), 4, cut),
        ("longer", longer, 5, "longer than the 5 images that its header announces"),
        ("labels", labels, 0, "no IDX file of images, which begins with the bytes 00 00 08 03"),
        ("nothing", nothing, 0, "0 images of 28×28 pixels"), ("large", large, 0, "more than 89,000,000 pixels"),
        ("damaged", packed[:100] + bytes(50) + packed[150:], 0, "damaged gzip data"),
        ("gz", gzip.compress(b"text"), 0, "no IDX file of images"),
        ("npy", b"\x93NUMPY\1\0v", 0, "a damaged .npy file"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(content)
        items = found(tmp_path / name)
        assert [item.fault for item in items[:images_before]] == [""] * images_before, name
        assert said in items[-1].fault, name
        if name != "damaged":  # what of it is whole is another library's to say
            assert len(items) == images_before + 1, name
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "row.npy", images.reshape(5, 784)[0])
    np.save(tmp_path / "four.npy", np.zeros((2, 28, 28, 3), np.uint8))
    np.save(tmp_path / "text.npy", np.full((28, 28), "7"))
    for name, said in (
        ("objects", "a damaged .npy file, or of Python objects"), ("row", r"an array of uint8 and shape \(784,\); "),
        ("four", "an array of uint8 and shape "), ("text", "an array of <U1"), ("missing", "No such file or directory"),
    ):  # fmt: skip
        (item,) = found(tmp_path / f"{name}.npy")
        assert re.match(said, item.fault), item
    (item,) = found(Path("/dev/null"))
    assert item.fault == "no file"


def test_an_empty_image_is_refused_and_the_others_stay(tmp_path: Path, images: np.ndarray) -> None:
    np.save(tmp_path / "some.npy", np.concatenate([images[:1], np.zeros((1, 28, 28), np.uint8), images[1:2]]))
    first, empty, last = found(tmp_path / "some.npy")
    assert (empty.index, empty.image) == (1, None)
    assert empty.fault == "an empty picture: nothing but one grey, 0 of 255"
    np.testing.assert_array_equal(np.stack([first.image, last.image]), images[:2])


def test_pictures_are_a_stream(tmp_path: Path) -> None:
    """Memory does not follow their number: files here announce, and have, a hundred megabytes."""
    count = 130_000
    with (tmp_path / "idx3-ubyte").open("wb") as file:
        file.write(struct.pack(">4I", 0x0803, count, 28, 28))
        file.truncate(16 + count * 784)
    np.lib.format.open_memmap(tmp_path / "some.npy", "w+", np.uint8, (count, 28, 28)).flush()
    told: list[int] = []
    tracemalloc.start()
    stream = files.items([tmp_path], False, told.append)
    for _ in range(1000):
        next(stream)
    assert told == [count]
    assert len(list(islice(files.items([tmp_path / "some.npy"], False, told.append), 1000))) == 1000
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


# lenet predict


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, params: Params, prepared: Path, unsigned: None) -> Path:
    """A folder with params.yaml, runs that take seconds to train, and their tests on 500 digits."""
    folder = tmp_path_factory.mktemp("project")
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    test = load_digits(prepared / "test.safetensors")[:500]
    parts = {part: getattr(test, part).clone() for part in ("images", "labels", "index")}
    save_file(parts, folder / "test.safetensors")
    kinds = robustness.DISTURBANCES.items()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(robustness, "DISTURBANCES", {kind: replace(one, levels=(one.none,)) for kind, one in kinds})
        for name, count in (("modern", 1200), ("original-tanh", 300), ("lecun1998", 100)):
            run, data = folder / "runs" / f"{name}-1", prepared / "train.safetensors"
            train.train(small_params(params, train_size=count), name, {1: run}, data, None, None)
            metrics = folder / "metrics" / f"{name}-1.json"
            evaluate.evaluate(run, folder / "test.safetensors", metrics, track=False)
    return folder


@pytest.fixture
def lenet(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`lenet predict` in that folder."""
    monkeypatch.chdir(project)

    def predict(*words: object) -> Result:
        return CliRunner().invoke(cli.cli, ["predict", *map(str, words)])

    return predict


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def table(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), float_precision="round_trip")


@pytest.mark.parametrize("name", ["modern", "original-tanh", "lecun1998"])
def test_mnist_s_test_digits_are_answered_as_the_pipeline_does(
    lenet: Callable[..., Result], project: Path, mnist: Path, name: str
) -> None:
    """To the last digit of every output; and beside it what the test shows of such answers."""
    content = (mnist / "t10k-images-idx3-ubyte").read_bytes()[16 : 16 + 500 * 784]
    (project / "t-idx3-ubyte.gz").write_bytes(gzip.compress(struct.pack(">4I", 0x0803, 500, 28, 28) + content))
    answered = lenet("--csv", "--run", f"{name}-1", "t-idx3-ubyte.gz")
    assert answered.exit_code == 0, answered.output
    told, known = table(answered.stdout), pd.read_csv(project / "runs" / f"{name}-1" / "predictions.csv")
    assert told["digit"].tolist() == known["answer"].tolist()
    assert told["image"].tolist() == known["index"].tolist()
    np.testing.assert_array_equal(told[OUTPUTS].to_numpy(np.float32), known[OUTPUTS].to_numpy(np.float32))
    sure = confidence.of(known[OUTPUTS].to_numpy(), Record.read(project / "runs" / f"{name}-1" / "run.json").parameters)
    assert told["confidence"].to_numpy() == pytest.approx(sure, abs=1e-6)
    right = (known["answer"] == known["label"]).to_numpy()
    for low in range(15):  # of 15 equal bins, worked out anew
        inside = (sure > low / 15) & (sure <= (low + 1) / 15)
        assert (told["tested"][inside] == inside.sum()).all()
        assert told["right"][inside].to_numpy() == pytest.approx(right[inside].mean() if inside.any() else 0)


def test_the_three_forms_say_the_same(lenet: Callable[..., Result], images: np.ndarray) -> None:
    np.save("one.npy", images[0])
    drawn(images[1]).save("two.png")
    text, objects = lenet("one.npy", "two.png").stdout, lines(lenet("--json", "one.npy", "two.png"))
    rows = table(lenet("--csv", "one.npy", "two.png").stdout)
    assert rows["file"].tolist() == [one["file"] for one in objects] == ["one.npy", "two.png"]
    for line, one, (_, row) in zip(text.splitlines(), objects, rows.iterrows(), strict=True):
        tested = one["tested"]
        assert one["model"] == "modern-1"
        assert row["digit"] == one["digit"] == int(np.argmax(one["probabilities"]))
        assert row["confidence"] == one["probability"] == pytest.approx(max(one["probabilities"]), abs=1e-6)
        assert tested["from"] < one["probability"] <= tested["to"] == pytest.approx(tested["from"] + 1 / 15)
        assert (row["tested"], row["right"]) == (tested["digits"], tested["right"])
        assert line == (
            f"{one['file']}: {one['digit']}, probability {int(1000 * one['probability']) / 1000:.3f}; "
            f"{100 * tested['right']:.2f} % "
            f"of the {tested['digits']} test answers with {tested['from']:.2f} to {tested['to']:.2f} were right"
        )


def test_outputs_that_are_no_probabilities_are_called_otherwise(
    lenet: Callable[..., Result], images: np.ndarray
) -> None:
    np.save("one.npy", images[0])
    squashed, rbf = (
        lines(lenet("--json", "--run", f"{name}-1", "one.npy"))[0] for name in ("original-tanh", "lecun1998")
    )
    assert {"confidence", "outputs"} < squashed.keys()
    assert rbf["digit"] == int(np.argmin(rbf["squared_distances"]))
    assert 0 < rbf["confidence"] < 1
    text = lenet("--run", "lecun1998-1", "one.npy").stdout
    distances = " ".join(f"{one:.1f}" for one in rbf["squared_distances"])
    assert text.endswith(f" were right; squared distances to the codes of 0 … 9: {distances}\n")
    assert ", confidence 0." in text
    assert lenet("--variant", "original-tanh", "one.npy").stdout.startswith(
        f"one.npy: {squashed['digit']}, confidence "
    )


def test_a_bad_file_does_not_stop_the_others(lenet: Callable[..., Result], images: np.ndarray) -> None:
    Path("bad.png").write_text("text")
    Image.new("L", (50, 50), 255).save("white.png")
    Image.fromarray(255 - images[0]).save("dark.png")
    np.save("one.npy", images[0])
    done = lenet("bad.png", "one.npy", "no\n\x1b[31m.png", "white.png", "one.npy")
    assert done.exit_code == 2
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["one.npy", "one.npy"]
    assert done.stderr.splitlines() == [
        "lenet: error: bad.png: no picture; PNG, JPEG, TIFF, IDX images and .npy can be read",
        "lenet: error: no", "\\x1b[31m.png: No such file or directory",
        "lenet: error: white.png: an empty picture: nothing but one grey, 255 to 255 of 255",
    ]  # fmt: skip
    dark = lenet("--raw", "dark.png")
    assert dark.exit_code == 0
    assert dark.stderr == "lenet: warning: dark.png: it looks dark on light, and is taken as it is\n"
    assert lenet("dark.png").stderr == ""


def test_a_test_of_other_weights_tells_nothing(lenet: Callable[..., Result], project: Path, images: np.ndarray) -> None:
    np.save("one.npy", images[0])
    metrics = project / "metrics" / "original-tanh-1.json"
    kept = metrics.read_text()
    for change in (
        lambda content: content["run"].update({"weights.sha256": "0" * 64}),
        lambda content: content["test"].update({"answers.sha256": "0" * 64}),
    ):
        content = json.loads(kept)
        change(content)
        metrics.write_text(json.dumps(content))
        assert lines(lenet("--json", "--run", "original-tanh-1", "one.npy"))[0]["tested"] is None
    metrics.unlink()
    assert "test answers" not in lenet("--run", "original-tanh-1", "one.npy").stdout
    row = table(lenet("--csv", "--run", project / "runs" / "original-tanh-1", "one.npy").stdout)
    assert row[["tested", "right"]].isna().all(axis=None)
    metrics.write_text(kept)


def test_what_predict_cannot_do_is_one_line(
    lenet: Callable[..., Result], project: Path, images: np.ndarray, monkeypatch, capsys
) -> None:
    np.save("one.npy", images[0])
    Path("nothing").mkdir(exist_ok=True)
    shutil.copytree("runs/modern-1", "runs/other-1", dirs_exist_ok=True)
    weights = load_file("runs/other-1/weights.safetensors")
    weights["C1.bias"][0] += 1e-3
    save_file(weights, "runs/other-1/weights.safetensors")
    for words, said in (
        (
            "--run modern-9 one.npy",
            "modern-9: no folder, and there is no run of this name here; `lenet repro modern-9`",
        ),
        ("--run other-1 one.npy", "runs/other-1/weights.safetensors: the weights are not those of run.json"),
        ("--variant original-sigmoid one.npy", "original-sigmoid-1: no folder, and there is no run of this name here"),
        ("--variant none one.npy", "variant 'none' has no block in a params.yaml; legal: original-sigmoid, "),
        ("--variant modern --run modern-1 one.npy", "--variant, --run and --model exclude each other"),
        ("--json --csv one.npy", "--json and --csv exclude each other"),
        ("nothing", "nothing: no picture in it; PNG, JPEG, TIFF, IDX images and .npy are taken"),
        ("--model nothing-here one.npy", "nothing-here: no folder of a model, and no address as runs:/ID/model"),
        ("--model runs:/1/model one.npy", "runs:/1/model: sqlite:"),
        ("--model nothing one.npy", "nothing: the model cannot be loaded (No such artifact: 'MLmodel')"),
    ):
        told = refused(f"predict {words}", monkeypatch, capsys)
        assert told.startswith(f"lenet: error: {said}"), told
        assert told.count("\n") == 1


def test_the_default_is_the_first_compared_variant_with_probabilities(params: Params) -> None:
    assert predicting.default(params) == "modern"
    assert "modern" in CliRunner().invoke(cli.cli, ["predict", "--help"]).output
    assert predicting.default(params.model_copy(update={"compare": ("original-tanh",)})) == "original-tanh"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_stands_on_a_terminal_and_leaves_standard_output_alone(
    lenet: Callable[..., Result], images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("some.npy", images)
    words = ["predict", "--csv", "some.npy"]
    plain, shown, terminal = io.StringIO(), io.StringIO(), Terminal()
    for out, error in ((plain, io.StringIO()), (shown, terminal)):
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", error)
        cli.cli(words, standalone_mode=False)
        assert ("5/5" in error.getvalue()) == (error is terminal)
    assert shown.getvalue() == plain.getvalue()
    assert len(plain.getvalue().splitlines()) == 6


def test_digits_drawn_as_pictures_are_answered_as_the_images(lenet: Callable[..., Result], project: Path) -> None:
    """By a network trained on 1,200 digits, which is less sure than the published ones of the next test."""
    shares = differing(project / "runs" / "modern-1", load_digits(project / "test.safetensors").images[:250].numpy())
    assert max(shares) <= 0.05


@pytest.mark.results
def test_digits_drawn_as_pictures_are_answered_as_the_images_by_the_published_networks(params: Params) -> None:
    """As many as the page tells, whose example has the test's numbers."""
    page = " ".join((ROOT / "docs" / "how-to" / "predict.md").read_text().split())
    surest = predicting.of_run(ROOT / layout.RUNS / "modern-1").tested[15]
    assert f"{100 * surest.accuracy:.2f} % of the {surest.count:,} test answers with 0.93 to 1.00 were right" in page
    (told,) = re.findall(r"at most (\d+) of the first 500 test digits", page)
    images = load_digits(ROOT / layout.TEST).images[:500].numpy()
    found = [differing(ROOT / layout.RUNS / f"{name}-{seed}", images) for name, seed in params.runs()]
    assert 500 * max(map(max, found)) == int(told)


def differing(run: Path, images: np.ndarray) -> tuple[float, float]:
    """The shares of images that a run's network answers otherwise as 200×200 PNG, light on dark and dark on light."""
    network = packaged.load(run)
    expected = network.predict(images)["digit"]
    shares = []
    for turn in (lambda picture: picture, ImageOps.invert):
        made = []
        for image in images:
            file = io.BytesIO()
            turn(drawn(image)).save(file, "png")
            made.append(pictures.normalise(pictures.read(file)))
        shares.append(float((network.predict(np.stack(made))["digit"] != expected).mean()))
    return shares[0], shares[1]
