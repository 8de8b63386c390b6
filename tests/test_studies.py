"""The ladder and the training-set sizes: what their variants differ in, and the numbers from runs made by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc.utils.hydra import apply_overrides

from conftest import EXPERIMENTS, ROOT
from lenet.experiments.ladder import Ladder
from lenet.experiments.publish import load, publish
from lenet.experiments.sizes import Sizes
from lenet.networks import layer_table
from lenet.params import loading
from lenet.params.schema import Params
from lenet.report import experiments, results_table
from lenet.runs.record import Record
from lenet.runtime.errors import InputError, ParamsError

STEPS = {
    ("original-tanh", "tutorial-mse"): {"network.output", "objective.off"},
    ("tutorial-mse", "tutorial"): {"objective.loss", "objective.off", "objective.on"},
    ("tutorial", "tutorial-average"): {
        "network.pooling.kind", "network.pooling.coefficient", "network.pooling.bias",
    },
    ("tutorial-average", "overview"): {"network.C3"},
    ("overview", "overview-relu"): {"network.activation", "initialisation.scale"},
    ("overview-relu", "modern"): {
        "optimizer.kind", "optimizer.momentum", "optimizer.beta1", "optimizer.beta2", "batch_size",
    },
    ("original-sigmoid", "explanation-mse"): {"network.output"},
    ("explanation-mse", "explanation-cross-entropy"): {"objective.loss", "objective.off", "objective.on"},
    ("explanation-cross-entropy", "tutorial"): {
        "network.activation", "initialisation.scale", "network.pooling.coefficient", "network.pooling.bias",
        "optimizer.momentum",
    },
}  # fmt: skip
"""What else than the learning rate changes from rung to rung."""


@pytest.fixture(scope="session")
def own() -> Ladder:
    return load(EXPERIMENTS / "ladder")


@pytest.fixture(scope="session")
def beyond() -> Ladder:
    return load(EXPERIMENTS / "frontier")


@pytest.fixture(scope="session")
def curves() -> Sizes:
    return load(EXPERIMENTS / "sizes")


def test_each_rung_changes_one_thing(params: Params, own: Ladder) -> None:
    found = [(before, step.to) for before, step in own.steps()]
    assert found == list(STEPS)
    for before, after in found:
        one, other = (loading.flatten(params.variants[name]) for name in (before, after))
        differ = {leaf for leaf in {*one, *other} if one.get(leaf) != other.get(leaf)}
        assert differ - {"optimizer.lr"} == STEPS[before, after], (before, after)
    own.check(params, Path("experiments/ladder/params.yaml"))


def test_the_documents_in_between_networks_are_rungs(params: Params) -> None:
    networks = {name: params.variants[name].network for name in ("tutorial", "overview", "explanation-mse")}
    assert layer_table.totals(networks["overview"])["parameters"] == 61_706
    assert layer_table.totals(networks["tutorial"])["parameters"] == 60_850
    assert networks["explanation-mse"] == params.variants["original-sigmoid"].network.model_copy(
        update={"output": "softmax"}
    )


def test_every_variant_is_trained_by_one_pipeline(params: Params, own: Ladder, beyond: Ladder, curves: Sizes) -> None:
    recipe = load(EXPERIMENTS / "paper")
    trained = [*params.compare, *own.train, *beyond.train, *curves.train, *recipe.train]
    tried = set(params.sweep["spaces"]) - set(trained)  # by a study alone
    assert sorted([*trained, *tried]) == sorted(params.variants)
    assert {name for before, step in own.steps() for name in (before, step.to)} <= {*params.compare, *own.train}
    assert {name for names in curves.curves.values() for name in names} <= {*params.compare, *curves.train}
    assert own.seeds == beyond.seeds == curves.seeds == recipe.seeds == params.seeds


def test_old_against_new_is_one_chain_of_stated_steps(params: Params, beyond: Ladder) -> None:
    (chain,) = beyond.chains
    assert chain.names == [*params.compare, *beyond.train]
    beyond.check(params, Path("experiments/frontier/params.yaml"))
    steps = {step.to: step.parts for step in chain.steps}
    assert steps["frontier-distorted"] == ("distortion",)
    for name in beyond.train:
        assert (params.variants[name].train_size, params.variants[name].validation_size) == (60_000, 0)


def test_a_curve_s_variants_differ_in_digits_and_epochs(params: Params, curves: Sizes) -> None:
    for name, names in curves.curves.items():
        assert names[-1] == name
        assert [params.variants[one].train_size for one in names] == [100, 300, 1000, 3000, 10_000, 30_000, 55_000]
        whole = params.variants[name]
        for one in names:
            block = params.variants[one]
            assert block.epochs == round(whole.epochs * min((55_000 / block.train_size) ** 0.5, 20))
            assert block.model_copy(update={"train_size": 55_000, "epochs": whole.epochs}) == whole
    curves.check(params, Path("experiments/sizes/params.yaml"))


def test_dvc_changes_the_lines_of_its_values_alone(params: Params, tmp_path: Path) -> None:
    """`dvc exp run -S` writes a whole file anew, in its own style, and loses comments after lists."""
    file = tmp_path / "params.yaml"
    for path in loading.files(ROOT / "params.yaml"):
        shutil.copy(path, file)
        apply_overrides(file, [])
        assert file.read_text() == path.read_text(), path
    for name in params.variants:  # one that shared a part by YAML's aliases would change with another
        own = loading.home_of(name, ROOT / "params.yaml")
        before = own.read_text().splitlines()
        shutil.copy(own, file)
        apply_overrides(file, [f"variants.{name}.optimizer.lr=0.77", f"variants.{name}.pixels.ink=1.5"])
        changed = [line for old, line in zip(before, file.read_text().splitlines(), strict=True) if line != old]
        assert len(changed) == 2
        assert "ink: 1.5" in changed[0]
        assert "lr: 0.77" in changed[1]
        block = loading.blocks(file)[name]
        assert (block["optimizer"]["lr"], block["pixels"]["ink"]) == (0.77, 1.5)


def write_run(folder: Path, params: Params, variant: str, seed: int, missed: list[int]) -> None:
    """An evaluated run that misses some of 200 digits; its predictions are not in order."""
    folder = folder / f"{variant}-{seed}"
    folder.mkdir(parents=True)
    Record(variant, seed, params.variants[variant], "key", "data", "signature", "weights").write(folder / "run.json")
    answers = np.where(np.isin(np.arange(200), missed), 1, 0)
    table = pd.DataFrame({"index": range(200), "label": 0, "answer": answers})
    table[::-1].to_csv(folder / "predictions.csv", index=False)


CHAINS = """
seeds: [1, 2, 3]
variants: {}
train: [tutorial-mse, tutorial]
chains:
  - start: original-tanh
    steps:
      - {to: tutorial-mse, change: softmax, parts: [network.output, objective]}
      - {to: tutorial, change: cross-entropy, parts: [objective]}
"""


@pytest.fixture
def climbed(params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment's folder. original-tanh misses 40 of 200 digits, tutorial-mse 4, tutorial 3, 4 and 5."""
    home = tmp_path / "experiments" / "ladder"
    for seed in (1, 2, 3):
        write_run(tmp_path / "runs", params, "original-tanh", seed, list(range(40)))
        write_run(home / "runs", params, "tutorial-mse", seed, [0, 1, 2, 3])
        write_run(home / "runs", params, "tutorial", seed, list(range(2 + seed)))
    (home / "params.yaml").write_text(CHAINS)
    monkeypatch.chdir(tmp_path)
    return home


def test_the_ladder_s_numbers(params: Params, climbed: Path) -> None:
    publish(params, climbed)
    content = json.loads((climbed / "result.json").read_text())
    assert content["chains"] == [["original-tanh", "tutorial-mse", "tutorial"]]
    assert list(content["variants"]) == content["chains"][0]
    found = content["variants"]["tutorial"]
    assert found["seeds"] == {
        "1": {"misses": 3, "error": 0.015}, "2": {"misses": 4, "error": 0.02}, "3": {"misses": 5, "error": 0.025},
    }  # fmt: skip
    assert found["count"] == 200
    assert found["test_error"] == pytest.approx(0.02)
    assert found["test_error_sd"] == pytest.approx(0.005)
    assert 0 < found["low"] < 0.02 < found["high"] < 0.06
    assert found["what"] == "scaled-tanh, trainable pooling, C3 table, softmax, cross-entropy, sgd"
    first, second = content["steps"]
    assert (first["from"], first["to"], first["change"]) == ("original-tanh", "tutorial-mse", "softmax")
    assert first["difference"] == pytest.approx(-0.18)  # 4 in place of 40 of 200: negative is better
    assert first["low"] < -0.18 < first["high"] < 0
    assert second["difference"] == pytest.approx(0)
    assert second["low"] < 0 < second["high"]
    # Holm over two steps: the smaller p counts twice
    assert first["p_adjusted"] == pytest.approx(2 * first["p"])
    assert first["p"] < 0.001 < 0.5 < second["p"]
    assert first["verdict"].startswith("tutorial-mse beats original-tanh by 18.00 points")
    assert "no significant difference" in second["verdict"]


def sign(folder: Path, signature: str | None) -> None:
    """Give a run's record a signature, or none, as records of the former arithmetic have it."""
    path = folder / "run.json"
    content = json.loads(path.read_text())
    content["run"].pop("signature", None)
    content["run"] |= {"signature": signature} if signature else {}
    path.write_text(json.dumps(content))


def test_the_result_names_what_its_variants_do(params: Params, climbed: Path) -> None:
    for run in (run for folder in (Path("runs"), climbed / "runs") for run in folder.iterdir()):
        sign(run, f"signature of {run.name[:-2]}")
    publish(params, climbed)
    names = ("original-tanh", "tutorial-mse", "tutorial")
    assert json.loads((climbed / "result.json").read_text())["signatures"] == {
        name: f"signature of {name}" for name in names
    }
    assert not results_table.is_former(experiments.read(Path("experiments"), "ladder"))


@pytest.mark.parametrize("signature", [None, "another"])
def test_runs_of_mixed_arithmetic_are_refused_in_one_line(params: Params, climbed: Path, signature: str | None) -> None:
    for run in (run for folder in (Path("runs"), climbed / "runs") for run in folder.iterdir()):
        sign(run, "same")
    sign(climbed / "runs" / "tutorial-2", signature)
    with pytest.raises(InputError, match=r"mixed arithmetic.*tutorial-2|not a run record") as caught:
        publish(params, climbed)
    assert "\n" not in str(caught.value)
    assert not (climbed / "result.json").exists()


def test_one_seed_gives_no_interval(params: Params, climbed: Path) -> None:
    (climbed / "params.yaml").write_text(CHAINS.replace("[1, 2, 3]", "[2]"))
    publish(params, climbed)
    content = json.loads((climbed / "result.json").read_text())
    assert content["variants"]["tutorial"]["test_error_sd"] is None
    assert content["steps"][0]["difference"] == pytest.approx(-0.18)
    assert content["steps"][0]["p"] is content["steps"][0]["low"] is None


def test_a_size_curve_s_numbers(params: Params, tmp_path: Path) -> None:
    names = ["modern-100", "modern-1000", "modern"]
    for seed in (1, 2):
        for name, missed in zip(names, (40, 20 + 2 * seed, 2), strict=True):
            write_run(tmp_path / "runs", params, name, seed, list(range(missed)))
    content = {"seeds": [1, 2], "train": names[:2], "variants": {}, "curves": {"modern": names}}

    def published(params: Params) -> dict:
        (tmp_path / "params.yaml").write_text(json.dumps(content))
        publish(params, tmp_path)
        return json.loads((tmp_path / "result.json").read_text())

    (curve,) = published(params)["variants"].values()
    assert [point["train_size"] for point in curve] == [100, 1000, 55_000]
    assert [point["test_error"] for point in curve] == pytest.approx([0.2, 0.115, 0.01])
    assert [point["test_error_sd"] for point in curve] == pytest.approx([0, 0.01 / 2**0.5, 0])
    assert curve[1]["seeds"]["2"] == {"misses": 24, "error": 0.12}
    assert all(point["low"] < point["test_error"] < point["high"] for point in curve)

    content["curves"]["modern"] = ["modern-1000", "modern-100", "modern"]
    with pytest.raises(ParamsError, match=r"modern: train_size must ascend; it is 1000, 100, 55000"):
        published(params)
    other = params.variants["modern-100"].model_copy(update={"batch_size": 32})
    content["curves"]["modern"] = names
    changed = params.model_copy(update={"variants": {**params.variants, "modern-100": other}})
    with pytest.raises(ParamsError, match="modern-100 differs from modern in batch_size, too"):
        published(changed)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("parts: [objective]}", "parts: [network.output]}", r"tutorial-mse → tutorial changes objective\.loss"),
        ("[network.output, objective]", "[network, objective, epochs]", "changes nothing in epochs"),
        ("to: tutorial,", "to: overview,", r"tutorial-mse → overview changes .*network\.C3"),
        ("to: tutorial,", "to: lenet6,", "'lenet6' has no block"),
        ("seeds: [1, 2, 3]", "seeds: [1, 2, 4]", "original-tanh-4: no evaluated run in runs or .*ladder/runs"),
        ("seeds: [1, 2, 3]", "seeds: []", r"seeds = \[\]; legal: at least 1"),
        ("train:", "trane:", r"ladder/params\.yaml: .*trane"),
        ("chains:", "chains: [", r"ladder/params\.yaml:6:3: not legal YAML"),
    ],
)
def test_a_faulty_ladder_is_one_line_and_nothing_is_written(
    params: Params, climbed: Path, old: str, new: str, message: str
) -> None:
    text = CHAINS.replace(old, new)
    assert text != CHAINS
    (climbed / "params.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as fault:
        publish(params, climbed)
    assert "\n" not in str(fault.value)
    assert not (climbed / "result.json").exists()


def test_a_run_of_another_block_or_without_answers_is_refused(params: Params, climbed: Path) -> None:
    block = params.variants["tutorial"]
    other = block.model_copy(update={"optimizer": block.optimizer.model_copy(update={"lr": 0.123})})
    changed = params.model_copy(update={"variants": {**params.variants, "tutorial": other}})
    with pytest.raises(InputError, match="tutorial-1: trained with another block"):
        publish(changed, climbed)
    (climbed / "runs" / "tutorial-2" / "predictions.csv").write_text("index,label\n0,1\n")
    with pytest.raises(InputError, match=r"tutorial-2/predictions\.csv: not whole \(answer is missing\)"):
        publish(params, climbed)
    assert not (climbed / "result.json").exists()
