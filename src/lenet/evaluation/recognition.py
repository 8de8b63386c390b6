"""A trained network with its decision rule: images in, outputs and digits out."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from lenet import networks
from lenet.runs.record import Record
from lenet.runtime.files import reading
from lenet.training import objective


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


def _load_pyfunc(path: str) -> Recogniser:
    """For models in MLflow that name this module; today's are packed by inference/model.py."""
    return load(Path(path))
