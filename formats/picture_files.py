"""Pictures as people have them. What cannot be read is named in one line, with the reason."""

import contextlib
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from common.errors import UserError
from common.files import name_number


@contextlib.contextmanager
def opened_picture(path: Path) -> Iterator[Image.Image]:
    """A picture file, of which the block reads the pixels. Raises UserError if there is none, if the block cannot read
    it, or if it has more than twice `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    if not Path(path).is_file():
        raise UserError(f"{path} " + ("is no file" if Path(path).exists() else "does not exist"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # cameras have more than half of the limit
            with Image.open(path) as image:
                yield image
    except Image.DecompressionBombError as error:
        pixels, limit = (int(number) / 1e6 for number in re.findall(r"\d+", str(error))[:2])
        raise UserError(f"{path} has {pixels:,.0f} million pixels, the limit is {limit:,.0f}; reduce it") from None
    except (OSError, ValueError, SyntaxError) as error:
        known = isinstance(error, Image.UnidentifiedImageError)  # its text is the path once more
        reason = "" if known else f" ({' '.join(str(error).split())})"
        raise UserError(f"{path} is no picture that can be read{reason}; give JPEG or PNG") from None


def open_picture(path: Path) -> Image.Image:
    """A picture file, read whole. Raises UserError as `opened_picture` does."""
    with opened_picture(path) as image:
        image.load()
        return image


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its camera says. Raises UserError as `opened_picture` does."""
    with opened_picture(path):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError("cut off or damaged")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def by_number(files: Iterable[Path]) -> dict[int, Path]:
    """Files by the numbers in their names, ascending. Raises UserError if two have the same."""
    found: dict[int, Path] = {}
    for file in files:
        number = name_number(file)
        if number in found:
            raise UserError(f"{file} and {found[number].name} are both frame {number}; remove one")
        found[number] = file
    return dict(sorted(found.items()))
