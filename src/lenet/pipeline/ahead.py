"""Trainings ahead of their stages: `lenet repro` trains seeds of a variant side by side, and their stages take these.

A result waits in a folder named after its run and ``run.key``. It is there whole or not at all, with a digest of each
file, and is checked again when it is taken. Who may take it is narrow, for it stands in place of a computation: a train
stage that `lenet repro` has started (AHEAD in its environment), and no other command, `lenet train`, `dvc repro`,
`lenet rerun` and `lenet verify` among them. Taken is moved. So what waits was trained by the same call, or left by an
earlier one that was killed, and a forgery would have to be planted just then.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from lenet.params.schema import Params
from lenet.runs.record import Record
from lenet.runtime import layout, processes
from lenet.runtime.errors import InputError
from lenet.runtime.files import FAULTY, json_of, reason, whole, write_json

AHEAD = "LENET_AHEAD"
"""The environment variable that lets a stage take results."""
MOST = 2**30  # bytes that may wait; a run takes less than 10 MB
DIGESTS = "digests.json"


@contextmanager
def kept(runs: Mapping[int, str]) -> Iterator[dict[int, Path]]:
    """Folders for trainings, by seed; the results of those that end well are then kept for their stages.

    Args:
        runs: by seed, ``<variant>-<seed>``.
    """
    with processes.own_folder(workshop()) as folder:
        outs = {seed: folder / name for seed, name in runs.items()}
        try:
            yield outs
        finally:
            for out in outs.values():
                if (out / "run.json").exists():
                    keep(out)


def keep(folder: Path) -> None:
    """Move a training's files to where its stage takes them from; the oldest make room."""
    record = Record.read(folder / "run.json")
    write_json(folder / DIGESTS, _digests(folder))
    with processes.alone(home()):
        place = home() / f"{record.name}-{record.key}"
        shutil.rmtree(place, ignore_errors=True)
        folder.replace(place)
        waiting = sorted((entry for entry in home().glob("*/")), key=lambda entry: entry.stat().st_mtime_ns)
        sizes = {entry: sum(path.stat().st_size for path in entry.iterdir()) for entry in waiting}
        for entry in waiting:
            if sum(sizes.values()) <= MOST or entry == place:
                break
            shutil.rmtree(entry)
            del sizes[entry]


def salvage() -> None:
    """Keep what a call that was killed has trained to the end."""
    for folder in processes.orphans(workshop(), remove=False):
        for path in folder.glob("*/run.json"):  # it is written last
            with suppress(*FAULTY, InputError):
                keep(path.parent)


def waits(run: str) -> bool:
    """Whether a result of a run, ``<variant>-<seed>``, waits for its stage; ``take`` sees if it is the right one."""
    return any(home().glob(f"{run}-{'[0-9a-f]' * 64}"))


def take(
    params: Params, name: str, seed: int, data: Path, signature: Path | None, out: Path, snapshots: bool = False
) -> bool:
    """Move the result of a training to its stage's folder, if there is one and `lenet repro` has started the stage.

    One that is damaged is removed with a warning. Arguments and errors are those of stage train. Returns whether there
    was one; else the stage has to train.
    """
    if os.environ.get(AHEAD) != "1" or not waits(f"{name}-{seed}"):
        return False
    from lenet.digits.data import load_digits
    from lenet.pipeline import signing

    variant = params.variant(name)
    with processes.sole_writer(out):
        digits = load_digits(data)
        signed = signing.checked(signature, name, variant, digits)
        record = signing.identify(name, seed, variant, digits, signed)
        with processes.alone(home()):
            entry = home() / f"{record.name}-{record.key}"
            if not entry.is_dir():
                return False
            try:
                names = _checked(entry, record, snapshots)
            except (*FAULTY, InputError) as error:
                why = f"{entry} is no whole result of this training ({reason(error)})"
                print(f"lenet: warning: {why}; it is removed, and {record.name} trained", file=sys.stderr)
                shutil.rmtree(entry)
                return False
            processes.check()
            for file in sorted(names, key=lambda file: file == "run.json"):  # it comes last
                with whole(out / file) as beside:
                    shutil.copyfile(entry / file, beside)
            shutil.rmtree(entry)
    print(f"{record.name}: trained side by side with other seeds", file=sys.stderr)
    return True


def home() -> Path:
    """The folder of all that waits."""
    return layout.kept("results")


def workshop() -> Path:
    """The folder in which trainings leave their files before these wait."""
    return layout.kept("ahead")


def _checked(entry: Path, record: Record, snapshots: bool) -> list[str]:
    """The names of a result's files, which are whole and of this training; else raises what is in FAULTY."""
    from lenet.evaluation import judge

    digests = _digests(entry)
    if digests != json_of((entry / DIGESTS).read_bytes()):
        raise ValueError("a file is not as it was written")
    if ("snapshots.safetensors" in digests) != snapshots:
        raise ValueError("it has snapshots, or lacks them")
    told = judge.weights_told({file: entry / file for file in digests})
    if faults := [*judge.contradictions(told)]:
        raise ValueError(faults[0])
    found = Record.read(entry / "run.json")
    if found != record.with_weights(str(found.weights)):
        raise ValueError("run.json is another training's")
    return [*digests]


def _digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a training, by name."""
    paths = (path for path in sorted(folder.iterdir()) if path.name != DIGESTS and not path.name.startswith("."))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
