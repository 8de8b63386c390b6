"""The one owner of paths: the folders of runs and results, and what is no stage's input or output."""

import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote

from lenet.runtime.errors import InputError

RAW = Path("data/raw")
TRAIN, TEST = Path("data/train.safetensors"), Path("data/test.safetensors")
RUNS, METRICS, SIGNATURES, REPORTS = map(Path, ("runs", "metrics", "signatures", "reports"))
DIGITS = SIGNATURES / "digits.json"
"""The digests of the prepared digits: in Git, so that experiments can depend on them."""
SUMMARY = METRICS / "summary.json"
EXPERIMENTS = Path("experiments")
"""A folder for each pipeline beside the root's, laid out as the root: params.yaml, runs, metrics, signatures."""
STORE = "sqlite:///mlflow.db"
"""MLflow's record, unless MLFLOW_TRACKING_URI names another place."""
DAMAGED = re.compile("file is not a database|disk image is malformed")
"""What SQLite says of a file that it cannot read."""
_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///([^?]+)(\?.*)?")


def root() -> Path:
    """The main checkout's root, also from an experiment's folder, and from the temporary copies that DVC works in."""
    if "DVC_ROOT" in os.environ:
        project = Path(os.environ["DVC_ROOT"]).resolve()
    else:
        here = Path.cwd()
        project = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    around = project.parents[1] if project.parent.name == EXPERIMENTS.name else project
    return around if (around / ".dvc").is_dir() else project


def homes(project: Path = Path()) -> list[Path]:
    """The folders that have runs of their own: a project's root, then its experiments."""
    return [project, *sorted((project / EXPERIMENTS).glob("*/"))]


def home_around(path: Path) -> Path:
    """The folder of runs and results that a file lies in: an experiment's, or else the root."""
    homes = (home for home in path.absolute().parents if home.parent == EXPERIMENTS.absolute())
    return next((EXPERIMENTS / home.name for home in homes), Path())


def mlflow_experiment(run: Path) -> str:
    """The MLflow experiment of a run's folder: ``lenet5``, or ``lenet5-NAME`` in experiments/NAME."""
    return "-".join(["lenet5", *home_around(run).parts[1:]])


def of_main(path: Path) -> Path:
    """A file or folder here; where a temporary copy has not got it, that of the main checkout."""
    return path if path.exists() else root() / path


def kept(what: str) -> Path:
    """A folder in the main checkout's ``.dvc/tmp``; where there is no DVC project, in ``private``."""
    project = root()
    if (project / ".dvc").is_dir():
        return project / ".dvc" / "tmp" / "lenet" / what
    return private() / named(project) / what


def named(path: Path) -> str:
    """A name for a path, however long that is; no other path has it."""
    return f"{path.name[:40]}-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:24]}"


def private() -> Path:
    """This user's own folder among the temporary files, the same for all processes. Nobody else can write there.

    Raises InputError if something else has its name.
    """
    folder = Path(tempfile.gettempdir()) / f"lenet-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return folder
    except OSError:  # a file, or a link to nowhere
        pass
    raise InputError(f"{folder} is not a folder of your own alone; remove it, or set TMPDIR to another place")


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


def masked(text: str) -> str:
    """A text, such as an address or an error, without names, passwords and options' values of addresses."""
    text = re.sub(r"(?<=://)(?:[^/\s@:]*:\S*|[^/\s@]*(?:@[^/\s@]*)*)@", "***@", text)
    text = re.sub(r"(?<![^\s/])(?!models:/)[^/\s@:]+:(?!//)\S*@", "***@", text)  # of one that is mistyped
    return re.sub(r"(?<=[?&;#])([^&;#=\s]+=)[^&;#\s]*", r"\1***", text)


def artifacts(folder: Path) -> str:
    """A folder's address as MLflow reads it: its path; with characters that an address has for its own, a URI."""
    return folder.as_uri() if {*"%?#"} & {*str(folder)} else str(folder)
