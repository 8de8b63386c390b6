"""The sources behind a run: the commit, an archive, and a readable diff of what is not committed.

Both hold text files of an allow-list alone, so never data, and nothing that Git is told to ignore.
"""

import io
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

PATHS = ("src", "params.yaml", "dvc.yaml", "*/params.yaml", "*/dvc.yaml", "pyproject.toml", "requirements*.lock")
"""What makes a result; a difference from the commit in one of these is ``git.dirty``."""
RECORDS = ("dvc.lock", "*/dvc.lock")
"""What a result leaves in Git: kept in the archive, but no part of the diff."""
SUFFIXES = frozenset({".py", ".html", ".yaml", ".toml", ".lock"})
FILE_LIMIT = 2**20  # bytes; a larger file is left out of the archive
LIMIT = 4 * 2**20  # bytes of a whole archive, before compression, or of a diff


def commit() -> str:
    """The checked-out commit's hash; ``none`` outside Git."""
    return _git("rev-parse", "--verify", "--quiet", "HEAD").strip() or "none"


def is_dirty() -> bool:
    """Whether what makes a result differs from the commit."""
    return bool(_git("status", "--porcelain", "--untracked-files=all", "--", *_globs(PATHS)))


def archive() -> bytes:
    """A ZIP of the sources as they are now; its bytes are a function of theirs."""
    content, room = io.BytesIO(), LIMIT
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as target:
        for path in _files((*PATHS, *RECORDS)):
            size = path.stat().st_size
            if size <= min(FILE_LIMIT, room):
                room -= size
                target.writestr(zipfile.ZipInfo(path.as_posix()), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def diff() -> str:
    """What the sources differ by from the commit, new files included, as ``git apply`` takes it; empty if clean.

    A diff beyond LIMIT is cut and says so.
    """
    known = _git("ls-files", "-z", "--", *_globs(PATHS)).split("\0")
    changed = _git("diff", "--no-color", "--no-ext-diff", "HEAD", "--", *(name for name in known if _allowed(name)))
    new = [path for path in _files(PATHS) if path.as_posix() not in known]
    added = [_git("diff", "--no-color", "--no-ext-diff", "--no-index", "--", "/dev/null", str(path)) for path in new]
    text = "".join([changed, *added])
    return text if len(text) <= LIMIT else f"{text[:LIMIT]}\n# cut here: {len(text):,} characters in all\n"


def _files(patterns: tuple[str, ...]) -> Iterator[Path]:
    """The present files of the allow-list, in order; no symbolic link, which could lead anywhere."""
    names = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *_globs(patterns)).split("\0")
    for name in sorted(filter(_allowed, set(names))):
        path = Path(name)
        if path.is_file() and not path.is_symlink():
            yield path


def _allowed(name: str) -> bool:
    return Path(name).suffix in SUFFIXES and not Path(name).name.startswith(".")


def _globs(patterns: tuple[str, ...]) -> list[str]:
    """As Git's pathspecs, from the root of the project: a ``*`` stays within one folder."""
    return [f":(glob){pattern}" if "*" in pattern else pattern for pattern in patterns]


def _git(*words: str) -> str:
    """What a Git command prints; nothing where there is no Git or no repository."""
    try:
        found = subprocess.run(["git", *words], capture_output=True, encoding="utf-8", errors="replace", timeout=30)
        return found.stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
