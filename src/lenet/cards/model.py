"""A variant's model card."""

import json
from typing import Any

from lenet.cards import front
from lenet.cards.published import Published
from lenet.evaluation.robustness import DISTURBANCES
from lenet.networks import layer_table
from lenet.params.loading import flatten
from lenet.report import results_table

ROUNDED = 6  # digits of an accuracy's fraction: a test set of 10,000, several seeds


def card(found: Published) -> str:
    """Markdown with front matter, of the published runs of one variant."""
    misses, error, validation, parameters = results_table.cells(found.numbers)
    classes = [
        sum(run["test"]["error.per_class"][digit] for run in found.runs.values()) / len(found.runs)
        for digit in range(10)
    ]
    notes = [results_table.FORMER] * found.is_former
    notes += ["The settings below have been edited since these runs."] * found.is_of_other_settings
    content = {
        "front_matter": front.matter(front_matter(found)),
        "found": found,
        "notes": notes,
        "what": layer_table.what(found.block),
        "settings": {name: _shown(value) for name, value in flatten(found.block).items()},
        "distorted": found.block.distortion.kind != "none",
        "misses": misses,
        "error": error,
        "validation": validation,
        "parameters": parameters,
        "classes": classes,
        "hardest": max(range(10), key=classes.__getitem__),
        "likelihood": found.mean("test", "negative_log_likelihood"),
        "calibration": found.mean("test", "calibration_error"),
        "curves": curves(found),
    }
    return front.template("model.md").render(content)


def front_matter(found: Published) -> dict[str, Any]:
    """The metadata that the Hugging Face hub reads: the accuracy is the mean over seeds, as a fraction of 1."""
    accuracy = {
        "type": "accuracy",
        "value": round(1 - found.numbers["test_error"], ROUNDED),
        "name": f"Accuracy, mean of {len(found.runs)} trainings, last epoch",
    }
    result = {
        "task": {"type": front.TASK, "name": "Image classification"},
        "dataset": {"type": front.MNIST, "name": "MNIST", "split": "test"},
        "metrics": [accuracy],
    }
    return {
        "language": front.LANGUAGE,
        "license": front.licence(),
        "library_name": "pytorch",
        "pipeline_tag": front.TASK,
        "tags": ["lenet-5", "mnist", "handwritten-digits", "reproducibility"],
        "datasets": [front.MNIST],
        "metrics": ["accuracy"],
        "model-index": [{"name": found.name, "results": [result]}],
    }


def curves(found: Published) -> list[dict[str, Any]]:
    """Each disturbance that all seeds' metrics have, with the mean error at each level that disturbs.

    Returns:
        Rows of ``name``, ``unit`` and ``errors``: level (as in metrics) → fraction of 1.
    """
    rows = []
    for name, levels in found.first["robustness"].items():
        kind = DISTURBANCES[name]
        means = {level: found.mean("robustness", name, level) for level in levels if float(level) != kind.none}
        errors = {level: error for level, error in means.items() if error is not None}
        rows.append({"name": name, "unit": kind.unit, "errors": errors})
    return rows


def _shown(value: Any) -> str:
    """A setting as YAML has it in one line."""
    return value if isinstance(value, str) else json.dumps(value)
