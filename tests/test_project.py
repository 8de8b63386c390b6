"""The project's promises beside its code: locks, names, help, the wheel; commands, links and numbers of its pages."""

import json
import re
import shlex
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from dvc.cli.parser import get_main_parser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from ruamel.yaml import YAML

import pictures
from conftest import EXPERIMENTS, ROOT, run
from lenet import cli
from lenet.experiments import facsimile, lecun1998
from lenet.experiments.paper import RECIPES
from lenet.params import loading, schema
from lenet.params.schema import Params
from lenet.report import comparison_page, experiments, results_table
from lenet.report.statistics import LEVEL
from lenet.runs import current
from lenet.runtime import layout, requirements
from lenet.sweep import report as study_report
from lenet.sweep import result as study_result
from lenet.sweep.likeness import by_likeness

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FORMER = results_table.FORMER
OPEN = "lecun1998-held-out"  # the variant whose study is of what the paper leaves open


def files() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    return [ROOT / name for name in names.stdout.splitlines() if (ROOT / name).is_file()]


def test_the_locks_pin_everything_with_hashes_and_name_no_index_and_no_host() -> None:
    """Lines ``name==version``, maybe for some platforms, with the hashes of all files of it; torch alone has none."""
    pin = r"[a-z0-9-]+==[A-Za-z0-9.]+( ; [^\\\n]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n"
    text = (ROOT / "requirements.lock").read_text()
    assert re.fullmatch(rf"(#.*\n)*({pin})+", text)
    numpy = text[text.index("\nnumpy==") :].partition("\no")[0]
    assert numpy.count("--hash") > 40  # not this platform's alone
    first, second = (requirements.pins(ROOT / path) for path in requirements.LOCKS)
    assert second == {"torch": "2.13.0"}
    assert first.keys().isdisjoint(second)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains((first | second)[canonicalize_name(requirement.name)]), requirement
    assert first["mlflow"] == "3.17.2"


def test_no_file_names_a_package_registry_or_a_machine_s_path() -> None:
    registries = re.compile(r"pypi" r"\.org|files\.python" r"hosted|registry\.npm" r"js|download\.py" r"torch")
    absolute = re.compile(r"(?<![\w.:/$}])/(work|home|root|Users)/")
    for path in files():
        text = path.read_text(errors="replace")
        assert not registries.search(text), path
        assert not absolute.search(text), path


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_is_quick_and_imports_nothing_heavy(words: list[str]) -> None:
    start = time.monotonic()
    done = run("lenet", *words, cwd=ROOT)
    assert time.monotonic() - start < 5  # the target, half a second, is a benchmark's
    assert done.stdout
    code = f"""
import sys, lenet.cli
sys.argv[1:] = {words}
try:
    lenet.cli.main()
finally:
    heavy = ("torch", "mlflow", "numpy", "pydantic", "dvc")
    print(*[name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    assert run(sys.executable, "-c", code, cwd=ROOT).stderr.strip() == ""


def test_every_job_s_help_has_an_example() -> None:
    jobs = set(cli.cli.commands)
    assert {"fetch", "prepare", "train", "evaluate", "compare", "repro", "check", "summary", "verify"} <= jobs
    for job in jobs:
        assert "Example:" in CliRunner().invoke(cli.cli, [job, "--help"]).output, job


def test_sweep_s_help_has_the_options_of_a_study() -> None:
    """`lenet sweep VARIANT` stands for `lenet sweep run VARIANT`."""
    own, of_run = (run("lenet", "sweep", *more, "--help", cwd=ROOT).stdout for more in ([], ["run"]))
    assert "  --trials " in of_run
    assert of_run.partition("Options:\n")[2] in own


def test_make_help_lists_the_targets() -> None:
    shown = run("make", "help", cwd=ROOT).stdout
    for target in ("repro", "test", "test-slow", "check", "bench", "docs", "environment", "ui", "pictures"):
        assert f"make {target} " in shown
    assert run("make", cwd=ROOT).stdout == shown


def test_ci_and_the_workflow_run_the_same_commands() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    assert "bash .ci/run" in workflow
    pythons = ", ".join(re.findall(r'"(3[.]\d+)"', workflow))
    assert f"(tested: {pythons})" in (ROOT / "README.md").read_text()
    assert "run: make docs" in (ROOT / ".github/workflows/docs.yml").read_text()
    assert re.search(
        r"^check: .*docs ##.*\n(.*\n)*docs: .*\n\tmkdocs build --strict", (ROOT / "Makefile").read_text(), re.M
    )
    ci = (ROOT / ".ci/run").read_text()
    makes = "make check", "make test", "make test-slow"
    for command in ("programs", *makes, "python -m benchmarks", "lenet repro", "lenet verify --here", "lenet doctor"):
        assert re.search(rf"^step .*{command}( |$)", ci, re.M), command
    assert "repo: local" in (ROOT / ".pre-commit-config.yaml").read_text()
    assert (ROOT / ".pre-commit-config.yaml").read_text().count("repo:") == 1


def test_a_wheel_holds_the_package_and_its_templates(tmp_path: Path) -> None:
    import zipfile

    words = f"-m pip wheel -qq --no-deps --no-build-isolation -w {tmp_path} ."
    run(sys.executable, *words.split(), cwd=ROOT)
    (wheel,) = tmp_path.glob("lenet-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {"lenet/networks/lenet5.py", "lenet/__main__.py"} <= set(names)
    assert {"lenet/report/templates/comparison.html", "lenet/cards/templates/model.md"} <= set(names)
    assert {f"lenet/canvas/{name}" for name in ("network.js", "picture.js", "page.js", "page.css", "page.html")} <= set(
        names
    )
    assert "Requires-Python: >=3.11" in metadata


# pages


def page(name: str) -> str:
    """A page, its lines joined."""
    return " ".join((ROOT / name).read_text().split())


def numbers(verdict: str) -> str:
    """A pattern of a verdict's difference and interval, whatever stands between them."""
    return "[^()]*?".join(map(re.escape, re.findall(r"−?\d+\.\d+", verdict)))


def test_results_that_are_not_yet_computed_anew_say_of_which_arithmetic_they_are() -> None:
    """A published file without signatures is of the former arithmetic."""
    paper = json.loads((EXPERIMENTS / "paper" / "result.json").read_text())
    ladder, sizes, frontier = (experiments.read(EXPERIMENTS, name) for name in ("ladder", "sizes", "frontier"))
    for name, shown in (
        ("README.md", [frontier]),
        ("docs/explanation/results.md", [frontier, ladder, sizes]),
        ("docs/explanation/paper.md", [paper]),
        ("docs/explanation/open-choices.md", [paper]),
        ("experiments/paper/report.html", [paper]),
    ):
        assert page(name).count(FORMER) == sum(map(results_table.is_former, shown)), name


def table_rows(name: str, first_column: str) -> dict[str, list[str]]:
    """The rows of a page's first table whose header starts with ``first_column``, by their first cell."""
    text = (ROOT / name).read_text()
    lines = iter(text[text.index(f"| {first_column} |") :].splitlines())
    next(lines), next(lines)
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        name, *cells = (cell.strip(" `") for cell in line.strip("|").split("|"))
        rows[name] = cells
    return rows


@pytest.mark.parametrize("page", ["README.md", "docs/explanation/results.md"])
def test_the_results_are_those_of_metrics(page: str, params: Params) -> None:
    rows = table_rows(page, "variant")
    assert list(rows) == list(params.compare)
    summary = json.loads((ROOT / "metrics" / "summary.json").read_text())
    for name, cells in rows.items():
        runs = [json.loads((ROOT / "metrics" / f"{name}-{seed}.json").read_text()) for seed in params.seeds]
        found = {
            "seeds": {str(one["seed"]): one["test"] for one in runs},
            "test_error": summary[name]["test_error"],
            "test_error_sd": summary[name]["test_error_sd"],
            "validation_error": summary[name]["validation_error"],
            "network": runs[0]["network"],
        }
        misses = [one["test"]["misses"] for one in runs]
        assert summary[name]["misses"] == pytest.approx(sum(misses) / len(misses))
        assert cells[-4:] == list(results_table.cells(found)), name


def test_the_networks_of_today_are_the_frontier_s(params: Params) -> None:
    """In a table of their own: their runs may be of another arithmetic than the compared variants'."""
    frontier = experiments.read(EXPERIMENTS, "frontier")["variants"]
    rows = table_rows("docs/explanation/results.md", "network of today")
    assert list(rows) == [name for name in frontier if name not in params.compare]
    for name, cells in rows.items():
        assert cells[-4:] == list(results_table.cells(frontier[name])), name


def test_the_pictures_are_of_the_committed_results_and_no_stage_draws_them() -> None:
    """Each names the digest of what it shows: `make pictures` makes them anew."""
    told = {name for path in PAGES for name in re.findall(r"!\[.*?\]\([\w./-]*?pictures/(.*?)\)", path.read_text())}
    assert told == {path.name for path in pictures.PICTURES.iterdir()}
    for name in told:
        with Image.open(pictures.PICTURES / name) as content:
            assert content.info.get("Source") == pictures.shown(), f"{name}: `make pictures` makes it anew"
    assert not [path for path in ROOT.glob("**/dvc.yaml") if "docs/pictures" in path.read_text()]


@pytest.mark.results
def test_the_verdicts_are_the_report_s(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them; in the README those of a difference."""
    monkeypatch.chdir(ROOT)
    report = results_table.load(Path("reports"))
    assert results_table.is_of(report, params, current.records(params))
    assert report["pairs"]
    for pair in report["pairs"]:
        assert f"- {pair['verdict']} " in page("docs/explanation/results.md") + " "
        assert (pair["verdict"] in page("README.md")) == (pair["p_adjusted"] < LEVEL)


@pytest.mark.results
def test_the_words_on_labels_and_writers_are_the_report_s(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    report = results_table.load(Path("reports"))
    results = page("docs/explanation/results.md")
    assert f"Means over seeds: {'; '.join(comparison_page.labels(report))}." in results
    assert comparison_page.writers(report) in results
    rows = table_rows("docs/explanation/results.md", "error, %, mean ± sd")
    assert list(rows) == list(params.compare)
    for name, cells in rows.items():
        found = [report["labels"]["variants"][name]["error_without"]]
        found += [group["variants"][name] for group in report["writers"]["groups"].values()]
        assert cells == [comparison_page.spread(one) for one in found], name
    effects = [report["writers"]["clustering"][name]["effect"] for name in params.compare]
    assert f"a design effect of {min(effects):.1f} to {max(effects):.1f}." in results
    rho = {round((effect - 1) / (2 * report["writers"]["block"] / 3 - 1), 2) for effect in effects}
    assert rho == {0.02}
    assert "With ρ = 0.02, about what single errors show there" in page("docs/explanation/statistics.md")


def studied() -> dict[str, dict]:
    """Each published study's best.json, by its variant."""
    paths = sorted((EXPERIMENTS / "sweeps" / "studies").glob("*/best.json"))
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def test_every_compared_variant_is_tuned_with_equal_effort_and_its_winner_is_published(params: Params) -> None:
    """The same trials, pruner and epochs at most; the block has the best trial's settings.

    Of one arithmetic, the published run has the very weights of the best trial, too.
    """
    assert len({params.variants[name].epochs for name in params.compare}) == 1
    assert len({params.variants[name].validation_size for name in params.compare}) == 1
    for name, found in studied().items():
        plan = json.loads((EXPERIMENTS / "sweeps" / "studies" / name / "study.json").read_text())["plan"]
        assert plan["settings"]["pruner"] == params.sweep["pruner"]
        assert sum(found["trials"][state] for state in ("complete", "pruned", "failed")) == params.sweep["trials"] >= 60
        if name not in params.compare:
            assert name == OPEN
            continue
        block = loading.flatten(params.variants[name])
        assert found["best"]["parameters"].items() <= block.items(), name
        published = json.loads((ROOT / "metrics" / f"{name}-{params.sweep['seeds'][0]}.json").read_text())
        if "signature" in published["run"] and FORMER in page("docs/how-to/tune.md"):
            continue
        assert published["run"]["weights.sha256"] == found["best"]["weights.sha256"], name
        assert published["validation"]["error"] == found["best"]["validation/error"], name


def test_the_table_of_studies_is_what_was_computed(params: Params) -> None:
    rows = table_rows("docs/how-to/tune.md", "study of")
    assert set(rows) == set(studied())
    for name, cells in rows.items():
        found = studied()[name]
        trials = found["trials"]
        assert cells[0] == f"{trials['complete']} · {trials['pruned']} · {trials['failed']}", name
        assert cells[1] == f"{trials['epochs']} of {params.sweep['trials'] * params.variants[name].epochs}", name
        assert cells[2] == f"{100 * found['best']['validation/error']:.2f}", name
        run = ROOT / "metrics" / f"{name}-{params.sweep['seeds'][0]}.json"
        today = f"{100 * json.loads(run.read_text())['validation']['error']:.2f}" if name in params.compare else "–"
        assert cells[3] == today, name
        assert cells[4] == ", ".join(f"{parameter} {value}" for parameter, value in found["best"]["parameters"].items())


def test_what_the_paper_leaves_open_is_told_as_the_study_has_it(params: Params) -> None:
    """Of each choice what was tried, by both measures what the best have and how much it matters, and what is taken."""
    found = study_result.of_folder(EXPERIMENTS / "sweeps" / "studies" / OPEN)
    held_out, alike = (study_report.choices(one) for one in (found, by_likeness(found, lecun1998.TRAIN_ERROR)))
    taken = loading.flatten(params.variants[OPEN])
    for name, (_, *cells) in table_rows("docs/explanation/open-choices.md", "open choice").items():
        tried, *by_error = held_out.pop(name).values()
        _, *by_curve = alike[name].values()
        own = taken.get(name.replace(f".{taken['objective.loss']}.", "."), "–")
        assert cells == [tried, *by_error, *by_curve, str(own)], name
    assert not held_out


@pytest.mark.parametrize(
    ("name", "sentences", "pages"),
    [
        ("ladder", lambda found: [comparison_page.ladder(found)], ["docs/explanation/results.md"]),
        ("frontier", lambda found: [comparison_page.frontier(found)], ["README.md", "docs/explanation/results.md"]),
        ("sizes", comparison_page.sizes, ["docs/explanation/results.md"]),
    ],
)
def test_the_words_on_the_studies_are_what_was_measured(name: str, sentences: Callable, pages: list[str]) -> None:
    found = experiments.read(EXPERIMENTS, name)
    for said in sentences(found):
        for one in pages:
            assert said.replace("\N{NO-BREAK SPACE}", " ") in page(one)
    if name == "ladder":
        largest = max(found["steps"], key=lambda step: abs(step["difference"]))
        start = f"The largest difference is {largest['change']}"
        assert re.search(rf"{start} \({numbers(largest['verdict'])}\)", page(*pages))


def test_the_words_on_the_paper_s_recipe_are_what_was_measured() -> None:
    """The sentence, and each recipe's misses, error and spread beside the paper's figure."""
    found = json.loads((EXPERIMENTS / "paper" / "result.json").read_text())
    plain, distorted = (found["variants"][name] for name in RECIPES)
    overlap = found["figure_8"][RECIPES[1]]
    for said in (
        facsimile.lead(found).replace("\N{NO-BREAK SPACE}", " "),
        f"{plain['seeds_not_above']} of the networks without distorted digits reach the paper's 0.94 % or better",
        f"and {distorted['seeds_not_above']} of those with them its 0.82 %",
        f"misses {overlap['shared']:.0f} of them, about as many as two of its own seeds share",
        f"share ({overlap['two_seeds']:.0f})",
    ):
        assert said in page("docs/explanation/paper.md")
    assert re.search(rf"is not significant \({numbers(found['verdict'])}\)", page("docs/explanation/paper.md"))
    rows = table_rows("docs/explanation/paper.md", "recipe of 1998")
    assert list(rows) == list(found["variants"])
    for name, cells in rows.items():
        variant = found["variants"][name]
        misses, error, *_ = results_table.cells(variant | {"network": {"parameters": 60_000}})
        assert cells[-3:] == [misses, error, f"{100 * variant['published']:.2f}"], name


def test_the_word_on_translation_is_what_was_measured(params: Params) -> None:
    at_three = []
    for name in params.compare:
        runs = [json.loads((ROOT / "metrics" / f"{name}-{seed}.json").read_text()) for seed in params.seeds]
        curves = [one["robustness"]["translation"] for one in runs]
        none, one, three = (sum(curve[pixels] for curve in curves) / len(curves) for pixels in "013")
        assert none < one < 2 * none
        at_three.append(100 * three)
    said = f"all three variants miss {min(at_three):.0f} to {max(at_three):.0f} of 100 digits"
    assert f"less than two, but at three pixels, which remove hardly any ink, {said}" in page(
        "docs/explanation/errata.md"
    )


def commands(words: list[str]) -> Iterator[list[str]]:
    """The simple commands of a line's words; also those within a quoted word."""
    simple: list[str] = []
    for word in [*words, ";"]:
        if word in (";", "&&", "|", "&", "do", "exec"):
            while simple and re.fullmatch(r"[A-Z_]+=.*", simple[0]):
                simple = simple[1:]
            yield simple
            simple = []
        elif " " in word and "lenet " in word:
            yield from commands(shlex.split(word))
        else:
            simple.append(word)


def told() -> Iterator[tuple[str, list[str]]]:
    """Each command in the pages' shell blocks and in their lines, with where it stands."""
    for path in PAGES:
        text = path.read_text()
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        for line in [*lines, *re.findall(r"`((?:make|lenet|dvc) [^`\n]+)`", text)]:
            for command in commands(shlex.split(line.replace("$(", " ; "), comments=True)):
                yield f"{path.name}: {line}", [word for word in command if word != "…"]


def parse(group: click.Command, words: list[str]) -> None:
    """As `lenet` would, without doing anything."""
    while isinstance(group, click.Group):
        if not words:
            return
        context = click.Context(group)
        group.parse_args(context, words)
        _, command, words = group.resolve_command(context, [*context._protected_args, *context.args])
        group = command
        assert group
    if words:  # a name alone stands for the command
        group.make_context("lenet", words)


def test_every_command_that_the_pages_tell_exists_with_its_options() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    count = dict.fromkeys(("make", "lenet", "dvc"), 0)
    for where, words in told():
        program = Path(words[0]).name if words else ""
        try:
            if program == "make":
                assert set(words[1:]) <= set(targets)
            elif program == "lenet":
                parse(cli.cli, words[1:])
            elif program == "dvc":
                get_main_parser().parse_args(words[1:])
        except (Exception, SystemExit) as fault:
            pytest.fail(f"{where}: {fault}")
        if program in count:
            count[program] += 1
    assert min(count.values()) > 10, count


def test_dvc_s_metrics_are_the_comparison_s() -> None:
    """A table of `dvc metrics show` or `dvc exp show` has a column for each value of each file of metrics."""
    stages = YAML().load((ROOT / "dvc.yaml").read_text())["stages"].values()
    assert [list(one) for stage in stages for one in stage.get("metrics", [])] == [["metrics/summary.json"]]


def test_the_new_variant_of_the_pages_is_legal(params: Params) -> None:
    blocks = [found for path in PAGES for found in re.findall(r"```yaml\n(  [a-z-]+:\n.*?)```", path.read_text(), re.S)]
    assert len(blocks) == 2
    for block in blocks:
        assert len(block.splitlines()) <= 11  # its name, and ten lines
        content = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
        content["variants"] |= YAML(typ="safe").load(block)
        loading.validate(content, "a page")
        assert len(content["variants"].keys() - params.variants.keys()) == 1


def test_the_deviations_name_the_present_numbers(params: Params) -> None:
    for name in ("original-sigmoid", "original-tanh"):
        variant = params.variants[name]
        told = f"{variant.train_size:,} digits to train on, {variant.validation_size:,} held out"
        assert told in page("docs/explanation/paper.md")
        assert f"{variant.epochs} passes instead of 20" in page("docs/explanation/paper.md")


def test_a_second_make_repro_waits_for_nothing_heavy() -> None:
    """What takes seconds to import is not imported by the two commands of a `make repro` that has nothing to do."""
    code = "import sys, lenet.pipeline.scheduling, lenet.report.results_table, lenet.runs.current; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in run(sys.executable, "-c", code, cwd=ROOT).stdout.split()}
    assert not loaded & {"torch", "mlflow", "pandas", "matplotlib", "pytorch_lightning", "numpy"}


def slug(heading: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")


def test_links_and_names_of_files_lead_somewhere() -> None:
    folders = "src|tests|notebooks|benchmarks|docs|experiments|tools|signatures"
    for path in PAGES:
        text = path.read_text()
        for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", text):
            linked = path.parent / target if target else path
            assert linked.exists(), (path, target)
            assert not anchor or anchor in map(slug, re.findall(r"^#+ (.*)$", linked.read_text(), re.M)), (path, anchor)
        for named in re.findall(rf"`((?:{folders})/[\w./-]+)`", text):
            assert (ROOT / named).exists(), (path, named)


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120


def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    run(sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path), cwd=ROOT)
    for path in tmp_path.rglob("*.html"):
        text = path.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]* src=\"?([^\" >]+)", text)
        loaded += re.findall(r"<link[^>]* href=\"?([^\" >]+)", text)
        assert loaded
        assert not [address for address in loaded if "//" in address], path
    for path in tmp_path.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", path.read_text()), path
    keys = (tmp_path / "reference" / "parameters.html").read_text()
    assert all(f"<code>{key}</code>" in keys for key in (*schema.Variant.model_fields, "scaled-tanh", "beta1", "keep"))
    assert "lenet rerun" in (tmp_path / "reference" / "commands.html").read_text()
    own, reruns = (
        shown(tmp_path / "explanation" / f"{name}.html", first)
        for name, first in (("results", "whose"), ("reproducibility", "rerun of"))
    )
    for path in (path for home in layout.homes(ROOT) for path in sorted((home / "metrics").glob("*-*.json"))):
        variant, _, seed = path.stem.rpartition("-")
        metrics = json.loads(path.read_text())
        assert (tmp_path / "cards" / f"{variant}.html").exists()
        (row,) = (row for row in reruns if row[0] == variant and seed in row[1].split(", "))
        assert metrics["run"]["weights.sha256"][:8] in row[2]
        assert row[3] == f"{metrics['digits']['held_out']:,}"
    for name, found in experiments.read(EXPERIMENTS, "frontier")["variants"].items():
        if name.startswith("frontier"):
            _, error, _, parameters = results_table.cells(found)
            assert [f"ours: {name}", parameters, error] in [row[:3] for row in own]


def shown(page: Path, first: str) -> list[list[str]]:
    """The cells' words of the table of a built page whose first column has this heading."""
    (found,) = (table for table in re.findall(r"<table>.*?</table>", page.read_text(), re.S) if f">{first}<" in table)
    rows = (re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>.*?</tr>", found, re.S))
    return [[re.sub(r"<.*?>", "", cell).strip() for cell in row] for row in rows]
