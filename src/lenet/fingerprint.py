"""Digests that say whether two runs are the same: of tensors, sources, packages, and of the machine's arithmetic."""

import ast
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from torch import Tensor

from lenet import THREADS
from lenet.config import Variant
from lenet.digits.data import Digits
from lenet.errors import InputError

PACKAGE = Path(__file__).parent
NOT_NUMERIC = frozenset({"tracking", "progress", "lifetime", "places"})
"""Modules that stages import and that cannot change their outputs (tests train with them on, off and failing)."""


def sha256_of(*parts: bytes) -> str:
    """SHA-256 of length-prefixed parts, so that no two different lists collide."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


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


def sources(module: str) -> tuple[str, ...]:
    """The names of the package's modules that can change what ``module`` computes: its imports, followed.

    Modules in NOT_NUMERIC are left out, with what only they import.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in NOT_NUMERIC:
            continue
        found.add(name)
        waiting += _imports(name)
    return tuple(sorted(found | {"__init__"}))


@cache
def _imports(module: str) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module == "lenet":
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lenet."):
            names.append(str(node.module).removeprefix("lenet."))
        elif isinstance(node, ast.Import):
            names += [alias.name.removeprefix("lenet.") for alias in node.names if alias.name.startswith("lenet.")]
    return tuple(name for name in names if (PACKAGE / f"{name}.py").exists())


def numerics(lock: Path) -> dict[str, str]:
    """The installed public versions of the packages that ``requirements-numeric.lock`` pins."""
    return {r.name: Version(metadata.version(r.name)).public for r in _requirements(lock)}


def check_numerics(lock: Path) -> None:
    """Raise InputError if an installed package differs from the lock: its bits may differ too."""
    faults = []
    for requirement in _requirements(lock):
        installed = metadata.version(requirement.name)
        if not requirement.specifier.contains(installed, prereleases=True):
            faults.append(f"{requirement.name} {installed} is installed, not {requirement.specifier}")
    if faults:
        raise InputError(
            f"{lock}: {'; '.join(faults)}. The weights may come out different; "
            "install the lock (`make environment`), or allow it with --allow-other-numerics"
        )


def _requirements(lock: Path) -> list[Requirement]:
    try:
        lines = lock.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{lock}: {error.strerror}") from None
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def source_sha256() -> str:
    """SHA-256 over the source modules that can change a training's bits."""
    return sha256_of(*((PACKAGE / f"{name}.py").read_bytes() for name in sources("train")))


def run_key(variant: Variant, seed: int, data: str, source: str, packages: Mapping[str, str], threads: int) -> str:
    """The identity of a training: everything that its weights are a function of.

    Args:
        variant: the resolved block.
        seed: the run's seed.
        data: ``data.sha256``.
        source: ``source.sha256``.
        packages: the numeric packages' versions.
        threads: that torch uses.
    """
    identity: dict[str, Any] = {
        "variant": variant.model_dump(),
        "seed": seed,
        "data": data,
        "source": source,
        "packages": dict(packages),
        "threads": threads,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def identify(variant: Variant, seed: int, digits: Digits, lock: Path) -> tuple[str, str, str, int]:
    """``run.key``, ``data.sha256``, ``source.sha256`` and threads of a training here.

    Args:
        variant: the resolved block.
        seed: the run's seed.
        digits: all training digits.
        lock: ``requirements-numeric.lock``.
    """
    data, source = data_sha256(*digits.split(variant)), source_sha256()
    return run_key(variant, seed, data, source, numerics(lock), THREADS), data, source, THREADS


def processor() -> str:
    """The instruction set that torch computes with, for example ``AVX512``."""
    return str(torch.backends.cpu.get_cpu_capability())


def environment_sha256() -> str:
    """SHA-256 over the names and versions of all installed distributions."""
    return sha256_of(*(line.encode() for line in environment()))


def environment() -> list[str]:
    """The installed distributions as sorted ``name==version`` lines."""
    found = {canonicalize_name(d.metadata["Name"]): d.version for d in metadata.distributions()}
    return [f"{name}=={version}" for name, version in sorted(found.items())]


def canary() -> str:
    """Stands in until runs are identified by signatures."""
    return "portable"
