"""A picture of one digit, made into an image like MNIST's: decoded with Pillow, then scaled and centred.

As MNIST's authors made theirs of NIST's bilevel characters (LeCun 1998, §III.A; the page of The MNIST Database): scaled
as a whole into 20×20 pixels, where anti-aliasing gave them grey levels, and placed in 28×28 by their centre of mass.
"""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lenet.inference.model import SIDE
from lenet.runtime.errors import InputError

FORMATS = ("PNG", "JPEG", "TIFF")
BOX = 20  # pixels: the digit's longer side
CENTRE = 14  # row and column of the centre of mass, in pixels from 0: so it is in MNIST
INK = 0.35  # of the strongest ink: what has as much belongs to the digit's box
CONTRAST = 13  # grey levels of 255 between the darkest and the lightest: a picture with less is empty
NOISE = 3  # times the median deviation along the edge: what differs no more from the background is background
LARGE = 1000  # pixels: a picture whose sides are several times that is reduced as it is decoded
LARGEST = 89_000_000  # pixels: just below what Pillow, too, suspects to be a decompression bomb

Grey = Float32[np.ndarray, "height width"]
"""0 black … 255 white: differences of 8-bit levels are exact, and a picture and its negative become the same image."""


def read(file: Path | BinaryIO) -> Grey:
    """Decode a picture: grey, upright by its EXIF orientation.

    Colours become luminance. What is transparent is background: the colour that most of the edge has, or if the edge is
    transparent, white behind dark and black behind light. Of several pages the first counts. Sides of several thousand
    pixels are reduced to 1000 or more.

    Args:
        file: a PNG, JPEG or TIFF of 1 to 16 bits per channel.

    Raises:
        InputError: no such picture, damaged, or of more than ``LARGEST`` pixels, of which none is decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on what it has mended
        try:
            with Image.open(file, formats=FORMATS) as picture:
                _check_size(*picture.size)
                return _grey(ImageOps.exif_transpose(picture))
        except (InputError, FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except UnidentifiedImageError:
            raise InputError("no picture; PNG, JPEG, TIFF, IDX images and .npy can be read") from None
        except Image.DecompressionBombError:
            raise too_large() from None
        except Exception as error:  # decoders raise whatever comes of damaged bytes
            raise InputError(f"a damaged picture ({' '.join(str(error).split()) or type(error).__name__})") from None


def too_large() -> InputError:
    """What is said of a picture with too many pixels."""
    return InputError(f"more than {LARGEST:,} pixels; scale the picture down")


def _check_size(width: int, height: int) -> None:
    if width * height > LARGEST:
        raise too_large()


def _grey(picture: Image.Image) -> Grey:
    if picture.mode[0] in "IF":  # 16 or 32 bits
        return grey_of(np.asarray(picture))
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    if picture.mode != "L" or transparent:
        picture = picture.convert("RGBA" if transparent else "RGB")
    if (factor := min(picture.size) // LARGE) > 1:
        picture = picture.reduce(factor)
    grey = np.asarray(picture.convert("L"), np.float32)
    if not transparent:
        return grey
    alpha = np.asarray(picture.getchannel("A"), np.float32) / 255
    return alpha * grey + (1 - alpha) * _behind(grey, alpha)


def _behind(grey: Grey, alpha: Grey) -> float:
    """The grey level behind what is transparent."""
    opaque = edge(alpha) > 0.5
    if opaque.mean() >= 0.5:
        return float(np.median(edge(grey)[opaque]))
    return 255.0 * bool((alpha * grey).mean() < 127.5 * alpha.mean())  # behind dark ink: white


def grey_of(levels: np.ndarray) -> Grey:
    """A picture that is an array: grey.

    Args:
        levels: (height, width), or with 3 or 4 channels (red, green, blue, opacity) as uint8. Grey levels of 8 or 16
            bits have their type's white; other numbers from 0 have 1, 255 or 65,535, the first that none exceeds.

    Raises:
        InputError: another shape, or other values.
    """
    if levels.size and levels.ndim == 3 and levels.shape[2] in (3, 4) and levels.dtype == np.uint8:
        _check_size(*levels.shape[:2])
        return _grey(Image.fromarray(levels))
    if levels.ndim != 2 or levels.dtype.kind not in "biuf" or not levels.size:
        raise InputError(f"an array of {levels.dtype} and shape {levels.shape}; expected a grey picture, or uint8 RGB")
    _check_size(*levels.shape)
    low, high = levels.min(), levels.max()
    whites = [white for white in (1, 255, 65535) if high <= white]
    if levels.dtype.kind in "iu" and levels.dtype.itemsize <= 2:
        whites = [np.iinfo(levels.dtype).max]
    if not (low >= 0 and whites):
        raise InputError(f"values from {low:g} to {high:g}; expected grey levels from 0")
    return levels.astype(np.float32) * np.float32(255 / whites[0])


def edge(picture: np.ndarray) -> np.ndarray:
    """The pixels along the four sides of a picture (height, width), as a vector."""
    return np.concatenate([picture[0], picture[-1], picture[1:-1, 0], picture[1:-1, -1]])


def normalise(picture: Grey) -> UInt8[np.ndarray, "28 28"]:
    """Make an image like MNIST's from a picture of one digit.

    The background is the median grey level of the picture's edge. Ink is what differs from it, to the side on which the
    picture has more room: dark on light, or light on dark; the strongest becomes 255. The box around the ink is scaled,
    height and width alike and with anti-aliasing, so that its longer side has 20 pixels. Whole pixels move the ink's
    centre of mass to (14, 14), the middle of the 28×28 field.

    Args:
        picture: of any size. Nothing else than the digit differs much from the background.

    Returns:
        0 background … 255 ink.

    Raises:
        InputError: nothing stands out.
    """
    low, high = float(picture.min()), float(picture.max())
    if high - low < CONTRAST:
        raise InputError(f"an empty picture: nothing but one grey, {low:.0f} to {high:.0f} of 255")
    around = edge(picture)
    background = float(np.median(around))
    ink = background - picture if background > (low + high) / 2 else picture - background
    ink = np.clip(ink - NOISE * float(np.median(np.abs(around - background))), 0, None)
    strongest = float(ink.max())
    if strongest < CONTRAST:
        raise InputError("no digit stands out from the background; light the picture evenly")
    digit = _boxed(ink / np.float32(strongest))
    height, width = digit.shape
    rows, columns = digit.sum(1), digit.sum(0)
    top = round(CENTRE - float(rows @ np.arange(height) / rows.sum()))
    left = round(CENTRE - float(columns @ np.arange(width) / columns.sum()))
    top, left = min(max(top, 0), SIDE - height), min(max(left, 0), SIDE - width)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.rint(255 * digit)
    return image


def _boxed(ink: Grey) -> Grey:
    """The digit alone, its longer side ``BOX`` pixels, its strongest ink 1."""
    rows, columns = (np.flatnonzero((ink >= INK).any(axis)) for axis in (1, 0))
    found = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = BOX / max(found.shape)
    height, width = (max(1, round(scale * side)) for side in found.shape)
    scaled = Image.fromarray(found).resize((width, height), Image.Resampling.HAMMING)
    digit = np.asarray(scaled).clip(0)
    return digit / digit.max()
