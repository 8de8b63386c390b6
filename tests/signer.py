"""Signs blocks by copies of this package's sources: what both have of other packages is imported once.

Reads a line of JSON for each question, {"sources": folder, "blocks": {name: block}, "what": a function of this module},
and answers with one of {name: result}; in place of a result stands what an exception says.
"""

import importlib
import json
import os
import sys

import numpy  # noqa: F401
import pydantic  # noqa: F401
import pytorch_lightning  # noqa: F401
import torch
from safetensors.torch import load_file

DIGITS = 6000


def answer(question: dict, tensors: dict[str, torch.Tensor]) -> dict[str, object]:
    sys.path.insert(0, question["sources"])
    schema, data = (importlib.import_module(f"lenet.{name}") for name in ("params.schema", "digits.data"))
    digits = data.Digits(*(tensors[name][:DIGITS] for name in ("images", "labels", "index")))
    found: dict[str, object] = {}
    for name, block in question["blocks"].items():
        try:
            found[name] = globals()[question["what"]](schema.Variant.model_validate(block), digits)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def sign(variant: object, digits: object) -> object:
    """A signature."""
    return importlib.import_module("lenet.training.signature").sign(variant, digits)["digests"]


def loaded(variant: object, digits: object) -> object:
    """The files of this package's modules that a training imports."""
    importlib.import_module("lenet.training.fit")
    return [module.__file__ for name, module in sys.modules.items() if name.startswith("lenet.")]


def main() -> None:
    torch.set_num_threads(1)
    tensors = load_file(sys.argv[1])
    for line in sys.stdin:
        reading, writing = os.pipe()
        if not (child := os.fork()):
            os.close(reading)
            with os.fdopen(writing, "w") as file:
                json.dump(answer(json.loads(line), tensors), file)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as file:
            said = file.read()
        os.waitpid(child, 0)
        print(said or json.dumps({"": "the process died"}), flush=True)


if __name__ == "__main__":
    main()
