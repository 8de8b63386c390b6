"""MNIST: IDX files, digits as tensors, network inputs, and the batches of an epoch."""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import load_file
from torch import Tensor

from lenet.arithmetic.randomness import derive
from lenet.params.schema import Pixels, Variant
from lenet.runtime.errors import InputError
from lenet.runtime.files import reading

IMAGES, LABELS = 0x0803, 0x0801  # IDX magic numbers: unsigned bytes in 3 and in 1 dimensions
BORDER = 2  # background pixels around the 28×28 image make the 32×32 input (LeCun 1998, §II.B)


@dataclass(frozen=True)
class Digits:
    """Images (0 background … 255 ink) with their labels, and each one's place in the original MNIST file."""

    images: UInt8[Tensor, "n 28 28"]
    labels: UInt8[Tensor, " n"]
    index: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, part: slice) -> "Digits":
        return Digits(self.images[part], self.labels[part], self.index[part])

    def split(self, variant: Variant) -> tuple["Digits", "Digits"]:
        """A variant's training and validation set: validation takes the first, training the next."""
        held_out = variant.validation_size
        return self[held_out : held_out + variant.train_size], self[:held_out]


def read_idx(path: Path, magic: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes.

    Args:
        path: the file.
        magic: the magic number it must start with; its last byte is the number of dimensions.

    Raises:
        InputError: missing, truncated, too long, or of another magic number.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    found = int.from_bytes(content[:4], "big")
    if found != magic:
        raise InputError(f"{path}: magic number {found:#010x}, expected {magic:#010x}; this is another kind of file")
    dimensions = magic & 0xFF
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise InputError(f"{path}: {len(content)} bytes; its header alone has {header}")
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    if len(content) != header + prod(shape):
        raise InputError(f"{path}: {len(content)} bytes, but its header announces {header + prod(shape)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def load_digits(path: Path) -> Digits:
    """Read a digits file written by ``prepare``. Raises InputError if it is missing or not one."""
    if not path.exists():
        raise InputError(f"{path} is missing; `dvc repro prepare` makes it")
    with reading(path, "a digits file"):
        tensors = load_file(path)
        count = len(tensors["labels"])
        for name, kind, *rest in (("images", torch.uint8, 28, 28), ("labels", torch.uint8), ("index", torch.int64)):
            if (tensors[name].dtype, [*tensors[name].shape]) != (kind, [count, *rest]):
                raise ValueError(f"{name}: {tensors[name].dtype} {[*tensors[name].shape]}")
        if tensors["labels"].max() > 9:
            raise ValueError("labels: one is no digit")
    return Digits(tensors["images"], tensors["labels"], tensors["index"])


def to_inputs(
    images: UInt8[Tensor, "n 28 28"], pixels: Pixels, out: Float[Tensor, "n 1 32 32"] | None = None
) -> Float[Tensor, "n 1 32 32"]:
    """Scale grey levels linearly (0 → background, 255 → ink) and add the border of background. ``out``: where to."""
    if out is None:
        out = torch.empty(len(images), 1, 32, 32)
    out.fill_(pixels.background)
    field = out[:, 0, BORDER:-BORDER, BORDER:-BORDER]
    field.copy_(images).mul_((pixels.ink - pixels.background) / 255).add_(pixels.background)
    return out


def shuffled(count: int, seed: int, epoch: int) -> Int64[Tensor, " count"]:
    """The order in which an epoch (from 1) visits ``count`` digits."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))
