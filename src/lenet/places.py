"""Where this project keeps what is neither an input nor an output of a stage."""

import os
import tempfile
from pathlib import Path


def root() -> Path:
    """The main checkout's root, also from DVC's temporary copies for experiments."""
    if "DVC_ROOT" in os.environ:
        return Path(os.environ["DVC_ROOT"]).resolve()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)


def kept(what: str) -> Path:
    """A folder in the main checkout's ``.dvc/tmp``; where there is no DVC project, in the system's temporary folder."""
    project = root()
    if (project / ".dvc").is_dir():
        return project / ".dvc" / "tmp" / "lenet" / what
    return Path(tempfile.gettempdir()) / "lenet" / str(project).replace(os.sep, "-") / what
