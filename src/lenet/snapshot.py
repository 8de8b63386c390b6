"""The sources behind a run: the commit, an archive, and a readable diff of what is not committed.

Both hold files of an allow-list alone, so never data, and nothing that Git is told to ignore. Where Git does not
answer, there is an archive all the same. What is read from an archive, which may be a stranger's, keeps to the same
limits.
"""

import io
import os
import re
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

PATHS = (
    "src/**/*.py", "src/**/*.html", "params.yaml", "dvc.yaml", "*/params.yaml", "*/dvc.yaml", "pyproject.toml",
    "requirements*.lock",
)  # fmt: skip
"""What makes a result, as Git's globs; a difference from the commit in one of these is ``git.dirty``."""
RECORDS = ("dvc.lock", "*/dvc.lock")
"""What a result leaves in Git: kept in the archive, but no part of the diff."""
FILE_LIMIT = 2**20  # bytes; a larger file is left out
LIMIT = 4 * 2**20  # bytes of a whole archive, before compression, or of a diff
MOST = 1000  # files in an archive
SECRET = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")  # a file with one in it is left out

_KEPT = re.compile(
    "|".join(re.escape(glob).replace(r"\*\*/", "(?:.+/)?").replace(r"\*", "[^/]*") for glob in PATHS + RECORDS)
)
_DIFF = ("diff", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames")


def commit() -> str:
    """The checked-out commit's hash; ``none`` where there is none, or Git does not answer."""
    return _git("rev-parse", "--verify", "--quiet", "HEAD").decode().strip() or "none"


def state() -> str:
    """Whether what makes a result differs from the commit: ``true``, ``false``, or ``unknown`` without an answer."""
    if silence():
        return "unknown"
    return str(bool(_git("status", "--porcelain", "--untracked-files=all", "--", *_globs(PATHS)))).lower()


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
    """A ZIP of the sources as they are now; its bytes are a function of theirs."""
    content, room = io.BytesIO(), LIMIT
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as target:
        names = _names("ls-files", "--cached", "--others", "--exclude-standard", patterns=PATHS + RECORDS)
        if silence():
            found = (path for pattern in PATHS + RECORDS for path in Path().glob(pattern))
            names = _plain(path.as_posix() for path in found)
        for path in [*_present(names)][:MOST]:
            source = path.read_bytes()
            if len(source) <= room:
                room -= len(source)
                target.writestr(zipfile.ZipInfo(path.as_posix()), source, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def read(archive: bytes) -> dict[str, bytes]:
    """The sources in an archive, by name; without dvc.lock, which holds results of the moment it was made.

    Raises ValueError where it is damaged or not one that ``archive`` makes.
    """
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

    A diff beyond LIMIT is cut and says so.
    """
    changed = _names("diff", "--relative", "--no-renames", "--name-only", "HEAD", patterns=PATHS)
    kept = [name for name in changed if not os.path.lexists(name) or list(_present([name]))]
    new = _present(_names("ls-files", "--others", "--exclude-standard", patterns=PATHS))
    here = os.fsdecode(_git("rev-parse", "--show-prefix")).strip("\n")  # the project may be a folder of a repository
    changes = [*_DIFF, "--src-prefix=a/", "--dst-prefix=b/", "--no-relative", "HEAD", "--", *kept]
    addition = [*_DIFF, f"--src-prefix=a/{here}", f"--dst-prefix=b/{here}", "--no-index", "--", "/dev/null"]
    parts = [_git(*changes)] if kept else []  # without names it would be of everything
    parts += [_git(*addition, str(path)) for path in new]
    text = b"".join(parts)
    return text if len(text) <= LIMIT else text[:LIMIT] + f"\n# cut here: {len(text):,} bytes in all\n".encode()


def _names(*words: str, patterns: tuple[str, ...]) -> list[str]:
    """The names that a Git command lists, from the present folder on, in order; none that is hidden."""
    names = _git(*words, "-z", "--", *_globs(patterns)).split(b"\0")
    return _plain(os.fsdecode(name) for name in names if name)


def _plain(names: Iterable[str]) -> list[str]:
    """Those that are not hidden, in order, each once."""
    return sorted(name for name in {*names} if not _is_hidden(name))


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _present(names: list[str]) -> Iterator[Path]:
    """Those that are fit to be shown: files of moderate size without secrets; no link, which could lead anywhere."""
    for path in map(Path, names):
        try:
            fit = path.is_file() and not path.is_symlink() and path.stat().st_size <= FILE_LIMIT
            if fit and not SECRET.search(path.read_bytes()):
                yield path
        except OSError:  # gone, or not ours to read
            continue


def _globs(patterns: tuple[str, ...]) -> list[str]:
    """As Git's pathspecs, from the present folder on: a ``*`` stays within one folder."""
    return [f":(glob){pattern}" for pattern in patterns]


def _git(*words: str) -> bytes:
    """What a Git command prints; nothing where there is no Git or no repository."""
    try:
        environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # a user's own Git commands are not in its way
        return subprocess.run(["git", *words], capture_output=True, timeout=30, env=environment).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""
