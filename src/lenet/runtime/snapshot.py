"""The sources behind a run: the commit, an archive, and a readable diff of what is not committed.

Both hold files of an allow-list alone, so never data, and nothing that Git is told to ignore. Where Git does not
answer, there is an archive all the same. An archive is whole or there is none: without a changed file it might be some
commit's sources. What is read from an archive, which may be a stranger's, keeps to the same limits.
"""

import io
import os
import re
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from lenet.runtime.errors import InputError

PATHS = (
    "src/**/*.py", "src/**/*.html", "params.yaml", "dvc.yaml", "experiments/*/params.yaml", "experiments/*/dvc.yaml",
    "pyproject.toml",
    "requirements*.lock",
)  # fmt: skip
"""What makes a result, as Git's globs; a difference from the commit in one of these is ``git.dirty``."""
RECORDS = ("dvc.lock", "experiments/*/dvc.lock")
"""What a result leaves in Git: kept in the archive, but no part of the diff."""
FORMER = ("*/params.yaml", "*/dvc.yaml", "*/dvc.lock")
"""What archives of earlier runs have, too: experiments had their folders in the root."""
FILE_LIMIT = 2**20  # bytes of a file
LIMIT = 4 * 2**20  # bytes of a whole archive, before compression, or of a diff
MOST = 1000  # files in an archive
SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    rb"|://[^/\s@:]*:(?!\$?\{)[^/\s@]+@"  # a password in an address; ${NAME}, which pip replaces, is none
    rb"|https?://(?!\$?\{)[^/\s@:]+@"  # a token there
    rb"|://\S*[?&;](?i:[a-z_]*(?:password|token|secret))=(?!\$?\{)[^&;\s]"
)

_KEPT = re.compile(
    "|".join(
        re.escape(glob).replace(r"\*\*/", "(?:.+/)?").replace(r"\*", "[^/]*") for glob in (*PATHS, *RECORDS, *FORMER)
    )
)
_DIFF = ("diff", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")


def commit() -> str:
    """The checked-out commit's hash; ``none`` where there is none, or Git does not answer."""
    return git("rev-parse", "--verify", "--quiet", "HEAD", missing="").decode().strip() or "none"


def state() -> str:
    """Whether what makes a result differs from the commit: ``true``, ``false``, or ``unknown`` without an answer."""
    if silence():
        return "unknown"
    return str(bool(git("status", "--porcelain", "--untracked-files=all", "--", *_globs(PATHS), missing=""))).lower()


def silence() -> str:
    """Why Git says nothing of this folder, and what helps; empty where it answers."""
    try:
        done = subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"Git cannot be run ({error}); install it, and `git init` makes this folder a repository"
    said = done.stderr.decode(errors="replace").strip()
    if not done.returncode:
        return ""
    if "safe.directory" in said:
        return f"the repository is another user's; `git config --global --add safe.directory {Path.cwd()}` trusts it"
    if "not a git repository" in said:
        return "this folder is in no Git repository; `git init` makes it one"
    return f"Git does not answer ({said.splitlines()[-1] if said else done.returncode}); `git fsck` tells what is wrong"


def archive() -> bytes:
    """A ZIP of the sources as they are now, its bytes a function of theirs; nothing if ``withheld`` says why."""
    try:
        files = _files()
    except ValueError:
        return b""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as target:
        for name, source in files.items():
            target.writestr(zipfile.ZipInfo(name), source, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def withheld() -> str:
    """Why the sources are not kept; empty where they are."""
    try:
        _files()
    except ValueError as error:
        return str(error)
    return ""


def content(path: Path) -> bytes:
    """A source file's bytes. Raises ValueError if it is too large to be kept, or holds what must not be published."""
    if path.stat().st_size > FILE_LIMIT:
        raise ValueError(f"{path} has more than {FILE_LIMIT:,} bytes")
    found = path.read_bytes()
    if secret := SECRET.search(found):
        line = found.count(b"\n", 0, secret.start()) + 1
        raise ValueError(f"{path}, line {line}, has a key, password or token in it; the environment is its place")
    return found


def _files() -> dict[str, bytes]:
    """The sources, by name. Raises ValueError if not all of them can be kept."""
    names = _names("ls-files", "--cached", "--others", "--exclude-standard", patterns=PATHS + RECORDS)
    if not names and silence():
        names = _plain(path.as_posix() for pattern in PATHS + RECORDS for path in Path().glob(pattern))
    try:
        files = {name: _content(name) for name in names if os.path.lexists(name)}
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    if len(files) > MOST or sum(map(len, files.values())) > LIMIT:
        raise ValueError(f"more than {MOST:,} files or {LIMIT:,} bytes of sources")
    return files


def _content(name: str) -> bytes:
    """As ``content``; of no link either, which could lead anywhere."""
    path = Path(name)
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{name} is no file but a link or folder")
    return content(path)


def read(archive: bytes) -> dict[str, bytes]:
    """The sources in an archive, by name; without dvc.lock, which holds results of the moment it was made.

    Raises ValueError where it is damaged or not one that ``archive`` makes.
    """
    if len(archive) > 2 * LIMIT:  # its list of files alone could take minutes and all memory
        raise ValueError(f"more than {2 * LIMIT:,} bytes")
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as source:
            members = source.infolist()
            if len(members) > MOST or sum(member.file_size for member in members) > LIMIT:
                raise ValueError(f"more than {MOST:,} files or {LIMIT:,} bytes")
            if strange := [member.filename for member in members if not _fits(member)]:
                raise ValueError(f"{strange[0]!r} is no file that a run keeps")
            # where a member holds more than it says, reading ends there, and the checksum is wrong
            files = {member.filename: source.read(member) for member in members}
            return {name: content for name, content in files.items() if PurePosixPath(name).name != "dvc.lock"}
    except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"damaged: {error or type(error).__name__}") from None


def _fits(member: zipfile.ZipInfo) -> bool:
    """Whether a file of an archive is one that ``archive`` puts there."""
    name = member.filename
    usual = member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not member.flag_bits & 1
    plain = PurePosixPath(name).as_posix() == name and name.isprintable() and not _is_hidden(name)
    return usual and plain and member.file_size <= FILE_LIMIT and bool(_KEPT.fullmatch(name))


def diff() -> bytes:
    """What the sources differ by from the commit, new files included, as ``git apply`` takes it; empty if clean.

    Files that cannot be kept are not in it. A diff beyond LIMIT is cut and says so.
    """
    changed = _names("diff", "--relative", "--no-renames", "--name-only", "HEAD", patterns=PATHS)
    new = _names("ls-files", "--others", "--exclude-standard", patterns=PATHS)
    # the project may be a folder of a repository
    here = os.fsdecode(git("rev-parse", "--show-prefix", missing="")).strip("\n")
    changes = [*_DIFF, "--src-prefix=a/", "--dst-prefix=b/", "--no-relative", "HEAD", "--"]
    addition = [*_DIFF, f"--src-prefix=a/{here}", f"--dst-prefix=b/{here}", "--no-index", "--", "/dev/null"]
    parts = [git(*changes, name, missing="") for name in changed if _is_fit(name)]
    parts += [git(*addition, name, missing="") for name in new if _is_fit(name)]
    text = b"".join(part for part in parts if not SECRET.search(part))  # nor one that has been taken out
    return text if len(text) <= LIMIT else text[:LIMIT] + f"\n# cut here: {len(text):,} bytes in all\n".encode()


def _names(*words: str, patterns: tuple[str, ...]) -> list[str]:
    """The names that a Git command lists, from the present folder on, in order; none that is hidden."""
    names = git(*words, "-z", "--", *_globs(patterns), missing="").split(b"\0")
    return _plain(os.fsdecode(name) for name in names if name)


def _plain(names: Iterable[str]) -> list[str]:
    """Those that are not hidden, in order, each once."""
    return sorted(name for name in {*names} if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _is_fit(name: str) -> bool:
    """Whether a file can be kept, or is gone."""
    try:
        if os.path.lexists(name):
            _content(name)
    except (OSError, ValueError):
        return False
    return True


def _globs(patterns: tuple[str, ...]) -> list[str]:
    """As Git's pathspecs, from the present folder on: a ``*`` stays within one folder."""
    return [f":(glob){pattern}" for pattern in patterns]


def git(*words: str, missing: str | None = None, given: bytes = b"") -> bytes:
    """What a Git command prints; a user's own are not in its way.

    Args:
        words: the command.
        missing: what counts as printed where it fails or there is no Git.
        given: its input.

    Raises:
        InputError: it fails, and there is no ``missing``.
    """
    try:
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        done = subprocess.run(["git", *words], input=given, capture_output=True, timeout=60, env=environment)
        if done.returncode in (0, 1):  # 1: something differs
            return done.stdout
        fault = done.stderr.decode(errors="replace") or f"ended with {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        fault = str(error)
    if missing is None:
        raise InputError(f"git {' '.join(words)}: {' '.join(fault.split())}")
    return missing.encode()
