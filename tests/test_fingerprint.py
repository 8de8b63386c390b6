"""What makes two runs the same run: keys, digests, and DVC's dependencies beside the modules' imports."""

import ast
import hashlib
import json
import re
import shlex
import shutil
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from conftest import ROOT
from lenet.digits.data import Digits
from lenet.params import schema
from lenet.params.schema import Params
from lenet.runtime import layout
from lenet.runtime.errors import FaultyFile
from lenet.training import fingerprint

EXPERIMENTS = ("ladder", "sizes", "frontier", "paper")
NETWORK = ("weights.safetensors", "run.json", "history.csv")
PIPELINES = {
    name: YAML(typ="safe").load((ROOT / (name and f"experiments/{name}") / "dvc.yaml").read_text())["stages"]
    for name in ("", *EXPERIMENTS)
}
"""By an experiment's name; the root's has none."""
PIPELINE = PIPELINES[""]
SOURCES = ROOT / "src" / "lenet"


BESIDE = ("tracking", "runtime.errors", "runtime.layout", "runtime.processes", "runtime.snapshot", "training.progress")
"""Modules that stages import and that cannot change their outputs: tests train with them on and off."""
MODULES = {
    "fetch": "digits.fetch", "prepare": "digits.prepare", "signature": "training.signature",
    "evaluate": "pipeline.evaluate", "compare": "pipeline.compare", "baseline": "experiments.baselines",
    "facsimile": "experiments.facsimile",
}  # fmt: skip
"""What a stage runs, without what only stops it."""


@pytest.mark.parametrize(
    ("folder", "stage"), [(folder, stage) for folder in PIPELINES for stage in PIPELINES[folder] if stage != "train"]
)
def test_a_stage_depends_on_the_modules_that_can_change_its_outputs(folder: str, stage: str) -> None:
    """All that it imports lies in its dependencies, and each of these holds something that it imports."""
    published = {"frontier": "ladder"}.get(folder, folder)
    module = f"experiments.{published}" if stage == "publish" else MODULES[stage]
    imported = {path.relative_to(SOURCES).as_posix() for path in _sources(module)}
    deps = [dep.removeprefix("src/lenet/") for dep in PIPELINES[folder][stage]["deps"] if dep.startswith("src/")]
    assert deps == sorted(deps)
    covered = {path for path in imported for dep in deps if path == dep or path.startswith(f"{dep}/")}
    assert imported == covered
    assert all(any(path == dep or path.startswith(f"{dep}/") for path in imported) for dep in deps)


def test_a_training_depends_on_digits_block_and_signature_and_on_no_source() -> None:
    for name, pipeline in PIPELINES.items():
        digits = "../../signatures/digits.json" if name else "data/train.safetensors"
        assert pipeline["train"]["deps"] == [digits, "signatures/${item.variant}.json"]
        assert pipeline["train"]["params"] == pipeline["signature"]["params"] == ["variants.${item.variant}"]
        assert pipeline["signature"]["outs"] == [{"signatures/${item.variant}.json": {"cache": False}}]  # in Git
        sources = [dep.removeprefix("src/lenet/") for dep in pipeline["signature"]["deps"] if dep.startswith("src/")]
        assert sources == list(fingerprint.NUMERIC)
    assert "--signature 'signatures/${item.variant}.json'" in PIPELINE["train"]["cmd"]


def _sources(module: str, found: frozenset[Path] = frozenset()) -> set[Path]:
    """The files that a module imports, followed, but for those BESIDE; a folder's ``__init__`` with its modules."""
    path = _path(module)
    if path is None or path in found or module in BESIDE or module.split(".")[0] in BESIDE:
        return set(found)
    known = {*found, path}
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lenet":
            base = str(node.module).removeprefix("lenet").removeprefix(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".removeprefix(".")
                known |= _sources(name if _path(name) else base, frozenset(known))
    return known


def _path(module: str) -> Path | None:
    places = SOURCES / f"{module.replace('.', '/')}.py", SOURCES / module.replace(".", "/") / "__init__.py"
    return next((path for path in places if module and path.exists()), None)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_train_and_evaluate_as_the_root_does(name: str) -> None:
    """The same stages word for word, besides their commands' paths and which variants they take."""
    there = PIPELINES[name]
    assert set(there) == {"signature", "train", "evaluate", "publish"} | ({"baseline", "facsimile"} & set(there))
    commands = {
        "signature": "signature '${item.variant}'",
        "train": "train '${item.variant}' '${item.seed}' "
        f"--signature 'experiments/{name}/signatures/${{item.variant}}.json'{' --snapshots' * (name == 'paper')}",
        "evaluate": "evaluate '${item.variant}-${item.seed}'",
        "publish": f"publish {name}",
    }
    for stage, command in commands.items():
        assert there[stage]["cmd"] == f"cd ../.. && PYTHONPATH=src python -m lenet {command}"
    for stage in ("signature", "train", "evaluate"):
        text = json.dumps(PIPELINE[stage]).replace("${compare}", "${train}")
        expected = json.loads(re.sub(r"data/\w+\.safetensors(?=\"[,\]])", "../../signatures/digits.json", text))
        expected["cmd"] = there[stage]["cmd"]
        if name == "paper" and stage != "signature":  # it keeps the weights of each pass
            expected["desc"] = there[stage]["desc"]
            files = expected["outs" if stage == "train" else "deps"]
            run_json = next(i for i, file in enumerate(files) if str(file).endswith("run.json"))
            files.insert(run_json + 1, files[run_json].replace("run.json", "snapshots.safetensors"))
        if stage != "signature":  # what makes up a network is published, and no more
            outs = [out for out in expected["outs"] if isinstance(out, str)]
            kept = [out if out.endswith(NETWORK) else {out: {"push": False}} for out in outs]
            expected["outs"] = kept + [out for out in expected["outs"] if not isinstance(out, str)]
        assert there[stage] == expected
    assert {"../../metrics", "runs", "params.yaml"} <= set(there["publish"]["deps"])
    assert there["publish"]["outs"] == [{"result.json": {"cache": False}}]


def test_experiments_are_dvc_projects_that_are_set_up_alike() -> None:
    """With the root's cache and the root's ``src``, through which `dvc exp run` may add nothing to Git."""
    homes = sorted(path.parent for path in ROOT.glob("experiments/*/dvc.yaml"))
    assert {home.name for home in homes} == {*EXPERIMENTS, "sweeps"}
    for home in homes:
        assert (home / "src").readlink() == Path("../../src")
        assert (home / ".dvcignore").read_text() == (ROOT / ".dvcignore").read_text()
        assert (home / ".dvc" / ".gitignore").read_text() == (ROOT / ".dvc" / ".gitignore").read_text()
        own, roots = (_settings(folder / ".dvc" / "config") for folder in (home, ROOT))
        assert own.pop("cache") == {"dir": "../../../.dvc/cache"}
        assert own["core"] == roots["core"]
    assert "/experiments/*/src/*\n" in (ROOT / ".gitignore").read_text()


def test_a_run_s_folder_tells_its_experiment_wherever_the_checkout_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "experiments" / "lenet"
    ladder = checkout / "experiments" / "ladder"
    for project in (checkout, ladder):
        (project / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(ladder)
    assert layout.root() == checkout
    monkeypatch.chdir(checkout)
    assert layout.root() == checkout
    for path in (Path("runs/modern-1"), checkout / "runs" / "modern-1"):
        assert (layout.home_around(path), layout.mlflow_experiment(path)) == (Path(), "lenet5")
        assert "`lenet repro` makes" in str(FaultyFile(path, "x"))
    for path in (Path("experiments/ladder/runs/tutorial-1"), ladder / "runs" / "tutorial-1"):
        assert layout.home_around(path) == Path("experiments/ladder")
        assert layout.mlflow_experiment(path) == "lenet5-ladder"
        assert "`lenet repro ladder` makes" in str(FaultyFile(path, "x"))


def _settings(path: Path) -> dict[str, dict[str, str]]:
    parser = ConfigParser()
    parser.read(path)
    return {name: dict(parser[name]) for name in parser.sections()}


def test_the_digest_of_the_sources_follows_the_numeric_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "lenet"
    shutil.copytree(SOURCES, copied)
    base = fingerprint.source_sha256()
    monkeypatch.setattr(fingerprint, "PACKAGE", copied)
    assert fingerprint.source_sha256() == base
    for name in ("cli/base.py", "tracking/live.py", "evaluation/scoring.py", "sweep/study.py"):
        (copied / name).write_text("# another")
    assert fingerprint.source_sha256() == base
    found = {base}
    for name in "training/fit", "digits/data", "params/schema", "arithmetic/randomness", "networks/codes":
        (copied / f"{name}.py").write_text("# another")
        found.add(fingerprint.source_sha256())
    (copied / "networks" / "codes.py").rename(copied / "networks" / "code.py")
    assert len(found | {fingerprint.source_sha256()}) == 7


def test_only_evaluate_depends_on_the_test_digits() -> None:
    """Of commands also baseline, which tests classifiers of fixed settings once, and a page that shows some digits."""
    takers = re.findall(r"TEST, .*?\ndef (\w+)", (SOURCES / "cli" / "stages.py").read_text(), re.S)
    assert takers == ["prepare", "evaluate", "facsimile", "baseline"]
    assert [name for name, stage in PIPELINE.items() if "data/test.safetensors" in stage["deps"]] == ["evaluate"]
    users = {p.relative_to(SOURCES).as_posix() for p in SOURCES.rglob("*.py") if "test.safetensors" in p.read_text()}
    assert users == {"runtime/layout.py", "digits/datamodule.py"}


def test_every_value_of_a_selected_variant_is_tracked_by_its_stage(params: Params) -> None:
    assert PIPELINE["train"]["params"] == ["variants.${item.variant}"]
    own = [name for name in PIPELINE["prepare"]["params"] if isinstance(name, str)]
    assert own == ["compare", "data", "seeds"]
    assert sorted(PIPELINE["compare"]["params"]) == ["compare", "seeds"]
    studies = {"sweep"}  # no training depends on them
    assert set(schema.Params.model_fields) - studies == {"variants", "data", "compare", "seeds"}


def test_what_a_params_yaml_puts_into_a_command_stays_one_word() -> None:
    """Words of the shell, whatever they hold besides a single quote; such a name or seed stops every command."""
    files = [ROOT / "dvc.yaml", *ROOT.glob("experiments/*/dvc.yaml")]
    stages = [one for file in files for one in YAML(typ="safe").load(file.read_text())["stages"].values()]
    texts = [stage["cmd"] for stage in stages if "matrix" in stage]
    assert len(texts) > 15
    for text in texts:
        words = shlex.split(text)
        assert shlex.split(re.sub(r"\$\{item\.\w+\}", "x; touch $(y)", text)) == [
            re.sub(r"\$\{item\.\w+\}", "x; touch $(y)", word) for word in words
        ]
    put = {name for stage in stages for name in stage.get("matrix", {}).values()}
    assert put == {f"${{{key}}}" for key in ("compare", *schema.Blocks.model_fields) if key != "variants"}
    assert {"compare", "seeds"} < {*PIPELINE["prepare"]["params"]}  # which all others wait for


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


def test_the_environment_is_names_and_versions() -> None:
    lines = fingerprint.environment()
    assert f"torch=={metadata.version('torch')}" in lines  # 2.13.0 where torch.__version__ is 2.13.0+cu130
    assert len(lines) == len({line.split("==")[0] for line in lines}) > 100
    assert len(fingerprint.environment_sha256()) == 64


def test_parts_of_a_digest_are_kept_apart() -> None:
    assert fingerprint.sha256_of(b"ab", b"c") != fingerprint.sha256_of(b"a", b"bc")
    assert fingerprint.sha256_of() == hashlib.sha256().hexdigest()
