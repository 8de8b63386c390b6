"""The packaged model: raw 28×28 images in, digits out, without Lightning and without pickle.

MLflow copies ``SOURCES`` of this package into the model and calls ``_load_pyfunc``.
"""

import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from packaging.version import Version

from lenet.evaluation import recognition
from lenet.runtime.errors import InputError

FILES = ("weights.safetensors", "run.json")
"""What a loaded network is made of, in a run's folder and in the model's."""

SOURCES = (
    "__init__.py", "arithmetic", "digits/__init__.py", "digits/data.py", "evaluation/__init__.py",
    "evaluation/recognition.py", "inference/__init__.py", "inference/model.py", "kernels", "networks", "params",
    "runs/__init__.py", "runs/record.py", "runtime/__init__.py", "runtime/errors.py", "runtime/files.py",
    "training/__init__.py", "training/objective.py",
)  # fmt: skip
"""The package's folders and modules that run a network."""

SIDE = 28  # of an image, pixels

_PACKAGES = ("torch", "numpy", "numba", "llvmlite", "safetensors", "pydantic", "ruamel.yaml", "jaxtyping", "packaging")


class Model:
    """A trained network in use.

    Attributes:
        recogniser: the network with its decision rule, and the record of its training.
    """

    def __init__(self, recogniser: recognition.Recogniser) -> None:
        self.recogniser = recogniser

    def predict(self, images: Any, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Recognise digits.

        Images that look dark on light are answered as they are, with a warning.

        Args:
            images: uint8 (n, 28, 28), 0 background … 255 ink, for any n; or what ``as_images`` makes that of.
            params: not used; MLflow may pass it.

        Returns:
            ``digit``: int64 (n,); ``scores``: float32 (n, 10): probabilities where the output is a softmax, squared
            distances to the codes where it is rbf, else the outputs.

        Raises:
            InputError: what is no such image, in one line.
        """
        found = as_images(images)
        if count := int(inverted(found).sum()):
            some = "the image looks" if len(found) == 1 else f"{count} of {len(found)} images look"
            warnings.warn(f"{some} dark on light; ink is 255 on 0: give 255 - images", stacklevel=2)
        return self.recogniser.predict(found)


def as_images(images: Any) -> UInt8[np.ndarray, "n 28 28"]:
    """Images as the network takes them; what may be written into is not copied.

    Args:
        images: an array, or what NumPy makes one of: (n, 28, 28), or (28, 28) for one image; grey levels as
            ``grey_levels`` takes them.

    Raises:
        InputError: another shape, or no grey levels.
    """
    try:
        array = np.asarray(images)
    except (ValueError, TypeError, RuntimeError) as error:  # lists of several lengths; tensors elsewhere
        raise InputError(f"no array of images: {str(error).splitlines()[0]}") from None
    one = array[None] if array.ndim == 2 else array
    if one.ndim != 3 or one.shape[1:] != (SIDE, SIDE):
        colours = one.ndim > 2 and one.shape[-1] in (3, 4)
        hint = "; take the mean of colours" if colours else ""
        raise InputError(f"an array of shape {array.shape}; expected (n, 28, 28), or (28, 28) for one image{hint}")
    return np.require(grey_levels(one), np.uint8, ["C", "W"])


def grey_levels(values: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Grey levels as bytes, where it is clear what is meant.

    Args:
        values: whole numbers 0 … 255 of any type; fractions of ink 0 … 1, times 255 and rounded; or False and True.

    Raises:
        InputError: other values, or of another kind.
    """
    if values.dtype == np.uint8 or not values.size:
        return values.astype(np.uint8, copy=False)
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise InputError(f"an array of {values.dtype}; expected uint8, 0 background … 255 ink")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 255):  # or NaN
        raise InputError(f"values from {low:g} to {high:g}; expected uint8, 0 background … 255 ink")
    if values.dtype.kind == "f":
        if high <= 1:
            return np.rint(values * 255).astype(np.uint8)
        if (values % 1).any():
            raise InputError(f"fractions from {low:g} to {high:g}: neither of 1 nor grey levels; round those to uint8")
    return values.astype(np.uint8)


def inverted(images: UInt8[np.ndarray, "n 28 28"]) -> Bool[np.ndarray, " n"]:
    """Which images have more ink than not around their edge: MNIST's have hardly any there."""
    edge = np.ones((SIDE, SIDE), bool)
    edge[1:-1, 1:-1] = False
    return images[:, edge].mean(1, dtype=np.float32) > 127


def load(folder: str | Path) -> Model:
    """Load the network of a run's folder (or an MLflow model's data). Raises InputError for faulty files."""
    return Model(recognition.load(Path(folder)))


def example() -> UInt8[np.ndarray, "2 28 28"]:
    """Two images: a vertical bar (a plausible 1) and an empty field."""
    images = np.zeros((2, SIDE, SIDE), np.uint8)
    images[0, 4:24, 13:15] = 255
    return images


def requirements() -> list[str]:
    """The packages that a loaded model needs, at their installed public versions."""
    return [f"{name}=={Version(metadata.version(name)).public}" for name in _PACKAGES]


def _load_pyfunc(path: str) -> Model:
    return load(path)
