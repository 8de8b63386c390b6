"""The page where one draws: its file, its numbers beside Python's, and what mouse, keyboard and screen readers meet."""

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file
from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import browser
from conftest import ROOT, refused
from lenet import cli, networks
from lenet.canvas import page
from lenet.digits.data import Digits, load_digits
from lenet.evaluation.recognition import Recogniser
from lenet.experiments.lecun1998 import MISSED
from lenet.inference import trained
from lenet.params.schema import Network, Params, Variant
from lenet.report.mnist import DOUBTS
from lenet.runs.record import Record
from lenet.runtime.errors import InputError
from lenet.training import fingerprint
from tools import published

in_chromium = pytest.mark.skipif(not browser.installed(), reason="chromium or chromedriver is not installed")
USUAL = ("original-sigmoid", "lecun1998", "modern", "frontier")
LARGEST = 2_000_000  # bytes of a page with four networks
EMPTY = "Nothing is drawn yet."

SCORES = """
const images = lenet.bytes(arguments[0]), network = lenet.networks.find(({name}) => name === arguments[1]);
const count = images.length / 784, found = new Float32Array(20 * count), start = performance.now();
for (let i = 0; i < count; i++) {
  const {scores, probabilities} = network.answer(images.subarray(784 * i, 784 * i + 784));
  found.set(scores, 10 * i);
  if (probabilities) found.set(probabilities, 10 * (count + i));
}
const text = Array.from(new Uint8Array(found.buffer), byte => String.fromCharCode(byte)).join('');
return [btoa(text), (performance.now() - start) / 1000]"""
"""Of images and a network's name: ten scores of each digit, then ten probabilities, and the seconds it took."""


def untrained(name: str, variant: Variant, gain: float = 1.0) -> Recogniser:
    """A network as it is drawn, its weights ``gain`` times as large, with statistics of norms that are not trivial."""
    network = networks.build(variant.network).initialise(variant.initialisation, 1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith("running_mean") or key.endswith("bias"):
                tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
            elif key.endswith("running_var") or re.match(r"N\d+\.weight", key):
                tensor.copy_(0.1 + torch.rand(tensor.shape, generator=generator))
            elif tensor.dtype == torch.float32:
                tensor.mul_(gain)
    weights = fingerprint.tensors_sha256(network.state_dict())
    return Recogniser(Record(name, 1, variant, key="0", data="0", signature="0", weights=weights), network)


def of_every_kind(params: Params) -> Iterator[Recogniser]:
    """LeNet-5 with every pair of activation and pooling, with both forms of C3 and every output; the ConvNets."""
    sigmoid, rbf = params.variants["original-sigmoid"], params.variants["lecun1998"]
    activations, outputs = ("sigmoid", "scaled-tanh", "tanh", "relu"), ("squashed", "softmax", "rbf", "adaptive-rbf")
    kinds = ("trainable", "trainable-sum", "average", "max")
    for (i, activation), (j, kind) in product(enumerate(activations), enumerate(kinds)):
        pooling = {"kind": kind} | ({"coefficient": 0.4, "bias": 0.1} if kind.startswith("trainable") else {})
        output = outputs[(i + j) % 4]
        block = {
            "activation": activation,
            "pooling": pooling,
            "output": output,
            "C3": ("table", "dense")[(i + j) // 2 % 2],
        }
        variant = (rbf if output.endswith("rbf") else sigmoid).model_copy(
            update={"network": Network.model_validate(block)}
        )
        yield untrained(f"{activation}-{kind}", variant, gain=6.0 if activation == "relu" else 2.0)
    for name in ("frontier", "frontier-distorted"):
        yield untrained(name, params.variants[name])
    stages = [
        [{"maps": 5, "size": 4, "padding": 3}, {"maps": 7, "size": 2, "padding": 0}],
        [{"maps": 6, "size": 3, "padding": 1}],
    ]
    odd = {"network": {"stages": stages}}  # maps of odd sides, whose last lines are left out
    block = params.variants["frontier"].model_dump(mode="json") | odd
    yield untrained("odd", Variant.model_validate(block), gain=4.0)


@pytest.fixture(scope="module")
def test_digits(prepared: Path) -> Digits:
    return load_digits(prepared / "test.safetensors")


@pytest.fixture(scope="module")
def usual(params: Params) -> list[Recogniser]:
    return [untrained(name, params.variants[name]) for name in USUAL]


@pytest.fixture(scope="module")
def html(usual: list[Recogniser], test_digits: Digits, params: Params) -> str:
    return page.render(usual, test_digits, params)


@pytest.fixture(scope="module")
def chromium() -> Iterator[browser.Browser]:
    with browser.chromium() as chromium:
        chromium.driver.set_script_timeout(300)
        yield chromium


@pytest.fixture(scope="module")
def file(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("canvas") / "draw.html"
    path.write_text(html)
    return path


@pytest.fixture
def drawing(chromium: browser.Browser, file: Path) -> Iterator[browser.Browser]:
    """The page, which says no error and asks nobody for anything."""
    chromium.open(file.as_uri())
    yield chromium
    assert chromium.errors() == set()
    assert chromium.hosts() <= {"file://"}


def data_of(html: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    return json.loads(found)


# the file


def test_the_page_holds_all_it_needs_and_names_no_other_place(html: str, usual: list[Recogniser]) -> None:
    assert not re.search(r"https?:|[\"'(]//|\bsrc=|<link|@import|\bimport\b[ (]|url\(", html)
    assert html.count("</script") == html.count("<script") == 2
    assert "default-src 'none'" in html
    assert len(html.encode()) < LARGEST
    for one in usual:
        assert one.record.weights
        assert html.count(f"weights.sha256 {one.record.weights}") == 1


def test_the_page_s_weights_are_the_network_s(html: str, usual: list[Recogniser]) -> None:
    for one, told in zip(usual, data_of(html)["networks"], strict=True):
        numbers = np.frombuffer(base64.b64decode(told["weights"]), "<f4")
        assert numbers.size == sum(np.prod(shape) for _, shape in told["shapes"])
        weights = {key: value for key, value in one.network.state_dict().items() if value.dtype == torch.float32}
        assert dict(told["shapes"]).items() >= {key: list(value.shape) for key, value in weights.items()}.items()
        assert numbers.tobytes().startswith(b"".join(value.numpy().tobytes() for value in weights.values()))


def test_the_examples_are_the_paper_s_misses_and_the_doubted_labels(html: str, test_digits: Digits) -> None:
    data = data_of(html)
    images = np.frombuffer(base64.b64decode(data["images"]), np.uint8).reshape(-1, 28, 28)
    assert len(images) == len({*MISSED, *(one.index for one in DOUBTS)})
    groups = {one["name"]: one["digits"] for one in data["examples"]}
    expected = {"missed": list(MISSED), "doubted": [one.index for one in DOUBTS]}
    assert {name: len(digits) for name, digits in groups.items()} == {"missed": 82, "doubted": 15}
    for name, digits in groups.items():
        for (place, words), index in zip(digits, expected[name], strict=True):
            assert words.startswith(f"Test digit {index}, labelled {int(test_digits.labels[index])}; ")
            assert np.array_equal(images[place], test_digits.images[index].numpy())


def test_digits_of_another_kind_are_no_examples(usual: list[Recogniser], small_digits: Path, params: Params) -> None:
    html = page.render(usual[:1], load_digits(small_digits / "test.safetensors"), params)
    assert "Missed in 1998" not in html
    assert data_of(html)["examples"] == []


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's blocks, and no run."""
    for name in ("params.yaml", "experiments/frontier/params.yaml", "experiments/paper/params.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def keep(one: Recogniser, folder: Path) -> None:
    """Write a run's files, as a training does."""
    folder.mkdir(parents=True, exist_ok=True)
    one.record.write(folder / "run.json")
    save_file(one.network.state_dict(), folder / "weights.safetensors")


def test_the_command_refuses_runs_that_are_not_here(
    checkout: Path, usual: list[Recogniser], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = Recogniser(replace(usual[0].record, signature=""), usual[0].network)
    keep(stale, checkout / "runs" / "original-sigmoid-1")
    older = "of an older arithmetic; `lenet repro original-sigmoid-1` trains it"
    for words, said in (
        ("", "none of original-sigmoid-1, .* is trained here; `lenet repro modern-1` trains one of them"),
        ("modern-1", "runs/modern-1: no trained run; `lenet repro modern-1` trains it"),
        ("frontier-1", "experiments/frontier/runs/frontier-1: no trained run; `lenet repro frontier` trains it"),
        ("original-sigmoid-1", f"runs/original-sigmoid-1: {older}"),
        ("modern", "'modern' names no run; write VARIANT-SEED, as in modern-1"),
        ("other-1", "variant 'other' has no block .*"),
    ):
        assert re.fullmatch(f"lenet: error: {said}\n", refused(f"draw {words}", monkeypatch, capsys))
    assert not (checkout / "reports").exists()


def test_the_command_takes_the_runs_that_are_here(
    checkout: Path, usual: list[Recogniser], small_digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(usual[2], checkout / "runs" / "modern-1")
    keep(usual[3], checkout / "experiments" / "frontier" / "runs" / "frontier-1")
    for words, names in (((), ["modern-1", "frontier-1"]), (("frontier-1", "--out", "a.html"), ["frontier-1"])):
        cli.cli.main(["draw", "--test", str(small_digits / "test.safetensors"), *words], standalone_mode=False)
        out = Path(words[-1] if words else "reports/draw.html")
        assert capsys.readouterr().err == f"{out}: {', '.join(names)}\n"
        assert [one["name"] for one in data_of(out.read_text())["networks"]] == names


def test_a_run_whose_weights_are_not_its_record_s_is_refused(tmp_path: Path, usual: list[Recogniser]) -> None:
    modern = usual[2]
    keep(modern, tmp_path)
    assert trained.load(tmp_path).record.name == "modern-1"
    modern.record.with_weights("0" * 64).write(tmp_path / "run.json")
    with pytest.raises(InputError, match=r"the weights are not those of run.json"):
        trained.load(tmp_path)


# the numbers


def compare(chromium: browser.Browser, one: Recogniser, images: torch.Tensor) -> float:
    """Hold the page's scores and probabilities equal to Python's, bit for bit; how many seconds the page took."""
    text, seconds = chromium.script(SCORES, base64.b64encode(images.numpy().tobytes()).decode(), one.record.name)
    theirs = np.frombuffer(base64.b64decode(text), "<f4").reshape(2, len(images), 10)
    scores = one.scores(images)
    assert theirs[0].tobytes() == scores.numpy().astype("<f4").tobytes(), one.record.name
    if one.objective.probabilities:
        assert theirs[1].tobytes() == one.objective.probabilities(scores).numpy().astype("<f4").tobytes()
    else:
        assert not theirs[1].any()
    return seconds


@in_chromium
def test_every_network_of_the_schema_has_python_s_bits(
    chromium: browser.Browser, params: Params, test_digits: Digits, tmp_path: Path
) -> None:
    found = list(of_every_kind(params))
    (tmp_path / "draw.html").write_text(page.render(found, test_digits, params))
    chromium.open((tmp_path / "draw.html").as_uri())
    images = test_digits.images[:8]
    for one in found:
        compare(chromium, one, images)
    scores = {one.record.variant: one.scores(images) for one in found}
    assert scores["relu-max"].abs().max() > 8  # beyond the bound of the grid that digits share
    assert all(one.unique(dim=0).shape[0] == len(images) for one in scores.values())


@in_chromium
@pytest.mark.parametrize("change", [False, True])
def test_the_page_compares_itself_with_python(
    chromium: browser.Browser,
    usual: list[Recogniser],
    test_digits: Digits,
    params: Params,
    tmp_path: Path,
    change: bool,
) -> None:
    """In whatever browser it is opened; with another constant in tanh it says so."""
    html = page.render(usual[1:2], test_digits, params)
    assert html.count("5.5503570e-2") == 1
    (tmp_path / "draw.html").write_text(html.replace("5.5503570e-2", "5.5503580e-2") if change else html)
    chromium.open((tmp_path / "draw.html").as_uri())
    said = "return document.getElementById('check').textContent"
    chromium.until(lambda: "being compared" not in chromium.script(said), "the comparison")
    if change:
        assert chromium.script(said) == "In this browser the scores of lecun1998-1 differ from Python’s."
    else:
        assert re.search(r"scores of all 87 examples have the bits of Python’s\.$", chromium.script(said))


@pytest.mark.slow
@in_chromium
def test_the_usual_networks_have_python_s_bits(
    chromium: browser.Browser, file: Path, usual: list[Recogniser], test_digits: Digits
) -> None:
    chromium.open(file.as_uri())
    for one in usual:
        compare(chromium, one, test_digits.images[:500])


def published_run(name: str, folder: Path) -> Path:
    """A published run's network from the remote in Git."""
    lock = YAML(typ="safe").load((ROOT / "dvc.lock").read_text())
    files = published.present()
    folder.mkdir()
    for out in lock["stages"][f"train@{name}"]["outs"]:
        shutil.copy(files[out["md5"]], folder / Path(out["path"]).name)
    return folder


@pytest.mark.slow
@in_chromium
def test_trained_networks_have_python_s_bits_on_all_test_digits(
    chromium: browser.Browser, params: Params, test_digits: Digits, tmp_path: Path
) -> None:
    """The first seed of each compared variant."""
    found = [trained.load(published_run(f"{name}-1", tmp_path / name)) for name in params.compare]
    (tmp_path / "draw.html").write_text(page.render(found, test_digits, params))
    chromium.open((tmp_path / "draw.html").as_uri())
    for one in found:
        parts = test_digits.images.split(500)  # a busy machine's driver has an answer within its patience
        seconds = sum(compare(chromium, one, part) for part in parts)
        print(f"{one.record.name}: {len(test_digits)} digits in {seconds:.1f} s")


# what one does


def answers(chromium: browser.Browser) -> str:
    return chromium.driver.find_element(By.ID, "answers").text.replace("\N{NO-BREAK SPACE}", " ")


def digits_of(chromium: browser.Browser) -> list[str]:
    return [one.text for one in chromium.driver.find_elements(By.CSS_SELECTOR, ".digit")]


def seen(chromium: browser.Browser) -> np.ndarray:
    """The digit as the networks see it, (28, 28)."""
    code = "return [...document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data]"
    return 255 - np.array(chromium.script(code)).reshape(28, 28, 4)[..., 0]


def of_all(usual: list[Recogniser], image: np.ndarray) -> list[str]:
    """Python's answers."""
    return [str(one.predict(image.astype(np.uint8)[None])["digit"][0]) for one in usual]


def is_centred(image: np.ndarray) -> bool:
    """Whether an image lies as MNIST's do: in a box of 20×20, its centre of mass at the field's centre."""
    rows, columns = np.nonzero(image)
    mass, places = image.sum(), np.arange(28)
    centre = [(image.sum(axis) * places).sum() / mass for axis in (0, 1)]
    return max(np.ptp(rows), np.ptp(columns)) + 1 == 20 and max(abs(at - 14) for at in centre) <= 0.5


def stroke(chromium: browser.Browser, kind: str) -> None:
    """A seven, small and off the centre."""
    paper = chromium.driver.find_element(By.ID, "paper")
    actions = ActionBuilder(chromium.driver, mouse=PointerInput(kind, kind), duration=20)
    pointer = actions.pointer_action
    pointer.move_to(paper, -90, -90).pointer_down()
    for x, y in ((-30, -90), (20, -85), (-20, -20), (-40, 40)):
        pointer.move_to(paper, x, y)
    pointer.pointer_up()
    actions.perform()


@in_chromium
@pytest.mark.parametrize("kind", ["mouse", "pen", "touch"])
def test_a_stroke_is_answered_and_clear_takes_it_back(
    drawing: browser.Browser, usual: list[Recogniser], kind: str
) -> None:
    assert answers(drawing) == EMPTY
    assert digits_of(drawing) == ["–"] * 4
    stroke(drawing, kind)
    drawing.until(lambda: answers(drawing) != EMPTY, "the answers")
    image = seen(drawing)
    assert is_centred(image)
    expected = of_all(usual, image)
    assert digits_of(drawing) == expected
    assert [re.match(rf"{one.record.name}: {digit}( \(\d+\.\d %\))?$", said) is not None for one, digit, said in zip(
        usual, expected, answers(drawing).split(", "), strict=True)] == [True] * 4  # fmt: skip
    drawing.click("//button[text()='Clear']")
    assert answers(drawing) == EMPTY
    assert digits_of(drawing) == ["–"] * 4
    assert not seen(drawing).any()


@in_chromium
def test_maps_and_codes_are_shown_with_the_answer(drawing: browser.Browser) -> None:
    shown = "return [...document.querySelectorAll('.maps, .unit')].map(one => [one.hidden, one.width, one.height])"
    assert all(hidden for hidden, _, _ in drawing.script(shown))
    drawing.click("//div[@id='missed']/button[1]")
    six, sixteen = [False, 6 * 29 - 1, 28], [False, 8 * 11 - 1, 2 * 11 - 1]
    f6, frontier = [False, 7, 12], [[False, 8 * 13 - 1, 3 * 13 - 1], [False, 8 * 13 - 1, 4 * 13 - 1]]
    assert drawing.script(shown) == [six, sixteen, f6, six, sixteen, six, sixteen, *frontier]
    codes = drawing.driver.find_elements(By.CSS_SELECTOR, "#lecun1998-1 .code")
    chosen = [i for i, code in enumerate(codes) if "chosen" in code.get_attribute("class")]
    assert [str(i) for i in chosen] == [digits_of(drawing)[1]]


@in_chromium
def test_all_is_reached_and_done_by_keyboard(
    drawing: browser.Browser, usual: list[Recogniser], test_digits: Digits
) -> None:
    def press(*keys: str) -> str:
        ActionChains(drawing.driver).send_keys(*keys).perform()
        return drawing.script("const one = document.activeElement; return one.id || one.title || one.innerText")

    first, second = list(MISSED)[:2]
    order = [press(Keys.TAB) for _ in range(8)]
    assert order[:6] == ["clear", "file", *["Weights"] * 4]
    assert order[6].startswith(f"Test digit {first}, ")
    assert order[7].startswith(f"Test digit {DOUBTS[0].index}, ")
    ActionChains(drawing.driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    press(Keys.ENTER)
    assert np.array_equal(seen(drawing), test_digits.images[first].numpy())
    assert press(Keys.ARROW_RIGHT).startswith(f"Test digit {second}, ")
    press(Keys.SPACE)
    assert np.array_equal(seen(drawing), test_digits.images[second].numpy())
    assert digits_of(drawing) == of_all(usual, test_digits.images[second].numpy())
    pressed = drawing.driver.find_elements(By.CSS_SELECTOR, "[aria-pressed=true]")
    assert [one.get_attribute("aria-label").split(",")[0] for one in pressed] == [f"Test digit {second}"]
    assert answers(drawing).startswith(f"Test digit {second}, labelled 3; LeNet-5 said 5 in 1998. original-sigmoid-1: ")
    assert press(Keys.END) != press(Keys.HOME)
    drawing.script("document.getElementById('clear').focus()")
    press(Keys.ENTER)
    assert answers(drawing) == EMPTY


@in_chromium
def test_screen_readers_get_names_and_the_answers(drawing: browser.Browser) -> None:
    drawing.click("//div[@id='missed']/button[1]")  # now there are maps
    output, some = drawing.driver.find_element(By.ID, "answers"), ".examples > :nth-child(n + 4)"
    assert (output.aria_role, output.get_attribute("aria-live")) == ("status", "polite")
    unnamed = [
        one.get_attribute("outerHTML")
        for one in drawing.driver.find_elements(By.CSS_SELECTOR, f"button:not({some}), input, section, article, [role]")
        if not one.accessible_name
    ]
    assert unnamed == []
    assert drawing.script("return document.documentElement.lang") == "en"


@in_chromium
def test_the_page_fits_a_telephone_and_a_desk(drawing: browser.Browser) -> None:
    drawing.click("//div[@id='missed']/button[1]")
    assert drawing.overflow(400) == 0
    assert drawing.overflow(1280) == 0


@in_chromium
def test_dark_and_light_schemes_differ(drawing: browser.Browser) -> None:
    def colours(scheme: str) -> list[str]:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        drawing.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        code = "const its = getComputedStyle(document.body); return [its.color, its.backgroundColor]"
        return drawing.script(code)

    dark, light = colours("dark"), colours("light")
    assert sum(map(int, re.findall(r"\d+", dark[0]))) > 600 > 150 > sum(map(int, re.findall(r"\d+", dark[1])))
    assert sum(map(int, re.findall(r"\d+", light[1]))) > 600 > 150 > sum(map(int, re.findall(r"\d+", light[0])))


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), one => one.charCodeAt(0)), data = new DataTransfer();
data.items.add(new File([bytes], arguments[1]));
document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}))"""


def drop(chromium: browser.Browser, content: bytes, name: str) -> str:
    """What the page says of a dropped file."""
    before = answers(chromium)
    chromium.script(DROP, base64.b64encode(content).decode(), name)
    chromium.until(lambda: answers(chromium) != before, "an answer")
    return answers(chromium)


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(content, "png")
    return content.getvalue()


@in_chromium
def test_a_dropped_picture_is_read_whatever_its_polarity(
    drawing: browser.Browser, usual: list[Recogniser], test_digits: Digits
) -> None:
    image = test_digits.images[0].numpy()
    for name, shown in (("white-on-black.png", image), ("black-on-white.png", 255 - image)):
        assert drop(drawing, png(shown), name).startswith(f"{name}. original-sigmoid-1: ")
        assert np.array_equal(seen(drawing), image)
        assert digits_of(drawing) == of_all(usual, image)
    paper = np.full((400, 700, 3), (225, 215, 200))  # yellowish, the digit small and blue at its edge
    ink = np.kron(image, np.ones((6, 6)))[..., None] / 255
    paper[20:188, 500:668] = (1 - ink) * paper[20:188, 500:668] + ink * np.array([20, 30, 120])
    assert drop(drawing, png(paper), "photo.png").startswith("photo.png. ")
    found = seen(drawing)
    assert is_centred(found)
    assert np.corrcoef(found.ravel(), image.ravel())[0, 1] > 0.9
    assert digits_of(drawing) == of_all(usual, found)


@in_chromium
def test_a_chosen_file_is_read_and_a_stroke_then_starts_anew(
    drawing: browser.Browser, test_digits: Digits, tmp_path: Path
) -> None:
    (tmp_path / "chosen.png").write_bytes(png(test_digits.images[1].numpy()))
    drawing.driver.find_element(By.ID, "file").send_keys(str(tmp_path / "chosen.png"))
    drawing.until(lambda: answers(drawing).startswith("chosen.png. "), "the answers")
    assert np.array_equal(seen(drawing), test_digits.images[1].numpy())
    stroke(drawing, "mouse")
    drawing.until(lambda: not answers(drawing).startswith("chosen.png"), "the answers")
    alone = seen(drawing)
    drawing.click("//button[text()='Clear']")
    stroke(drawing, "mouse")
    drawing.until(lambda: answers(drawing) != EMPTY, "the answers")
    assert np.array_equal(seen(drawing), alone)


@in_chromium
def test_a_file_that_is_no_picture_or_shows_nothing_is_told(drawing: browser.Browser) -> None:
    assert drop(drawing, b"no picture", "words.txt") == "words.txt is no picture that this browser can read."
    assert drop(drawing, png(np.full((50, 50), 255)), "white.png") == "white.png shows nothing."
    assert digits_of(drawing) == ["–"] * 4
