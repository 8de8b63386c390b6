"""Take docs/pictures anew from this checkout's results, runs, store and report, as they are after `make repro`."""

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

import browser
from lenet.canvas import page
from lenet.digits.data import load_digits
from lenet.inference.pictures import BOX, CENTRE, normalise
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


def scans() -> Iterator[tuple[str, Image.Image]]:
    """Pictures of digits to train on, as a camera, a scanner or a program may give them."""
    images = load_digits(ROOT / layout.TRAIN).images[:12].numpy()
    generator = np.random.default_rng(1)
    one, two, three, four = (Image.fromarray(images[place]) for place in (1, 4, 7, 9))
    yield "light on dark, 200×200", one.resize((200, 200), Image.Resampling.BICUBIC)
    yield "dark on light", ImageOps.invert(two.resize((200, 200), Image.Resampling.BICUBIC))
    paper = Image.new("L", (320, 200), 0)
    paper.paste(three.resize((90, 120), Image.Resampling.BICUBIC), (200, 50))
    noisy = 205 - 0.6 * np.asarray(paper, float) + generator.normal(0, 5, (200, 320)) + np.linspace(-12, 12, 320)
    yield "on unevenly lit paper", Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
    yield "wide", ImageOps.invert(four.resize((330, 150), Image.Resampling.BICUBIC))


def prepared() -> None:
    """Pictures of digits, and the images that are made of them (docs/how-to/predict.md)."""
    found = list(scans())
    figure = Figure((8, 4.2), layout="constrained")
    for column, (what, picture) in enumerate(found):
        above, below = (figure.add_subplot(2, len(found), 1 + column + row * len(found)) for row in (0, 1))
        above.imshow(picture, cmap="gray", vmin=0, vmax=255)
        above.set_title(what, fontsize=8)
        image = normalise(np.asarray(picture, np.float32))
        below.imshow(image, cmap="gray", vmin=0, vmax=255)
        rows, columns = (np.flatnonzero(image.any(axis)) for axis in (1, 0))
        corner, size = (columns[0] - 0.5, rows[0] - 0.5), (np.ptp(columns) + 1, np.ptp(rows) + 1)
        below.add_patch(Rectangle(corner, *size, fill=False, edgecolor=figures.COLOURS[3]))
        below.plot(CENTRE, CENTRE, "+", color=figures.COLOURS[1], markersize=12)
        below.set_xlabel(f"28×28; its box: {size[0]}×{size[1]}", fontsize=8)
        assert max(size) == BOX
        for axes in (above, below):
            axes.set_xticks([])
            axes.set_yticks([])
    figures.save(figure, PICTURES / "prepared.png", shown())


DRAWN = {"then-and-now": then_and_now, "prepared": prepared}
"""Pictures that need no browser."""


def main(names: list[str]) -> None:
    """Draw these pictures; without names all, and photograph the pages of docs/how-to/read-mlflow.md and draw.md."""
    for name in names or DRAWN:
        if name not in DRAWN:
            raise SystemExit(f"pictures: {name!r}; legal: {', '.join(DRAWN)}")
        DRAWN[name]()
    if names:
        return
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
    sys.exit(main(sys.argv[1:]))
