"""`lenet clean`: what killed commands have left behind."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from lenet.digits.data import Digits, load_digits
from lenet.params.schema import Params
from lenet.pipeline import signing
from lenet.reproduce import workplace
from lenet.runtime.errors import InputError
from lenet.training import checkpoint


def clean(params: Params, data: Path, dry_run: bool) -> Iterator[tuple[Path, str]]:
    """Remove folders of reruns that are gone, and checkpoints that no training of params.yaml would go on from.

    Args:
        params: the variants.
        data: the training digits; without them it is not known which training goes on from what.
        dry_run: remove nothing.

    Yields:
        What is removed, or would be, and why.
    """
    for folder in workplace.orphans(remove=not dry_run):
        yield folder, "left by a killed rerun"
    folders = [folder for folder in sorted(checkpoint.home().glob("*-*-*")) if folder.is_dir()]
    try:
        digits = load_digits(data) if folders else None
    except InputError:
        return
    for folder in folders:
        assert digits is not None
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:  # of a training under way
            continue
        try:
            name, _, key = folder.name.rpartition("-")
            if _key(params, name, digits) != key:
                yield folder, f"checkpoints of {name} with other parameters, digits or code"
                if not dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()


def _key(params: Params, name: str, digits: Digits) -> str | None:
    """The ``run.key`` that a training of this name would have now."""
    variant_name, _, seed = name.rpartition("-")
    if variant_name not in params.variants:
        return None
    variant = params.variants[variant_name]
    return signing.identify(variant_name, int(seed), variant, digits, signing.of(variant, digits)).key
