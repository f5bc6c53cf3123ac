"""Pictures as people have them, read by Pillow. What cannot be read is named in one line, with the reason."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from common.errors import UserError
from common.files import name_number

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # a file's first picture is read


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
        with Image.open(path, formats=FORMATS) as image:
            image.verify()  # PNG's checksums, which decoding passes over
        return Image.open(path, formats=FORMATS)


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
    with picture_errors(what):
        image = ImageOps.exif_transpose(image)
        if image.mode[0] == "I":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return np.array(image.convert("RGB"))


def by_number(files: Iterable[Path]) -> dict[int, Path]:
    """Files by the numbers in their names, ascending. Raises UserError if two have the same."""
    numbered: dict[int, Path] = {}
    for file in files:
        number = name_number(file)
        if number in numbered:
            raise UserError(f"{file} and {numbered[number].name} are both frame {number}; remove one")
        numbered[number] = file
    return dict(sorted(numbered.items()))
