"""`lenet clean`: what killed commands have left behind."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lenet.digits.data import Digits, load_digits
from lenet.params.schema import Params
from lenet.pipeline import ahead, signing
from lenet.reproduce import workplace
from lenet.runtime import processes
from lenet.runtime.errors import InputError
from lenet.training import checkpoint


def clean(params: Params, data: Path, dry_run: bool) -> Iterator[tuple[Path, str]]:
    """Remove what is left of killed commands: folders, results that no stage has taken, and dead checkpoints.

    Checkpoints that a training of params.yaml would go on from stay.

    Args:
        params: the variants.
        data: the training digits; without them it is not known which training goes on from what.
        dry_run: remove nothing.

    Yields:
        What is removed, or would be, and why.
    """
    for home, what in ((workplace.home(), "rerun"), (ahead.workshop(), "`lenet repro`")):
        for folder in processes.orphans(home, remove=not dry_run):
            yield folder, f"left by a killed {what}"
    with suppress(InputError), processes.sole_pipeline():  # or their stages are about to take them
        for folder in sorted(ahead.home().glob("*/")):
            yield folder, "a result that no stage has taken"
            if not dry_run:
                shutil.rmtree(folder, ignore_errors=True)
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
