"""A trained network as an MLflow model: raw 28×28 images in, digits out, without Lightning and without pickle.

MLflow copies this package's source into the model and calls ``_load_pyfunc``.
"""

from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packaging.version import Version
from safetensors.torch import load_file

from lenet import networks
from lenet.runs.record import Record
from lenet.runtime.files import reading
from lenet.training import objective

FILES = ("weights.safetensors", "run.json")
"""What a loaded network is made of, in a run's folder and in the model's."""

SOURCES = (
    "__init__.py", "arithmetic", "digits/__init__.py", "digits/data.py", "evaluation/__init__.py",
    "evaluation/recognition.py", "kernels", "networks", "params", "runs/__init__.py", "runs/record.py",
    "runtime/__init__.py", "runtime/errors.py", "runtime/files.py", "training/__init__.py", "training/objective.py",
)  # fmt: skip
"""The package's folders and modules that run a network."""

_PACKAGES = ("torch", "numpy", "numba", "llvmlite", "safetensors", "pydantic", "ruamel.yaml", "jaxtyping", "packaging")


class Recogniser:
    """A network with its objective's decision rule."""

    def __init__(self, record: Record, network: networks.AnyNet) -> None:
        self.record, self.network = record, network.eval()
        self.objective = objective.build(record.parameters)

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """The ten outputs (n, 10) for uint8 images (n, 28, 28)."""
        return networks.outputs(self.network, images, self.record.parameters.pixels)

    def predict(self, images: np.ndarray, params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """Recognise digits.

        Args:
            images: uint8 (n, 28, 28), 0 background … 255 ink, for any n.
            params: not used; MLflow may pass it.

        Returns:
            ``digit``: int64 (n,); ``scores``: float32 (n, 10), probabilities where the variant has them.
        """
        scores = self.scores(torch.as_tensor(np.ascontiguousarray(images)))
        digit = self.objective.decide(scores)
        if self.objective.probabilities:
            scores = self.objective.probabilities(scores)
        return {"digit": digit.numpy(), "scores": scores.numpy()}


def load(folder: Path) -> Recogniser:
    """Load the network of a run's folder (or an MLflow model's data). Raises InputError for faulty files."""
    record = Record.read(folder / "run.json")
    network = networks.build(record.parameters.network)
    with reading(folder / "weights.safetensors", "the weights of run.json's network"):
        network.load_state_dict(load_file(folder / "weights.safetensors"))
    return Recogniser(record, network)


def example() -> np.ndarray:
    """Two images, uint8 (2, 28, 28): a vertical bar (a plausible 1) and an empty field."""
    images = np.zeros((2, 28, 28), np.uint8)
    images[0, 4:24, 13:15] = 255
    return images


def requirements() -> list[str]:
    """The packages that a loaded model needs, at their installed public versions."""
    return [f"{name}=={Version(metadata.version(name)).public}" for name in _PACKAGES]


def _load_pyfunc(path: str) -> Recogniser:
    return load(Path(path))
