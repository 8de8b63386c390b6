"""The figures of one training that MLflow shows, drawn from its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lenet.evaluation import scoring
from lenet.report import figures
from lenet.report.figures import save
from lenet.runs import readers

__all__ = ["FIGURES", "save"]

MISSES_SHOWN = 120  # in the figure of misclassified digits


def _learning_curve(name: str, files: Mapping[str, Path]) -> Any:
    return figures.learning_curve(readers.read(files["history.csv"], readers.history).to_dict("records"))


def _kernels(name: str, files: Mapping[str, Path]) -> Any:
    return figures.kernels(files["weights.safetensors"])


def _confusion(name: str, files: Mapping[str, Path]) -> Any:
    answers = readers.read(files["predictions.csv"], readers.predictions)
    return figures.confusion([(name, scoring.confusion(answers["answer"].to_numpy(), answers["label"].to_numpy()))])


def _misclassified(name: str, files: Mapping[str, Path]) -> Any:
    missed = readers.read(files["missed.safetensors"], readers.missed)
    answers = readers.read(files["predictions.csv"], readers.predictions).set_index("index").loc[[*missed]]
    captions = [f"{row.label}→{row.answer} #{row.Index}" for row in answers.itertuples()]
    images = np.array([*missed.values()]).reshape(-1, 28, 28)
    return figures.gallery(images[:MISSES_SHOWN], captions[:MISSES_SHOWN])


FIGURES = {
    "learning_curve": (("history.csv",), _learning_curve),
    "C1_kernels": (("weights.safetensors",), _kernels),
    "confusion": (("predictions.csv",), _confusion),
    "misclassified": (("predictions.csv", "missed.safetensors"), _misclassified),
}
"""Their names, from which files of the run they are drawn, and how."""
