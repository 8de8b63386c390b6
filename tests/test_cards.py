"""Model cards and the data card: every number in them is the one in Git."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from conftest import ROOT
from lenet import cards, cli
from lenet.cards import Published, model
from lenet.digits.fetch import SHA256
from lenet.params.loading import flatten
from lenet.params.schema import Params
from lenet.runtime.errors import InputError

SECTIONS = ["Intended use", "Training data", "Training procedure", "Evaluation", "Limitations"]


def parts(text: str) -> tuple[dict[str, Any], str]:
    """A card's metadata and its text."""
    before, matter, body = text.split("---\n", 2)
    assert before == ""
    return YAML(typ="safe").load(matter), body


def row(body: str, *cells: str) -> bool:
    return f"| {' | '.join(cells)} |\n" in body


def test_a_card_has_the_numbers_of_metrics_and_params(params: Params) -> None:
    runs = {seed: json.loads((ROOT / "metrics" / f"modern-{seed}.json").read_text()) for seed in params.seeds}
    matter, body = parts(cards.card(params, "modern", ROOT))
    errors = [run["test"]["error"] for run in runs.values()]
    mean = sum(errors) / len(errors)
    ((named, result),) = [(entry["name"], entry["results"][0]) for entry in matter["model-index"]]
    assert named == "modern"
    assert result["dataset"] == {"type": matter["datasets"][0], "name": "MNIST", "split": "test"}
    assert result["task"]["type"] == "image-classification"
    (metric,) = result["metrics"]
    assert metric["type"] in matter["metrics"]
    assert metric["value"] == pytest.approx(1 - mean, abs=1e-6)
    assert (matter["language"], matter["license"]) == (["en"], "mit")
    assert matter["tags"]

    assert [line[3:] for line in body.splitlines() if line.startswith("## ")] == SECTIONS
    misses = " · ".join(str(run["test"]["misses"]) for run in runs.values())
    assert row(body, "misclassified test digits of each seed", misses)
    assert f" | {100 * mean:.2f} ± " in body
    for seed, run in runs.items():
        digests = (run["run"][name][:12] for name in ("weights.sha256", "key"))
        assert row(body, f"{seed}", f"{run['test']['misses']}", f"{100 * run['test']['error']:.2f}", *digests)
    for name, value in flatten(params.variants["modern"]).items():
        assert row(body, f"`{name}`", str(value)), name
    for digit in range(10):
        share = sum(run["test"]["error.per_class"][digit] for run in runs.values()) / len(runs)
        assert row(body, str(digit), f"{100 * share:.2f}")
    moved = sum(run["robustness"]["translation"]["3"] for run in runs.values()) / len(runs)
    assert f" · 3: {100 * moved:.2f} · " in body
    digits = runs[1]["digits"]
    assert f"{digits['trained_on']:,} of MNIST's training digits" in body
    assert f"{digits['held_out']:,} others were held out" in body
    assert f"It has {runs[1]['network']['parameters']:,} parameters" in body


def test_every_published_variant_has_a_card(params: Params) -> None:
    """Also those of which less is known; what is not known is not in it."""
    found = cards.published(params, ROOT)
    assert set(params.compare) < set(found)
    for name, one in found.items():
        matter, body = parts(cards.card(params, name, ROOT))
        assert matter["model-index"][0]["name"] == name
        assert ("before the portable arithmetic" in body) == one.is_former
        assert ("calibration" in body) == all("calibration_error" in run["test"] for run in one.runs.values())
        assert "None" not in body.replace("None were held out", "")
        assert "edited since" not in body


def test_a_card_says_that_its_settings_are_not_those_of_its_runs(params: Params) -> None:
    found = cards.published(params, ROOT)["modern"]
    edited = Published(found.name, found.block.model_copy(update={"epochs": 13}), found.home, found.runs)
    assert "edited since" in model.card(edited)


def test_the_data_card_has_the_digests_and_the_splits(params: Params) -> None:
    matter, body = parts(cards.card(params, cards.DATA, ROOT))
    sizes = {one["name"]: one["num_examples"] for one in matter["dataset_info"]["splits"]}
    assert sizes == {"train": 60_000, "test": 10_000}
    for name, digest in SHA256.items():
        assert row(body, f"`{name}`", f"`{digest}`")
    for name, digest in json.loads((ROOT / "signatures" / "digits.json").read_text()).items():
        assert row(body, f"`data/{name}`", f"`{digest}`")
    for one in cards.published(params, ROOT).values():
        digits = one.first["digits"]
        start = f"| {digits['trained_on']:,} | {digits['held_out']:,} | 10,000 | "
        (line,) = (line for line in body.splitlines() if line.startswith(start))
        assert f"`{one.name}`" in line


def test_the_command_prints_a_card_and_refuses_what_is_not_published(
    params: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert CliRunner().invoke(cli.cli, ["card", "modern"]).output == cards.card(params, "modern", ROOT) + "\n"
    with pytest.raises(InputError, match="'tomorrow' has no published runs; legal: mnist, original-sigmoid"):
        cards.card(params, "tomorrow", ROOT)
    assert cards.published(params, tmp_path) == {}
