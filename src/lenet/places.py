"""Where this project keeps what is neither an input nor an output of a stage."""

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///([^?]+)(\?.*)?")


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


def sqlite(file: Path) -> str:
    """A sqlite file's address: SQLAlchemy takes ``%`` and ``?`` in it for its own, and Optuna braces."""
    quoted = "".join(quote(character) if character in "%?{}" else character for character in str(file))
    # MLflow makes the folders of the plain scheme's addresses, quoted as they are
    return f"sqlite{'' if quoted == str(file) else '+pysqlite'}:///{quoted}"


def sqlite_file(address: str) -> Path | None:
    """The file of a sqlite address, whose relative path starts at the main checkout; None of another address."""
    found = _SQLITE.fullmatch(address)
    return root() / unquote(found[1]) if found else None


def absolute(address: str) -> str:
    """An address that means the same from every folder; a sqlite file's options, as ``?timeout=60``, stay."""
    file = sqlite_file(address)
    return address if file is None else sqlite(file) + address[len(address.partition("?")[0]) :]


def artifacts(folder: Path) -> str:
    """A folder's address as MLflow reads it: its path; with characters that an address has for its own, a URI."""
    return folder.as_uri() if {*"%?#"} & {*str(folder)} else str(folder)
