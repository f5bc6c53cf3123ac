"""Read picture files of users with Pillow. An error names a file that cannot be read, with the reason, in one line."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.errors import UserError, warn_once
from common.files import name_number

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM")  # if a file has several pictures, the first is read
LONGEST = 20  # the long side of a picture is at most so many times as long as its short side
DARK = 16  # if all gray values (0 to 255) of a 16-bit picture are below this, a warning says so


@contextlib.contextmanager
def picture_errors(what: str) -> Iterator[None]:
    """If a decoder raises an exception in the block, raise a UserError that begins with `what`, the picture's name."""
    try:
        yield
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UserError(f"{what} has more than {limit:.0f} million pixels; reduce it") from None
    except Exception as error:  # a damaged picture can make decoders raise any exception
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        is_path = isinstance(error, Image.UnidentifiedImageError)  # the error's text only repeats the path
        reason = f" ({' '.join(text.split())})" if text and not is_path else ""
        raise UserError(f"{what} cannot be read as a picture{reason}; give {', '.join(FORMATS)}") from None


def open_picture(path: Path) -> Image.Image:
    """Open a picture file without decoding its pixels. Raises UserError if the file is no picture or is too large."""
    with picture_errors(str(path)), warnings.catch_warnings():
        if not Path(path).is_file():  # to open a pipe would wait for its writer
            raise UserError(f"{path} " + ("is no file" if Path(path).exists() else "does not exist"))
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=FORMATS) as image:
            image.verify()  # checks the checksums of a PNG, which decoding does not
        return Image.open(path, formats=FORMATS)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as (H, W, 3) uint8 RGB, turned by EXIF. Raises UserError as `open_picture` and `to_rgb` do."""
    with open_picture(path) as image:
        return to_rgb(image, str(path))


def refuse_strip(size: Sequence[int], what: str) -> None:
    """Raise a UserError, which begins with `what`, if the sides of a picture are more unequal than LONGEST."""
    if max(size) > LONGEST * min(size):
        raise UserError(f"{what} is {max(size)} pixels long and {min(size)} wide; cut it to at most {LONGEST} to 1")


def to_rgb(image: Image.Image, what: str) -> np.ndarray:
    """A picture as (H, W, 3) uint8 RGB, turned as EXIF says, without opacity. Values of 16 bits lose the lower 8.

    Raises UserError, which begins with `what`, if the picture is damaged or a strip, or holds floats or 32 bits.
    """
    refuse_strip(image.size, what)
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):  # there, mode I has 16 bits
        kind = "floats" if image.mode == "F" else "32 bits"
        raise UserError(f"{what} holds {kind}, and nobody says which value is white; save it with 8 or 16 bits")
    has_16_bits = image.mode[0] == "I" or ";16" in str(getattr(image, "tile", ""))  # Pillow reads colors with 8
    with picture_errors(what):
        image.load()
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:  # damaged EXIF data can make Pillow raise any exception
            warn_once(f"{what} has damaged EXIF data, which may say how to turn it; it is read as it lies in the file")
        values = np.asarray(image)
        if image.mode[0] == "I":
            image = Image.fromarray((values >> 8).astype(np.uint8))
        rgb = np.array(image.convert("RGB"))
    if has_16_bits and rgb.max() < DARK:
        remedy = "if it uses only 8, 10 or 12 of its 16 bits, multiply its values so that they use all 16"
        warn_once(f"{what} is nearly black: its largest value is {values.max()}; {remedy}")
    return rgb


def by_number(files: Iterable[Path]) -> dict[int, Path]:
    """Files by the last numbers in their names, ascending. Raises UserError if two files have the same number."""
    numbered: dict[int, Path] = {}
    for file in files:
        number = name_number(file)
        if number in numbered:
            raise UserError(f"{file} and {numbered[number].name} are both frame {number}; remove one")
        numbered[number] = file
    numbered = dict(sorted(numbered.items()))
    names = [(list(map(int, re.findall(r"\d+", file.stem))), file) for file in numbered.values()]
    if wrong := next((file for (numbers, _), (after, file) in pairwise(names) if after < numbers), None):
        what = f"{wrong} has several numbers in its name, but only the last one counts, and it gives another order"
        raise UserError(f"{what}; rename the files of its folder: 00000{wrong.suffix}, ...")
    return numbered
