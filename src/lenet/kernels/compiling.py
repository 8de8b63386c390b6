"""The two ways to compile loops, and where they are kept: in the user's cache, by a digest of their code.

Numba's own cache goes by the file of a function alone: it would not see an edit of what the function is made of in
other files, and a second checkout would compile all of it again.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core import caching, codegen, config

PACKAGE = Path(__file__).parents[1]
SOURCES = ("arithmetic/exact.py", "arithmetic/functions.py", "kernels/*.py")
KEPT = 16  # versions of the code
if not os.environ.get("NUMBA_CPU_FEATURES") and "+avx512f" in (features := codegen.get_host_cpu_features()):
    vars(config)["CPU_FEATURES"] = f"{features},-prefer-256-bit"  # else vectors of half the length


@cache
def home() -> Path | None:
    """The folder of this code's loops; None where nothing can be kept."""
    digest = hashlib.sha256()
    for path in sorted(path for names in SOURCES for path in PACKAGE.glob(names)):
        digest.update(path.read_bytes())
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(caches) / "lenet" / "compiled" / digest.hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    for old in sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


class _Locator(caching._CacheLocator):
    def get_cache_path(self) -> str:
        return str(home())

    def get_source_stamp(self) -> str:
        return str(home())

    def get_disambiguator(self) -> str:
        return ""

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls()


class _Results(caching.CompileResultCacheImpl):
    _locator_classes = [_Locator]  # type: ignore[list-item]  # noqa: RUF012


class _Cache(caching.FunctionCache):
    _impl_class = _Results


def _kept(compiles: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decorator of Numba's whose results are kept."""

    def decorate(function: Any) -> Any:
        compiled = compiles(function)
        if home():
            compiled._cache = _Cache(function)
        return compiled

    return decorate


rounding = _kept(njit(error_model="numpy", nogil=True))
"""For loops of which each operation is IEEE 754's: nothing is fused and nothing is put into another order."""
exactly = _kept(njit(error_model="numpy", nogil=True, fastmath={"reassoc", "contract"}))
"""For sums in double precision of numbers on grids, which no order and no fused multiply-add can change."""
inlined = njit(error_model="numpy", inline="always")
"""For steps of such loops."""
