"""Digests that say whether two runs are the same: of tensors, digits, blocks and sources; and the environment's."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.utils import canonicalize_name
from torch import Tensor

from lenet.digits.data import Digits
from lenet.params.schema import Variant
from lenet.runtime.files import sha256_of

PACKAGE = Path(__file__).parents[1]
NUMERIC = ("arithmetic", "digits", "kernels", "networks", "params", "runs/record.py", "runtime/files.py", "training")
"""Folders and modules that say what a training's files hold: what a signature depends on (dvc.yaml has the same)."""


def json_sha256(content: Any) -> str:
    """SHA-256 of content as canonical JSON: sorted names, no spaces, floats in their shortest exact form."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over each tensor's name, dtype, shape and bytes, sorted by name; it does not depend on a file format."""
    parts = []
    for name, tensor in sorted(tensors.items()):
        array = tensor.detach().contiguous().numpy()
        parts += [name.encode(), str(array.dtype).encode(), str(array.shape).encode(), array.tobytes()]
    return sha256_of(*parts)


def data_sha256(train: Digits, validation: Digits) -> str:
    """SHA-256 over all images and labels that a training sees."""
    return tensors_sha256(
        {
            f"{name}.{part}": getattr(digits, part)
            for name, digits in (("train", train), ("validation", validation))
            for part in ("images", "labels")
        }
    )


def digits_sha256(digits: Digits) -> str:
    """SHA-256 over all training digits' images and labels, in their order: as a signature has it."""
    return tensors_sha256({"images": digits.images, "labels": digits.labels})


def block_sha256(variant: Variant) -> str:
    """SHA-256 of a resolved block."""
    return json_sha256(variant.model_dump(mode="json"))


def source_sha256() -> str:
    """SHA-256 over the paths and bytes of the numeric sources. It tells of runs; it does not identify them."""
    found = (PACKAGE / name for name in NUMERIC)
    files = (file for place in found for file in ([place] if place.is_file() else place.rglob("*.py")))
    parts = ((file.relative_to(PACKAGE).as_posix().encode(), file.read_bytes()) for file in files)
    return sha256_of(*(part for pair in sorted(parts) for part in pair))


def run_key(variant: Variant, seed: int, data: str, signature: str) -> str:
    """The identity of a training: everything that its weights are a function of.

    Args:
        variant: the resolved block.
        seed: the run's seed.
        data: ``data.sha256``.
        signature: what the code makes of this block (training/signature.py).
    """
    block = variant.model_dump(mode="json")
    return json_sha256({"variant": block, "seed": seed, "data": data, "signature": signature})


def processor() -> str:
    """The instruction set that torch computes with, for example ``AVX512``."""
    return str(torch.backends.cpu.get_cpu_capability())


def environment_sha256() -> str:
    """SHA-256 over the names and versions of all installed distributions."""
    return sha256_of(*(line.encode() for line in environment()))


@cache
def environment() -> tuple[str, ...]:
    """The installed distributions as sorted ``name==version`` lines."""
    found = {canonicalize_name(d.metadata["Name"]): d.version for d in metadata.distributions()}
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))
