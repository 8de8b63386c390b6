"""No stage outlives the command that started it, whatever kills that, and nothing half-written is taken as complete."""

import itertools
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from conftest import ENVIRONMENT, ROOT, commit, run, wait_for
from lenet.runtime import layout, processes
from lenet.runtime.errors import InputError
from lenet.runtime.files import whole, write_json
from lenet.runtime.layout import kept  # itself; what tests use in its place is there later

STAGE = """
import sys, time
from pathlib import Path
from lenet.runtime import processes
from lenet.runtime.files import whole

seconds = float(Path("seconds").read_text())
processes.follow_parents()
with processes.sole_writer(Path("out")):
    with whole(Path("out")) as beside:
        beside.write_text("begun")
        Path("stage.pid").write_text(str(__import__("os").getpid()))
        time.sleep(seconds)
        processes.check()
        beside.write_text("done")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project whose one stage sleeps in place of training, with a Makefile that calls `dvc repro`."""
    folder = tmp_path_factory.mktemp("sleeping")
    (folder / "stage.py").write_text(STAGE)
    (folder / "seconds").write_text("60")
    (folder / "Makefile").write_text("repro:\n\t@dvc repro\n\t@true\n")
    command = f"{sys.executable} stage.py"
    (folder / "dvc.yaml").write_text(f"stages:\n  sleep:\n    cmd: {command}\n    outs: [out]\n")
    (folder / ".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    run("git", "init", "-q", cwd=folder)
    run("dvc", "init", "-q", cwd=folder)
    commit(folder, "start")
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    yield tmp_path
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] == str(tmp_path):
            process.kill()


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def start(project: Path, *command: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """Start a command in a process group of its own; return it and the stage it leads to."""
    (project / "stage.pid").unlink(missing_ok=True)
    with (project / "log").open("wb") as log:
        top = subprocess.Popen(
            command, cwd=project, env=os.environ | ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
        )
    pid = project / "stage.pid"
    wait_for(lambda: pid.exists() and pid.read_text())
    return top, psutil.Process(int(pid.read_text()))


def ancestor(stage: psutil.Process, name: str) -> psutil.Process:
    return next(p for p in stage.parents() if any(Path(word).name == name for word in p.cmdline()[:3]))


KILLS = [*itertools.product(("make", "dvc", "stage", "all"), (signal.SIGINT, signal.SIGTERM, signal.SIGKILL))]
OFTEN = {("dvc", signal.SIGINT), ("dvc", signal.SIGKILL), ("stage", signal.SIGTERM), ("all", signal.SIGINT)}


@pytest.mark.parametrize(
    ("victim", "number"), [pytest.param(*kill, marks=() if kill in OFTEN else pytest.mark.slow) for kill in KILLS]
)
def test_killing_leaves_no_orphan_and_no_output(project: Path, victim: str, number: signal.Signals) -> None:
    top, stage = start(project, "make", "repro")
    dvc = ancestor(stage, "dvc")
    if victim == "all":  # as Ctrl-C in a terminal does
        os.killpg(top.pid, number)
    elif victim == "stage":
        stage.send_signal(number)
    else:
        ancestor(stage, victim).send_signal(number)
    if victim in ("make", "dvc") and number == signal.SIGINT:  # they leave an interrupt to the stage, and wait for it
        time.sleep(1)
        assert not gone(stage)
        stage.send_signal(number)
    wait_for(lambda: gone(stage))
    top.wait(20)
    wait_for(lambda: not psutil.pid_exists(dvc.pid))  # it holds its lock until then
    assert not (project / "out").exists()
    assert not (project / "dvc.lock").exists()
    (project / "seconds").write_text("0")
    run("dvc", "repro", cwd=project)
    assert (project / "out").read_text() == "done"
    assert not list(project.glob(".out*"))


def test_a_stage_whose_dvc_is_gone_before_it_could_look_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def __init__(self, pid: int, *words: str) -> None:
            self.pid, self.words = pid, words

        def cmdline(self) -> list[str]:
            return list(self.words)

    monkeypatch.setattr(processes.signal, "signal", lambda *args: None)
    monkeypatch.setenv("DVC_STAGE", "train")
    shell, init = Process(7, "/bin/bash", "-c", "PYTHONPATH=src python -m lenet train modern 1"), Process(1, "whatever")
    for ancestors in ([], [init], [shell, init], [shell, Process(5, "/lib/systemd/systemd", "--user"), init]):
        monkeypatch.setattr(processes, "_ancestors", lambda found=ancestors: found)
        with pytest.raises(SystemExit, match="has ended"):
            processes.follow_parents()
    monkeypatch.delenv("DVC_STAGE")
    processes.follow_parents()  # started by hand: nothing to follow


ALONE = ("unshare", "--fork", "--pid", "--mount-proc")  # as a container starts its command: it is process 1
CAN_BE_ALONE = shutil.which("unshare") and not subprocess.run([*ALONE, "true"], capture_output=True).returncode


@pytest.mark.skipif(not CAN_BE_ALONE, reason="no namespaces of processes can be made here")
def test_a_dvc_that_is_process_1_is_followed_as_any_other(project: Path) -> None:
    (project / "seconds").write_text("1")
    run(*ALONE, "dvc", "repro", cwd=project)
    assert (project / "out").read_text() == "done"


def test_the_next_repro_waits_for_an_orphan_to_end(project: Path) -> None:
    top, stage = start(project, "dvc", "repro")
    top.kill()
    top.wait()
    (project / "seconds").write_text("0")
    run("dvc", "repro", cwd=project)  # at once, while the orphan may still live
    assert (project / "out").read_text() == "done"
    assert gone(stage)


def test_a_second_training_on_the_same_outputs_is_refused_with_the_first_s_number(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    code = "import time; from pathlib import Path; from lenet.runtime import processes\n" \
           "with processes.sole_writer(Path('runs/a-1')): print('held', flush=True); time.sleep(60)"  # fmt: skip
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(InputError, match=f"runs/a-1 is being written by process {holder.pid}"),
            processes.sole_writer(Path("runs/a-1")),
        ):
            pass
        with processes.sole_writer(Path("runs/b-1")):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with processes.sole_writer(Path("runs/a-1")):
        pass  # a dead holder holds nothing


def test_a_lock_s_name_is_short_however_long_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path.joinpath("a" * 100, "b" * 200)
    (folder / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(folder)
    with processes.sole_writer(Path("runs/modern-1")):
        (lock,) = Path(".dvc/tmp/lenet").glob("*.lock")
    assert lock.name.startswith("modern-1-")
    names = {layout.named(Path(path)) for path in ("a/b-c", "a-b/c", "a/b/c", "a/b-c/../b-c")}
    assert len(names) == 3


def test_temporary_files_of_users_are_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = processes.locks()
    assert folder == processes.locks()  # for all processes
    assert kept("journal").is_relative_to(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    def foreign() -> None:
        folder.mkdir(mode=0o700)
        os.chown(folder, 12345, -1)

    (tmp_path / "mine").mkdir(mode=0o700)
    for make in (
        lambda: folder.symlink_to(tmp_path / "mine"),
        lambda: folder.symlink_to(tmp_path / "nowhere"),
        lambda: folder.touch(),
        lambda: (folder.mkdir(), folder.chmod(0o755)),
        *([foreign] if os.geteuid() == 0 else []),
    ):
        folder.rmdir() if folder.is_dir() and not folder.is_symlink() else folder.unlink()
        make()
        with pytest.raises(InputError, match=f"{folder} is not a folder of your own alone"):
            processes.locks()


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"

    def half_written() -> None:
        with whole(path) as beside:
            beside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_written()
    assert list((tmp_path / "folder").iterdir()) == []
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError):
        half_written()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, float("nan"))
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]
