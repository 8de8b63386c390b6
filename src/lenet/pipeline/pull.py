"""`lenet pull`: what published runs have left in files, from the DVC remote in place of computing it."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lenet.report import draw
from lenet.runtime import layout, processes
from lenet.runtime.errors import InputError


def pull(names: Sequence[str]) -> None:
    """Bring the files of published runs here that DVC's remote has; DVC checks each by its digest.

    Of the main pipeline, everything; the digits and the report are made from MNIST's files. Of an experiment, what
    makes up its networks; its other files have to be computed.

    Args:
        names: experiments; none for the main pipeline.

    Raises:
        InputError: no such experiment, it has no published runs, or DVC ends with an error, which it has shown.
    """
    homes = {home.name: home for home in layout.homes()[1:]}
    if unknown := [name for name in names if name not in homes]:
        raise InputError(f"{', '.join(unknown)}: no such experiment; legal: {', '.join(homes)}")
    with processes.sole_pipeline():
        for home in [homes[name] for name in names] or [Path()]:
            if not (home / "dvc.lock").exists():
                raise InputError(f"{home / 'dvc.lock'} is missing: it names the published files; `git checkout` it")
            _dvc(home, "pull", "--allow-missing")
        if not names:
            _dvc(Path(), "repro", "prepare")
            draw.draw(layout.REPORTS)


def _dvc(home: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *words, "--quiet"], cwd=home, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise InputError(f"`dvc {' '.join(words)}` in {home.absolute()} ended with status {done.returncode}")
