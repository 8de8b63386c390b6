"""Take docs/pictures anew from this checkout's results, runs, store and report, as they are after `make repro`."""

import hashlib
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

import browser
from lenet.canvas import page
from lenet.params import loading
from lenet.report import draw, experiments, figures
from lenet.runtime import layout

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
FRONTIER = ROOT / "experiments" / "frontier" / "result.json"
LARGEST = 200_000  # bytes
HIDE_PATHS = """
for (const element of document.querySelectorAll('*'))
  if (!element.children.length && element.innerText?.startsWith('Path:')) element.style.visibility = 'hidden'"""


def shown() -> str:
    """The digest of the results that the pictures are of, which each of them names: their bytes follow libraries'."""
    files = [*sorted((ROOT / "metrics").glob("*.json")), FRONTIER]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def save(name: str, picture: Image.Image) -> None:
    """Write docs/pictures/NAME.png in a palette of 256 colours."""
    PICTURES.mkdir(exist_ok=True)
    file = PICTURES / f"{name}.png"
    source = PngInfo()
    source.add_text("Source", shown())
    picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True, pnginfo=source)
    if file.stat().st_size > LARGEST:
        raise SystemExit(f"{file} has {file.stat().st_size} bytes; at most {LARGEST} are meant for a README")


def then_and_now() -> None:
    """The README's first picture."""
    frontier = experiments.read(ROOT / "experiments", "frontier")
    if not frontier:
        raise SystemExit(f"pictures: {FRONTIER} is missing; `make frontier` makes it")
    figure = draw.then_and_now(frontier, loading.load(ROOT / "params.yaml").compare)
    figures.save(figure, PICTURES / "then-and-now.png", shown())


def drawing(chromium: browser.Browser) -> None:
    """The page where one draws, with one of its examples."""
    params = loading.load(ROOT / "params.yaml")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "draw.html"
        page.write(params, (), layout.TEST, file)
        chromium.open(file.as_uri())
        chromium.click("//div[@id='missed']/button[contains(@title, 'digit 1039,')]")
        save("draw", chromium.picture())


def main() -> None:
    """Draw the README's picture; photograph the stations of docs/how-to/read-mlflow.md and the page of draw.md."""
    then_and_now()
    if not browser.installed():
        raise SystemExit("pictures: chromium or chromedriver is not installed")
    with browser.lenet_ui(ROOT) as address, browser.chromium(1280, 943) as chromium:  # 800 lines of page
        mlflow = browser.MLflow(chromium, address)
        mlflow.experiment()
        mlflow.filter("tags.current = 'true' and tags.kind = 'training'")
        mlflow.group("variant")
        mlflow.columns(["test/error", "test/misses", "validation/error"], ["Dataset", "Source", "Models"])
        chosen = next(row["run"] for row in mlflow.rows() if row["attributes.`Run Name`"] == "modern-1")
        save("runs", chromium.picture())

        mlflow.chart("validation/error")
        chart = mlflow.enlarge()
        chromium.until(lambda: all(line["length"] for line in mlflow.lines(chart)), "lines")
        save("curves", chromium.picture(chart))
        chromium.click("//*[@role='dialog']//button[@aria-label='Close']")
        mlflow.view("TABLE")

        mlflow.compare()
        plot = mlflow.plot("Scatter Plot", "variant", "test/misses")
        chromium.until(lambda: mlflow.painted(plot) > 100, "points")
        save("compare", chromium.picture())

        mlflow.experiment()
        mlflow.artifact(chosen, "figures/confusion.png")
        chromium.script(HIDE_PATHS)
        save("artifact", chromium.picture())

        chromium.open((ROOT / "reports" / "comparison.html").as_uri())
        chromium.pictures()
        save("report", chromium.picture())
        drawing(chromium)


if __name__ == "__main__":
    sys.exit(main())
