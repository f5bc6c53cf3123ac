"""One object's mask, in the pictures and arrays in which people have it -> (H, W) uint8 of 0 and 1."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from common.errors import UserError
from formats.picture_files import open_picture, picture_errors, pixel_type, strips

FEW, MANY = 64, 1024  # values of a label map without and with `value`; photographs have more
SOFT = 0.1  # of a picture, that soft edges cover at most
FLAT = np.ones((5, 5), np.uint8)  # an area of one value that is no edge
SHARP = [0] * 64 + list(range(64, 192)) + [255] * 64  # JPEG adds noise to black and white


def read_mask(path: Path, value: int | None = None) -> np.ndarray:
    """The mask in a picture file, its pixels as they lie there. `value` and what is raised: as `to_mask`."""
    with open_picture(path) as image:
        return to_mask(image, str(path), value)


def to_mask(mask: Any, what: str = "mask", value: int | None = None) -> np.ndarray:
    """A PIL image, or an array of booleans or integers (H, W) or (H, W, channels) -> (H, W) uint8 of 0 and 1.

    Black is background, and so is what is transparent: the second of two channels and the fourth of four are opacity.
    Where all that is opaque is black, it is the object. Otherwise the object has one value, and perhaps soft edges,
    which are cut in their middle. Of a label map it is the pixels of `value`: a gray value, a number of the palette, or
    a color 0xRRGGBB.

    Raises UserError, which begins with `what` it is, for floats other than 0 and 1, photographs, and label maps without
    `value`.
    """
    values, kind = (_of_picture if isinstance(mask, Image.Image) else _of_array)(mask, what)
    numbers = _numbers(values)
    photograph = UserError(f"{what} holds many values, as photographs do; give a mask, whose object has one")
    if len(numbers) > MANY:
        raise photograph
    if value in numbers:
        return (values == value).view(np.uint8)
    if value is None:
        found = values != 0 if len(numbers) < 2 else _soft_edged(values, np.array(numbers), kind)
        if found is not None:
            return found.view(np.uint8)
        if len(numbers) > FEW:
            raise photograph
    names = [f"0x{number:06x}" if kind == "color" else str(number) for number in numbers]
    held = f"{what} holds the values {', '.join(names[:12])}{', ...' * (len(names) > 12)}"
    if value is not None:
        raise UserError(f"{held}, not {value}")
    remedy = f"a mask is of one object: choose it with --object {names[0]}, in Python give mask == {names[0]}"
    raise UserError(f"{held}; {remedy}")


def _of_array(mask: Any, what: str) -> tuple[np.ndarray, str]:
    """(H, W) numbers, 0 for the background, and what they are: gray, palette or color."""
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
        raise UserError(f"{what} is {type(mask).__name__}; give a PIL image, or an array of booleans or integers")
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise UserError(f"{what} holds floats other than 0 and 1; give mask > threshold")
    if mask.dtype.kind in "bf":
        mask = mask.astype(np.uint8)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[..., 0]
    if mask.ndim == 3 and mask.shape[2] in (2, 3, 4) and mask.size and mask.min() >= 0 and mask.max() < 256:
        return _of_picture(Image.fromarray(mask.astype(np.uint8)), what)
    if mask.ndim != 2:
        raise UserError(f"{what} has the shape {mask.shape} and the type {mask.dtype}; give (H, W)")
    return mask, "gray"


def _of_picture(image: Image.Image, what: str) -> tuple[np.ndarray, str]:
    """As `_of_array`. Numbers of a palette count only if its 0 is the background, and other colors than gray are."""
    if ";16" in pixel_type(image) and image.mode[0] != "I":
        raise UserError(f"{what} has 16 bits a color, of which 8 are read; save it with 8")
    with picture_errors(what):
        image.load()
        noisy = image.format in ("JPEG", "MPO")
        if len(image.getbands()) == 1 and image.mode != "P" and not noisy and "transparency" not in image.info:
            return _of_array(np.asarray(image), what)
        most = image.getextrema()[-1][1] if image.getbands()[-1] == "A" else 255
        colors, opaque = np.empty(image.size[::-1], np.uint32), np.empty(image.size[::-1], bool)
        gray = True
        for rows, strip in strips(image):
            strip = strip.convert("RGB").point(SHARP * 3) if noisy else strip
            rgba = np.asarray(strip.convert("RGBA"))
            opaque[rows] = rgba[..., 3] >= max(1, most) / 2
            colors[rows] = rgba[..., :3] @ np.uint32([1 << 16, 1 << 8, 1]) * opaque[rows]
            gray &= bool((rgba[..., 1:3] == rgba[..., :1]).all())
        if not opaque.all() and not colors.any():
            return opaque * np.uint8(255), "gray"
        if gray:
            return colors.astype(np.uint8), "gray"
        if image.mode == "P" and not colors[np.asarray(image) == 0].any():
            return np.asarray(image) * (colors > 0), "palette"
        return colors, "color"


def _parts(values: np.ndarray) -> list[np.ndarray]:
    return np.array_split(values, values.size // (1 << 20) + 1)  # what is made of one takes little memory


def _numbers(values: np.ndarray) -> list[int]:
    """The different values other than 0, ascending, or some more than MANY."""
    found: set[int] = set()
    for part in _parts(values):
        found.update(np.unique(part).tolist())
        if len(found) > MANY + 1:
            break
    return sorted(found - {0})


def _soft_edged(values: np.ndarray, numbers: np.ndarray, kind: str) -> np.ndarray | None:
    """The object (H, W) bool, if one of the `numbers` fills areas and the others, few pixels, lie between it and black,
    as in soft edges; None if the picture is another.
    """
    if kind == "palette":
        return None
    areas: set[int] = set()
    for part in _parts(values):
        exact = part.astype(np.float32)  # OpenCV takes no integers of 32 bits
        areas.update(np.unique(part[cv2.erode(exact, FLAT) == cv2.dilate(exact, FLAT)]).tolist())
    areas.discard(0)
    if len(areas) != 1:
        return None
    full = areas.pop()
    if np.count_nonzero(values) - np.count_nonzero(values == full) > SOFT * values.size:
        return None
    colors = np.stack([numbers >> 16, numbers >> 8 & 255, numbers & 255] if kind == "color" else [numbers], axis=1)
    color = colors[numbers == full][0]
    bright = (255 if kind == "color" else np.iinfo(values.dtype).max) // 4  # small values are labels
    if color.max() < bright or (colors > color).any():
        return None
    inside = numbers[2 * colors.max(axis=1) >= color.max()]
    return np.concatenate([np.isin(part, inside) for part in _parts(values)])
