"""params.yaml: closed, without defaults, and every fault named."""

import copy
import json
import math
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from ruamel.yaml import YAML

from conftest import ROOT, refused, run
from lenet.params import loading, schema
from lenet.reproduce import workplace
from lenet.runtime.errors import InputError, ParamsError

CONTENT = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
for path in ROOT.glob("experiments/*/params.yaml"):
    CONTENT["variants"] |= YAML(typ="safe").load(path.read_text()).get("variants", {})


def sections(kind: Any = schema.Params) -> set[type[BaseModel]]:
    """Every section class reachable from a type."""
    found = set()
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        found.add(kind)
        for field in kind.model_fields.values():
            found |= sections(field.annotation)
    for part in get_args(kind):
        found |= sections(part)
    return found


def with_value(path: str, value: Any) -> dict:
    content = copy.deepcopy(CONTENT)
    node = content
    *folders, last = path.split("/")
    for name in folders:
        node = node[_place(node, name)]
    if value is DELETE:
        del node[last]
    else:
        node[_place(node, last)] = value
    return content


def _place(node: Any, name: str) -> str | int:
    return int(name) if isinstance(node, list) else name


DELETE = object()


def test_the_project_s_own_file_is_valid(params: schema.Params) -> None:
    assert {"original-sigmoid", "original-tanh", "modern"} <= set(params.compare)
    assert len(list(params.runs())) == len(params.compare) * len(params.seeds)


def test_no_field_has_a_default() -> None:
    found = sections()
    assert {schema.Params, schema.Variant, schema.SGD, schema.Adam, schema.TrainablePooling} <= found
    assert [f"{s.__name__}.{n}" for s in found for n, f in s.model_fields.items() if not f.is_required()] == []


PAPER = {
    "kind": "paper", "copies": 9, "shrink": [0.77, 1.4], "squeeze": 0.1, "shear": 0.14, "translation": 2.0,
}  # fmt: skip
FAULTS = [
    # path, value, words that the message must have
    ("variants/modern/optimizer/momentumm", 0.9, ["variants.modern.optimizer", "momentumm", "weight_decay"]),
    ("extra", 1, ["extra", "legal", "seeds"]),
    ("variants/modern/epochs", DELETE, ["variants.modern.epochs", "missing"]),
    ("variants/modern/optimizer/kind", DELETE, ["variants.modern.optimizer.kind", "missing"]),
    ("variants/modern/epochs", "12", ["variants.modern.epochs", "'12'", "integer"]),
    ("variants/modern/epochs", True, ["variants.modern.epochs", "True", "integer"]),
    ("variants/modern/epochs", 0, ["variants.modern.epochs", "0", "greater than or equal to 1"]),
    ("variants/modern/optimizer/lr", math.nan, ["variants.modern.optimizer.lr", "nan", "finite"]),
    ("variants/modern/optimizer/lr", -0.1, ["variants.modern.optimizer.lr", "-0.1", "greater than 0"]),
    ("variants/modern/network/activation", "swish", ["variants.modern.network.activation", "swish", "scaled-tanh"]),
    ("variants/modern/network/pooling/kind", "sum", ["variants.modern.network.pooling.kind", "sum", "trainable"]),
    ("variants/modern/network/stages", [], ["variants.modern.network", "'activation'", "legal here: stages"]),
    (
        "variants/frontier/network/activation",
        "relu",
        ["variants.frontier.network", "'activation'", "legal here: stages"],
    ),
    ("variants/frontier/network/stages/0/0/size", 33, ["variants.frontier.network: stages.0.0", "side 33", "side 28"]),
    ("variants/frontier/network/stages/2/1/size", 6, ["variants.frontier.network: stages", "one pixel"]),
    ("variants/frontier/network/stages/1", [], ["variants.frontier.network.stages.1 = []", "at least 1"]),
    ("variants/frontier/network/stages/2/1/maps", 0, ["variants.frontier.network.stages.2.1.maps = 0"]),
    ("variants/frontier/distortion/kind", "elastic", ["variants.frontier.distortion.kind", "elastic", "affine"]),
    ("variants/modern/distortion", DELETE, ["variants.modern.distortion", "missing"]),
    ("variants/modern/objective/loss", "hinge", ["variants.modern.objective.loss", "hinge", "cross-entropy"]),
    ("variants/modern/network/output", "squashed", ["variants.modern", "cross-entropy", "softmax"]),
    ("variants/modern/validation_size", 5001, ["variants.modern", "60001", "60000"]),
    (
        "variants/lecun1998/objective/loss",
        "mse",
        ["variants.lecun1998.objective: ", "'factor'", "legal here: loss, off"],
    ),
    ("variants/lecun1998/network/output", "softmax", ["loss = 'map'", "'rbf', 'adaptive-rbf'", "'cross-entropy'"]),
    ("variants/lecun1998/network/pooling", {"kind": "average"}, ["diagonal-levenberg-marquardt", "trainable pooling"]),
    ("variants/lecun1998/optimizer/criterion", "hessian", ["optimizer.criterion", "hessian", "'exact'"]),
    ("variants/lecun1998/schedule/steps/4/epochs", 7, ["variants.lecun1998: schedule.steps", "19", "epochs = 20"]),
    ("variants/lecun1998/schedule/steps", [], ["variants.lecun1998.schedule.steps = []", "at least 1"]),
    ("variants/lecun1998/order", "sorted", ["variants.lecun1998.order", "sorted", "'constant'"]),
    ("variants/lecun1998/initialisation/biases", "one", ["variants.lecun1998.initialisation.biases", "'random'"]),
    ("variants/lecun1998/distortion", PAPER | {"shrink": [1.4, 0.77]}, ["distortion: shrink", "1.4", "0.77"]),
    ("variants/lecun1998/distortion", PAPER | {"shrink": [0.77]}, ["lecun1998.distortion.shrink.1: missing"]),
    ("variants/modern/distortion", PAPER, ["variants.modern: distortion.copies = 9", "order = 'constant'"]),
    ("variants/original-tanh/objective/off", 1.0, ["variants.original-tanh.objective", "on = 1.0"]),
    ("variants/Modern", CONTENT["variants"]["modern"], ["variants.Modern", "lower-case"]),
    ("compare", ["modern", "moderm"], ["compare", "moderm", "original-tanh"]),
    ("compare", [], ["compare = []", "at least 1"]),
    ("compare", ["modern", "modern"], ["compare", "modern", "2 times"]),
    ("seeds", [1, 2, 1], ["seeds", "1", "2 times"]),
    ("seeds", [], ["seeds = []", "at least 1"]),
    ("seeds", [-1], ["seeds.0 = -1; legal: greater than or equal to 0"]),
    ("seeds", 3, ["seeds", "3"]),
    ("data", None, ["data", "None"]),
]


@pytest.mark.parametrize(("path", "value", "words"), FAULTS, ids=[f"{p}={v!r:.12}" for p, v, _ in FAULTS])
def test_a_fault_names_path_value_and_what_is_legal(path: str, value: Any, words: list[str]) -> None:
    with pytest.raises(ParamsError) as fault:
        loading.validate(with_value(path, value), "params.yaml")
    message = str(fault.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("params.yaml: ")
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("content", [None, [], 3, "text", {}, {"variants": {"modern": None}}, {"variants": []}])
def test_anything_else_is_a_fault_too(content: Any) -> None:
    with pytest.raises(ParamsError):
        loading.validate(content, "params.yaml")


KEYS = st.sampled_from(["seeds", "compare", "data", "variants", "modern", "optimizer", "kind", "lr"]) | st.text(
    max_size=3
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(TREES)
def test_no_content_gets_past_as_another_exception(content: Any) -> None:
    with suppress(ParamsError):
        loading.validate(content, "params.yaml")


@given(st.sampled_from(["variants/modern/optimizer/lr", "variants/modern/epochs", "variants/modern/network", "seeds"]),
       st.none() | st.integers() | st.floats() | st.text(max_size=4) | st.lists(st.integers(), max_size=3))  # fmt: skip
def test_what_is_accepted_is_legal(path: str, value: Any) -> None:
    try:
        found = loading.validate(with_value(path, value), "params.yaml")
    except ParamsError:
        return
    modern = found.variants["modern"]
    assert 0 < modern.optimizer.lr < math.inf
    assert modern.epochs >= 1
    assert len(set(found.seeds)) == len(found.seeds) >= 1


def test_flatten_names_leaves_with_dots(params: schema.Params) -> None:
    leaves = loading.flatten(params.variants["modern"])
    assert leaves["optimizer.lr"] == params.variants["modern"].optimizer.lr
    assert leaves["network.pooling.kind"] == "average"
    assert all(not isinstance(value, dict) for value in leaves.values())


def test_leaves_are_the_same_from_params_yaml_and_from_a_record(params: schema.Params) -> None:
    for name, block in params.variants.items():
        recorded = json.loads(json.dumps(block.model_dump()))
        assert str(loading.flatten(block)) == str(loading.flatten(recorded)), name


def test_every_command_refuses_a_bad_file_with_status_2(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("check", monkeypatch, capsys).startswith("lenet: error: params.yaml is not here")
    (tmp_path / "params.yaml").write_text("seeds: []\n")
    for command in ("summary modern", "results", "repro"):
        assert refused(command, monkeypatch, capsys).startswith("lenet: error: params.yaml: ")
    done = run("lenet", "check", cwd=tmp_path, status=2)  # and as a program
    assert done.stderr.startswith("lenet: error: params.yaml: ")
    assert "Traceback" not in done.stderr


def test_a_run_s_parameters_nested_too_deeply_to_be_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    nested: list = []
    for _ in range(900):
        nested = [nested]
    with pytest.raises(InputError, match="nested too deeply"):
        workplace.select(tmp_path, "modern", [1], {"x": nested})


def bomb(levels: int, tag: str = "", item: str = "") -> str:
    """Each level is nine times the one before, all by aliases."""
    lines = [f"a{i}: &a{i} {tag}[{', '.join([f'{item}*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(["a0: &a0 [1]", *lines, ""])


READERS = {
    "loading.load": loading.load,
    "workplace.select": lambda path: workplace.select(path.parent, "modern", [1], None),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: [1, 2", "params.yaml:.* not legal YAML"),
        ("a: 1\na: 2\n", "duplicate"),
        ("seeds: \x00", "not legal YAML"),
        (bomb(30), "with its aliases written out"),
        (bomb(30, "!!pairs ", "x: "), "with its aliases written out"),
        ("seeds: &a [*a]\n", "not legal YAML|with its aliases written out"),
        (f"seeds: {'[' * 900}{']' * 900}\n", "nested too deeply"),
        ("".join(f"{' ' * i}a:\n" for i in range(3000)), "more than|nested too deeply"),
        (f"seeds: [{'9' * 5001}]\n", "not legal YAML: Exceeds the limit"),
        (f"0x{'f' * 5000}", "not legal YAML: Exceeds the limit"),
        ("# " + "x" * 300_000, "more than 262,144 characters"),
        ("seeds: !!int ''", "not legal YAML"),
        ("seeds: !!bool x", "not legal YAML"),
        ("seeds: !!omap [a: 1, a: 2]", "not legal YAML"),
        (b"seeds: \xff", "not legal YAML"),
        (None, "directory"),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_what_would_take_a_reader_for_ever_or_break_it_is_one_line(
    tmp_path: Path, text: str | bytes | None, said: str, reader: str
) -> None:
    path = tmp_path / "params.yaml"
    if text is None:
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=said) as raised:
        READERS[reader](path)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"train": ["x'; y; '"]}, "train"),  # which the shell would take for more than a name
        ({"seeds": ["1 2"]}, "seeds"),
        ({"baselines": [{"a": "b"}]}, "baselines"),
        ({"studies": "$(x)"}, "studies"),
        ({"seeds": 5}, "seeds"),
        (5, "the file = 5; legal: keys with their values"),
        (["seeds"], "the file = "),
        (None, "the file = None"),
    ],
    ids=str,
)
def test_a_faulty_file_of_an_experiment_stops_every_command_in_one_line(
    content: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    own = tmp_path / "experiments" / "ladder" / "params.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    for command in ("check", "publish ladder"):
        told = refused(command, monkeypatch, capsys)
        assert told.startswith(f"lenet: error: experiments/ladder/params.yaml: {said}")
        assert told.count("\n") == 1


def test_a_variant_s_name_stands_in_one_file(tmp_path: Path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "experiments" / "frontier", tmp_path / "experiments" / "frontier", symlinks=True)
    own = tmp_path / "experiments" / "frontier" / "params.yaml"
    assert loading.load(tmp_path / "params.yaml").variants.keys() > {"modern", "frontier"}
    assert loading.home_of("frontier", tmp_path / "params.yaml") == own
    own.write_text(own.read_text().replace("  frontier:\n", "  modern:\n"))
    with pytest.raises(ParamsError, match=r"frontier/params\.yaml: variants\.modern: a variant of this name"):
        loading.load(tmp_path / "params.yaml")


def test_of_a_rerun_s_sources_the_root_alone_is_run_with_the_run_s_variant(tmp_path: Path) -> None:
    """An experiment's, too. Without their `.dvc`, which archives lack, experiments would be stages of the root."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "experiments" / "ladder", tmp_path / "experiments" / "ladder", symlinks=True)
    before = loading.load(tmp_path / "params.yaml").variants["tutorial"]
    workplace.select(tmp_path, "tutorial", [3], None)
    after = loading.load(tmp_path / "params.yaml")
    assert (list(after.runs()), after.variants["tutorial"]) == ([("tutorial", 3)], before)
    assert not (tmp_path / "experiments").exists()
