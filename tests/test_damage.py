"""Damaged files, merges and disks: one line that names file, place and remedy, from whatever reads them."""

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import torch
from dvc.lock import LockError
from dvc.rwlock import _check_blockers
from safetensors.numpy import save as save_arrays
from safetensors.torch import save_file

from conftest import HARDEST, ROOT, edit_params, refused, run, small_disk
from lenet import networks
from lenet.digits.data import load_digits
from lenet.evaluation import robustness
from lenet.params.schema import Params
from lenet.pipeline import compare, evaluate, scheduling
from lenet.reproduce import diff, doctor
from lenet.runs.record import Record
from lenet.runtime import remedies
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_json, write_text
from lenet.runtime.layout import EXPERIMENTS, METRICS, REPORTS, RUNS, TEST
from lenet.training import fingerprint, fit

NAMES = RUN, OTHER = "modern-1", "modern-2"


@pytest.fixture(scope="module")
def small(params: Params) -> Params:
    block = params.variants["modern"].model_copy(update={"train_size": 30, "validation_size": 10, "epochs": 2})
    return params.model_copy(update={"compare": ("modern",), "seeds": (1, 2), "variants": {"modern": block}})


@pytest.fixture(scope="module")
def project(small: Params, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs whose files agree; their networks are as drawn."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").mkdir()
    for name in ("train", "test"):
        some = load_digits(prepared / f"{name}.safetensors")[:40]
        parts = {part: getattr(some, part).clone() for part in ("images", "labels", "index")}
        save_file(parts, folder / "data" / f"{name}.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("DISTURBANCES", "curves"):
            patch.setattr(robustness, name, getattr(robustness, name))
        exec(HARDEST, vars(robustness))
        block = small.variants["modern"]
        write_json(doctor.SIGNATURES / "modern.json", {"digests": {}})
        data = fingerprint.data_sha256(*load_digits(doctor.TRAIN).split(block))
        signature = fingerprint.json_sha256({"digests": {}})
        for seed, name in enumerate(NAMES, 1):
            weights = networks.build(block.network).initialise(block.initialisation, seed).state_dict()
            digest = fingerprint.tensors_sha256(weights)
            rows = [
                {"epoch": epoch, "train/error": 0.5, "validation/error": 0.25, "weights.sha256": digest}
                for epoch in (1, 2)
            ]
            key = fingerprint.run_key(block, seed, data, signature)
            record = Record("modern", seed, block, key, data, signature)
            fit.write(RUNS / name, record, fit.Fitted(weights, rows, torch.zeros(2, 1), {}))
            evaluate.evaluate(RUNS / name, TEST, METRICS / f"{name}.json", track=False)
        read_with("compare", small)
        assert read_with("doctor", small) == []
    return folder


def read_with(command: str, params: Params) -> list[str]:
    """What a command says, read in the present folder."""
    try:
        if command == "evaluate":
            evaluate.evaluate(RUNS / RUN, TEST, Path("out.json"), track=False)
        elif command == "compare":
            compare.write(params, RUNS, EXPERIMENTS, METRICS / "summary.json", REPORTS)
        elif command == "diff":
            [*diff.sections(diff.look_up(NAMES, params))]
        else:
            return [line for line in doctor.files(params, ()) if "recorded without their commit" not in line]
    except InputError as error:
        return [str(error)]
    return []


Damage = Callable[[bytes], bytes]
HALF: Damage = lambda content: content[: len(content) // 2]  # noqa: E731
EMPTY: Damage = lambda content: b""  # noqa: E731
DEEP: Damage = lambda content: b"[" * 200_000  # noqa: E731
LIST: Damage = lambda content: b"[]"  # noqa: E731
HUGE: Damage = lambda content: struct.pack("<Q", 2**63) + content[8:]  # noqa: E731
HEADER: Damage = lambda content: content[: content.index(b"\n") + 1]  # noqa: E731
CUT: Damage = lambda content: content[:-5]  # noqa: E731


def cell(line: int, column: int, value: str) -> Damage:
    """Another value in one cell of a table."""

    def damage(content: bytes) -> bytes:
        lines = content.decode().splitlines()
        cells = lines[line - 1].split(",")
        lines[line - 1] = ",".join([*cells[:column], value, *cells[column + 1 :]])
        return ("\n".join(lines) + "\n").encode()

    return damage


def entry(*path: str, value: object) -> Damage:
    """Another value at a place of a JSON file; None: none."""

    def damage(content: bytes) -> bytes:
        whole = part = json.loads(content)
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        if value is None:
            del part[path[-1]]
        return json.dumps(whole).encode()

    return damage


def tensors(**arrays: object) -> Damage:
    return lambda content: save_arrays({name: torch.tensor(value).numpy() for name, value in arrays.items()})


EVERY = ("compare", "evaluate", "doctor", "diff")
ANSWERS, KEPT = ("compare", "doctor", "diff"), ("compare", "doctor")
TABLE: list[tuple[str, Damage, str, tuple[str, ...]]] = [
    ("runs/modern-1/run.json", HALF, "line 20 column", EVERY),
    ("runs/modern-1/run.json", DEEP, "recursion", EVERY),
    ("runs/modern-1/run.json", LIST, "content: ", EVERY),
    ("runs/modern-1/run.json", entry("run", "key", value=None), "key is missing", EVERY),
    ("runs/modern-1/run.json", entry("parameters", "epochs", value="x"), r"parameters\.epochs: ", EVERY),
    ("runs/modern-1/history.csv", EMPTY, "line 1: cut off", EVERY),
    ("runs/modern-1/history.csv", HEADER, "line 2: there is none", EVERY),
    ("runs/modern-1/history.csv", cell(3, 1, "NaN"), "line 3: train/error nan", EVERY),
    ("runs/modern-1/history.csv", cell(3, 1, "inf"), "line 3: train/error inf", EVERY),
    ("runs/modern-1/history.csv", cell(2, 2, "text"), "line 2: validation/error text", EVERY),
    ("runs/modern-1/history.csv", cell(3, 0, "5"), "line 3: epoch 5", EVERY),
    ("runs/modern-1/history.csv", CUT, "line 3: cut off", EVERY),
    ("runs/modern-1/history.csv", cell(3, 3, "0" * 64), "run.weights.sha256 is 0+, and", KEPT),
    ("runs/modern-1/predictions.csv", EMPTY, "line 1: cut off", ANSWERS),
    ("runs/modern-1/predictions.csv", HEADER, "line 2: there is none", ANSWERS),
    ("runs/modern-1/predictions.csv", CUT, "line 41: cut off", ANSWERS),
    ("runs/modern-1/predictions.csv", cell(5, 2, "11"), "line 5: answer 11 is no digit", ANSWERS),
    ("runs/modern-1/predictions.csv", cell(5, 2, "-3"), "line 5: answer -3 is no digit", ANSWERS),
    ("runs/modern-1/predictions.csv", cell(5, 2, "1.5"), "line 5: answer 1.5 is no digit", ANSWERS),
    ("runs/modern-1/predictions.csv", cell(5, 1, "x"), "line 5: label x is no finite number", ANSWERS),
    ("runs/modern-1/predictions.csv", cell(5, 0, "2"), "line 5: index 2 is a second time", ANSWERS),
    ("runs/modern-1/predictions.csv", cell(5, 7, ""), "line 5: output 4 nan", ANSWERS),
    ("runs/modern-1/predictions.csv", cell(1, 7, "x"), "no column output 4", ("compare",)),
    ("runs/modern-1/missed.safetensors", HALF, "", KEPT),
    ("runs/modern-1/missed.safetensors", HUGE, "header too large", KEPT),
    ("runs/modern-1/missed.safetensors", tensors(index=[1.0]), "images is missing", KEPT),
    ("runs/modern-1/missed.safetensors", tensors(index=[1.0], images=[1]), "index: float32", KEPT),
    ("runs/modern-1/weights.safetensors", HALF, "", ("evaluate", "doctor")),
    ("runs/modern-1/weights.safetensors", HUGE, "header too large", ("evaluate", "doctor")),
    ("runs/modern-1/weights.safetensors", tensors(x=[1]), "Missing key", ("evaluate", "doctor")),
    ("runs/modern-1/robustness.json", HALF, "line ", KEPT),
    ("runs/modern-1/robustness.json", entry("shear", "errors", value=[0.1]), "shear: .*other num", KEPT),
    ("runs/modern-1/robustness.json", entry("shear", "errors", value=[0.1, float("nan")]), "finite", KEPT),
    ("metrics/modern-1.json", HALF, "line ", ANSWERS),
    ("metrics/modern-1.json", DEEP, "recursion", ANSWERS),
    ("metrics/modern-1.json", entry("test", "misses", value="7"), r"test\.misses: ", ANSWERS),
    ("metrics/modern-1.json", entry("test", "answers.sha256", value="0" * 64), "is 0+, and .* by pred", KEPT),
    ("metrics/modern-1.json", entry("test", "calibration_error", value=10**400), r"test\.calibration_error", ANSWERS),
    ("metrics/modern-1.json", entry("test", "calibration_error", value=float("nan")), "finite number", ANSWERS),
    ("metrics/summary.json", LIST, "content: ", ("doctor",)),
    ("reports/comparison.json", DEEP, "recursion", ("doctor",)),
    ("signatures/modern.json", DEEP, "recursion", ("doctor",)),
    ("data/train.safetensors", HUGE, "not a digits file .*header too large", ("doctor",)),
    ("data/train.safetensors", tensors(images=[1], labels=[1], index=[1]), "images: torch.int64", ("doctor",)),
    ("data/test.safetensors", HALF, "not a digits file", ("evaluate",)),
]  # fmt: skip


@pytest.mark.parametrize(("file", "damage", "said", "readers"), TABLE, ids=[f"{one[0]} {one[2]}" for one in TABLE])
def test_a_damaged_file_is_named_with_place_and_remedy_by_whatever_reads_it(
    file: str, damage: Damage, said: str, readers: tuple[str, ...], project: Path, small: Params, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    Path(file).write_bytes(damage(Path(file).read_bytes()))
    for reader in readers:
        if reader == "doctor":
            Path("runs/modern-2/robustness.json").write_text("{")
        lines = read_with(reader, small)
        named = [line for line in lines if Path(file).name in line]
        assert named, (reader, lines)
        assert re.search(said, named[0]), named
        assert "`lenet " in named[0] or reader == "doctor"
        assert not [line for line in lines if "\n" in line]
        if reader == "doctor":  # it goes on with the rest
            assert any(line.startswith("runs/modern-2/robustness.json: not whole") for line in lines)


def test_a_process_that_uses_files_is_named_once() -> None:
    lock = {"write": {f"runs/modern-1/{name}": {"pid": os.getppid(), "cmd": "dvc repro"} for name in "abc"}}
    with pytest.raises(LockError) as raised:
        _check_blockers(".dvc/tmp", lock, {"pid": 0, "cmd": ""}, mode="write", waiters=["runs/modern-1"])
    assert str(raised.value).count("(PID ") == 3
    said = remedies.of_dvc(raised.value)
    assert said.startswith("DVC: 'runs/modern-1' is busy")
    assert said.count(f"(PID {os.getppid()}): dvc repro") == said.count("(PID ") == 1
    assert "\n" not in said


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("dvc.yaml", "", "dvc.yaml: it has no stages; "),
        ("dvc.yaml", "stages: {fetch: {cmd: x}}\n", ""),
        ("dvc.yaml", "text\n", "DVC: './dvc.yaml' validation failed; "),
        ("dvc.lock", "", "DVC: './dvc.lock' validation failed; "),
    ],
)
def test_a_damaged_file_of_dvc_takes_no_run_with_it(
    file: str, text: str, said: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    Path(".dvc").mkdir(exist_ok=True)
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n")
    shutil.copy(ROOT / "dvc.yaml", ".")
    shutil.copy(ROOT / "params.yaml", ".")
    Path(file).write_text(text)
    with pytest.raises(InputError, match=f"{said}`git checkout HEAD -- {file}` brings") if said else nullcontext():
        scheduling._stale(Path(), ())
    assert all((RUNS / name / "run.json").exists() for name in NAMES)


@pytest.mark.parametrize(
    "file", ["dvc.lock", "metrics/modern-1.json", "experiments/ladder/dvc.lock", "reports/comparison.json"]
)
def test_a_merge_s_both_sides_are_one_line_for_every_command_that_reads_results(
    file: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    write_text(Path(file), "schema: '2.0'\n<<<<<<< HEAD\na\n=======\nb\n>>>>>>> other\n")
    for words in ("doctor", "verify --here", "compare", "results", "repro", "sync", "diff modern-1 modern-2"):
        said = refused(words, monkeypatch, capsys)
        assert said == (
            f"lenet: error: {file}: line 2: a merge has left both sides in it; `git checkout HEAD -- {file}` takes "
            "this branch's (delete it if Git has none), then `lenet repro`\n"
        )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/x"),
            "runs/x: No space left on device; make room",
        ),
        (OSError(errno.EROFS, "Read-only file system", "runs/x"), "runs/x: Read-only file system; make it writable"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), "runs/x: Permission denied; make it writable"),
        (OSError("of a library\nin two lines"), "of a library in two lines"),
        (OSError("of a \x1b[2Jstranger's"), "of a \\x1b[2Jstranger's"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr("lenet.params.loading.load", fails)
    found = refused("results", monkeypatch, capsys)
    assert found.startswith(f"lenet: error: {said}")
    assert found.count("\n") == 1


@pytest.mark.slow
def test_a_read_only_or_full_folder_is_one_line_from_every_command(project: Path, tmp_path: Path) -> None:
    """A real one: tensors are written by a library that has an error of its own."""
    with small_disk(tmp_path, "2m"):
        for name in ("data", "runs", "metrics", "reports"):
            shutil.copytree(project / name, tmp_path / name)
        (tmp_path / ".dvc").mkdir()
        shutil.copy(ROOT / "params.yaml", tmp_path)
        shutil.copy(ROOT / "dvc.yaml", tmp_path)
        edit_params(tmp_path, lambda content: content.update(compare=["modern"], seeds=[1, 2]))
        commands = (
            "evaluate runs/modern-1 --test data/test.safetensors --out metrics/modern-1.json", "report", "repro",
            "compare",
        )  # fmt: skip
        with suppress(OSError), (tmp_path / "filler").open("wb", buffering=0) as file:
            while file.write(bytes(512)):
                pass
        for state in ("full", "read-only"):
            if state == "read-only":
                subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
            for words in commands:
                done = run(sys.executable, "-m", "lenet", *words.split(), cwd=tmp_path, status=2, LENET_TRACK="0")
                assert "Traceback" not in done.stderr, (state, words)
                said = "No space left on device" if state == "full" else "Read-only file system"
                assert done.stderr.count("lenet: error: ") == done.stderr.count(said) == 1, (state, words, done.stderr)
