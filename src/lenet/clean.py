"""`lenet clean`: what killed commands have left behind."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from lenet import fingerprint
from lenet.config import Params
from lenet.digits.data import Digits, load_digits
from lenet.errors import InputError
from lenet.rerun import workplace
from lenet.training import checkpoint


def clean(params: Params, data: Path, signatures: Path, dry_run: bool) -> Iterator[tuple[Path, str]]:
    """Remove folders of reruns that are gone, and checkpoints that no training of params.yaml would go on from.

    Args:
        params: the variants.
        data: the training digits; without them it is not known which training goes on from what.
        signatures: the folder of the variants' signatures; of a variant without one it is not known either.
        dry_run: remove nothing.

    Yields:
        What is removed, or would be, and why.
    """
    for folder in workplace.orphans(remove=not dry_run):
        yield folder, "of a rerun that was killed"
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
            if not _may_go_on(params, name, key, digits, signatures):
                yield folder, f"checkpoints of a {name} of other parameters, digits or signature"
                if not dry_run:
                    shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()


def _may_go_on(params: Params, name: str, key: str, digits: Digits, signatures: Path) -> bool:
    """Whether a training of this name now may have a ``run.key`` that begins so."""
    variant, _, seed = name.rpartition("-")
    if variant not in params.variants:
        return False
    signed = signatures / f"{variant}.json"
    if not signed.exists():
        return True
    block = params.variants[variant]
    signature = fingerprint.json_sha256(json.loads(signed.read_bytes()))
    data = fingerprint.data_sha256(*digits.split(block))
    return fingerprint.run_key(block, int(seed), data, signature).startswith(key)
