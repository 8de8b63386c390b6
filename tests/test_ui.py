"""MLflow's pages, DVC's pages and the report, in a real browser that reaches no other machine."""

import json
import re
import socketserver
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient

import browser
from conftest import (
    ROOT,
    copied,
    declared_plots,
    edit_params,
    lenet_command,
    own_surroundings,
    run,
    small_checkout,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not browser.installed(), reason="chromium or chromedriver is not installed"),
    pytest.mark.timeout(1800),  # most of it for two small pipelines on a busy machine
]

VARIANTS, SEEDS = ["original-tanh", "modern"], [1, 2]
CURRENT = "tags.current = 'true' and tags.kind = 'training'"
HARMLESS = "ResizeObserver loop"  # a notice of Chromium's, at any time, in any page that lays itself out anew


@dataclass
class Site:
    """A checkout with five trainings, four of them current, and MLflow's pages on it."""

    folder: Path
    mlflow: browser.MLflow
    errors_when_empty: set[str]
    proxied: list[str]  # what the server asked of other machines

    def trainings(self) -> dict[str, str]:
        """Of each training's id in MLflow its run.key, as the store has it."""
        client = MlflowClient(f"sqlite:///{self.folder}/mlflow.db")
        experiment = client.get_experiment_by_name("lenet5")
        found = client.search_runs([experiment.experiment_id], "tags.kind = 'training'")
        return {one.info.run_id: one.data.tags["run.key"] for one in found}

    def metrics(self) -> dict[tuple[str, int], dict]:
        """The files that DVC's stages wrote, by variant and seed."""
        files = {(name, seed): self.folder / "metrics" / f"{name}-{seed}.json" for name in VARIANTS for seed in SEEDS}
        return {run: json.loads(file.read_text()) for run, file in files.items()}

    def current(self) -> set[str]:
        """The ids of the runs behind the present files."""
        keys = {one["run"]["key"] for one in self.metrics().values()}
        return {run for run, key in self.trainings().items() if key in keys}


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy that refuses every request, and a list of what was asked of it."""
    asked: list[str] = []

    class Refuse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode().strip())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch, browser.chromium() as chromium, proxy() as (address, asked):
        own_surroundings(patch)
        proxied = {"HTTPS_PROXY": address, "HTTP_PROXY": address, "NO_PROXY": ""}
        empty = small_checkout(tmp_path_factory.mktemp("empty") / "checkout")
        with browser.lenet_ui(empty, **proxied) as ui:
            walk(browser.MLflow(chromium, ui))
            errors = chromium.errors()
        folder = copied(published, tmp_path_factory.mktemp("ui") / "checkout")
        edit_params(folder, lambda content: content.update(seeds=SEEDS))
        edit_params(folder, lambda content: content["variants"]["modern"]["optimizer"].update(lr=0.0031))
        run(*lenet_command("repro"), cwd=folder, timeout=900)
        with browser.lenet_ui(folder, **proxied) as ui:
            yield Site(folder, browser.MLflow(chromium, ui), errors, asked)


def walk(mlflow: browser.MLflow) -> None:
    """Pages that an empty store has too."""
    mlflow.experiment()
    mlflow.view("CHART")
    mlflow.view("TABLE")
    mlflow.models()


def test_the_run_table_shows_every_training_and_the_filter_those_behind_the_present_files(site: Site) -> None:
    site.mlflow.experiment()
    site.mlflow.filter("tags.kind = 'training'")
    every = sorted(site.trainings())
    assert len(every) == 5
    assert site.mlflow.browser.settled(lambda: sorted(site.mlflow.runs()), every) == every

    site.mlflow.filter("tags.current = 'true'")
    current = sorted(site.current())
    assert len(current) == 4

    def trainings() -> list[str]:  # beside a run that stands for a comparison
        return sorted(set(site.mlflow.runs()) & set(every))

    assert site.mlflow.browser.settled(trainings, current) == current

    # and so does the link in the walk-through
    (link,) = re.findall(r"<http://127\.0\.0\.1:5000(/.*)>", (ROOT / "docs" / "how-to" / "read-mlflow.md").read_text())
    site.mlflow.browser.open(site.mlflow.address + link)
    assert site.mlflow.browser.settled(trainings, current) == current


def test_a_variant_s_line_shows_the_means_over_its_seeds(site: Site) -> None:
    site.mlflow.experiment()
    site.mlflow.filter(CURRENT)
    site.mlflow.group("variant")
    site.mlflow.columns(["test/error", "test/misses"], ["Dataset"])
    for name in ("error", "misses"):
        expected = {
            variant: pytest.approx(statistics.mean(site.metrics()[variant, seed]["test"][name] for seed in SEEDS))
            for variant in VARIANTS
        }
        assert site.mlflow.browser.settled(lambda name=name: site.mlflow.means(f"test/{name}"), expected) == expected


def test_the_chart_view_draws_the_mean_validation_error_of_each_variant(site: Site) -> None:
    site.mlflow.experiment()
    site.mlflow.filter(CURRENT)
    site.mlflow.group("variant")
    chart = site.mlflow.chart("validation/error")
    expected = []
    for name in VARIANTS:
        histories = [pd.read_csv(site.folder / "runs" / f"{name}-{seed}" / "history.csv") for seed in SEEDS]
        expected.append([round(value, 9) for value in sum(one["validation/error"] for one in histories) / len(SEEDS)])

    def lines() -> list[list[float]]:
        return sorted([round(value, 9) for value in line["values"]] for line in site.mlflow.lines(chart))

    assert site.mlflow.browser.settled(lines, sorted(expected)) == sorted(expected)
    for line in site.mlflow.lines(chart):
        assert line["steps"] == [1, 2]
        assert line["length"] > 50  # pixels


def test_compare_opens_for_the_marked_runs_and_its_plots_draw(site: Site) -> None:
    site.mlflow.experiment()
    site.mlflow.filter(CURRENT)
    current = site.current()
    assert site.mlflow.browser.settled(lambda: set(site.mlflow.runs()), current) == current
    site.mlflow.compare()
    site.mlflow.browser.find("//*[normalize-space(text())='Comparing 4 Runs from 1 Experiment']")

    plot = site.mlflow.plot("Parallel Coordinates Plot")
    site.mlflow.browser.until(lambda: site.mlflow.painted(plot) > 300, "lines of the parallel coordinates")

    plot = site.mlflow.plot("Scatter Plot", "variant", "test/misses")
    misses = sorted(one["test"]["misses"] for one in site.metrics().values())
    heights = "return arguments[0].data.flatMap(trace => [...trace.y])"
    assert site.mlflow.browser.settled(lambda: sorted(site.mlflow.browser.script(heights, plot)), misses) == misses
    site.mlflow.browser.until(lambda: site.mlflow.painted(plot) > 100, "points of the scatter plot")

    plot = site.mlflow.plot("Box Plot", "variant", "test/misses")
    boxes = "return [...arguments[0].querySelectorAll('path.box')].filter(p => p.getBBox().height > 0).length"
    assert site.mlflow.browser.settled(lambda: site.mlflow.browser.script(boxes, plot), 2) == 2


def test_a_run_s_confusion_matrix_opens_among_its_artifacts(site: Site) -> None:
    chosen = min(site.current())
    site.mlflow.experiment()
    (file,) = site.folder.glob(f"mlartifacts/**/{chosen}/artifacts/figures/confusion.png")
    image = site.mlflow.artifact(chosen, "figures/confusion.png")
    size = site.mlflow.browser.script("return [arguments[0].naturalWidth, arguments[0].naturalHeight]", image)
    assert tuple(size) == browser.size(file)


def test_the_pages_ask_no_other_machine_and_say_no_error_that_an_empty_store_has_not(site: Site) -> None:
    """Of all pages that the tests of this module visited, and at least of these."""
    walk(site.mlflow)
    assert {error for error in site.mlflow.browser.errors() - site.errors_when_empty if HARMLESS not in error} == set()
    assert site.mlflow.browser.hosts() == {"http://127.0.0.1"}
    assert site.proxied == []


@pytest.mark.parametrize("command", [["show"], ["diff", "HEAD"]])
def test_dvc_s_plots_open_from_disk_with_their_pictures(site: Site, command: list[str]) -> None:
    page = site.folder / f"plots-{command[0]}"
    run("dvc", "plots", *command, "-o", page.name, cwd=site.folder)
    with browser.chromium() as chromium:
        chromium.open((page / "index.html").as_uri())
        sizes = chromium.pictures()
        assert len(sizes) == declared_plots(site.folder)
        assert all(width > 100 and height > 100 for width, height in sizes)
        assert chromium.errors() == set()
        assert chromium.hosts() == {"file://"}


def test_the_report_opens_from_disk_at_a_desk_s_and_a_telephone_s_width(site: Site) -> None:
    with browser.chromium() as chromium:
        chromium.open((site.folder / "reports" / "comparison.html").as_uri())
        sizes = chromium.pictures()
        content = json.loads((site.folder / "reports" / "comparison.json").read_text())
        figures = len([*(site.folder / "reports").glob("*.png")]) - 1  # the hardest digits stand one by one
        figures -= sum(content[study] is None for study in ("ladder", "sizes", "frontier"))  # words in their places
        doubted = [one for one in content["labels"]["digits"] if one["image"]]
        assert len(sizes) == figures + len(content["hardest"]) + len(doubted)
        assert all(width > 0 and height > 0 for width, height in sizes)
        assert chromium.overflow(1300, ".scroll") == 0  # every table
        assert chromium.overflow(390, ".scroll:has(.more)") == 0  # where a telephone sees fewer columns
        chromium.open((ROOT / "experiments" / "paper" / "report.html").as_uri())
        assert chromium.overflow(1300, ".scroll") == 0
        assert chromium.overflow(390) == 0
        assert chromium.errors() == set()
        assert chromium.hosts() == {"file://"}
