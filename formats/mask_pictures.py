"""Read one object's mask from a picture file, a PIL image or an array -> (H, W) uint8 of 0 and 1."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from common.errors import UserError
from formats.picture_files import open_picture, picture_errors

SQUARE = np.ones((3, 3), np.uint8)  # pixels
PLAIN = ("1", "L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B")  # PIL's modes with gray values or colors


def read_mask(path: Path, value: int | None = None) -> np.ndarray:
    """Read the mask in a picture file, which EXIF does not turn. `to_mask` explains `value` and the errors."""
    with open_picture(path) as image:
        return to_mask(image, str(path), value)


def to_mask(mask: Any, what: str = "mask", value: int | None = None) -> np.ndarray:
    """A PIL image, or an array: booleans or integers (H, W) or (1, H, W), or uint8 (H, W, channels) -> (H, W) uint8 of
    0 and 1.

    The object is every pixel that is brighter than half of the brightest pixel. In a partly transparent picture, the
    object is every opaque pixel. In a label map, the object is every pixel of `value`: a gray value, a palette index,
    or a color 0xRRGGBB.

    Raises UserError, which begins with `what`, for floats other than 0 and 1; without `value`, also for label maps and
    photographs, in which more than two values fill areas.
    """
    if not isinstance(mask, Image.Image):
        mask = _checked_array(mask, what)
    with picture_errors(what):
        if isinstance(mask, Image.Image) and mask.mode == "F":
            mask = _checked_array(np.asarray(mask), what)
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
        if len(np.unique(labels)) > 100:  # a label map has fewer values
            remedy = "draw the object in white on black, without soft edges"
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
    return f"{', '.join(names[:12])}{', ...' * (len(names) > 12)}"
