"""The comparison's numbers from runs made by hand, and its report."""

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import rcParams
from ruamel.yaml import YAML
from safetensors.numpy import save_file

from conftest import ROOT, refused
from lenet.evaluation import rounding
from lenet.params.schema import Params, Variant
from lenet.pipeline import compare, scheduling
from lenet.report import comparison_page, draw, experiments, figures, results_table
from lenet.runs import current
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_json

LABELS = np.tile(np.arange(10), 20)  # 200 test digits


def predictions(variant: Variant, answers: np.ndarray) -> pd.DataFrame:
    """Answers, each with the confidence 0.9, and 0.6 where it is wrong."""
    outputs = np.zeros((len(answers), 10))
    outputs[range(len(answers)), answers] = np.where(answers == LABELS, 0.9, 0.6)
    if variant.network.output != "softmax":
        outputs = variant.objective.off + (variant.objective.on - variant.objective.off) * outputs
    table = pd.DataFrame({"index": range(200), "label": LABELS, "answer": answers})
    return table.assign(**{f"output {digit}": outputs[:, digit] for digit in range(10)})


def make_runs(place: Path, params: Params) -> Path:
    """Runs of three seeds of two variants: original-tanh misses digits 0…9, modern misses seed digits."""
    for name, seed, missed in [
        *(("original-tanh", seed, range(10)) for seed in (1, 2, 3)),
        *(("modern", seed, range(seed)) for seed in (1, 2, 3)),
    ]:
        folder = place / "runs" / f"{name}-{seed}"
        folder.mkdir(parents=True)
        Record(name, seed, params.variants[name], f"key {name} {seed}", "data", "signature", "weights").write(
            folder / "run.json"
        )
        answers = LABELS.copy()
        answers[list(missed)] = (answers[list(missed)] + 1) % 10
        predictions(params.variants[name], answers).to_csv(folder / "predictions.csv", index=False)
        errors = {"epoch": [1, 2], "train/error": [0.2, 0.1], "validation/error": [0.001, 0.01 * seed]}
        pd.DataFrame(errors).to_csv(folder / "history.csv", index=False)
        wrong = np.flatnonzero(answers != LABELS)
        save_file({"images": np.full((len(wrong), 28, 28), 7, np.uint8), "index": wrong}, folder / "missed.safetensors")
    return place / "runs"


@pytest.fixture
def runs(tmp_path: Path, params: Params) -> Path:
    return make_runs(tmp_path, params)


def compared(params: Params, runs: Path, out: Path) -> dict[str, Any]:
    """Compare with the studies beside the runs' folder, if any; comparison.json's content."""
    compare.compare(params, runs, runs.parent, out / "summary.json", out / "reports", track=False)
    return results_table.load(out / "reports")


@pytest.fixture(scope="module")
def two(params: Params) -> Params:
    return params.model_copy(update={"compare": ("original-tanh", "modern"), "seeds": (1, 2, 3)})


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, two: Params) -> Path:
    """A folder in which the runs are compared. Not to be changed."""
    folder = tmp_path_factory.mktemp("shown")
    compared(two, make_runs(folder, two), folder)
    return folder


@pytest.fixture
def content(shown: Path) -> dict[str, Any]:
    return results_table.load(shown / "reports")


@pytest.fixture
def page(shown: Path) -> str:
    return (shown / "reports" / "comparison.html").read_text()


def test_the_summary_and_the_report_hold_the_runs_numbers(shown: Path, content: dict) -> None:
    summary = json.loads((shown / "summary.json").read_text())
    low, high = (summary["modern"].pop(f"test_error_{end}") for end in ("low", "high"))
    assert 0 < low < 0.01 < high < 0.1
    # modern misses 1, 2 and 3 of 200: mean error 1 %, standard deviation (n − 1) ½ %
    assert summary["modern"] == pytest.approx(
        {"misses": 2.0, "test_error": 0.01, "test_error_sd": 0.005, "validation_error": 0.02}
    )
    assert summary["original-tanh"]["misses"] == 10
    assert summary["original-tanh"]["test_error_sd"] == 0
    assert [seed["misses"] for seed in content["variants"]["modern"]["seeds"].values()] == [1, 2, 3]
    assert content["variants"]["modern"]["network"]["parameters"] == 61_706
    hardest = content["hardest"]
    assert (draw.image(hardest[0]) == np.full((28, 28), 7)).all()
    told = {name: value for name, value in hardest[0].items() if name != "image"}
    assert told == {"index": 0, "label": 0, "missed_by": 6, "of": 6, "answers": {"original-tanh": 1, "modern": 1}}
    assert [(one["index"], one["missed_by"]) for one in hardest[1:4]] == [(1, 5), (2, 4), (3, 3)]
    assert hardest[2]["answers"] == {"original-tanh": 3, "modern": 2}  # most modern runs get it right
    assert np.array(content["variants"]["modern"]["confusion"]).sum() == 600
    assert rounding.rounded(content) == content
    assert round(low, 4) != low  # it has digits to be rounded
    assert results_table.cells(content["variants"]["modern"]) == ("1 · 2 · 3", "1.00 ± 0.50", "2.00", "61,706")


def test_the_report_needs_nothing_from_outside(content: dict, page: str) -> None:
    assert not re.search(r"""(src|href)=["'](?!data:|#)|https?://|@import|url\(|<script""", page)
    assert page.count("data:image/png;base64,") == len(content["hardest"]) == 10
    assert page.count("data:image/svg+xml;base64,") == 7
    for text in ("1 · 2 · 3", "1.00 ± 0.50", "61,706", "original-tanh"):
        assert text in page
    for section in re.findall(r'href="#([a-z]+)"', page):
        assert f'id="{section}"' in page


def test_the_report_says_the_verdict_first_and_as_the_table_does(content: dict, page: str) -> None:
    (pair,) = content["pairs"]
    assert (pair["a"], pair["b"], pair["points"]) == ("original-tanh", "modern", pytest.approx(0.04))
    assert pair["p"] == pair["p_adjusted"] < 0.05
    page = page.replace("\N{NO-BREAK SPACE}", " ")
    assert pair["verdict"].startswith("modern beats original-tanh by 4.00 points (95 % CI ")
    assert (
        page.index("Of the two compared variants, modern has the lowest mean error")
        < page.index(pair["verdict"])
        < page.index("<table")
    )
    assert "; the difference is significant." in page
    ends = comparison_page.signed(pair["low"]), comparison_page.signed(pair["high"])
    cell = " … ".join(ends)
    assert pair["verdict"].endswith(f"{' to '.join(ends).replace('+', '')})")
    assert cell in page
    assert comparison_page.p_value(pair["p"]) in page


def test_the_report_s_words_are_the_numbers(content: dict) -> None:
    per_cent = "\N{NO-BREAK SPACE}%"
    last = f"modern ends with an error of 10.00{per_cent} on training digits"  # the last epoch, not the best
    assert f"{last}, before each update, and of 2.00{per_cent} on validation digits" in comparison_page.curves(content)
    hardest = f"0 is the hardest digit for modern (5.00{per_cent} error), and 3 is the easiest (0.00{per_cent})"
    assert hardest in comparison_page.classes(content)
    assert "modern most often mistakes 0 for 1 (1.0 times per run)" in comparison_page.confusions(content)
    assert "the mean confidence of modern is 9.30 points below its accuracy" in comparison_page.certainty(content)
    assert comparison_page.rejections(content).startswith(f"to reach an error of 0.50{per_cent}, modern rejects")
    content["pairs"][0] |= {"p": 0.01, "p_adjusted": 0.2}  # verdicts rest on the corrected p
    assert "no two variants differ significantly" in comparison_page.lead(content)
    one_sided = json.loads(json.dumps(LADDER))
    one_sided["steps"][0] |= {"p": 0.01, "p_adjusted": 0.2}
    assert comparison_page.ladder(one_sided).startswith("Only one of the two changes")


def test_the_confusion_figure_is_of_one_run(content: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, np.ndarray]] = []
    drawn = figures.confusion
    monkeypatch.setattr(figures, "confusion", lambda counts: (seen.extend(counts), drawn(counts))[1])
    draw.pictures(content)
    assert [counts.sum() for _, counts in seen] == pytest.approx([200, 200])


def test_confidence_and_classes_are_counted_from_the_predictions(content: dict) -> None:
    """Of modern's 600 answers 6 are wrong, each with confidence 0.6; the rest are right with 0.9."""
    found = content["variants"]
    assert [one["count"] for one in found["modern"]["calibration"]["bins"]] == [6, 594]
    gaps = [(seed * 0.6 + (200 - seed) * 0.1) / 200 for seed in (1, 2, 3)]
    assert found["modern"]["calibration"]["seeds"] == pytest.approx(gaps)
    assert found["original-tanh"]["calibration"]["confidence"] == pytest.approx(0.885)  # rescaled from ±1
    # rejecting the unsure answers leaves none wrong; no threshold splits equally sure ones
    assert found["modern"]["rejection"]["needed"]["0.005"]["seeds"] == pytest.approx([0, 0.01, 0.015])
    assert found["original-tanh"]["rejection"]["needed"]["0.001"]["mean"] == pytest.approx(0.05)
    per_class = found["modern"]["per_class"]
    assert per_class["mean"][:4] == pytest.approx(
        [0.05, 0.05 * 2 / 3, 0.05 / 3, 0], rel=1e-5
    )  # each class has 20 digits
    assert per_class["sd"][0] == pytest.approx(0, abs=1e-12)


def test_robustness_is_shown_where_every_run_has_it(
    two: Params, runs: Path, tmp_path: Path, content: dict, page: str
) -> None:
    assert content["variants"]["modern"]["robustness"] is None
    assert "<code>make repro</code> measures it" in page
    for name, base in (("original-tanh", 0.05), ("modern", 0.01)):
        for seed in (1, 2, 3):
            curve = {"unit": "pixels", "levels": [0, 1, 2], "errors": [base, 2 * base, base * (3 + seed)]}
            (runs / f"{name}-{seed}" / "robustness.json").write_text(json.dumps({"translation": curve}))
    found = compared(two, runs, tmp_path)["variants"]["modern"]["robustness"]["translation"]
    assert found["mean"] == pytest.approx([0.01, 0.02, 0.05])
    assert found["sd"] == pytest.approx([0, 0, 0.01])
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert "translation, pixels: 2</td><td>25.0</td><td>5.0</td>" in page
    assert "the lowest mean error is modern’s in 1 of 1 cases" in page
    (runs / "modern-2" / "robustness.json").write_text(
        json.dumps({"translation": {"unit": "pixels", "levels": [0, 2], "errors": [0.1, 0.2]}})
    )
    with pytest.raises(InputError, match=r"modern-2: robustness\.json has other levels than that of original-tanh-1"):
        compared(two, runs, tmp_path)


LADDER = {
    "signatures": {"original-tanh": "a", "half-way": "b", "modern": "c"},
    "chains": [["original-tanh", "half-way", "modern"]],
    "variants": {
        name: {
            "seeds": {"1": {"misses": 9, "error": error}}, "count": 200, "test_error": error, "test_error_sd": None,
            "low": None, "high": None, "what": "…", "network": {"parameters": 60_000}, "train_size": 55_000,
            "validation_size": 5_000,
        }
        for name, error in (("original-tanh", 0.05), ("half-way", 0.04), ("modern", 0.01))
    },
    "steps": [
        {
            "from": before, "to": after, "change": change, "difference": difference, "low": difference - 0.01,
            "high": difference + 0.01, "p": p, "p_adjusted": p, "verdict": f"what {change} is worth",
        }
        for before, after, change, difference, p in (
            ("original-tanh", "half-way", "one thing", -0.01, 0.2), ("half-way", "modern", "another", -0.03, 0.01),
        )
    ],
}  # fmt: skip
SIZES = {
    "signatures": {"modern": "c"},
    "variants": {
        "modern": [
            {
                "train_size": size, "seeds": {"1": {"misses": 9, "error": error}}, "test_error": error,
                "test_error_sd": 0.001, "low": error - 0.001, "high": error + 0.001,
            }
            for size, error in ((1000, 0.05), (100, 0.2))
        ]
    }
}  # fmt: skip


def put(folder: Path, name: str, content: Any) -> None:
    """The result of an experiment."""
    path = folder / name / "result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content))


def test_the_ladder_and_the_sizes_are_shown_where_there_are_any(
    two: Params, runs: Path, tmp_path: Path, content: dict, page: str
) -> None:
    assert content["ladder"] is None
    assert "<code>make ladder</code>" in page
    assert "<code>make sizes</code>" in page
    put(tmp_path, "ladder", LADDER)
    put(tmp_path, "sizes", SIZES)
    beyond = json.loads(json.dumps(LADDER).replace("half-way", "frontier"))
    beyond["variants"]["frontier"]["validation_size"] = 0
    put(tmp_path, "frontier", beyond)
    content = compared(two, runs, tmp_path)
    assert content["ladder"]["steps"][1]["difference"] == -0.03
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert results_table.FORMER not in page
    assert list(results_table.table(content).columns[0].cells) == ["original-tanh", "modern", "frontier"]
    assert "Not computed yet: <code>make ladder" not in page
    assert "Only one of the two changes has a statistically significant effect: another (−3.00 points)." in page
    assert "what one thing is worth" in page
    # old against new: what the comparison does not have is named by the study, with what it has seen
    assert "5.00\N{NO-BREAK SPACE}% for original-tanh and 1.00\N{NO-BREAK SPACE}% for modern." in page
    seen = {
        name: page[page.index(f">{name}</span>", page.index("saw the<br>validation digits")) :].partition("</tr>")[0]
        for name in beyond["variants"]
    }
    assert [">yes</td>" in row for row in seen.values()] == [False, True, False]
    assert [">no</td>" in row for row in seen.values()] == [True, False, True]
    assert "A small network of today that is not among them, frontier, has 4.00\N{NO-BREAK SPACE}%" in page
    assert "with 100 training digits and of 5.00\N{NO-BREAK SPACE}% with 1,000" in page


def test_results_of_the_former_arithmetic_say_so_and_stand_beside_no_other_numbers(
    two: Params, runs: Path, tmp_path: Path
) -> None:
    """Files published before runs had a signature name none."""
    for name, content in (("ladder", LADDER), ("frontier", LADDER), ("sizes", SIZES)):
        former = {key: value for key, value in content.items() if key != "signatures"}
        text = json.dumps(former).replace("half-way", "beyond")
        put(tmp_path, name, json.loads(text.replace('"what": "…"', '"what": "…", "validation_size": 0')))
    content = compared(two, runs, tmp_path)
    page = (tmp_path / "reports" / "comparison.html").read_text()
    for section in ("then-and-now", "ladder", "sizes"):
        assert results_table.FORMER in page[page.index(f'<h2 id="{section}"') :].partition("</p>")[0]
    assert page.count(results_table.FORMER) == 3
    assert "beyond" in results_table.with_frontier(content)
    assert comparison_page.beyond(content).endswith(", computed with the former arithmetic")
    assert list(results_table.table(content).columns[0].cells) == ["original-tanh", "modern"]


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("ladder", lambda content: content.pop("chains"), "chains: Field required"),
        ("ladder", lambda content: content["steps"][0].update(difference=math.nan), "finite number"),
        ("ladder", lambda content: content["chains"][0].append("unknown"), "no variant unknown in it"),
        ("frontier", lambda content: content["steps"][0].update({"to": "unknown"}), "no variant unknown in it"),
        ("sizes", lambda content: content["variants"]["modern"][0].update(train_size=0), "greater than 0"),
    ],
)
def test_a_faulty_result_of_an_experiment_is_one_line(
    name: str, edit: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(json.dumps(SIZES if name == "sizes" else LADDER))
    edit(content)
    monkeypatch.chdir(tmp_path)
    put(Path("experiments"), name, content)
    with pytest.raises(InputError, match=rf"{name}/result\.json: .*{message}.*; `lenet repro {name}`") as caught:
        experiments.read(Path("experiments"), name)
    assert "\n" not in str(caught.value)


def test_the_report_is_a_function_of_the_runs_and_its_numbers_of_no_matplotlib(
    two: Params, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one's stand-in has other fonts, lines and resolution. The stage's outputs are the same bytes."""
    for name, content in (("ladder", LADDER), ("sizes", SIZES), ("frontier", LADDER)):
        put(tmp_path, name, content)
    for folder in ("a", "b", "c"):
        if folder == "c":
            monkeypatch.setitem(rcParams, "font.family", "monospace")
            monkeypatch.setitem(rcParams, "lines.linewidth", 5)
        compared(two, runs, tmp_path / folder)
    pipeline = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    stage = pipeline["stages"]["compare"]
    names = sorted(f"reports/{path.name}" for path in (tmp_path / "a" / "reports").iterdir())
    assert names == sorted([*stage["outs"], *pipeline["plots"], "reports/comparison.html"])
    assert [list(out) for out in stage["metrics"]] == [["metrics/summary.json"]]
    a, b, c = ([(tmp_path / f / name).read_bytes() for name in ("summary.json", *names)] for f in ("a", "b", "c"))
    assert a == b
    differ = {name for name, one, other in zip(("summary.json", *names), a, c, strict=True) if one != other}
    assert {"reports/comparison.html", "reports/estimates.png"} <= differ
    assert not {"reports/comparison.json", "summary.json"} & differ


@pytest.mark.parametrize("file", sorted(path.relative_to(ROOT) for path in ROOT.glob("**/dvc.yaml")), ids=str)
def test_no_pipeline_has_a_picture_or_a_page_among_its_outputs(file: Path) -> None:
    found = []
    for stage in YAML(typ="safe").load((ROOT / file).read_text())["stages"].values():
        for out in (one for kind in ("outs", "metrics", "plots") for one in stage.get(kind, [])):
            found += [out] if isinstance(out, str) else list(out)
    assert found
    assert not [name for name in found if Path(name).suffix in (".png", ".svg", ".html")]


def test_the_page_is_drawn_again_where_it_is_of_other_numbers(two: Params, runs: Path, tmp_path: Path) -> None:
    """As after `dvc checkout`, which brings comparison.json alone."""
    reports = tmp_path / "reports"
    assert results_table.is_drawn(reports)  # nothing is there to be drawn
    compare.write(two, runs, runs.parent, tmp_path / "summary.json", reports)
    assert not results_table.is_drawn(reports)
    draw.draw(reports)
    assert results_table.is_drawn(reports)
    write_json(reports / "comparison.json", results_table.load(reports) | {"missed_by_all": 7})
    assert not results_table.is_drawn(reports)


def test_numbers_of_another_version_are_not_drawn_in_one_line(tmp_path: Path) -> None:
    write_json(tmp_path / "comparison.json", {"variants": {}, "hardest": [{"index": 7}]})
    with pytest.raises(InputError, match=r"comparison\.json: not of this version \(image is missing\); `lenet repro`"):
        draw.draw(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.json"]


def test_published_floats_have_six_digits_and_none_is_a_difference_of_equal_numbers() -> None:
    """A C library may move a number's last bits; a fraction of 10,000 comes out as it went in."""
    moved = [0.007513995499592823, 0.007513995499592823 * (1 + 1e-13)]
    assert moved[0] != moved[1]
    assert rounding.rounded(moved) == [0.007514, 0.007514]
    assert rounding.rounded([0.1 + 0.2 - 0.3, -1e-17, 2e-10]) == [0, 0, 2e-10]
    assert str(rounding.rounded(-1e-17)) == "0.0"
    counts = [count / 10_000 for count in range(10_001)]
    assert rounding.rounded(counts) == counts
    content = {"a": [(1 / 3, None, True, 12_345_678)], "b": "0.123456789"}
    assert rounding.rounded(content) == {"a": [[0.333333, None, True, 12_345_678]], "b": "0.123456789"}


def test_one_seed_has_no_standard_deviation(two: Params, runs: Path, tmp_path: Path) -> None:
    one = two.model_copy(update={"seeds": (1,)})
    content = compared(one, runs, tmp_path)
    assert content["pairs"][0]["p"] is None
    assert (content["missed_by_any"], content["missed_by_all"]) == (10, 1)
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert "one seed each, so no interval" in page
    assert "with one seed each, that may be chance" in page
    summary = json.loads((tmp_path / "summary.json").read_text())["modern"]
    assert not {"test_error_sd", "test_error_low"} & set(summary)
    assert results_table.cells(results_table.load(tmp_path / "reports")["variants"]["modern"])[1] == "0.50"


def test_runs_without_a_miss_or_without_validation_can_be_shown(two: Params, runs: Path, tmp_path: Path) -> None:
    for folder in runs.iterdir():
        perfect = predictions(two.variants[folder.name[:-2]], LABELS)
        perfect.to_csv(folder / "predictions.csv", index=False)
        pd.DataFrame({"epoch": [1], "train/error": [0.1]}).to_csv(folder / "history.csv", index=False)
        none = {"images": np.zeros((0, 28, 28), np.uint8), "index": np.zeros(0, np.int64)}
        save_file(none, folder / "missed.safetensors")
    compared(two, runs, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["modern"]["misses"] == 0
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert "No run misses any digit." in page
    assert "no significant difference (0.00 points" in page
    assert results_table.cells(results_table.load(tmp_path / "reports")["variants"]["modern"])[2] == "–"


def test_one_variant_is_compared_with_nothing(two: Params, runs: Path, tmp_path: Path) -> None:
    content = compared(two.model_copy(update={"compare": ("modern",)}), runs, tmp_path)
    assert content["pairs"] == []
    page = (tmp_path / "reports" / "comparison.html").read_text()
    assert "there is nothing to compare" in page


def test_runs_that_do_not_fit_each_other_are_one_line(two: Params, runs: Path, tmp_path: Path) -> None:
    history = (runs / "modern-2" / "history.csv").read_text()
    (runs / "modern-2" / "history.csv").write_text("".join(history.splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="modern: the seeds' histories differ"):
        compared(two, runs, tmp_path)
    (runs / "modern-2" / "history.csv").write_text(history)
    table = pd.read_csv(runs / "modern-2" / "predictions.csv")
    table.loc[1, "label"] = 5  # which it misses, too
    table.to_csv(runs / "modern-2" / "predictions.csv", index=False)
    with pytest.raises(InputError, match=r"modern-2: predictions\.csv is of other digits than that of original-tanh-1"):
        compared(two, runs, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    assert not (tmp_path / "reports").exists()


def test_a_missing_or_faulty_run_is_one_line_and_nothing_is_written(two: Params, runs: Path, tmp_path: Path) -> None:
    (runs / "modern-2" / "predictions.csv").unlink()
    with pytest.raises(InputError, match=r"modern-2/predictions\.csv: No such file or directory; `lenet repro` makes"):
        compared(two, runs, tmp_path)
    assert not (tmp_path / "summary.json").exists()
    assert not (tmp_path / "reports").exists()
    with pytest.raises(InputError, match=r"comparison\.json is missing"):
        results_table.load(tmp_path / "reports")


def test_the_present_runs_are_those_with_outputs(
    two: Params, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other pipelines' too; none from before there were signatures; and one that cannot be read is told about."""
    monkeypatch.chdir(runs.parent)
    before = {"run": {"key": "b", "canary": "c"}}
    for name, content in (
        ("runs/modern-2", before),
        ("experiments/ladder/runs/modern-6", before),
        ("experiments/ladder/runs/modern-7", {}),
    ):
        write_json(Path(name) / "run.json", content)
    Path("experiments/ladder/runs/modern-5").mkdir()
    shutil.copy("runs/modern-1/run.json", "experiments/ladder/runs/modern-5")
    some = two.model_copy(update={"seeds": (2, 3, 4)})
    compared = {("original-tanh-2", "key original-tanh 2"), ("original-tanh-3", "key original-tanh 3")}
    compared |= {("modern-3", "key modern 3")}
    assert current.present(some) == compared | {("modern-1", "key modern 1")}
    assert "experiments/ladder/runs/modern-7/run.json" in capsys.readouterr().err
    assert {(record.name, record.key) for record in current.records(some)} == compared


def test_a_mark_is_noted_until_runs_or_store_change(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    marked = frozenset({("a-1", "k"), ("b-1", "l")})
    assert not current.is_noted(marked)
    current.note(marked)
    assert current.is_noted(marked)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")  # as MLflow itself puts it there
    assert current.is_noted(marked)
    for other in ({("a-1", "k")}, {("a-1", "k"), ("b-1", "another key")}):
        assert not current.is_noted(frozenset(other))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://example.invalid")
    assert not current.is_noted(marked)


def test_outputs_of_runs_that_are_compared_no_longer_are_removed(runs: Path, tmp_path: Path, capsys) -> None:
    metrics, signatures = tmp_path / "metrics", tmp_path / "signatures"
    metrics.mkdir()
    signatures.mkdir()
    for name in ("digits.json", "modern.json", "my-own.json", "original-tanh.json"):
        (signatures / name).write_text("{}")
    for name in ("modern-1.json", "modern-3.json", "summary.json"):
        (metrics / name).write_text('{"run": {}}')
    (metrics / "my-own.json").write_text("{}")
    (runs / "my-notes").mkdir()
    scheduling._remove_stale(tmp_path, {f"{name}-{seed}" for name in ("original-tanh", "modern") for seed in (1, 2)})
    assert sorted(p.name for p in signatures.iterdir()) == ["digits.json", "modern.json", "original-tanh.json"]
    assert sorted(p.name for p in metrics.iterdir()) == ["modern-1.json", "my-own.json", "summary.json"]
    assert capsys.readouterr().err.count("no stage produces it any more") == 4
    assert sorted(p.name for p in runs.iterdir()) == [
        "modern-1", "modern-2", "my-notes", "original-tanh-1", "original-tanh-2",
    ]  # fmt: skip


def test_pictures_bytes_hold_no_version_and_no_time(tmp_path: Path) -> None:
    figure = figures.confusion([("x", np.arange(100).reshape(10, 10))])
    figures.save(figure, tmp_path / "a.png")
    assert b"atplotlib" not in (tmp_path / "a.png").read_bytes()
    assert not re.search(rb"<dc:date>|<dc:creator>|<!-- Created", figures.svg(figure))


def test_errors_of_zero_can_be_drawn_on_logarithmic_scales() -> None:
    curve = {"unit": "pixels", "levels": [0, 1], "seeds": [[0.0, 0.1], [0.0, 0.2]]}
    point = {"train_size": 100, "seeds": {"1": {"error": 0.0}}, "test_error": 0.0, "low": None, "high": None}
    for figure in (
        figures.error_curves({"a": {"train/error": [[0.1, 0.0]]}, "b": {"train/error": [[0.1, 0.01]]}}),
        figures.error_curves({"a": {"train/error": [[0.0, 0.0]]}}),
        figures.robustness({"a": {"robustness": {"shift": curve}}}),
        figures.size_curves({"variants": {"a": [point, point | {"train_size": 300}]}}, {}),
    ):
        assert figures.svg(figure)


def test_results_before_any_run_are_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    assert "make repro" in refused("results", monkeypatch, capsys)
