"""One object's mask, in the pictures and arrays in which people have it -> (H, W) uint8 of 0 and 1."""

import functools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from common.errors import UserError
from formats.picture_files import open_picture, picture_errors

FEW, DARK, MANY = 16, 64, 64  # a label map has FEW values, or none above DARK; a photograph has more than MANY
AREA = np.ones((5, 5), np.uint8)  # where so many pixels have one color, there is no soft edge
SOFT = 0.1  # soft edges cover at most this share of a picture; they are not expected where nothing is above DARK
PLAIN = ("1", "L", "LA", "RGB", "RGBA", "I", "F", "I;16", "I;16B")  # modes of PIL whose channels are gray or colors


def read_mask(path: Path, value: int | None = None) -> np.ndarray:
    """The mask in a picture file, its pixels as they lie there. `value` and what is raised: as `to_mask`."""
    with open_picture(path) as image:
        return to_mask(image, str(path), value)


def to_mask(mask: Any, what: str = "mask", value: int | None = None) -> np.ndarray:
    """A PIL image, or an array of booleans or integers (H, W), or of uint8 (H, W, channels) -> (H, W) uint8 of 0 and 1.

    The object is what is brighter than half of the brightest pixel; of a picture that is transparent in parts, what is
    opaque. Of a label map it is the pixels of `value`: a gray value, a number of the palette, or a color 0xRRGGBB.

    Raises UserError, which begins with `what` it is, for floats other than 0 and 1, photographs, and label maps without
    `value`.
    """
    if not isinstance(mask, Image.Image):
        mask = _checked_array(mask, what)
    with picture_errors(what):
        if isinstance(mask, Image.Image) and mask.mode == "F":
            values = np.asarray(mask)
            mask = _checked_array(values / (values.max() or 1) if len(np.unique(values)) < 3 else values, what)
        channels = _channels(mask, value is None)
        if value is not None:
            labels = _labels(mask, channels)
            if (labels == value).any():
                return (labels == value).view(np.uint8)
            raise UserError(f"{what} holds the values {_value_names(labels)}, not {value}")
        bright = functools.reduce(np.maximum, channels)
        full = int(bright.max(initial=0))
        if _is_one_object(channels, bright, full):
            return (bright > full // 2).view(np.uint8)
        labels = _labels(mask, channels)
        if len(np.unique(labels)) > MANY:
            raise UserError(f"{what} holds many values, as photographs do; give a mask, whose object has one")
        remedy = (
            "a mask is of one object: in segment_pair.py choose --object, in Python give mask == value, else save each"
        )
        raise UserError(f"{what} holds the values {_value_names(labels)}; {remedy}")


def _checked_array(mask: Any, what: str) -> np.ndarray | Image.Image:
    """(H, W) numbers, or a PIL image of 2, 3 or 4 channels."""
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
        raise UserError(f"{what} is {type(mask).__name__}; give a PIL image, or an array of booleans or integers")
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise UserError(f"{what} holds floats other than 0 and 1; give mask > threshold")
    if mask.dtype.kind in "bf":
        mask = mask.astype(np.uint8)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[..., 0]
    if mask.ndim == 3 and mask.shape[2] in (2, 3, 4) and mask.size and mask.dtype == np.uint8:
        return Image.fromarray(mask)
    if mask.ndim != 2:
        raise UserError(f"{what} has the shape {mask.shape} and the type {mask.dtype}; give (H, W)")
    return mask


def _channels(mask: np.ndarray | Image.Image, by_opacity: bool) -> list[np.ndarray]:
    """(H, W) gray values, or three colors; `by_opacity`: the opacity of a picture that is transparent in parts."""
    if isinstance(mask, np.ndarray):
        return [mask]
    mask.load()
    if mask.mode not in PLAIN or "transparency" in mask.info:
        mask = mask.convert("RGBA")
    channels = [np.asarray(channel) for channel in mask.split()]
    opacity = channels.pop() if mask.mode[-1] == "A" else None
    return [opacity] if by_opacity and opacity is not None and opacity.min() < 255 else channels


def _is_one_object(channels: list[np.ndarray], bright: np.ndarray, full: int) -> bool:
    """Whether a picture, whose brightest pixel is `full`, shows areas of one color at most, and little between black
    and `full`. A label map has areas of several colors or gray values; a photograph has much between.
    """
    is_dark = full <= DARK
    is_map = is_dark or len(np.unique(bright)) <= FEW  # or a mask with hard edges
    noise = 0 if is_map else full // 8  # of JPEG
    between = (bright > noise) & (bright < full - noise)
    if np.count_nonzero(between) > (0 if is_dark else SOFT * between.size):
        return False
    colors = sum((channel > full // 2) * np.uint8(1 << number) for number, channel in enumerate(channels))
    colors[between] = 0
    # Where values are few, none is noise: a single pixel of another color is another object.
    areas = [color for color in range(1, 8) if (np.any if is_map else _fills_area)(colors == color)]
    return len(areas) < 2 and not (is_map and _fills_area(between))


def _fills_area(mask: np.ndarray) -> bool:
    return bool(cv2.erode(mask.astype(np.uint8), AREA).any())


def _labels(mask: np.ndarray | Image.Image, channels: list[np.ndarray]) -> np.ndarray:
    """(H, W): gray values, numbers of the palette, or colors 0xRRGGBB of a picture that is not gray."""
    if isinstance(mask, Image.Image) and mask.mode == "P":
        return np.asarray(mask)
    if all(np.array_equal(channel, channels[0]) for channel in channels[1:]):
        return channels[0]
    return sum(channel * np.uint32(1 << shift) for channel, shift in zip(channels, (16, 8, 0), strict=True))


def _value_names(labels: np.ndarray) -> str:
    numbers = np.unique(labels[labels != 0]).tolist()
    names = [f"0x{number:06x}" if labels.dtype == np.uint32 else str(number) for number in numbers]
    return f"{', '.join(names[:12])}{', ...' * (len(names) > 12)}"
