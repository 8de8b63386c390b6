"""Files and folders of pictures as a stream of images: one picture at a time is in memory, however many there are."""

import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lenet.digits.data import IMAGES
from lenet.inference import pictures
from lenet.inference.model import SIDE, grey_levels, inverted
from lenet.runtime.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", "idx3-ubyte", "idx3-ubyte.gz")
"""How files of a folder end that are taken; a file that is named itself is known by its content."""


@dataclass(frozen=True)
class Item:
    """A picture, or why it is none.

    Attributes:
        file: where it stands.
        index: its place there, from 0; None in a file of one picture, and of a fault of the whole file.
        image: uint8 (28, 28), 0 background … 255 ink; None if it is refused.
        fault: why.
    """

    file: Path
    index: int | None
    image: np.ndarray | None
    fault: str = ""

    @property
    def name(self) -> str:
        """File and place, for a reader."""
        return str(self.file) if self.index is None else f"{self.file}[{self.index}]"


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """The named files and those of named folders and of their subfolders, by name; hidden ones are left out."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, inner, names in os.walk(path):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                    yield Path(folder, name)


def items(paths: Iterable[Path], raw: bool, opened: Callable[[int], object]) -> Iterator[Item]:
    """The pictures of files and folders, one after another. A faulty one does not end the others.

    28×28 arrays of IDX and .npy files whose edge is dark are MNIST's kind, and stay as they are. All others are
    normalised as pictures.

    Args:
        paths: files (PNG, JPEG, TIFF, IDX images, also with gzip, .npy) and folders.
        raw: every picture is a 28×28 image already, 255 ink on 0, and stays as it is.
        opened: told of each file how many pictures it has.
    """
    for file in files(paths):
        try:
            for index, content in _contents(file, opened):
                try:
                    yield Item(file, index, _image(content, raw))
                except InputError as error:
                    yield Item(file, index, None, str(error))
        except InputError as error:
            yield Item(file, None, None, str(error))
        except OSError as error:
            yield Item(file, None, None, error.strerror or str(error))


def _contents(file: Path, opened: Callable[[int], object]) -> Iterator[tuple[int | None, Path | np.ndarray]]:
    """A file's pictures: arrays with their places, or the file itself."""
    if file.exists() and not file.is_file():
        raise InputError("no file")
    with file.open("rb") as content:
        start = content.read(8)
    if start.startswith(b"\x93NUMPY"):
        yield from _numpy(file, opened)
    elif start.startswith((b"\x1f\x8b", b"\0\0\x08")):
        yield from _idx(file, start.startswith(b"\x1f"), opened)
    else:
        opened(1)
        yield None, file


def _numpy(file: Path, opened: Callable[[int], object]) -> Iterator[tuple[int | None, np.ndarray]]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"a damaged .npy file, or of Python objects ({str(error).splitlines()[0]})") from None
    if array.ndim == 3 and array.shape[1:] == (SIDE, SIDE):
        opened(len(array))
        yield from enumerate(array)
    else:
        opened(1)
        yield None, array


def _idx(file: Path, packed: bool, opened: Callable[[int], object]) -> Iterator[tuple[int, np.ndarray]]:
    """The images of an IDX file, however many its header announces."""
    try:
        with gzip.open(file) if packed else file.open("rb") as content:
            count, *shape = _header(content)
            opened(count)
            for index in range(count):
                part = content.read(prod(shape))
                if len(part) < prod(shape):
                    raise InputError(f"cut off: its header announces {count:,} images, and {index:,} are whole")
                yield index, np.frombuffer(part, np.uint8).reshape(shape)
            if content.read(1):
                raise InputError(f"longer than the {count:,} images that its header announces")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"damaged gzip data ({error})") from None


def _header(content: BinaryIO | gzip.GzipFile) -> list[int]:
    head = content.read(16)
    if int.from_bytes(head[:4], "big") != IMAGES or len(head) < 16:
        raise InputError("no IDX file of images, which begins with the bytes 00 00 08 03")
    count, height, width = (int.from_bytes(head[place : place + 4], "big") for place in (4, 8, 12))
    if not count * height * width:
        raise InputError(f"{count:,} images of {height}×{width} pixels")
    if height * width > pictures.LARGEST:
        raise pictures.too_large()
    return [count, height, width]


def _image(content: Path | np.ndarray, raw: bool) -> np.ndarray:
    """One picture as an image, uint8 (28, 28)."""
    if isinstance(content, np.ndarray) and content.shape == (SIDE, SIDE):
        image = grey_levels(content)
        if raw or not inverted(image[None])[0]:
            return _not_empty(image)
    picture = pictures.read(content) if isinstance(content, Path) else pictures.grey_of(content)
    if not raw:
        return pictures.normalise(picture)
    if picture.shape != (SIDE, SIDE):
        height, width = picture.shape
        raise InputError(f"{height}×{width} pixels; --raw takes 28×28")
    return _not_empty(np.rint(picture).astype(np.uint8))


def _not_empty(image: np.ndarray) -> np.ndarray:
    if image.min() == image.max():
        raise InputError(f"an empty picture: nothing but one grey, {image.min()} of 255")
    return image
