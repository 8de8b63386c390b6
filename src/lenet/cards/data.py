"""The data card of MNIST as this project uses it."""

from collections.abc import Iterable
from pathlib import Path

from lenet.cards import front
from lenet.cards.published import Published
from lenet.digits.fetch import SHA256
from lenet.digits.prepare import TEST_DIGITS
from lenet.params.schema import TRAINING_DIGITS, Params
from lenet.runtime import layout
from lenet.runtime.files import read_json


def card(params: Params, variants: Iterable[Published], project: Path) -> str:
    """Markdown with front matter. Raises InputError if the digests of the prepared digits are missing."""
    splits: dict[tuple[int, int], list[str]] = {}
    for one in variants:
        digits = one.first["digits"]
        splits.setdefault((digits["trained_on"], digits["held_out"]), []).append(one.name)
    content = {
        "front_matter": front.matter(_front_matter()),
        "training": TRAINING_DIGITS,
        "test": TEST_DIGITS,
        "files": SHA256,
        "prepared": read_json(project / layout.DIGITS),
        "order_seed": params.data.order_seed,
        "splits": dict(sorted(splits.items())),
        # of an error of 1 %, as a fraction of 1
        "standard_error": (0.01 * 0.99 / TEST_DIGITS) ** 0.5,
    }
    return front.template("data.md").render(content)


def _front_matter() -> dict[str, object]:
    sizes = {"train": TRAINING_DIGITS, "test": TEST_DIGITS}
    return {
        "language": front.LANGUAGE,
        "license": "unknown",
        "pretty_name": "MNIST",
        "tags": ["mnist", "handwritten-digits"],
        "task_categories": [front.TASK],
        "size_categories": ["10K<n<100K"],
        "source_datasets": ["extended|other-nist"],
        "dataset_info": {
            "features": [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": "int64"}],
            "splits": [{"name": name, "num_examples": count} for name, count in sizes.items()],
        },
    }
