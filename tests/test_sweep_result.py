"""What is published of a study: files that read back as the same study, its page, and its winner into params.yaml."""

import base64
import itertools
import json
import math
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import optuna
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial
from ruamel.yaml import YAML

from conftest import EXPERIMENTS, ROOT
from lenet.params import loading
from lenet.params.schema import Params
from lenet.runtime.errors import InputError
from lenet.sweep import report, result
from lenet.sweep.likeness import by_likeness, distance
from lenet.sweep.promote import promote
from lenet.sweep.result import Result
from lenet.sweep.settings import settings
from lenet.sweep.space import Space
from lenet.sweep.study import Plan

PARAMS = ROOT / "tests" / "study" / "params.yaml"

COMPLETE, PRUNED, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
SPACE = {
    "optimizer": [
        {"kind": "adam", "lr": {"low": 5.0e-4, "high": 1.0e-2, "scale": "log"}, "beta1": 0.9, "beta2": [0.99, 0.999],
         "weight_decay": 0.0},
        {"kind": "sgd", "lr": {"low": 1.0e-3, "high": 0.1, "scale": "log"}, "momentum": [0.0, 0.9],
         "weight_decay": 0.0},
    ],
    "epochs": {"low": 3, "high": 6, "scale": "linear"},
    "initialisation.exponent": [0, 0.5],
    "batch_size": [32, 64],
}  # fmt: skip
NARROW = {"network.C3": ["table", "dense"], "batch_size": [32, 64]}


def plan_of(params: Params, space: dict[str, Any], variant: str = "modern", **changes: object) -> Plan:
    kept = settings(params).model_dump(mode="json", exclude={"trials", "spaces"})
    base = Space(space, variant).rest(params.variants[variant].model_dump())
    return Plan(variant, kept | changes, space, base, "digits", "sources", {"torch": "2.13.0"})


@pytest.fixture(scope="session")
def params() -> Params:
    """Those that the tests promote into: the project's own change with every promotion."""
    return loading.load(PARAMS)


def ended(
    plan: Plan,
    number: int,
    tried: dict[str, Any],
    errors: Sequence[float],
    state: TrialState = COMPLETE,
    more: Sequence[float] = (),
    reason: str = "",
) -> FrozenTrial:
    """A trial with an error after each epoch; ``more``: its values beside the error."""
    known = plan.domains.distributions()
    trial = create_trial(
        state=state,
        values=None if state == FAILED else [errors[-1], *more],
        params=tried,
        distributions={name: known[name] for name in tried},
        intermediate_values=dict(enumerate(errors, start=1)),
        user_attrs={
            "block": plan.domains.propose(FixedTrial(tried), plan.base),
            "fingerprints": {"key": f"key{number}"},
            "history": [
                {"train/error": e / 2, "validation/error": e, "weights.sha256": f"w{number}.{i}"}
                for i, e in enumerate(errors)
            ],
        }
        | ({"reason": reason} if reason else {}),
    )
    trial.number = number
    return trial


def drawn(plan: Plan, count: int) -> list[dict[str, Any]]:
    """Random values for so many trials."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(3))
    trials = [study.ask() for _ in range(count)]
    for trial in trials:
        plan.domains.propose(trial, plan.base)
    return [
        {n: v if isinstance(v, str | int) else float(f"{v:.3g}") for n, v in trial.params.items()} for trial in trials
    ]


@pytest.fixture(scope="module")
def study(params: Params) -> Result:
    """Twenty trials: some pruned, some failed, one at its first epoch."""
    plan = plan_of(params, SPACE)
    trials = []
    for number, tried in enumerate(drawn(plan, 20)):
        end = [0.05 + 0.01 * ((7 * number + 3) % 11), 1 / 3, 0.1 + 0.2][number % 3]
        if number % 4 == 1:
            trials.append(ended(plan, number, tried, [0.8, end], PRUNED))
        elif number % 10 == 6:
            reason = 'RuntimeError: "no memory", said it'
            trials.append(ended(plan, number, tried, [0.8][: number % 4 - 1], FAILED, reason=reason))
        else:
            trials.append(ended(plan, number, tried, [0.8, 0.5, end]))
    return Result("modern-1", plan, trials)


def everything(trial: FrozenTrial) -> list[object]:
    names = ("block", "fingerprints", "reason")
    attrs = [trial.user_attrs.get(name) for name in names]
    trained = [row["train/error"] for row in trial.user_attrs["history"]]
    last = [row["weights.sha256"] for row in trial.user_attrs["history"][-1:]]
    numbers = trial.number, trial.state, trial.values, trial.intermediate_values, trained
    return [*numbers, trial.params, [*map(type, trial.params.values())], trial.distributions, *attrs, last]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_published_study_reads_back_as_the_same_one(study: Result, tmp_path: Path) -> None:
    result.publish(study, tmp_path / "a")
    again = result.of_folder(tmp_path / "a")
    assert (again.name, again.plan) == (study.name, study.plan)
    for one, other in zip(again.trials, study.trials, strict=True):
        assert everything(one) == everything(other)
    assert [trial.number for trial in again.best] == [trial.number for trial in study.best]
    assert (again.counts, again.epochs) == (study.counts, study.epochs)
    assert report.importances(again) == report.importances(study) != {}
    result.publish(again, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_files_of_three_trials_written_by_hand(params: Params, tmp_path: Path) -> None:
    plan = plan_of(params, {"optimizer.lr": {"low": 1.0e-5, "high": 0.1, "scale": "log"}, "epochs": [2, 3]})
    trials = [
        ended(plan, 0, {"optimizer.lr": 0.03, "epochs": 2}, [0.5, 0.25]),
        ended(plan, 1, {"optimizer.lr": 5e-05, "epochs": 3}, [0.875], PRUNED),
        ended(plan, 2, {"optimizer.lr": 0.1, "epochs": 2}, [], FAILED, reason="it diverged, at once"),
    ]
    result.publish(Result("mine", plan, trials), tmp_path)
    assert (tmp_path / "trials.csv").read_text() == (
        "trial,state,validation/error,best,epochs.trained,optimizer.lr,epochs,reason,errors,train.errors,weights.sha256,run.key\n"
        "0,complete,0.25,0.25,2,0.03,2,,0.5 0.25,0.25 0.125,w0.1,key0\n"
        "1,pruned,,0.25,1,5e-05,3,,0.875,0.4375,w1.0,key1\n"
        '2,failed,,0.25,0,0.1,2,"it diverged, at once",,,,key2\n'
    )
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "trials": {"complete": 1, "pruned": 1, "failed": 1, "epochs": 3},
        "best": {
            "trial": 0, "validation/error": 0.25, "parameters": {"optimizer.lr": 0.03, "epochs": 2},
            "run.key": "key0", "weights.sha256": "w0.1",
        },
    }  # fmt: skip
    assert json.loads((tmp_path / "study.json").read_text())["plan"]["base"]["optimizer"]["lr"] is None


def test_the_bytes_do_not_depend_on_when_and_by_whom(study: Result, tmp_path: Path) -> None:
    later = []
    for trial in study.trials:
        attrs = trial.user_attrs | {"more": trial.number}
        other = create_trial(
            state=trial.state, values=trial.values, params=trial.params, distributions=trial.distributions,
            intermediate_values=trial.intermediate_values, user_attrs=attrs,
        )  # fmt: skip
        other.number = trial.number
        other.datetime_start = other.datetime_complete = datetime(2001, 1, 1 + trial.number)
        later.append(other)
    result.publish(study, tmp_path / "a")
    result.publish(replace(study, trials=later), tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def in_plan(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "study.json").read_text())
        change(content)
        (folder / "study.json").write_text(json.dumps(content))

    return edit


def in_trials(old: str, new: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        text = (folder / "trials.csv").read_text()
        assert old in text
        (folder / "trials.csv").write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda folder: (folder / "study.json").unlink(), "study.json: No such file or directory"),
        (lambda folder: (folder / "trials.csv").unlink(), "trials.csv: No such file or directory"),
        (lambda folder: (folder / "study.json").write_text("{"), "holds no published study"),
        (lambda folder: (folder / "study.json").write_bytes(b"\xff"), "holds no published study"),
        (lambda folder: (folder / "trials.csv").write_bytes(b"\xff\n"), "holds no published study"),
        (in_plan(lambda content: content.pop("plan")), "plan is missing"),
        (in_plan(lambda content: content["plan"].pop("signature")), "'signature'"),
        (in_plan(lambda content: content["plan"].update(more=1)), "'more'"),
        (in_plan(lambda content: content["plan"].update(space={"epochs": {"low": 1}})), "a range has low, high and sc"),
        (in_plan(lambda content: content["plan"].update(base=None)), "holds no published study"),
        (in_trials("state", "status"), "state is missing"),
        (in_trials("pruned", "stopped"), "stopped is missing"),
        (in_trials("0.8", "much"), "could not convert string to float: 'much'"),
        (in_trials(",64,", ",65,"), "65 is missing"),
    ],
)
def test_faulty_files_are_one_line(study: Result, tmp_path: Path, edit: Callable[[Path], object], said: str) -> None:
    result.publish(study, tmp_path)
    edit(tmp_path)
    with pytest.raises(InputError) as caught:
        result.of_folder(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def front(params: Params) -> Result:
    """Errors and parameters of six trials; the third one is still under way."""
    plan = plan_of(params, NARROW, objectives=["validation/error", "parameters"], pruner={"kind": "none"})
    points = [(0.05, 61_706), (0.04, 61_706), None, (0.06, 60_806), (0.07, 60_806), (0.04, 62_000), (0.05, 61_000)]
    trials = [
        ended(plan, number, {"network.C3": "dense", "batch_size": 32}, [0.5, point[0]], more=[float(point[1])])
        for number, point in enumerate(points)
        if point
    ]
    return Result("both", plan, trials)


def test_the_best_of_several_objectives_are_a_front(front: Result, tmp_path: Path) -> None:
    assert [trial.number for trial in front.best] == [1, 3, 6]  # 0 is worse than 1 and 6, 4 than 3, 5 than 1
    result.publish(front, tmp_path)
    again = result.of_folder(tmp_path)
    assert [(trial.number, trial.values) for trial in again.best] == [
        (1, [0.04, 61_706.0]), (3, [0.06, 60_806.0]), (6, [0.05, 61_000.0]),
    ]  # fmt: skip
    best = json.loads((tmp_path / "best.json").read_text())["best"]
    assert [one["trial"] for one in best] == [1, 3, 6]
    assert [row.split(",")[:4] for row in (tmp_path / "trials.csv").read_text().splitlines()][:2] == [
        ["trial", "state", "validation/error", "parameters"], ["0", "complete", "0.05", "61706.0"],
    ]  # fmt: skip


def test_failed_trials_alone_have_no_best(params: Params, tmp_path: Path) -> None:
    plan = plan_of(params, NARROW)
    failed = ended(plan, 0, {"network.C3": "table", "batch_size": 64}, [], FAILED, reason="no memory")
    result.publish(Result("none", plan, [failed]), tmp_path)
    again = result.of_folder(tmp_path)
    assert (again.best, again.counts) == ([], {"complete": 0, "pruned": 0, "failed": 1})
    assert again.trials[0].user_attrs["reason"] == "no memory"
    assert again.trials[0].user_attrs["block"]["network"]["C3"] == "table"


class Page(HTMLParser):
    """Every tag with its attributes, and the text of headings, cells and paragraphs."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def pictures(self) -> dict[str, ElementTree.Element]:
        """Each is whole, and has nothing from elsewhere in it."""
        found = {}
        for name, attrs in self.tags:
            if name == "img":
                address = attrs["src"] or ""
                assert address.startswith("data:image/svg+xml;base64,")
                picture = ElementTree.fromstring(base64.b64decode(address.partition(",")[2]))
                references = [v for e in picture.iter() for k, v in e.attrib.items() if k.endswith("href")]
                assert all(one.startswith(("#", "data:")) for one in references)
                found[attrs["alt"] or ""] = picture
        return found


def page(of: Result, tmp_path: Path) -> Page:
    path = tmp_path / "page.html"
    report.write(of, path)
    text = re.sub(r"base64,[A-Za-z0-9+/=]*", "", path.read_text())
    assert "http" not in text
    assert "//" not in text
    found = Page(path)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    return found


CURVES = "Validation errors by epoch"
MANY = ["Errors in the order of trials", "Each value by itself", "All values of a trial together"]


def test_the_page_is_one_file_with_every_picture(study: Result, tmp_path: Path) -> None:
    shown = page(study, tmp_path)
    assert set(shown.pictures) == {*MANY, CURVES}
    said = " ".join(shown.said)
    assert 'RuntimeError: "no memory", said it' in said
    assert "20 trials (13 complete, 5 pruned, 2 failed)" in said
    assert "What was tried, and what the best have" in said
    before = (tmp_path / "page.html").read_bytes()
    report.write(study, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == before
    assert "From 13 complete trials, by PED-ANOVA" in said
    assert report.importance_table(study).title == "from 13 complete trials"
    few = replace(study, trials=study.complete[:9])
    assert not report.importances(few)
    assert set(page(few, tmp_path).pictures) == {*MANY, CURVES}


def test_the_best_trials_are_those_with_the_smallest_errors(study: Result) -> None:
    rows = list(report.best_table(study).columns[0].cells)
    errors = {trial.number: trial.value for trial in study.trials if trial.state == COMPLETE}
    assert rows == [str(number) for number in sorted(errors, key=lambda n: (errors[n], n))[: len(rows)]]
    assert len(rows) == 10
    assert [str(trial.number) for trial in study.best] == rows[:1]


def test_a_value_that_makes_the_error_is_the_most_important(params: Params) -> None:
    plan = plan_of(params, NARROW | {"epochs": [2, 3]})
    tried = [dict(zip(("network.C3", "batch_size", "epochs"), values, strict=True)) for values in
             itertools.product(["table", "dense"], [32, 64], [2, 3])] * 5  # fmt: skip
    errors = [0.1 + (one["network.C3"] == "dense") / 2 + i / 1000 for i, one in enumerate(tried)]
    trials = [ended(plan, i, one, [error]) for i, (one, error) in enumerate(zip(tried, errors, strict=True))]
    found = report.importances(Result("s", plan, trials))
    assert next(iter(found)) == "network.C3"
    assert sum(found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_what_was_tried_and_what_the_best_have(params: Params) -> None:
    """Of eight complete trials the best two; the pruned one, the best of all, does not count."""
    plan = plan_of(params, SPACE)
    sgd = {"optimizer.kind": "sgd", "optimizer.sgd.momentum": 0.9, "epochs": 3, "initialisation.exponent": 0.5}
    tried = [sgd | {"optimizer.sgd.lr": lr, "batch_size": 32 if lr < 0.03 else 64}
             for lr in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)]  # fmt: skip
    trials = [ended(plan, i, one, [abs(one["optimizer.sgd.lr"] - 0.024)]) for i, one in enumerate(tried)]
    trials.append(ended(plan, 8, tried[0] | {"optimizer.sgd.lr": 0.09}, [0.0], PRUNED))
    found = report.choices(Result("s", plan, trials))
    assert set(found) == set(plan.domains.distributions())
    assert found["batch_size"]["tried"] == "32, 64"
    assert found["optimizer.adam.lr"]["tried"] == "0.0005 … 0.01"
    assert found["optimizer.sgd.lr"]["the best 2"] == "0.02 … 0.03"
    assert found["batch_size"]["the best 2"] == "32 (1), 64 (1)"
    assert found["optimizer.kind"]["the best 2"] == "sgd (2)"
    assert found["optimizer.adam.lr"]["the best 2"] == "–"


def test_trials_judged_by_a_curve(params: Params) -> None:
    """Training errors are half of those held out. One follows the curve, one is twice as high, one has two epochs."""
    plan, tried = plan_of(params, NARROW), {"network.C3": "table", "batch_size": 64}
    trials = [
        ended(plan, 0, tried, [0.4, 0.2, 0.1, 0.1]),
        ended(plan, 1, tried, [0.2, 0.1, 0.05], PRUNED),
        ended(plan, 2, tried, [0.2, 0.1], PRUNED),
        ended(plan, 3, tried, [], FAILED, reason="no memory"),
    ]
    judged = by_likeness(Result("s", plan, trials), [0.1, 0.05, 0.025])
    assert [trial.number for trial in judged.complete] == [0, 1]
    assert [trial.value for trial in judged.complete] == pytest.approx([math.log(2), 0])
    assert [trial.number for trial in judged.best] == [1]
    assert report.choices(judged)["network.C3"] == {
        "tried": "table, dense",
        "the best 1": "table (1)",
        "importance": "–",
    }
    assert distance([0.0, 0.1], [0.1, 0.1]) == math.inf


def test_a_page_of_failed_trials_gives_their_reasons_and_one_of_a_single_trial_its_curve(
    params: Params, tmp_path: Path
) -> None:
    plan = plan_of(params, NARROW)
    tried = {"network.C3": "table", "batch_size": 64}
    trials = [ended(plan, i, tried, [], FAILED, reason=f"<b>reason {i}</b>") for i in range(5)]
    shown = page(Result("failed", plan, trials), tmp_path)
    assert shown.pictures == {}
    one = ended(plan, 0, tried, [0.5, 0.25])
    assert set(page(Result("one", plan, [one]), tmp_path).pictures) == {CURVES}
    assert {f"<b>reason {i}</b>" for i in range(5)} <= set(shown.said)


def test_a_page_of_several_objectives_shows_the_front(front: Result, tmp_path: Path) -> None:
    shown = page(front, tmp_path)
    assert set(shown.pictures) == {*MANY, "Pareto front", CURVES}
    assert "The front" in shown.said
    assert "61,706" in shown.said
    failed = replace(front, trials=[ended(front.plan, 0, front.trials[0].params, [], FAILED, reason="no memory")])
    assert page(failed, tmp_path).pictures == {}


@pytest.fixture
def yaml_file(tmp_path: Path) -> Path:
    """A params.yaml that may be changed."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text())
    return path


def tuned(params: Params, variant: str, tried: dict[str, Any]) -> Result:
    """A study of the whole space with one complete and one pruned trial."""
    plan = plan_of(params, settings(params).spaces[variant], variant)
    trials = [ended(plan, 0, tried, [0.5, 0.25]), ended(plan, 1, tried, [0.5], PRUNED)]
    return Result("tuned", plan, trials)


SGD = {
    "optimizer.kind": "sgd", "optimizer.sgd.lr": 0.03, "optimizer.sgd.momentum": 0.9,
    "optimizer.sgd.weight_decay": 5e-05, "initialisation.scale": 2.45, "batch_size": 32,
}  # fmt: skip


def lines_that_differ(before: str, after: str) -> list[tuple[str, str]]:
    return [pair for pair in zip(before.splitlines(), after.splitlines(), strict=True) if pair[0] != pair[1]]


def variants(text: str) -> list[dict[str, Any]]:
    """As readers of YAML 1.2 and of YAML 1.1 have them."""
    return [YAML(typ="safe").load(text)["variants"], yaml.safe_load(text)["variants"]]


def test_only_the_lines_that_change_are_written(params: Params, yaml_file: Path) -> None:
    before = yaml_file.read_text()
    tried = {
        "optimizer.lr": 0.00071, "optimizer.momentum": 0.9, "initialisation.scale": 1.7,
        "network.pooling.coefficient": 2.5, "batch_size": 8,
    }  # fmt: skip
    shown = promote(tuned(params, "original-tanh", tried), None, yaml_file)
    after = yaml_file.read_text()
    assert lines_that_differ(before, after) == [
        (
            "    network: {activation: scaled-tanh, pooling: {kind: trainable, coefficient: 2.0, bias: 0.0}, C3: table,"
            " output: squashed}  # deviations 1, 5",
            "    network: {activation: scaled-tanh, pooling: {kind: trainable, coefficient: 2.5, bias: 0.0}, C3: table,"
            " output: squashed}  # deviations 1, 5",
        ),
        (
            "    optimizer: {kind: sgd, lr: 0.004, momentum: 0.9, weight_decay: 0.0}  # deviation 3",
            "    optimizer: {kind: sgd, lr: 0.00071, momentum: 0.9, weight_decay: 0.0}  # deviation 3",
        ),
        ("    batch_size: 16  # deviation 3", "    batch_size: 8  # deviation 3"),
    ]
    assert [line for line in shown.splitlines() if re.match(r"[-+] ", line)] == [
        sign + line for old, new in lines_that_differ(before, after) for sign, line in (("-", old), ("+", new))
    ]
    again = promote(tuned(params, "original-tanh", tried), 0, yaml_file)
    assert again == f"{yaml_file}: variants.original-tanh is already trial 0 of study tuned"
    assert yaml_file.read_text() == after


@pytest.mark.parametrize("variant", ["original-sigmoid", "original-tanh", "modern"])
def test_a_published_study_s_winner_is_what_params_yaml_has(variant: str, yaml_file: Path) -> None:
    published = result.of_folder(EXPERIMENTS / "sweeps" / "studies" / variant)
    shutil.copy(ROOT / "params.yaml", yaml_file)
    assert f"variants.{variant} is already trial" in promote(published, None, yaml_file)
    assert yaml_file.read_bytes() == (ROOT / "params.yaml").read_bytes()
    worst = max(published.complete, key=lambda trial: trial.value or 0)
    assert "\n+" in promote(published, worst.number, yaml_file)
    assert variants(yaml_file.read_text())[0][variant] == published.block(worst)


def test_a_part_of_another_kind_is_replaced_as_a_whole(params: Params, yaml_file: Path) -> None:
    before = yaml_file.read_text()
    study = tuned(params, "modern", SGD)
    promote(study, None, yaml_file)
    after = yaml_file.read_text()
    assert lines_that_differ(before, after) == [
        (
            "    optimizer: {kind: adam, lr: 0.003, beta1: 0.9, beta2: 0.999, weight_decay: 0.0}",
            "    optimizer: {kind: sgd, lr: 0.03, momentum: 0.9, weight_decay: 5.0e-05}",
        ),
        ("    batch_size: 64", "    batch_size: 32"),
    ]
    for found in variants(after):
        assert found["modern"] == study.trials[0].user_attrs["block"]


BLOCK = """\
    optimizer:  # Kingma and Ba
      kind: adam
      lr: 0.003
      beta1: 0.9
      beta2: 0.999
      weight_decay: 0.0  # none
    # the last update is the smallest

"""


def test_block_style_stays_so(params: Params, yaml_file: Path) -> None:
    flow = "    optimizer: {kind: adam, lr: 0.003, beta1: 0.9, beta2: 0.999, weight_decay: 0.0}\n"
    text = yaml_file.read_text()
    start = text.index("\n  modern:\n")
    before = text[:start] + text[start:].replace(flow, BLOCK, 1)
    yaml_file.write_text(before)
    study = tuned(params, "modern", SGD | {"batch_size": 64})
    promote(study, None, yaml_file)
    new = "kind: sgd\n      lr: 0.03\n      momentum: 0.9\n      weight_decay: 5.0e-05  # none\n"
    assert yaml_file.read_text() == before.replace(BLOCK[BLOCK.index("kind") : BLOCK.index("    # the")], new)
    yaml_file.write_text(before)
    adam = {"optimizer.kind": "adam", "optimizer.adam.lr": 0.005, "optimizer.adam.beta2": 0.999}
    shared = {"initialisation.scale": 2.45, "batch_size": 64}
    promote(tuned(params, "modern", adam | shared), None, yaml_file)
    assert lines_that_differ(before, yaml_file.read_text()) == [("      lr: 0.003", "      lr: 0.005")]


def test_any_trial_reads_back_exactly(params: Params, yaml_file: Path) -> None:
    text = yaml_file.read_text()
    everywhere = YAML(typ="safe").load(text)["variants"]
    space = {
        **settings(params).spaces["modern"],
        "pixels.background": {"low": -1.0e-7, "high": 1.0e-7, "scale": "linear"},
        "pixels.ink": {"low": 1.0, "high": 1.0e20, "scale": "log"},
        "network.pooling": [{"kind": "average"}, {"kind": "trainable", "coefficient": [1.0, 2.5e-9], "bias": -4.0}],
        "network.C3": ["dense", "table"],
    }
    plan = plan_of(params, space)
    for tried in drawn(plan, 12):
        study = Result("any", plan, [ended(plan, 0, tried, [0.25])])
        yaml_file.write_text(text)
        promote(study, None, yaml_file)
        found, by_yaml_1_1 = variants(yaml_file.read_text())
        assert found == everywhere | {"modern": study.trials[0].user_attrs["block"]}
        assert by_yaml_1_1["modern"] == found["modern"]


def test_a_file_in_dvc_s_style_stays_in_it(yaml_file: Path) -> None:
    shutil.copy(ROOT / "params.yaml", yaml_file)
    params = loading.load(yaml_file)
    adam = {"kind": "adamw", "lr": 0.00123456, "beta1": 0.9, "beta2": 0.999, "weight_decay": [0.0, 0.0123456]}
    sgd = {"kind": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    plan = plan_of(params, {"optimizer": [adam, sgd]}, "original-tanh")
    tried = {"optimizer.kind": "adamw", "optimizer.adamw.weight_decay": 0.0123456}
    promote(Result("any", plan, [ended(plan, 0, tried, [0.25])]), None, yaml_file)
    after = yaml_file.read_text()
    assert loading.load(yaml_file).variants["original-tanh"].optimizer.weight_decay == 0.0123456
    apply_overrides(yaml_file, [])
    assert yaml_file.read_text() == after


def test_what_cannot_be_promoted_is_refused_and_nothing_is_written(
    params: Params, yaml_file: Path, front: Result
) -> None:
    study, before = tuned(params, "modern", SGD), yaml_file.read_text()
    for of, number, said in [
        (study, 7, "study tuned has no complete trial 7; complete are: 0"),
        (study, 1, "study tuned has no complete trial 1; complete are: 0"),
        (replace(study, trials=study.trials[1:]), None, "study tuned has no complete trial"),
        (front, None, "study both has several objectives; choose by --trial, of its front: 1, 3, 6"),
    ]:
        with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
            promote(of, number, yaml_file)
    assert yaml_file.read_text() == before
    assert promote(front, 3, yaml_file).count("\n-") == 1  # named, it may be promoted


def test_a_block_that_has_changed_since_is_refused_and_named(params: Params, yaml_file: Path) -> None:
    start = yaml_file.read_text().index("\n  modern:\n")
    for old, new in (("final: 0.0}", "final: 0.1}"), ("epochs: 12", "epochs: 10"), ("lr: 0.003", "lr: 0.004")):
        text = yaml_file.read_text()
        yaml_file.write_text(text[:start] + text[start:].replace(old, new, 1))
    before = yaml_file.read_text()
    with pytest.raises(InputError) as caught:
        promote(tuned(params, "modern", SGD), None, yaml_file)
    assert str(caught.value) == (
        "params.yaml: variants.modern is not what study tuned was made with; changed since: schedule.final, epochs"
    )
    assert yaml_file.read_text() == before


@pytest.mark.parametrize("shared", ["anchor", "alias", "merge"])
def test_a_block_that_shares_values_with_another_is_left_alone(params: Params, yaml_file: Path, shared: str) -> None:
    text = yaml_file.read_text()
    flow = "{kind: adam, lr: 0.003, beta1: 0.9, beta2: 0.999, weight_decay: 0.0}"
    first, second = {
        "anchor": ("&adam " + flow, "*adam"),
        "alias": ("*adam", flow),
        "merge": ("{<<: *adam, lr: 0.003}", flow),
    }[shared]
    start, next_one = text.index("\n  modern:\n"), text.index("\n  modern-100:\n")
    above = text[:start].replace("variants:\n", "variants:\n" if shared == "anchor" else f"variants:\n{OTHER}", 1)
    before = (
        above
        + text[start:next_one].replace(f"optimizer: {flow}", f"optimizer: {first}", 1)
        + text[next_one:].replace(f"optimizer: {flow}", f"optimizer: {second}", 1)
    )
    yaml_file.write_text(before)
    adam = {"optimizer.kind": "adam", "optimizer.adam.lr": 0.005, "optimizer.adam.beta2": 0.99}
    with pytest.raises(InputError, match=r"variants\.modern cannot be changed by itself"):
        promote(tuned(params, "modern", adam | {"initialisation.scale": 2.45, "batch_size": 64}), None, yaml_file)
    assert yaml_file.read_text() == before


OTHER = """\
  other:
    {pixels: {background: -0.1, ink: 1.175}, distortion: {kind: none},
    initialisation: {scale: 2.45, exponent: 0.5, biases: zero},
    network: {activation: relu, pooling: {kind: average}, C3: dense, output: softmax}, objective: {loss: cross-entropy},
    optimizer: &adam {kind: adam, lr: 0.003, beta1: 0.9, beta2: 0.999, weight_decay: 0.0},
    schedule: {kind: cosine, final: 0.0}, order: shuffled, batch_size: 64, epochs: 240, train_size: 100,
    validation_size: 5000}
"""


def test_a_study_is_found_by_its_folder_its_variant_and_its_name(
    study: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = f"sqlite:///{tmp_path}/studies.db"
    result.publish(study, tmp_path / "experiments" / "sweeps" / "studies" / "modern")
    for name in ("experiments/sweeps/studies/modern", "modern"):
        assert result.find(name, address).name == "modern-1"
    with pytest.raises(InputError, match="no study lenet; there are: modern"):
        result.find("lenet", address)
