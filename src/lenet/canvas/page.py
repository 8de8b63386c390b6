"""The page reports/draw.html: networks' weights and some test digits, with the scripts that compute and draw."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from lenet.digits.data import Digits, load_digits
from lenet.evaluation.recognition import Recogniser
from lenet.experiments.lecun1998 import MISSED
from lenet.inference import trained
from lenet.inference.model import FILES
from lenet.networks.codes import codes
from lenet.networks.layer_table import what
from lenet.networks.lenet5 import C3_TABLE
from lenet.params import loading
from lenet.params.schema import ConvNetwork, Network, Params
from lenet.report import figures
from lenet.report.mnist import DOUBTS, PEOPLE, are_test_digits
from lenet.runs import stale
from lenet.runtime import layout
from lenet.runtime.errors import InputError
from lenet.runtime.files import write_text

USUAL = ("original-sigmoid-1", "lecun1998-1", "modern-1", "frontier-1")
"""The runs that the page has if none is named, as far as they are here."""

HERE = Path(__file__).parent
SCRIPTS = ("network.js", "picture.js", "page.js")
"""One module: each uses the functions of those before it."""

WORDS = {
    "squashed": ("score", "Outputs"),
    "softmax": ("probability", "Probabilities"),
    "rbf": ("distance", "Squared distances"),
}
BOUNDS = {"sigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0), "scaled-tanh": (-1.7159, 1.7159), "relu": (0.0, None)}
"""Between what values a squashed output lies."""


def write(params: Params, names: Sequence[str], test: Path, out: Path) -> list[str]:
    """Write the page, and return the names of its runs.

    Args:
        params: the whole of params.yaml.
        names: VARIANT-SEED of the runs; if empty, those of USUAL that are here.
        test: the file of test digits. Of others than MNIST's there are no examples.
        out: the page.

    Raises:
        InputError: a run is missing, of an older arithmetic, or damaged; or the digits are.
    """
    found = [trained.load(folder) for folder in folders(params, names)]
    write_text(out, render(found, load_digits(test), params))
    return [one.record.name for one in found]


def folders(params: Params, names: Sequence[str]) -> list[Path]:
    """The folders of the named runs, or of those of USUAL that are here. Raises InputError for what is missing."""
    found = []
    for name in names or USUAL:
        variant, _, seed = name.rpartition("-")
        if not seed.isdigit():
            raise InputError(f"{name!r} names no run; write VARIANT-SEED, as in modern-1")
        params.variant(variant)
        home = loading.home_of(variant).parent
        folder = home / layout.RUNS / name
        there = all((folder / file).exists() for file in FILES)
        if there and not stale.file_is_stale(folder / "run.json"):
            found.append(folder)
        elif names:
            fault = "of an older arithmetic" if there else "no trained run"
            raise InputError(f"{folder}: {fault}; `lenet repro {name if home == Path() else home.name}` trains it")
    if not found:
        raise InputError(f"none of {', '.join(USUAL)} is trained here; `lenet repro modern-1` trains one of them")
    return found


def render(networks: Sequence[Recogniser], test: Digits, params: Params) -> str:
    """The page's HTML: these networks side by side, and examples if these are MNIST's test digits."""
    examples = _examples(test) if are_test_digits(test.index.numpy(), test.labels.numpy()) else []
    places = sorted({index for one in examples for index, _ in one["digits"]})
    for one in examples:
        one["digits"] = [[places.index(index), words] for index, words in one["digits"]]
    shown = test.images[places]
    variants = dict.fromkeys([*params.compare, *(one.record.variant for one in networks)])
    colours = figures.colours(list(variants))
    cards = [_card(one) | {"colour": colours[one.record.variant]} for one in networks]
    return _template().render(
        networks=cards,
        examples=examples,
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        data={
            "table": C3_TABLE,
            "networks": [_described(one, shown) | card for one, card in zip(networks, cards, strict=True)],
            "images": _base64(shown.numpy().tobytes()),
            "examples": [{name: one[name] for name in ("name", "digits")} for one in examples],
        },
    )


def _template() -> Any:
    """page.html, which includes the head of the report's page."""
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(HERE), PackageLoader("lenet.report", "templates")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _card(one: Recogniser) -> dict[str, Any]:
    """What the page says of a network, and how it shows its answers."""
    variant = one.record.parameters
    network = variant.network
    kind, words = WORDS[network.output.removeprefix("adaptive-")]
    low, high = BOUNDS[network.activation] if isinstance(network, Network) and kind == "score" else (0.0, None)
    return {
        "name": one.record.name,
        "digest": one.record.weights,
        "what": what(variant),
        "kind": kind,
        "words": words,
        "low": low,
        "high": 1.0 if kind == "probability" else high,
        "layers": list(_shown(network)),
        "codes": _weights(one)["output.weight"].tolist() if kind == "distance" else None,
    }


def _shown(network: Network | ConvNetwork) -> Iterator[tuple[str, str]]:
    """The layers whose maps are shown, with their words: C1 and C3, in a network of today once they are normalised."""
    if isinstance(network, Network):
        yield from (("C1", "C1: 6 maps of 28×28"), ("C3", "C3: 16 maps of 10×10"))
        return
    number = 0
    for i, stage in enumerate(network.stages):
        for j, one in enumerate(stage):
            number += 1
            name, pooled = f"C{number}", j == len(stage) - 1 and i < len(network.stages) - 1
            number += pooled
            if name in ("C1", "C3"):
                yield f"N{number}", f"{name}, {'pooled and ' * pooled}normalised: {one.maps} maps"


def _weights(one: Recogniser) -> dict[str, Tensor]:
    """A network's tensors of single precision by name; of fixed codes, too, which its weights have not."""
    found = {name: tensor for name, tensor in one.network.state_dict().items() if tensor.dtype == torch.float32}
    return found | ({"output.weight": codes()} if one.record.parameters.network.output == "rbf" else {})


def _described(one: Recogniser, images: UInt8[Tensor, "n 28 28"]) -> dict[str, Any]:
    """What network.js computes a network from, parts of its block, shapes and weights; and its scores of the images."""
    weights = _weights(one)
    return {
        "network": one.record.parameters.network.model_dump(mode="json"),
        "pixels": one.record.parameters.pixels.model_dump(mode="json"),
        "shapes": [[name, list(tensor.shape)] for name, tensor in weights.items()],
        "weights": _base64(*map(_singles, weights.values())),
        "scores": _base64(_singles(one.scores(images))),
    }


def _singles(tensor: Tensor) -> bytes:
    """Its numbers in single precision, little-endian, wherever that is."""
    return tensor.numpy().astype("<f4").tobytes()


def _base64(*parts: bytes) -> str:
    return base64.b64encode(b"".join(parts)).decode()


def _examples(test: Digits) -> list[dict[str, Any]]:
    """Groups of test digits: each digit's place in the file and what is said of it."""

    def group(name: str, title: str, note: str, digits: Iterable[tuple[int, str]]) -> dict[str, Any]:
        told = [(i, f"Test digit {i}, labelled {int(test.labels[i])}; {words}") for i, words in digits]
        return {"name": name, "title": title, "note": note, "digits": told}

    missed = ((i, f"LeNet-5 said {answer} in 1998") for i, (_, answer) in MISSED.items())
    doubted = ((one.index, f"{one.votes[0]} of {PEOPLE} people agree") for one in DOUBTS)
    return [
        group("missed", "Missed in 1998", f"The {len(MISSED)} test digits of the paper’s Fig. 8.", missed),
        group("doubted", "Doubted labels", f"At most two of {PEOPLE} people chose the label.", doubted),
    ]
