"""Pictures as people have them, read by one reader. What cannot be read is named in one line, with the reason.

A picture may have MAX_PIXELS, so that reading one takes less than a gigabyte, and MAX_SIDE on a side; both are known
before anything is decoded.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from common.errors import UserError
from common.files import name_number

FORMATS = ("BMP", "GIF", "JPEG", "MPO", "PNG", "PPM", "TIFF", "WEBP", "AVIF")  # all of one picture, or of one at least
DECODED_WHOLE = ("WEBP", "AVIF")  # whose decoders hold a picture several times
MAX_PIXELS, MAX_PIXELS_WHOLE = 110_000_000, 50_000_000  # 108 megapixels are the most that cameras of phones write
MAX_SIDE = 16384
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of TIFF
STRIP = 1 << 17  # pixels that are converted at a time; more of them leave the caches


@contextlib.contextmanager
def picture_errors(what: str) -> Iterator[None]:
    """Within the block, whatever a decoder raises is a UserError, which begins with `what` it reads."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # decoders raise what they like
        known = isinstance(error, Image.UnidentifiedImageError)  # its text is the path once more
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = f" ({' '.join(text.split())})" if text and not known else ""
        raise UserError(f"{what} is no picture that can be read{reason}; give JPEG or PNG") from None


def open_picture(path: Path) -> Image.Image:
    """A picture file, whose pixels are not decoded yet. Raises UserError if it is none, or too large."""
    with picture_errors(str(path)):
        if not Path(path).is_file():  # a pipe would wait for its writer
            raise UserError(f"{path} " + ("is no file" if Path(path).exists() else "does not exist"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit is our own
            Image.init()
            try:
                image = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
            except Image.DecompressionBombError:
                raise UserError(f"{path} has more than {MAX_PIXELS / 1e6:.0f} million pixels; reduce it") from None
        limit = MAX_PIXELS_WHOLE if image.format in DECODED_WHOLE else MAX_PIXELS
        tags = getattr(image, "tag_v2", {})  # a TIFF's tile may be larger than the picture
        decoded = max(image.width, tags.get(TILE_WIDTH, 0)) * max(image.height, tags.get(TILE_LENGTH, 0))
        if decoded <= limit and max(image.size) <= MAX_SIDE:
            return image
        image.close()
        if decoded > limit:
            raise UserError(f"{path} has more than {limit / 1e6:.0f} million pixels; reduce it")
        raise UserError(f"{path} is {image.width}x{image.height}, more than {MAX_SIDE} pixels a side; reduce it")


def pixel_type(image: Image.Image) -> str:
    """How the file of a picture that is not decoded yet holds its pixels, such as RGB;16B."""
    return str([tile[3] for tile in getattr(image, "tile", ())])


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its camera says. Raises UserError as `open_picture` and `to_rgb` do."""
    with open_picture(path) as image:
        return to_rgb(image, str(path))


def to_rgb(image: Image.Image, what: str) -> np.ndarray:
    """(H, W, 3) uint8 RGB, turned as its camera says; of 16 bits the upper 8 count, of what is transparent the color.

    Raises UserError, which begins with `what` it is, if it is damaged, or of 32 bits or floats.
    """
    if image.mode == "F" or (image.mode == "I" and ";16" not in pixel_type(image)):
        kind = "floats" if image.mode == "F" else "32 bits"
        raise UserError(f"{what} holds {kind}, of which nobody says what is white; save it with 8 or 16 bits")
    with picture_errors(what):
        image.load()
        rgb = np.empty((image.height, image.width, 3), np.uint8)
        for rows, strip in strips(image):
            rgb[rows] = np.asarray(strip)[..., None] >> 8 if image.mode[0] == "I" else np.asarray(strip.convert("RGB"))
    orientation = 1
    with contextlib.suppress(Exception):  # damaged EXIF, which readers pass over
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    if orientation in (5, 6, 7, 8):
        rgb = rgb.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    return rgb[:, ::-1] if orientation in (2, 3, 6, 7) else rgb


def strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A picture's rows from the top, and what they show: so that what is made of it is never there twice."""
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def by_number(files: Iterable[Path]) -> dict[int, Path]:
    """Files by the numbers in their names, ascending. Raises UserError if two have the same."""
    found: dict[int, Path] = {}
    for file in files:
        number = name_number(file)
        if number in found:
            raise UserError(f"{file} and {found[number].name} are both frame {number}; remove one")
        found[number] = file
    return dict(sorted(found.items()))
