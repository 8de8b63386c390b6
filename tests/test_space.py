"""What a study tries: ranges and choices, the block of a trial, and every fault named before the first one."""

from collections.abc import Callable
from math import isclose

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from conftest import ROOT
from lenet.params import loading
from lenet.params.schema import Params, Variant
from lenet.runtime.errors import ParamsError
from lenet.sweep.settings import settings
from lenet.sweep.space import Space

KINDS = [
    {"kind": "sgd", "lr": {"low": 0.01, "high": 0.1, "scale": "log"}, "momentum": [0.0, 0.9], "weight_decay": 0.0},
    {"kind": "adam", "lr": 0.003, "beta1": {"low": 0.5, "high": 0.9, "scale": "linear"}, "beta2": 0.999,
     "weight_decay": 0.0},
]  # fmt: skip


def proposed(space: Space, base: dict, count: int = 60) -> list[tuple[dict, dict]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    return [(space.propose(trial, base), trial.distributions) for trial in (study.ask() for _ in range(count))]


def test_a_part_s_own_values_are_asked_for_with_its_kind_alone(params: Params) -> None:
    base = params.variants["modern"].model_dump()
    space = Space({"optimizer": KINDS, "batch_size": {"low": 16, "high": 64, "scale": "log"}}, "modern")
    kinds = set()
    for block, asked in proposed(space, base):
        made = Variant.model_validate(block)
        kinds.add(made.optimizer.kind)
        own = (
            {"optimizer.sgd.lr", "optimizer.sgd.momentum"} if made.optimizer.kind == "sgd" else {"optimizer.adam.beta1"}
        )
        assert asked.keys() == {"optimizer.kind", "batch_size"} | own
        assert asked.items() <= space.distributions().items()
        assert isinstance(made.batch_size, int)
        assert 16 <= made.batch_size <= 64
        assert {name: value for name, value in block.items() if name not in ("optimizer", "batch_size")} == {
            name: value for name, value in base.items() if name not in ("optimizer", "batch_size")
        }
    assert kinds == {"sgd", "adam"}
    assert space.distributions()["optimizer.kind"] == CategoricalDistribution(["sgd", "adam"])
    assert space.distributions()["optimizer.sgd.lr"] == FloatDistribution(0.01, 0.1, log=True)


def test_numbers_are_rounded_to_three_digits_within_their_range(params: Params) -> None:
    base = params.variants["modern"].model_dump()
    space = Space({"optimizer.lr": {"low": 0.0012345, "high": 0.0012399, "scale": "log"}}, "modern")
    found = {block["optimizer"]["lr"] for block, _ in proposed(space, base)}
    assert found <= {0.0012345, 0.00124, 0.0012399}
    wide = Space({"optimizer.lr": {"low": 0.001, "high": 1.0, "scale": "log"}}, "modern")
    rates = [block["optimizer"]["lr"] for block, _ in proposed(wide, base, 400)]
    assert all(rate == float(f"{rate:.3g}") for rate in rates)
    assert isclose(sum(rate < 10**-1.5 for rate in rates) / 400, 0.5, abs_tol=0.08)  # as many in each decade


def test_the_rest_of_the_block_is_what_is_not_tried(params: Params) -> None:
    base = params.variants["modern"].model_dump()
    space = Space({"optimizer": KINDS, "network.activation": ["relu", "tanh"]}, "modern")
    rest = space.rest(base)
    assert rest["optimizer"] is None
    assert rest["network"]["activation"] is None
    assert rest["network"]["C3"] == "dense"
    assert base["optimizer"]["kind"] == "adam"


SPACE = "params.yaml: sweep.spaces.modern"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"optimizer.rate": [1, 2]}, f"{SPACE}.optimizer.rate: names no value of modern; legal: pixels.background"),
        ({"optimizer.momentum": [0.5, 0.9]}, f"{SPACE}.optimizer.momentum: names no value of modern"),
        ({"momentum": [0.5, 0.9]}, f"{SPACE}.momentum: names no value of modern"),
        ({"rule": KINDS}, f"{SPACE}.rule: names no part of modern; legal: distortion, initialisation, network,"),
        ({"validation_size": [100, 200]}, f"{SPACE}.validation_size: it is fixed, as trials are compared"),
        ({"optimizer.lr": {"low": 0.1, "high": 0.01, "scale": "log"}}, "low = 0.1 must be less than high = 0.01"),
        ({"optimizer.lr": {"low": 0.0, "high": 0.01, "scale": "log"}}, "low = 0.0 has no logarithm"),
        ({"optimizer.lr": {"low": 0.1, "high": 0.2}}, f"{SPACE}.optimizer.lr: a range has low, high and scale"),
        ({"optimizer.lr": {"low": "a", "high": 0.2, "scale": "log"}}, "optimizer.lr.low = 'a'; legal: a number"),
        ({"optimizer.lr": {"low": 0.1, "high": 0.2, "scale": "cubic"}}, "scale = 'cubic'; legal: 'linear', 'log'"),
        ({"optimizer.lr": 0.1}, f"{SPACE}.optimizer.lr = 0.1: legal: {{low:"),
        ({"optimizer": {"lr": [0.1, 0.2]}}, f"{SPACE}.optimizer = "),
        ({"optimizer.lr": [0.1]}, "choices are at least two, and different"),
        ({"optimizer.lr": [0.1, 0.1]}, "choices are at least two, and different"),
        ({"optimizer.lr": [0.1, {"kind": "sgd"}]}, "choices are all plain values, or all parts"),
        ({"optimizer.beta1": {"low": 0.5, "high": 1.5, "scale": "linear"}}, "optimizer.beta1: optimizer.beta1 = 1.5"),
        ({"network.activation": ["relu", "gelu"]}, "network.activation = 'gelu'; legal: 'sigmoid'"),
        ({"optimizer": [KINDS[0], KINDS[0]]}, "parts to choose from are two or more, each of another kind"),
        ({"optimizer": [KINDS[0], {"kind": "adam", "lr": 0.1}]}, f"{SPACE}.optimizer: optimizer.beta1: missing"),
        ({"optimizer": KINDS, "optimizer.lr": [0.1, 0.2]}, f"{SPACE}.optimizer.lr: optimizer is chosen as a whole"),
        ({"network.output": ["softmax", "squashed"]}, "does not fit network.output = 'squashed'"),
        ({"train_size": [50_000, 58_000]}, "there are 60000 training digits"),
        ({"batch_size": [32, 0]}, "batch_size = 0; legal: greater than or equal to 1"),
        ({"optimizer.lr": {"low": float("nan"), "high": 0.2, "scale": "log"}}, "low = nan; legal: a number"),
        ({}, f"{SPACE}: empty"),
    ],
)  # fmt: skip
def test_a_range_that_names_nothing_or_is_impossible_is_refused(params: Params, content: dict, said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        Space(content, "modern").check(params, "modern")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_that_fit_together_alone_are_legal(params: Params) -> None:
    content = {"network.output": ["softmax", "squashed"], "objective": [
        {"loss": "mse", "off": 0.0, "on": 1.0}, {"loss": "cross-entropy"},
    ]}  # fmt: skip
    with pytest.raises(ParamsError, match="squashed"):  # with cross-entropy
        Space(content, "modern").check(params, "modern")
    content["objective"][1] = {"loss": "mse", "off": -1.0, "on": 1.0}
    with pytest.raises(ParamsError, match="each of another kind"):
        Space(content, "modern").check(params, "modern")


def with_sweep(change: Callable[[dict], object]) -> Params:
    content = loading.load(ROOT / "params.yaml").model_dump(mode="json")
    change(content["sweep"])
    return loading.validate(content, "params.yaml")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sweep: sweep.pop("batch"), "params.yaml: sweep.batch: missing"),
        (lambda sweep: sweep.update(batch=0), "params.yaml: sweep.batch = 0; "),
        (lambda sweep: sweep.update(trails=3), "unknown key 'trails'; legal here: seed, seeds, trials"),
        (lambda sweep: sweep["sampler"].update(kind="cma"), "legal: 'random', 'tpe'"),
        (lambda sweep: sweep["pruner"].update(keep=1), "params.yaml: sweep.pruner.successive-halving.keep = 1"),
        (lambda sweep: sweep.update(objectives=["validation/error", "parameters"]), "legal with them: 'none'"),
        (lambda sweep: sweep.update(objectives=["parameters"]), "validation/error is the first"),
        (lambda sweep: sweep.update(objectives=["test/error"]), "legal: 'validation/error', 'parameters'"),
        (lambda sweep: sweep["spaces"].update(lenet6={"epochs": [1, 2]}), "spaces.lenet6: there is no such variant"),
    ],
)  # fmt: skip
def test_faults_of_the_settings_are_named(change: Callable[[dict], object], said: str) -> None:
    with pytest.raises(ParamsError) as caught:
        settings(with_sweep(change))
    assert said in str(caught.value)


def test_the_project_s_own_studies_are_legal(params: Params) -> None:
    assert set(settings(params).spaces) >= set(params.compare)
