"""How a network's error grows when the digits are disturbed: curves over translation, rotation, scale, shear, noise.

A disturbance acts on the whole 32×32 field that the network sees, its border of background included, and its result
is not rounded to grey levels. What leaves the field is lost, and background comes in. MNIST's digits fill a box of at
most 20×20 pixels, centred by its mass (LeCun 1998, §III.A): every digit can move by two pixels before ink leaves the
field, and nearly all by three.

Every digit is disturbed once a level. Where there are several directions or signs, the digits take them in turn by
their place in the MNIST file, so that an error is a mean over directions at the price of one pass. A disturbance is
the same for every network and every run.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lenet import networks
from lenet.arithmetic import exact, warps
from lenet.arithmetic.randomness import derive
from lenet.arithmetic.scalars import cosine_of_half_turns
from lenet.digits.data import Digits, to_inputs
from lenet.evaluation.recognition import Recogniser
from lenet.params.schema import Pixels
from lenet.runtime.errors import InputError

Fields = Float[Tensor, "n 1 32 32"]
Index = Int64[Tensor, " n"]
Matrix = Float[Tensor, "2 3"]
Level = int | float
BATCH = networks.EVALUATION_BATCH


def translations(pixels: Level) -> list[Matrix]:
    """To the left, to the right, up and down. Whole pixels are exact: nothing is interpolated."""
    return [_matrix(1, 0, x, 0, 1, y) for x, y in ((-pixels, 0), (pixels, 0), (0, -pixels), (0, pixels))]


def rotations(degrees: Level) -> list[Matrix]:
    """Counter-clockwise and clockwise, about the field's centre."""
    return [
        _matrix(cosine, sine, 0, -sine, cosine, 0)
        for cosine, sine in ((_cosine(degrees), _sine(degrees)), (_cosine(degrees), -_sine(degrees)))
    ]


def _cosine(degrees: Level) -> float:
    return cosine_of_half_turns(degrees / 180)


def _sine(degrees: Level) -> float:
    return cosine_of_half_turns((90 - degrees) / 180)


def scalings(factor: Level) -> list[Matrix]:
    """Width and height times ``factor``, about the field's centre. From ½ on, every pixel still counts."""
    return [_matrix(factor, 0, 0, 0, factor, 0)]


def shears(slope: Level) -> list[Matrix]:
    """Horizontal, as in the paper's distortions (§III.B): each line moves right, or left, by ``slope`` · its height."""
    return [_matrix(1, -slope, 0, 0, 1, 0), _matrix(1, slope, 0, 0, 1, 0)]


def _matrix(*entries: Level) -> Matrix:
    """Where a point goes, in pixels from the field's centre, x to the right and y down: x, y, 1 → x, y."""
    return torch.tensor(entries, dtype=torch.float64).view(2, 3)


def warp(fields: Fields, matrix: Matrix) -> Fields:
    """Move each field's content by an affine map, bilinearly interpolated."""
    (a, b, x), (c, d, y) = matrix.tolist()
    size = a * d - b * c
    back = _matrix(d / size, -b / size, (b * y - d * x) / size, -c / size, a / size, (c * x - a * y) / size)
    return warps.warp(fields, back[None])


def warp_in_turn(
    maps: Callable[[Level], Sequence[Matrix]], fields: Fields, level: Level, index: Index, pixels: Pixels
) -> Fields:
    """Warp the digit at ``index`` in the MNIST file by the map whose turn it is."""
    matrices = maps(level)
    warped = torch.empty_like(fields)
    for turn, matrix in enumerate(matrices):
        (its,) = torch.where(index % len(matrices) == turn)
        warped[its] = warp(fields[its], matrix)
    return warped


def salt_and_pepper(fields: Fields, level: Level, index: Index, pixels: Pixels) -> Fields:
    """Invert each pixel of the field with probability ``level`` (LeCun 1998, §III.E).

    Elsewhere the pixels that are hit become ink or background by even odds: then half of them change nothing.
    """
    drawn = torch.empty(fields.shape)
    generator = torch.Generator()
    for numbers, place in zip(drawn, index.tolist(), strict=True):
        generator.manual_seed(derive(0, "salt-and-pepper", str(level), place))
        numbers.copy_(torch.rand(numbers.shape, generator=generator))
    return torch.where(drawn < level, pixels.background + pixels.ink - fields, fields)


@dataclass(frozen=True)
class Disturbance:
    """A family of disturbances.

    Attributes:
        unit: of the levels.
        levels: where the error is measured.
        none: the level that leaves a digit as it is, one of ``levels``.
        apply: fields, a level, the digits' places in the MNIST file and the network's pixel values → new fields.
    """

    unit: str
    levels: tuple[Level, ...]
    none: Level
    apply: Callable[[Fields, Level, Index, Pixels], Fields]


DISTURBANCES = {
    "translation": Disturbance("pixels", (0, 1, 2, 3, 4, 5), 0, partial(warp_in_turn, translations)),
    "rotation": Disturbance("degrees", (0, 10, 20, 30, 40), 0, partial(warp_in_turn, rotations)),
    "scale": Disturbance("factor", (0.6, 0.7, 0.8, 1.0, 1.2, 1.4), 1.0, partial(warp_in_turn, scalings)),
    "shear": Disturbance("pixels per pixel", (0.0, 0.2, 0.4, 0.6, 0.8), 0.0, partial(warp_in_turn, shears)),
    "salt-and-pepper": Disturbance("fraction of pixels", (0.0, 0.02, 0.05, 0.1, 0.2), 0.0, salt_and_pepper),
}


def curves(recogniser: Recogniser, digits: Digits) -> dict[str, dict[str, Any]]:
    """The error under each disturbance: its ``unit``, ``levels`` and, as fractions of the digits, ``errors``.

    The error at the undisturbed level is the plain error on ``digits``.

    Raises:
        InputError: the network's outputs at some level are not finite.
    """
    pixels = recogniser.record.parameters.pixels
    plain = _misses(recogniser, lambda: recogniser.scores(digits.images), digits, "without disturbance")
    misses = {
        name: [plain if level == kind.none else 0 for level in kind.levels] for name, kind in DISTURBANCES.items()
    }
    passes: networks.AnyPasses | None = None
    for start in range(0, len(digits), BATCH):
        part = digits[start : start + BATCH]
        if passes is None or passes.inputs.shape[1] != len(part):
            passes = networks.passes([recogniser.network], len(part))
        fields = to_inputs(part.images, pixels)
        for name, kind in DISTURBANCES.items():
            for i, level in enumerate(kind.levels):
                if level != kind.none:
                    passes.inputs[0] = kind.apply(fields, level, part.index, pixels)
                    where = f"at {name} {level} {kind.unit}"
                    misses[name][i] += _misses(recogniser, passes.forward, part, where)
    return {
        name: {
            "unit": kind.unit,
            "levels": list(kind.levels),
            "errors": [count / len(digits) for count in misses[name]],
        }
        for name, kind in DISTURBANCES.items()
    }


def _misses(
    recogniser: Recogniser, outputs: Callable[[], Float[Tensor, "*one n 10"]], digits: Digits, where: str
) -> int:
    with suppress(exact.NotFinite):
        scores = outputs().view(len(digits), -1)
        if scores.isfinite().all():
            return int((recogniser.objective.decide(scores) != digits.labels).sum())
    raise InputError(f"{recogniser.record.name}: the outputs {where} are not finite; its training diverged")
