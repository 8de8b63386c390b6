"""A temporary folder of a run's sources, with a DVC cache and an MLflow store of its own.

Nothing in it belongs to the user's repository, index, stash, cache or store, and nothing of these is changed. Whatever
happens, it is removed at the end; what a SIGKILL leaves behind, the next rerun or `lenet clean` removes.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from lenet.digits import fetch
from lenet.params import loading
from lenet.reproduce.sources import Sources
from lenet.runtime import layout, processes
from lenet.runtime.errors import InputError, ParamsError
from lenet.runtime.requirements import LOCKS

HERE = Path(__file__).parent
POLL = 0.1  # seconds
KEPT = ("HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LENET_SCHEDULER", "LOGNAME", "TMPDIR", "TZ", "USER")
KEPT_KINDS = ("ATEN_", "KMP_", "LC_", "MKL_", "OMP_", "OPENBLAS_")
"""The user's variables that a run's sources are given, besides PATH: names, and how names begin."""
FOR_CLUSTER = "DASK_"
"""How those begin that tell Dask where its certificates are; only for who names a scheduler."""
FOR_PIP = re.compile(r"(PIP|SSL|REQUESTS)_.*|(https?|no|all)_proxy", re.IGNORECASE)
"""Those that pip is given to build an environment: where packages are, which may need credentials."""
RAW = Path("data/raw")
"""Where `fetch` keeps MNIST; the rerun's own `fetch` takes it from here if it is whole."""


@dataclass(frozen=True)
class Workplace:
    """The folder, and the interpreter that runs what is in it.

    Attributes:
        project: the sources' folder.
        python: the interpreter.
    """

    project: Path
    python: Path

    def run(self, *words: str, tell: Callable[[str], None] | None = None, **variables: str) -> str:
        """Run the interpreter in the project; return what it prints.

        Args:
            words: its arguments.
            tell: called with each line as it is printed.
            variables: of its environment, besides those of the folder.

        Raises:
            InputError: it failed; with the end of what it printed.
        """
        log = self.project.parent / "log"
        guarded = [sys.executable, "-P", str(HERE / "guard.py"), str(os.getpid()), str(self.python), *words]
        environment = self._environment() | variables
        with log.open("wb") as output:
            process = subprocess.Popen(
                guarded, cwd=self.project, env=environment, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            told = 0
            while process.poll() is None:
                time.sleep(POLL)
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                for line in lines[told:] if tell else []:
                    tell(line)  # type: ignore[misc]
                told = len(lines)
        finally:
            _end(process)
        text = log.read_text(encoding="utf-8", errors="replace")
        if process.returncode:
            last = "\n".join(text.strip().splitlines()[-12:])
            raise InputError(
                f"`python {' '.join(words[:4])}` on the run's sources ended with {process.returncode}:\n{last}"
            )
        return text

    def _environment(self) -> dict[str, str]:
        """Of the user's what programs cannot do without, and how to compute: no credentials, nothing of the project."""
        kinds = (*KEPT_KINDS, FOR_CLUSTER) if "LENET_SCHEDULER" in os.environ else KEPT_KINDS
        own = {name: value for name, value in os.environ.items() if name in KEPT or name.startswith(kinds)}
        home = self.project.parent
        own |= {
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": "src",
            "PYTHONUNBUFFERED": "1",
            "GIT_CEILING_DIRECTORIES": str(home),  # the project's folder is no part of the user's repository
            "DVC_SITE_CACHE_DIR": str(home / "site"),
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_TRACKING_URI": layout.sqlite(home / "mlflow.db"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "LENET_TRACK": "0",
            "LENET_PROGRESS_LINES": "1",  # without it, older sources tell no epoch
        }
        return own

    def digits(self) -> Path:
        """A folder of MNIST's files. Where there is none here, they are fetched: the sources would need a network."""
        if own := fetch.own_folder():
            return own.resolve()
        if raw_is_whole():
            return RAW.resolve()
        folder = self.project.parent / "raw"
        fetch.fetch(folder)
        return folder


@contextmanager
def of(sources: Sources, build_environment: bool) -> Iterator[Workplace]:
    """Unpack sources into a folder of their own, to be removed at the end.

    Args:
        sources: what to unpack.
        build_environment: whether to build a virtual environment from their ``requirements.lock``, which takes minutes.

    Raises:
        InputError: the sources cannot be had or the environment not be built.
    """
    with processes.own_folder(home()) as folder:
        try:
            place = Workplace(folder / "project", Path(sys.executable))
            place.project.mkdir()
            sources.unpack(place.project)
            _make_dvc(place.project)
            if build_environment:
                place = Workplace(place.project, _build_environment(place))
            yield place
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror or error}") from None


@cache
def raw_is_whole() -> bool:
    """Whether MNIST's four files are here, as they should be."""
    return all(fetch.is_right(RAW / name) for name in fetch.SHA256)


def home() -> Path:
    """The folder of all of them."""
    return layout.kept("reruns")


def select(project: Path, variant: str, seeds: Sequence[int], block: Mapping[str, Any] | None) -> None:
    """Make runs of one variant the only ones that a project's params.yaml compares.

    Args:
        project: its folder.
        variant: the variant's name.
        seeds: the runs' seeds.
        block: the variant's parameters; None for those that the file has.

    Raises:
        InputError: the file cannot be read, or has no such variant.
    """
    yaml, path = YAML(), project / loading.PATH
    yaml.preserve_quotes, yaml.width = True, 4096
    try:
        before, content = resolved(project), loading.read(path, yaml.load)
        if block is None and variant not in before:
            raise InputError(f"the sources have no variant {variant}, and the run's parameters are not known")
        if (block is not None and block != before.get(variant)) or variant not in content["variants"]:
            content["variants"][variant] = dict(before[variant] if block is None else block)
        content["compare"], content["seeds"] = [variant], [*seeds]
        shutil.rmtree(project / layout.EXPERIMENTS, ignore_errors=True)  # the variant is the root's now
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
    except RecursionError:
        raise InputError("the run's parameters: blocks are nested too deeply") from None
    except (ParamsError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the sources' params.yaml: {error}") from None


def resolved(project: Path) -> dict[str, Any]:
    """The variants' blocks in a project's params.yaml, and those of its experiments."""
    files = reversed(loading.files(project / loading.PATH))
    return {name: block for file in files for name, block in loading.blocks(file).items()}


def _make_dvc(project: Path) -> None:
    """A DVC project without Git, remote and the user's cache."""
    shutil.rmtree(project / ".dvc", ignore_errors=True)
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text(
        f"[core]\n    no_scm = true\n    analytics = false\n[cache]\n    dir = {project.parent / 'cache'}\n"
    )


def _build_environment(place: Workplace) -> Path:
    folder = place.project.parent / "environment"
    place.run("-m", "venv", str(folder))
    built = Workplace(place.project, folder / "bin" / "python")
    network = {name: value for name, value in os.environ.items() if FOR_PIP.fullmatch(name)}
    install = "-m", "pip", "install", "-qq", "--disable-pip-version-check"
    every, torch = map(str, LOCKS)
    if not (place.project / torch).exists():  # older sources have one file, without hashes
        built.run(*install, "-r", every, tell=None, **network)
    else:
        built.run(*install, "--require-hashes", "--no-deps", "-r", every, tell=None, **network)
        built.run(*install, "-r", torch, tell=None, **network)
    return built.python


def probe(place: Workplace) -> dict[str, Any]:
    """The account of the sources and the interpreter (probe.py)."""
    text = place.run("-P", str(HERE / "probe.py"))
    return dict(json.loads(text.splitlines()[-1]))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process with all that it has started; what they were writing goes with the folder."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
