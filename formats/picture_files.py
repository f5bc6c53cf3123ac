"""Read pictures and masks of users with Pillow. An error names the file that cannot be read and why, in one line."""

import contextlib
import mimetypes
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from common.errors import UserError, first_few, warn_once
from common.files import name_number, refuse_pointer

SUFFIXES = (".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # of the pictures in a folder
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "AVIF")  # of several in a file, the first is read
LONGEST = 20  # the long side of a picture is at most so many times as long as its short side
SQUARE = np.ones((3, 3), np.uint8)  # pixels
MOST_LABELS = 100  # values in a label map
PLAIN = ("1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B")  # PIL's modes with gray values or colors


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
        refuse_pointer(Path(path))
        if str(mimetypes.guess_type(path)[0]).startswith("video/"):
            raise UserError(f"{path} is a video; inference/segment_video.py finds objects in videos")
        if Path(path).suffix.lower() in (".heic", ".heif"):
            raise UserError(f"{path} is HEIC; save it as JPEG (iPhone: Camera, Formats, Most Compatible)")
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
    with picture_errors(what):
        image.load()
        try:
            image = ImageOps.exif_transpose(image)
        except Exception:  # damaged EXIF data can make Pillow raise any exception
            warn_once(f"{what} has damaged EXIF data, which may say how to turn it; it is read as it lies in the file")
        if image.mode[0] == "I":
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return np.array(image.convert("RGB"))


def read_mask(path: Path, value: int | None = None) -> np.ndarray:
    """Read the mask in a picture file, which EXIF does not turn. `to_mask` explains `value` and the errors."""
    with open_picture(path) as image:
        return to_mask(image, str(path), value)


def label_values(path: Path) -> list[int]:
    """The values of the objects in a label map, as `to_mask` takes them; 0 is the background."""
    with open_picture(path) as image, picture_errors(str(path)):
        values = np.unique(np.asarray(image) if image.mode == "P" else _colors(_channels(image, by_opacity=False)))
        if len(values) > MOST_LABELS:
            raise UserError(f"{path} is no label map: it has {len(values)} values; draw objects without soft edges")
    return values[values != 0].tolist()


def to_mask(mask: Any, what: str = "mask", value: int | None = None) -> np.ndarray:
    """A PIL image, or an array: booleans or integers (H, W) or (1, H, W), or uint8 (H, W, channels) -> (H, W) uint8 of
    0 and 1.

    The object is every pixel that is brighter than half of the brightest pixel. In a partly transparent picture, the
    object is every opaque pixel. In a label map, the object is every pixel of `value`: a gray value, a palette index,
    or a color 0xRRGGBB.

    Raises UserError, which begins with `what`, for floats other than 0 and 1; without `value`, also for label maps and
    photographs, in which more than two values fill areas.
    """
    with picture_errors(what):
        if not isinstance(mask, Image.Image) or mask.mode == "F":
            mask = _checked_array(np.asarray(mask) if isinstance(mask, Image.Image) else mask, what)
        channels = _channels(mask, value is None)
        colors = _colors(channels)
        labels = np.asarray(mask) if isinstance(mask, Image.Image) and mask.mode == "P" else colors
        if value is not None:
            if (labels == value).any():
                return (labels == value).view(np.uint8)
            raise UserError(f"{what} holds the values {_value_names(labels)}, not {value}")
        bright = np.maximum.reduce(channels)
        is_object = bright > bright.max(initial=0) // 2
        if _is_one_object(colors, is_object):
            return is_object.view(np.uint8)
        if len(np.unique(labels)) > MOST_LABELS:
            remedy = "draw the object in white on black; or are picture and mask exchanged?"
            raise UserError(f"{what} looks like a photograph, not a mask; {remedy}")
        remedy = "in segment_pair.py choose --object, in Python give mask == value, or save each in white on black"
        raise UserError(f"{what} holds the values {_value_names(labels)}, and a mask is of one object; {remedy}")


def _checked_array(mask: Any, what: str) -> np.ndarray | Image.Image:
    """An array as numbers (H, W), or as a PIL image if it has 2, 3 or 4 channels."""
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
        raise UserError(f"{what} is {type(mask).__name__}; give a PIL image, or an array of booleans or integers")
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise UserError(f"{what} holds floats other than 0 and 1; give mask > threshold")
    if mask.dtype.kind in "bf":
        mask = mask.astype(np.uint8)
    if mask.ndim == 3 and 1 in (mask.shape[0], mask.shape[2]):  # SAM 2's masks are (1, H, W)
        mask = mask[0] if mask.shape[0] == 1 else mask[..., 0]
    if mask.ndim == 3 and mask.shape[2] in (2, 3, 4) and mask.size and mask.dtype == np.uint8:
        return Image.fromarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise UserError(f"{what} has the shape {mask.shape}; give (H, W)")
    return mask


def _channels(mask: np.ndarray | Image.Image, by_opacity: bool) -> list[np.ndarray]:
    """The gray values (H, W) or the three colors of a picture, or, if `by_opacity`, its opacity if it is not opaque."""
    if isinstance(mask, np.ndarray):
        return [mask]
    mask.load()
    if mask.mode not in PLAIN or "transparency" in mask.info:
        mask = mask.convert("RGBA")
    channels = [np.asarray(channel) for channel in mask.split()]
    opacity = channels.pop() if mask.mode[-1] == "A" else None
    return [opacity] if by_opacity and opacity is not None and opacity.min() < 255 else channels


def _is_one_object(colors: np.ndarray, is_object: np.ndarray) -> bool:
    """True if object and background have one value each. Only values that fill a square of pixels count, because soft
    edges and the noise of JPEG fill no square. If most pixels lie in no such square, as in photographs, all values do.
    """
    numbers = colors if colors.dtype in (np.uint8, np.uint16) else colors.astype(np.float64)  # OpenCV has these types
    is_filled = cv2.erode(numbers, SQUARE) == cv2.dilate(numbers, SQUARE)
    if is_filled.mean() < 0.5:
        is_filled[:] = True
    return all(len(np.unique(colors[is_filled & side])) < 2 for side in (is_object, ~is_object))


def _colors(channels: list[np.ndarray]) -> np.ndarray:
    """(H, W): the gray values, or colors 0xRRGGBB if the picture is not gray."""
    if all(np.array_equal(channel, channels[0]) for channel in channels[1:]):
        return channels[0]
    red, green, blue = (channel.astype(np.uint32) for channel in channels)
    return red << 16 | green << 8 | blue


def _value_names(labels: np.ndarray) -> str:
    numbers = np.unique(labels[labels != 0]).tolist()
    names = [f"0x{number:06x}" if labels.dtype == np.uint32 else str(number) for number in numbers]
    return first_few(names, 12)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, ordered by name; hidden files do not count. Raises UserError if there is no picture."""
    files = sorted(x for x in folder.iterdir() if x.suffix.lower() in SUFFIXES and x.name[0] != ".")
    if not files:
        raise UserError(f"no pictures in {folder}; it needs {', '.join(SUFFIXES)}")
    return files


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
