"""`make publish`: put what the locks name into published/, the folder in Git that is DVC's remote, and nothing else.

`python -m tools.published`. What is published already stays, so that another machine's runs need not be here.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dvc.repo import Repo

from lenet.runtime import layout

PROJECT = Path(__file__).parents[1]
FOLDER = PROJECT / "published"


def homes() -> list[Path]:
    """The folders whose results are in Git: the root and its experiments."""
    return [home for home in layout.homes(PROJECT) if (home / "dvc.lock").exists()]


def named(home: Path) -> Iterator[str]:
    """The digests (MD5) of the files that a folder's lock names and that are to be pushed."""
    with Repo(str(home)) as repo:
        for out in repo.index.outs:
            if out.use_cache and out.can_push and out.hash_info:
                yield out.hash_info.value


def present() -> dict[str, Path]:
    """The files in the remote, by the digests that they are stored under."""
    return {"".join(path.parts[-2:]): path for path in FOLDER.glob("files/md5/*/*")}


def main() -> None:
    """Push, then remove what no lock names."""
    for home in homes():
        subprocess.run([sys.executable, "-m", "dvc", "push", "--quiet"], cwd=home, check=True)
    wanted, found = {digest for home in homes() for digest in named(home)}, present()
    for digest in found.keys() - wanted:
        found[digest].unlink()
    size = sum(path.stat().st_size for path in present().values())
    print(f"{FOLDER.name}: {len(present())} files, {size / 1e6:.0f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
