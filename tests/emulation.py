"""Other processors by emulation: Debian's qemu-user runs one program for another processor, with no root or container.

Another x86-64 processor runs this environment as it is. ARM64 needs a Python, a torch and five more packages of its
own, which are fetched once into FOLDER (600 MB, a minute); all that is plain Python comes from this environment.
"""

import compileall
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("LENET_EMULATION") or ROOT / ".pytest_cache" / "emulation")
SITE = sysconfig.get_path("purelib")
SOURCES = str(ROOT / "src")

ARM64 = "aarch64"
PROCESSORS = ("EPYC", "Nehalem", ARM64)  # with AVX2; without AVX; another architecture
CAPABILITY = {"EPYC": "AVX2", "Nehalem": "DEFAULT", ARM64: "DEFAULT"}
"""The instruction set that torch then reports."""

TORCH = "2.8.0"  # its wheel for ARM64 is a CPU build; later ones do not load without NVIDIA's libraries
WHEELS = [
    f"torch=={TORCH}",
    *(f"{name}=={version(name)}" for name in ("llvmlite", "numba", "numpy", "safetensors", "pydantic_core")),
]
PACKAGES = ("python3", "libgomp1", "libstdc++6", "zlib1g")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


class Unavailable(Exception):
    """Why a processor cannot be emulated here."""


def python(processor: str) -> list[str]:
    """The command that is Python on a processor; it finds this project's sources and their packages.

    Args:
        processor: one of PROCESSORS.

    Raises:
        Unavailable: without qemu-user, or where ARM64's packages cannot be fetched.
    """
    if processor == ARM64:
        qemu, tree = _program("qemu-aarch64"), _arm64()
        root, site = tree / "root", tree / "site"
        libraries = (root / "usr/lib/aarch64-linux-gnu", site / "torch/lib", site / "torch.libs")
        settings = {
            "PYTHONHOME": f"{root}/usr",
            "PYTHONPATH": f"{site}:{SOURCES}:{SITE}",
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        }
        return [qemu, "-L", str(root), *_given(settings), str(_interpreter(root))]
    qemu, real = _program("qemu-x86_64"), str(Path(sys.executable).resolve())
    if platform.machine() != "x86_64":
        raise Unavailable(f"this environment is for {platform.machine()}, not for x86-64")
    return [qemu, "-cpu", processor, *_given({"PYTHONPATH": f"{SOURCES}:{SITE}"}), real]


def compiled_for(processor: str) -> dict[str, str]:
    """Settings with which Numba compiles here the loops that it would compile there, where that takes minutes.

    ARM64 has none: the loops for it cannot run here.
    """
    if processor == ARM64:
        return {}
    told = "from llvmlite.binding import *; print(get_host_cpu_name(), get_host_cpu_features().flatten())"
    command = [*python(processor), "-c", told]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=240, env=environment())
    return dict(zip(("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"), done.stdout.split(), strict=True))


def environment() -> dict[str, str]:
    """What emulated programs are started with: no setting of this processor's libraries."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS_", "MKL_", "ATEN_"))}


def _given(settings: Mapping[str, str]) -> list[str]:
    return [word for name, value in settings.items() for word in ("-E", f"{name}={value}")]


def _program(name: str) -> str:
    found = shutil.which(name)
    if not found:
        raise Unavailable(f"no {name} here; Debian has it in qemu-user")
    return found


def _interpreter(root: Path) -> Path:
    return next(file for file in sorted((root / "usr/bin").glob("python3.*")) if "config" not in file.name)


def _arm64() -> Path:
    """The folder with ARM64's programs (``root``) and packages (``site``)."""
    tree, wanted = FOLDER / "arm64", "\n".join(WHEELS)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / "arm64.lock"):
        complete = tree / "complete"
        if not complete.exists() or complete.read_text() != wanted:
            shutil.rmtree(tree, ignore_errors=True)
            _fetch(tree)
            complete.write_text(wanted)
    return tree


def _fetch(tree: Path) -> None:
    """Fill the folder. Raises Unavailable where a registry does not answer or does not have it."""
    apt, root, site, wheels = (tree / name for name in ("apt", "root", "site", "wheels"))
    for folder in (apt / "lists/partial", apt / "cache/archives/partial", root, site):
        folder.mkdir(parents=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
        "Dir::State::Lists": apt / "lists",
        "Dir::Cache": apt / "cache",
        "Dir::State::status": apt / "status",
    }
    get = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _do([*get, "update"])
    _do([*get, "install", "-y", "--download-only", "--no-install-recommends", *PACKAGES])
    for package in (apt / "cache/archives").glob("*.deb"):
        _do(["dpkg", "-x", str(package), str(root)])
    its_version = _interpreter(root).name.removeprefix("python")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(wheels)]
    pip += ["--implementation", "cp", "--python-version", its_version]
    _do([*pip, *(word for name in PLATFORMS for word in ("--platform", name)), *WHEELS])
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
    for done in (apt, wheels, site / "torch/include", site / "torch/test"):
        shutil.rmtree(done, ignore_errors=True)
    if its_version == "{}.{}".format(*sys.version_info):  # quicker than its own Python would
        compileall.compile_dir(site, quiet=2)


def _do(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)
    except FileNotFoundError:
        raise Unavailable(f"no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} had no answer in 240 s") from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(command[:4])} …: {(error.stderr or error.stdout).strip()[-300:]}") from None
