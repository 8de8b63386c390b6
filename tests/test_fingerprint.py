"""What makes two runs the same run: keys, digests, and DVC's dependencies beside the modules' imports."""

import ast
import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from conftest import ROOT, run
from lenet import config, fingerprint
from lenet.config import Params
from lenet.digits.data import Digits

PIPELINES = {
    folder: YAML(typ="safe").load((ROOT / folder / "dvc.yaml").read_text())["stages"]
    for folder in ("", "ladder", "sizes", "frontier", "paper")
}
PIPELINE = PIPELINES[""]
SOURCES = ROOT / "src" / "lenet"


@pytest.mark.parametrize(("folder", "stage"), [(folder, stage) for folder in PIPELINES for stage in PIPELINES[folder]])
def test_a_stage_depends_on_the_modules_that_can_change_its_outputs(folder: str, stage: str) -> None:
    modules = {"publish": {"frontier": "ladder"}.get(folder, folder), "baseline": "baselines"}
    module = modules.get(stage, stage)
    deps = [dep for dep in PIPELINES[folder][stage]["deps"] if dep.startswith("src/")]
    assert [dep for dep in deps if dep.endswith(".py")] == [
        f"src/lenet/{name}.py" for name in fingerprint.sources(module)
    ]
    assert [dep for dep in deps if not dep.endswith(".py")] == (
        ["src/lenet/templates"] if stage in ("compare", "facsimile") else []
    )


@pytest.mark.parametrize("folder", ["ladder", "sizes", "frontier", "paper"])
def test_pipelines_beside_the_root_s_train_and_evaluate_as_it_does(folder: str) -> None:
    """The same stages word for word, besides where they run, which variants they take and where outputs go."""
    there = PIPELINES[folder]
    assert set(there) == {"train", "evaluate", "publish"} | ({"baseline", "facsimile"} if folder == "paper" else set())
    for stage in ("train", "evaluate"):
        text = json.dumps(PIPELINE[stage])
        for ours, theirs in (
            ("${compare}", "${train}"),
            ("runs/", f"{folder}/runs/"),
            ("metrics/", f"{folder}/metrics/"),
        ):
            text = text.replace(ours, theirs)
        expected = {"wdir": "..", **json.loads(text)}
        if stage == "train":
            expected["cmd"] += f" --experiment lenet5-{folder}"
        if folder == "paper":  # it keeps the weights of each pass
            expected["cmd"] += " --snapshots" if stage == "train" else ""
            expected["desc"] = there[stage]["desc"]
            files = expected["outs" if stage == "train" else "deps"]
            run_json = next(i for i, name in enumerate(files) if str(name).endswith("run.json"))
            files.insert(run_json + 1, files[run_json].replace("run.json", "snapshots.safetensors"))
        assert there[stage] == expected
    assert there["publish"]["wdir"] == ".."
    assert {"runs", f"{folder}/runs", f"{folder}/params.yaml"} <= set(there["publish"]["deps"])
    # as an output that the root's pipeline reads it would make each of its `dvc repro` run this one
    outs = [out for kind in ("outs", "metrics", "plots") for out in there["publish"].get(kind, [])]
    published = [name for out in outs for name in ([out] if isinstance(out, str) else out)]
    read = [dep for stage in PIPELINE.values() for dep in stage["deps"]]
    assert not [name for name in published if any(Path(name).is_relative_to(dep) for dep in read)]
    assert set(published) <= set(there.get("facsimile", {}).get("deps", []))  # so that the page waits for it


def test_sources_are_what_python_imports() -> None:
    """The modules that Python itself loads for the train stage, less those that cannot change bits and theirs."""
    code = "import lenet.train, sys; print(*sorted(n for n in sys.modules if n.startswith('lenet.')))"
    loaded = {name.removeprefix("lenet.") for name in run(sys.executable, "-c", code, cwd=ROOT).stdout.split()}
    found = set(fingerprint.sources("train"))
    assert found - {"__init__"} <= loaded
    parts = {name for name in loaded if name.startswith("tracking.")}
    beside = {"figures", "packaged", "current", "journal", "snapshot"}  # what only tracking imports
    assert loaded - found == fingerprint.NOT_NUMERIC | parts | beside
    assert {"model", "objective", "optimizer", "data", "classifier", "config", "randomness"} <= found


def test_only_evaluate_depends_on_the_test_digits() -> None:
    """And baseline, which fits other classifiers with settings that are in its source and tests them once, and a page.

    The page shows some of the digits.
    """
    for folder, pipeline in PIPELINES.items():
        users = [name for name, stage in pipeline.items() if "data/test.safetensors" in stage["deps"]]
        assert users == ["evaluate"] + (["baseline", "facsimile"] if folder == "paper" else [])
    users = [p.stem for p in SOURCES.glob("*.py") if "test.safetensors" in p.read_text()]
    assert users == ["cli", "doctor"]  # in the examples of its help; handed to evaluate


def test_every_value_of_a_selected_variant_is_tracked_by_its_stage(params: Params) -> None:
    assert PIPELINE["train"]["params"] == ["variants.${item.variant}"]
    assert PIPELINE["prepare"]["params"] == ["data"]
    assert sorted(PIPELINE["compare"]["params"]) == ["compare", "seeds"]
    studies = {"sweep"}  # no training depends on them
    assert set(config.Params.model_fields) - studies == {"variants", "data", "compare", "seeds"}
    assert "requirements-numeric.lock" in PIPELINE["train"]["deps"]


def test_tools_stay_at_the_rim() -> None:
    imports = {path.stem: _imported(path) for path in SOURCES.glob("*.py")}
    assert not [name for name, found in imports.items() if "mlflow" in found]  # but in the folder tracking
    assert not [name for name, found in imports.items() if found & {"yaml", "pickle", "torchvision"}]
    assert not imports["config"] & {"torch", "numpy", "mlflow", "pytorch_lightning"}
    for name in ("model", "convnet", "networks", "distortion", "objective", "data", "optimizer", "packaged"):
        assert "pytorch_lightning" not in imports[name]


def _imported(path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_a_run_key_follows_everything_that_weights_are_a_function_of(params: Params, monkeypatch, tmp_path) -> None:
    modern, packages = params.variants["modern"], {"torch": "2.13.0"}

    def key(variant=modern, seed=1, data="d", packages=packages, threads=1) -> str:
        return fingerprint.run_key(variant, seed, data, fingerprint.source_sha256(), packages, threads)

    base = key()
    assert len(base) == 64
    assert base == key(modern.model_copy())
    others = [
        key(modern.model_copy(update={"epochs": 99})), key(seed=2), key(data="e"), key(packages={"torch": "2.14.0"}),
        key(threads=2),
    ]  # fmt: skip
    copied = tmp_path / "lenet"
    copied.mkdir()
    for path in SOURCES.glob("*.py"):
        (copied / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(fingerprint, "PACKAGE", copied)
    assert key() == base
    (copied / "tracking.py").write_text("# another")
    assert key() == base
    (copied / "model.py").write_bytes((copied / "model.py").read_bytes() + b"\n")
    others.append(key())
    assert len({base, *others}) == 7


def test_tensor_digests_see_names_types_shapes_and_every_byte() -> None:
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    same = {"b": torch.ones(1), "a": torch.zeros(3, 2).T}
    assert fingerprint.tensors_sha256(base) == fingerprint.tensors_sha256(same)
    bit = torch.zeros(2, 3)
    bit[1, 2] = 1e-45
    others = [
        {"a": torch.zeros(3, 2), "b": torch.ones(1)}, {"a": torch.zeros(2, 3).int(), "b": torch.ones(1)},
        {"c": torch.zeros(2, 3), "b": torch.ones(1)}, {"a": bit, "b": torch.ones(1)}, {"a": torch.zeros(2, 3)},
    ]  # fmt: skip
    assert len({fingerprint.tensors_sha256(one) for one in (base, *others)}) == 6


def test_the_data_digest_sees_the_last_pixel_and_label(digits: Digits) -> None:
    train, validation = digits[100:300], digits[:100]
    base = fingerprint.data_sha256(train, validation)
    images, labels = train.images.clone(), train.labels.clone()
    images[-1, -1, -1] ^= 1
    labels[-1] ^= 1
    changed = [Digits(images, train.labels, train.index), Digits(train.images, labels, train.index)]
    assert len({base, *(fingerprint.data_sha256(one, validation) for one in changed)}) == 3
    assert fingerprint.data_sha256(validation, train) != base


def test_the_canary_repeats_across_processes_and_knows_another_instruction_set() -> None:
    code = "import lenet.fingerprint as f; print(f.canary())"
    here = fingerprint.canary()
    assert run(sys.executable, "-c", code, cwd=ROOT, OMP_NUM_THREADS="2").stdout.strip() == here
    assert run(sys.executable, "-c", code, cwd=ROOT, ATEN_CPU_CAPABILITY="default").stdout.strip() != here


def test_the_environment_is_names_and_versions() -> None:
    lines = fingerprint.environment()
    assert f"torch=={torch.__version__}" in lines
    assert len(lines) == len({line.split("==")[0] for line in lines}) > 100
    assert len(fingerprint.environment_sha256()) == 64


def test_parts_of_a_digest_are_kept_apart() -> None:
    assert fingerprint.sha256_of(b"ab", b"c") != fingerprint.sha256_of(b"a", b"bc")
    assert fingerprint.sha256_of() == hashlib.sha256().hexdigest()
