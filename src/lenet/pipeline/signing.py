"""Signatures around trainings: the stage, the check before a training, and what this code gave before.

A signature says what the code makes of a block (training/signature.py). A pipeline keeps those of its variants in
``signatures/``, in Git; ``train`` depends on them in place of source files, and makes sure that they are what the
present code gives. What it gave is kept beside checkpoints, so that a variant's other seeds, and a study's other
trials of one structure, pay nothing. What computes one imports Lightning, for seconds, and only then.
"""

import json
import platform
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from lenet.arithmetic import conformance
from lenet.digits.data import Digits, load_digits
from lenet.params.loading import flatten
from lenet.params.schema import Params, Variant
from lenet.runs.record import Record
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, reason, write_json
from lenet.training import fingerprint


def stage(params: Params, name: str, data: Path, out: Path) -> None:
    """Stage signature: sign a variant's block, anew, and write it.

    Args:
        params: the whole of params.yaml.
        name: the variant.
        data: the file of training digits.
        out: the file of the signature.

    Raises:
        InputError: unknown variant, unfit data, or an arithmetic that is off.
    """
    from lenet.training import signature

    conformance.check()
    variant = params.variant(name)
    digits = load_digits(data)
    content = signature.sign(variant, digits)
    write_json(_kept(variant, fingerprint.digits_sha256(digits)), content)
    write_json(out, content)


def of(variant: Variant, digits: Digits) -> str:
    """The signature of a block, by the present code, as ``run.key`` takes it; of a block without a stage, too."""
    return fingerprint.json_sha256(_content(variant, digits))


def of_trial(variant: Variant, digits: Digits) -> str:
    """The signature of a trial of a study: that of its structure, which it shares with many others."""
    from lenet.training import signature

    return of(signature.structure(variant), digits)


def checked(path: Path | None, name: str, variant: Variant, digits: Digits) -> str:
    """The signature in a file, made sure that it is the variant's on these digits and what this code gives.

    Args:
        path: the file; None: it is computed.
        name: the variant's name, for messages.
        variant: its block.
        digits: all training digits.

    Raises:
        InputError: it is another one, or none.
    """
    if path is None:
        return of(variant, digits)
    remedy = f"run `dvc repro {_stage_of(path, name)}`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        block, data, digests = content["block"], content["data"], content["digests"]
    except FAULTY as error:
        said = reason(error) if isinstance(error, OSError) else f"not a signature ({reason(error)})"
        raise InputError(f"{path}: {said}; {remedy}") from None
    if block != fingerprint.block_sha256(variant):
        raise InputError(f"{path} is stale: it is of another block than variants.{name}; {remedy}")
    if data != fingerprint.digits_sha256(digits):
        raise InputError(f"{path} is stale: it is of other training digits; {remedy}")
    here = _content(variant, digits)
    if here != content:
        one, other = flatten(here["digests"]), flatten(digests)
        parts = ", ".join(name for name in sorted({*one, *other}) if one.get(name) != other.get(name)) or "its form"
        raise InputError(f"{path} is stale: this code gives other {parts}; {remedy}")
    return fingerprint.json_sha256(content)


def identify(name: str, seed: int, variant: Variant, digits: Digits, signature: str) -> Record:
    """The record of a training that has yet to run.

    Args:
        name: the variant's name.
        seed: the run's seed.
        variant: the resolved block.
        digits: all training digits.
        signature: the block's.
    """
    data = fingerprint.data_sha256(*digits.split(variant))
    return Record(name, seed, variant, fingerprint.run_key(variant, seed, data, signature), data, signature)


def home() -> Path:
    """The folder of the signatures that code gave on this machine."""
    return layout.kept("signed")


def _content(variant: Variant, digits: Digits) -> dict[str, Any]:
    """The signature of a block, computed unless this very code gave it before on these digits."""
    kept = _kept(variant, fingerprint.digits_sha256(digits))
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(kept.with_suffix(".lock")):  # of two that need it, one computes it
        try:
            return json.loads(kept.read_text(encoding="utf-8"))
        except FAULTY:
            from lenet.training import signature

            content = signature.sign(variant, digits)
            write_json(kept, content)
            return content


def _kept(variant: Variant, data: str) -> Path:
    """Where the signature of a block by this code is kept: it goes by all that the computation could follow."""
    around = {
        "source": fingerprint.source_sha256(),
        "block": fingerprint.block_sha256(variant),
        "data": data,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": fingerprint.processor(),
    }
    return home() / f"{fingerprint.json_sha256(around)}.json"


def _stage_of(path: Path, name: str) -> str:
    """The stage that makes a signature: its pipeline's folder is the one around ``signatures``."""
    pipeline = path.parent.parent
    return f"signature@{name}" if pipeline == Path() else f"{pipeline}/dvc.yaml:signature@{name}"
