"""Steps in MLflow's pages, and in pages on disk, with a real Chromium: for tests, and for the README's pictures.

Labels and attributes are those of MLflow 3.17. Chromium reaches no host but 127.0.0.1.
"""

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60  # seconds for a page to show what it should, on a busy machine
START = 240  # seconds for the server, whose every process imports MLflow
TELEMETRY = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST", "CI", "GITHUB_ACTIONS")
"""Variables that make MLflow silent, whatever its server's command sets."""

T = TypeVar("T")


def installed() -> str | None:
    """Chromium's program, if it and its driver are there."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return found if shutil.which("chromedriver") else None


@contextmanager
def lenet_ui(folder: Path, **environment: str) -> Iterator[str]:
    """The address of ``lenet ui`` on the store of ``folder``, without any setting of the caller for telemetry."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    inherited = {name: value for name, value in os.environ.items() if name not in TELEMETRY}
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    command = ["env", "PYTHONPATH=src", sys.executable, "-m", "lenet", "ui", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=inherited | environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_for(server, address, log)
            yield address
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()


def _wait_for(server: subprocess.Popen, address: str, log: Any) -> None:
    session = requests.Session()
    session.trust_env = False  # no proxy on the way to this machine
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=0))
    for _ in range(4 * START):
        try:
            if session.get(f"{address}/health", timeout=PATIENCE).ok:
                return
        except requests.ConnectionError:
            try:
                server.wait(0.25)
            except subprocess.TimeoutExpired:
                continue
        log.seek(0)
        raise RuntimeError(f"lenet ui ended:\n{log.read()}")
    raise RuntimeError(f"lenet ui does not answer within {START} s")


@contextmanager
def chromium(width: int = 1280, height: int = 860) -> Iterator["Browser"]:
    """A headless Chromium with an empty profile, a window of this size, and no way to other machines."""
    options = webdriver.ChromeOptions()
    options.binary_location = installed() or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium", ignore_cleanup_errors=True) as profile:
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--no-first-run", "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}",
            f"--window-size={width},{height}", "--force-device-scale-factor=1",
        ):  # fmt: skip
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            driver.set_page_load_timeout(2 * PATIENCE)
            # Each page that is opened has forgotten all earlier ones. On a first visit the assistant's panel would open
            # by itself and cover a third of the page.
            first = (
                "localStorage.clear(); localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
            )
            source = f"if (location.protocol === 'http:') {{ {first} }}"
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": source})
            yield Browser(driver)
        finally:
            driver.quit()


def size(file: Path) -> tuple[int, int]:
    """Width and height of a picture in a file."""
    with Image.open(file) as picture:
        return picture.size


@dataclass
class Browser:
    """Chromium, waiting for what it is asked, and remembering what it said and requested."""

    driver: webdriver.Chrome

    def until(self, condition: Callable[[], T], what: str) -> T:
        """The condition's value as soon as it is true. Raises TimeoutException, which says what was awaited."""
        waiting = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=[WebDriverException])
        return waiting.until(lambda _: condition(), f"{what} at {self.driver.current_url}")

    def settled(self, get: Callable[[], T], expected: T) -> T:
        """What ``get`` gives once it is the expected, or at last."""
        with suppress(TimeoutException):
            self.until(lambda: get() == expected, "the expected")
        return get()

    def open(self, address: str) -> None:
        """Load the page anew, also where only the part after # differs."""
        self.driver.get("about:blank")
        self.driver.get(address)

    def script(self, code: str, *arguments: object) -> Any:
        return self.driver.execute_script(code, *arguments)

    def _displayed(self, xpath: str) -> WebElement | None:
        found = self.driver.find_elements(By.XPATH, xpath)
        return next((element for element in found if element.is_displayed()), None)

    def find(self, xpath: str) -> WebElement:
        """The first such element that is displayed."""
        return self.until(lambda: self._displayed(xpath), f"element {xpath}")

    def _do(self, xpath: str, act: Callable[[WebElement], object]) -> None:
        def done() -> bool:
            element = self._displayed(xpath)
            if element:
                act(element)
            return element is not None

        self.until(done, f"element {xpath}")

    def click(self, xpath: str) -> None:
        """Click as soon as it is displayed and nothing is in the way."""
        self._do(xpath, lambda element: element.click())

    def type(self, xpath: str, text: str, *keys: str) -> None:
        """Replace a field's text."""
        self._do(xpath, lambda field: (field.send_keys(Keys.CONTROL, "a"), field.send_keys(text, *keys)))

    def pictures(self) -> list[tuple[int, int]]:
        """Width and height of every picture of the page, in its own pixels; 0 and 0 if it did not load."""
        self.until(lambda: self.script("return [...document.images].every(image => image.complete)"), "all pictures")
        sizes = self.script("return [...document.images].map(image => [image.naturalWidth, image.naturalHeight])")
        return [(width, height) for width, height in sizes]

    def overflow(self, width: int, parts: str = "html") -> int:
        """By how many CSS pixels the page, or one of its parts, is too wide for a window of this width."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.until(lambda: self.script("return innerWidth") == width, "the window's width")
        wider = "[...document.querySelectorAll(arguments[0])].map(part => part.scrollWidth - part.clientWidth)"
        excess = self.script(f"return Math.max(document.documentElement.scrollWidth - innerWidth, ...{wider})", parts)
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        return max(0, excess)

    def errors(self) -> set[str]:
        """The console's errors since the last call, without ports and ids."""
        severe = (entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE")
        return {re.sub(r"[0-9a-f]{32}|\d+", "…", message) for message in severe}

    def hosts(self) -> set[str]:
        """Whom the pages asked for something since the last call, as scheme and host."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        opening = {"Network.requestWillBeSent": "request", "Network.webSocketCreated": None}
        found = set()
        for message in messages:
            if message["method"] in opening:
                inside = opening[message["method"]]
                parts = urlsplit((message["params"][inside] if inside else message["params"])["url"])
                found.add(f"{parts.scheme}://{parts.hostname or ''}")
        return {host for host in found if not host.startswith(("data:", "about:", "blob:", "chrome"))}

    def picture(self, element: WebElement | None = None) -> Image.Image:
        """What is seen, of the window or of one element."""
        png = element.screenshot_as_png if element else self.driver.get_screenshot_as_png()
        return Image.open(io.BytesIO(png)).convert("RGB")


ROWS = """
const rows = {};
for (const cell of document.querySelectorAll('.ag-root [role=gridcell]')) {
  const row = rows[cell.closest('.ag-row').getAttribute('row-index')] ??= {};
  row[cell.getAttribute('col-id')] = cell.innerText.trim();
  for (const link of cell.querySelectorAll('a')) {
    const run = link.getAttribute('href').match(/runs\\/([0-9a-f]{32})$/);
    if (run) row.run = run[1];
  }
}
return Object.keys(rows).sort((a, b) => a - b).map(index => rows[index])"""

LINES = """
const plot = arguments[0].querySelector('.js-plotly-plot');
const drawn = [...plot.querySelectorAll('path.js-line')].filter(path => getComputedStyle(path).strokeOpacity == 1);
return plot.data.filter(trace => trace.mode === 'lines+markers').map((trace, i) => ({
  steps: [...trace.x], values: [...trace.y], length: drawn[i] ? drawn[i].getTotalLength() : 0}))"""


PAINTED = """
let painted = 0;
for (const canvas of arguments[0].querySelectorAll('canvas')) {
  const copy = document.createElement('canvas');
  [copy.width, copy.height] = [canvas.width, canvas.height];
  if (!copy.width || !copy.height) continue;
  const context = copy.getContext('2d');
  context.drawImage(canvas, 0, 0);
  const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
  for (let i = 0; i < pixels.length; i += 4)
    if (pixels[i + 3] && Math.max(...pixels.slice(i, i + 3)) - Math.min(...pixels.slice(i, i + 3)) > 64) painted++;
}
return painted"""


@dataclass
class MLflow:
    """What a visitor does in the pages of experiment ``lenet5``."""

    browser: Browser
    address: str

    def experiment(self) -> None:
        """From the start page to the experiment's runs, in the pages for model training."""
        self.browser.open(self.address)
        self.browser.click("//*[normalize-space(text())='Model training']")
        self.browser.click("//a[normalize-space()='lenet5']")
        self.browser.find("//input[@data-testid='search-box']")

    def view(self, mode: str) -> None:
        """The runs as TABLE or as CHART."""
        self.browser.click(f"//label[.//input[@name='runs-view-mode' and @value='{mode}']]")
        self.browser.until(lambda: f"compareRunsMode={mode}" in self.browser.driver.current_url, f"view {mode}")

    def models(self) -> None:
        """The experiment's models."""
        self.browser.click("//a[normalize-space()='Models']")
        self.browser.find("//*[normalize-space(text())='Model name']")

    def filter(self, condition: str) -> None:
        """Type a condition into the search field."""
        self.browser.type("//input[@data-testid='search-box']", condition, Keys.ENTER)

    def rows(self) -> list[dict[str, str]]:
        """The run table: for each line its cells by column, and the run's id under ``run``."""
        return self.browser.script(ROWS)

    def runs(self) -> list[str]:
        """The ids of the runs in the table, in order."""
        return [row["run"] for row in self.rows() if "run" in row]

    def group(self, tag: str) -> None:
        """Group the table by a tag."""
        self.browser.click("//button[normalize-space()='Group by']")
        entry = f"//*[@role='menu']//*[starts-with(@role, 'menuitem')][normalize-space()='{tag}']"
        self.browser.click(f"({entry})[1]")
        self.browser.find(f"//button[normalize-space()='Group by: {tag}']")

    def columns(self, shown: list[str], hidden: list[str]) -> None:
        """Tick metrics, and untick attributes, in the list of columns."""
        field = "//input[@placeholder='Search columns']"
        self.browser.click("//button[normalize-space()='Columns']")
        for name in (*shown, *hidden):
            self.browser.type(field, name)
            box = (
                f"//*[@data-testid='column-selector-tree']//*[contains(@class, 'treenode')][normalize-space()='{name}']"
            )
            self.browser.click(f"{box}//*[contains(@class, 'tree-checkbox')]")
        self.browser.find(field).send_keys(Keys.ESCAPE)
        heads = ".ag-header-cell"
        for name in shown:
            code = f"return [...document.querySelectorAll('{heads}')].some(head => head.innerText.trim() === '{name}')"
            self.browser.until(lambda code=code: self.browser.script(code), f"column {name}")

    def means(self, column: str) -> dict[str, float]:
        """Of each group its mean in a metric's column."""
        groups = [row for row in self.rows() if "Group: " in row.get("attributes.`Run Name`", "")]
        return {
            re.search(r"Group: (.*)", row["attributes.`Run Name`"])[1]: float(
                row[f"metrics.`{column}`"].removesuffix(" (average)")
            )
            for row in groups
        }

    def chart(self, metric: str) -> WebElement:
        """The card of a metric's chart in the chart view."""
        self.view("CHART")
        self.browser.type("//input[@placeholder='Search metric charts']", metric)
        card = "//*[@data-testid='experiment-view-compare-runs-card']"
        self.browser.until(
            lambda: len(self.browser.driver.find_elements(By.XPATH, card)) == 1, f"one chart, of {metric}"
        )
        return self.browser.find(f"{card}[contains(., '{metric}')][.//*[contains(@class, 'js-plotly-plot')]]")

    def enlarge(self) -> WebElement:
        """The one chart in full."""
        self.browser.click("//button[@data-component-id='fullscreen_button_chartcard']")
        return self.browser.find("//*[@role='dialog'][.//*[contains(@class, 'js-plotly-plot')]]")

    def lines(self, chart: WebElement) -> list[dict[str, Any]]:
        """A chart's lines: steps, values, and the length that is drawn of each, in pixels."""
        return self.browser.script(LINES, chart)

    def compare(self) -> None:
        """Mark all runs of the table view and press Compare."""
        self.browser.click("//*[input[@aria-label='Select all runs']]")
        self.browser.click("//button[normalize-space()='Compare']")
        self.browser.find("//*[contains(text(), 'Comparing') and contains(text(), 'Runs')]")

    def plot(self, tab: str, x: str = "", y: str = "") -> WebElement:
        """One of Compare's plots, of these axes."""
        self.browser.click(f"//*[@role='tab'][normalize-space()='{tab}']")
        panel = "//*[@role='tabpanel'][@data-state='active']"
        for axis, name in (("x", x), ("y", y)):
            if name:
                self.browser.click(f"{panel}//*[@id='{axis}-axis-selector']")
                self.browser.click(f"//*[@role='option'][normalize-space()='{name}']")
                self.browser.find(f"{panel}//*[@id='{axis}-axis-selector'][normalize-space()='{name}']")
        return self.browser.find(f"{panel}//*[contains(@class, 'js-plotly-plot')]")

    def painted(self, plot: WebElement) -> int:
        """The coloured pixels of a plot's canvases: lines drawn by WebGL, which are no elements of the page."""
        return self.browser.script(PAINTED, plot)

    def artifact(self, run: str, path: str) -> WebElement:
        """The picture of a run's artifact: from the table to the run, its tab Artifacts, and down the tree."""
        self.browser.click(f"//*[@role='gridcell']//a[contains(@href, '/runs/{run}')]")
        self.browser.click("//*[@role='tab'][normalize-space()='Artifacts']")
        for part in path.split("/"):
            self.browser.click(f"//*[normalize-space(text())='{part}']")
        image = self.browser.find(f"//img[@alt='{path}']")
        self.browser.until(lambda: self.browser.script("return arguments[0].naturalWidth", image), f"picture {path}")
        return image
