"""Time and memory against the size of the training set, the whole pipeline with its timeline, and single commands."""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.suite import Group, Results, Row
from lenet.cli import cores

SIZES = (60_000, 15_000, 30_000, 120_000, 300_000, 600_000)


def size(repetitions: int) -> Results:
    """An epoch of `modern` on so many digits, each in a fresh process: seconds of ``fit``, and the process's peak."""
    seconds: dict[int, list[float]] = {count: [] for count in SIZES}
    memory: dict[int, list[float]] = {count: [] for count in SIZES}
    for _ in range(repetitions):
        for count in SIZES:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.costs", str(count)], check=True, stdout=subprocess.PIPE, text=True
            )
            took, peak = json.loads(done.stdout)
            seconds[count].append(took)
            memory[count].append(peak)
    groups = [
        Group(name, unit, [Row(f"{count:,} digits", values) for count, values in found.items()])
        for name, unit, found in (
            ("training size: time of an epoch", "s", seconds),
            ("training size: peak memory", "MB", memory),
        )
    ]
    return Results({}, groups)


def _one_size(count: int) -> tuple[float, float]:
    from benchmarks.training import block, some
    from lenet.training.fit import fit

    digits = some(count)
    start = time.perf_counter()
    fit(block("modern", 64, count), 1, digits, digits[:0])
    took = time.perf_counter() - start
    return took, _peak()


def _peak() -> float:
    """This program's peak memory, MB. Linux's ``ru_maxrss`` counts what the process had been before its exec, too."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
    (kilobytes,) = re.findall(r"VmHWM:\s*(\d+) kB", status.read_text())
    return int(kilobytes) / 1024


def pipeline(repetitions: int) -> Results:
    """`lenet repro` in a fresh clone whose raw files are at hand; then commands in it that find nothing to do."""
    raw = Path("data/raw").resolve()
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
        environment = os.environ | {"PYTHONPATH": "src", "LENET_DATA_DIR": str(raw)}

        def seconds(*command: str) -> float:
            start = time.perf_counter()
            subprocess.run(
                command, cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            return time.perf_counter() - start

        lenet = (sys.executable, "-m", "lenet")
        whole = seconds(*lenet, "repro")
        timeline = json.loads((clone / ".dvc/tmp/lenet/logs/timeline.json").read_text())
        commands = {
            "python -c pass": (sys.executable, "-c", "pass"),
            "lenet --help": (*lenet, "--help"),
            "dvc repro, nothing to do": (sys.executable, "-m", "dvc", "repro"),
            "lenet repro, nothing to do": (*lenet, "repro"),
        }
        took: dict[str, list[float]] = {name: [] for name in commands}
        for repetition in range(repetitions + 1):
            for name, command in commands.items():
                value = seconds(*command)
                if repetition:  # the first warms up
                    took[name].append(value)
    busy = sum(stage["end"] - stage["start"] for stage in timeline)
    rows = [Row("if no core were ever idle", [busy / cores()]), Row("lenet repro, fresh clone", [whole])]
    groups = [
        Group("pipeline", "s", rows),
        Group("commands", "s", [Row(name, values) for name, values in took.items()]),
    ]
    return Results({}, groups, timeline)


def stage(repetitions: int) -> Group:
    """The whole command `lenet train modern SEED`, start and end included, with and without its record, in turn."""
    took: dict[str, list[float]] = {"without a record": [], "recorded": []}
    with tempfile.TemporaryDirectory() as folder:
        # neither its record nor its journal is to be taken for that of a run here
        elsewhere = {"DVC_ROOT": folder, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        data, signed = ("--data", "data/train.safetensors"), f"{folder}/signatures/modern.json"
        subprocess.run(
            [sys.executable, "-m", "lenet", "signature", "modern", *data, "--out", signed],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | elsewhere,
        )  # fmt: skip
        for seed in range(1, repetitions + 1):  # another each time: a run that is known would be logged faster
            for name, track in zip(took, ("0", "1"), strict=True):
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "lenet", "train", "modern", str(seed), *data, "--signature", signed,
                     "--out", f"{folder}/modern-1"],
                    check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    env=os.environ | elsewhere | {"LENET_TRACK": track},
                )  # fmt: skip
                took[name].append(time.perf_counter() - start)
    return Group("stage: modern", "s", [Row(name, values) for name, values in took.items()])


def rerun(repetitions: int) -> Group:
    """`modern-1` in fresh clones, from fetch to evaluate by plain `dvc repro`; and `lenet rerun modern-1` of it."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the stages call `python`
    environment = os.environ | {
        "LENET_DATA_DIR": str(Path("data/raw").resolve()), "LENET_TRACK": "0", "PATH": programs, "PYTHONPATH": "src",
    }  # fmt: skip
    took: dict[str, list[float]] = {"dvc repro evaluate@modern-1": [], "lenet rerun modern-1": []}
    commands = (("dvc", "repro", "--force", "evaluate@modern-1"), ("lenet", "rerun", "modern-1"))
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as folder:
            for name, command in zip(took, commands, strict=True):
                clone = Path(folder) / command[0]
                subprocess.run(["git", "clone", "-q", ".", str(clone)], check=True)
                start = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", *command], cwd=clone, env=environment, check=True,
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
                took[name].append(time.perf_counter() - start)
    return Group("rerun: modern-1", "s", [Row(name, values) for name, values in took.items()])


if __name__ == "__main__":
    print(json.dumps(_one_size(int(sys.argv[1]))))
