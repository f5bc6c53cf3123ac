"""Pictures as people have them, read by Pillow. What cannot be read is named in one line, with the reason."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from common.errors import UserError, warn_once
from common.files import name_number

FORMATS = ("BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP", "AVIF")  # a file's first picture is read
MAX_SIDE = 16384  # pixels
ROWS = 64  # rows that are converted at a time
DARK = 16  # a picture whose values, from 0 to 255, are all below this may hold fewer bits than its file says


@contextlib.contextmanager
def picture_errors(what: str) -> Iterator[None]:
    """Within the block, whatever a decoder raises becomes a UserError that begins with `what` it reads."""
    try:
        yield
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(f"{what} has more than {Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels; reduce it") from None
    except Exception as error:  # decoders raise what they like
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        is_path = isinstance(error, Image.UnidentifiedImageError)  # its text is the path once more
        reason = f" ({' '.join(text.split())})" if text and not is_path else ""
        raise UserError(f"{what} is no picture that can be read{reason}; give JPEG or PNG") from None


def open_picture(path: Path) -> Image.Image:
    """A picture file, whose pixels are not decoded yet. Raises UserError if it is none, or too large."""
    with picture_errors(str(path)), warnings.catch_warnings():
        if not Path(path).is_file():  # a pipe would wait for its writer
            raise UserError(f"{path} " + ("is no file" if Path(path).exists() else "does not exist"))
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.init()
        formats = [name for name in FORMATS if name in Image.OPEN]
        with Image.open(path, formats=formats) as image:
            image.verify()  # PNG's checksums, which decoding passes over
        image = Image.open(path, formats=formats)
        if max(image.size) > MAX_SIDE:
            raise UserError(f"{path} is {image.width}x{image.height}, more than {MAX_SIDE} pixels a side; reduce it")
    return image


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its camera says. Raises UserError as `open_picture` and `to_rgb` do."""
    with open_picture(path) as image:
        return to_rgb(image, str(path))


def to_rgb(image: Image.Image, what: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its camera says. The upper 8 of 16 bits are taken, and opacity is passed over.

    Raises UserError, which begins with `what` it is, if it is damaged or holds 32 bits or floats.
    """
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # these have 16 bits
        kind = "floats" if image.mode == "F" else "32 bits"
        raise UserError(f"{what} holds {kind}, and nobody says which value is white; save it with 8 or 16 bits")
    has_16_bits = image.mode[0] == "I" or ";16" in str(getattr(image, "tile", ""))  # colors are read with 8
    with picture_errors(what):
        image.load()
        with contextlib.suppress(Exception):  # damaged EXIF, which readers pass over
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
                image = ImageOps.exif_transpose(image)
        rgb = np.empty((image.height, image.width, 3), np.uint8)
        for top in range(0, image.height, ROWS):  # converted as a whole, it takes twice the memory
            strip = image.crop((0, top, image.width, min(top + ROWS, image.height)))
            rgb[top : top + ROWS] = np.asarray(strip)[..., None] >> 8 if image.mode[0] == "I" else strip.convert("RGB")
        if has_16_bits and rgb.max() < DARK:
            largest = np.max(image.getextrema())
            remedy = "if it uses only 8, 10 or 12 of its 16 bits, multiply its values so that they use all 16"
            warn_once(f"{what} is nearly black: its largest value is {largest}; {remedy}")
        return rgb


def by_number(files: Iterable[Path]) -> dict[int, Path]:
    """Files by the numbers in their names, ascending. Raises UserError if two have the same."""
    numbered: dict[int, Path] = {}
    for file in files:
        number = name_number(file)
        if number in numbered:
            raise UserError(f"{file} and {numbered[number].name} are both frame {number}; remove one")
        numbered[number] = file
    numbered = dict(sorted(numbered.items()))
    names = [(list(map(float, re.findall(r"\d+(?:\.\d+)?", file.stem))), file) for file in numbered.values()]
    if wrong := next((file for (numbers, _), (after, file) in pairwise(names) if after < numbers), None):
        what = f"{wrong} has several numbers in its name, and only the last digits, which give another order, are read"
        raise UserError(f"{what}; number its folder: 00000{wrong.suffix}, ...")
    return numbered
