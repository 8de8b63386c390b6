"""Trained networks from files, as their record has them."""

from pathlib import Path

from safetensors.torch import load_file

from lenet.evaluation import recognition
from lenet.evaluation.recognition import Recogniser
from lenet.runtime.errors import FaultyFile
from lenet.training import fingerprint


def load(folder: Path) -> Recogniser:
    """The network of a run's folder. Raises InputError for faulty files, and for weights that are not run.json's."""
    found, weights = recognition.load(folder), folder / "weights.safetensors"
    if fingerprint.tensors_sha256(load_file(weights)) != found.record.weights:
        raise FaultyFile(weights, "the weights are not those of run.json")
    return found
