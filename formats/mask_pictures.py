"""One object's mask, in the pictures and arrays in which people have it -> (H, W) uint8 of 0 and 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from common.errors import UserError
from formats.picture_files import STRIP, open_picture, picture_errors, pixel_type

FEW, MANY = 64, 1024  # values of a label map without and with `value`; photographs have more
PHOTOGRAPH = "holds many values, as photographs do; give a mask, whose object has one"
SOFT = 0.1  # of a picture, that soft edges cover at most
PART = 1 << 20  # pixels that are compared at a time
FLAT = np.ones((5, 5), np.uint8)  # an area of one value that is no edge
SHARP = [0] * 64 + list(range(64, 192)) + [255] * 64  # JPEG adds noise to black and white

Codes = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray] | None]


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
    codes, rgba_of = _codes(mask, what)
    found = _distinct(codes)
    if found is None:
        raise UserError(f"{what} {PHOTOGRAPH}")
    colors = found[:, None] if rgba_of is None else _without_transparent(rgba_of(found))
    background, values = (colors == 0).all(axis=1), found
    if rgba_of is _unpacked:
        gray = (colors == colors[:, :1]).all()
        values = colors[:, 0] if gray else colors.astype(int) @ (1 << 16, 1 << 8, 1)
    known = np.unique(values[~background]).tolist()
    if value is None and len(known) > 1:
        objects = _soft_edged(codes, found, values, np.where(background[:, None], 0, colors))
    else:
        objects = ~background if value is None else (values == value) & ~background
    if objects is None or value not in (None, *known):
        if len(known) > FEW and value is None:
            raise UserError(f"{what} {PHOTOGRAPH}")
        numbers = known if rgba_of is not _unpacked or gray else [f"0x{number:06x}" for number in known]
        held = f"{what} holds the values {', '.join(map(str, numbers[:12]))}{', ...' if len(known) > 12 else ''}"
        remedy = f"a mask is of one object: choose it with --object {numbers[0]}, in Python give mask == {numbers[0]}"
        raise UserError(f"{held}; {remedy}" if value is None else f"{held}, not {value}")
    objects = objects.astype(np.uint8)
    return np.concatenate([objects[np.searchsorted(found, part)] for part in _parts(codes)])


def _codes(mask: Any, what: str) -> Codes:
    """A number for each pixel (H, W), and what gives the colors of (n,) of them, (n, 4) uint8 RGBA; None: they are gray
    values.
    """
    if isinstance(mask, Image.Image):
        return _codes_of_picture(mask, what)
    if not isinstance(mask, np.ndarray) or mask.dtype.kind not in "biuf":
        raise UserError(f"{what} is {type(mask).__name__}; give a PIL image, or an array of booleans or integers")
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise UserError(f"{what} holds floats other than 0 and 1; give mask > threshold")
    if mask.dtype.kind in "bf":
        mask = mask.astype(np.uint8)
    if mask.ndim == 3 and mask.shape[2] == 1:
        mask = mask[..., 0]
    if mask.ndim == 3 and mask.shape[2] in (2, 3, 4) and mask.size and mask.min() >= 0 and mask.max() < 256:
        return _codes_of_picture(Image.fromarray(mask.astype(np.uint8)), what)
    if mask.ndim != 2:
        raise UserError(f"{what} has the shape {mask.shape} and the type {mask.dtype}; give (H, W)")
    return mask, None


def _codes_of_picture(image: Image.Image, what: str) -> Codes:
    if ";16" in pixel_type(image) and image.mode[0] != "I":
        raise UserError(f"{what} has 16 bits a color, of which 8 are read; save it with 8")
    with picture_errors(what):
        image.load()
        noisy = image.format in ("JPEG", "MPO")
        if image.mode == "P":
            palette = image.crop((0, 0, 256, 1))
            palette.putdata(range(256))
            return np.asarray(image), np.asarray(palette.convert("RGBA"))[0].__getitem__
        gray = image.mode in ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
        if gray and not noisy and "transparency" not in image.info:
            return _codes(np.asarray(image), what)
        if image.mode not in ("1", "L", "LA", "PA", "RGB", "RGBA"):
            image = image.convert("RGB")
        codes = np.empty(image.size[::-1], np.uint32)
        rows = max(1, STRIP // image.width)
        for top in range(0, image.height, rows):
            strip = image.crop((0, top, image.width, min(top + rows, image.height)))
            strip = strip.convert("RGB").point(SHARP * 3) if noisy else strip
            codes[top : top + rows] = np.asarray(strip.convert("RGBA")).view(np.uint32)[..., 0]
        return codes, _unpacked


def _unpacked(codes: np.ndarray) -> np.ndarray:
    return codes[:, None].view(np.uint8)  # (n, 1) -> (n, 4) RGBA


def _without_transparent(rgba: np.ndarray) -> np.ndarray:
    """(n, 4) -> (n, 3), black where it is transparent; white where it is not, if all is black."""
    colors, opacity = rgba[:, :3].copy(), rgba[:, 3].astype(int)
    transparent = 2 * opacity < max(1, opacity.max(initial=0))
    colors[transparent] = 0
    if transparent.any() and not colors.any():
        colors[~transparent] = 255
    return colors


def _parts(codes: np.ndarray) -> list[np.ndarray]:
    return np.array_split(codes, codes.size // PART + 1)


def _distinct(codes: np.ndarray) -> np.ndarray | None:
    """The different values of an array, ascending; None if there are more than MANY."""
    found = codes[:0].ravel()
    for part in _parts(codes):
        found = np.union1d(found, part)
        if len(found) > MANY:
            return None
    return found


def _soft_edged(codes: np.ndarray, found: np.ndarray, values: np.ndarray, colors: np.ndarray) -> np.ndarray | None:
    """Which of the values `found` belong to the object, if one fills areas and the others lie between it and black, as
    in soft edges; None if the picture is another. `colors` (n, k) are black for the background.
    """
    pixels, flat = np.zeros((2, len(found)), int)
    for part in _parts(codes):
        places = np.searchsorted(found, part).astype(np.uint16)
        pixels += np.bincount(places.ravel(), minlength=len(found))
        inside = places[cv2.erode(places, FLAT) == cv2.dilate(places, FLAT)]
        flat += np.bincount(inside, minlength=len(found))
    lit = colors.any(axis=1)
    areas = np.unique(values[lit & (flat > 0)])
    if len(areas) != 1:
        return None
    whole = values == areas[0]
    full = colors[whole][0]
    bright = np.iinfo(colors.dtype).max // 4  # small values are labels
    if full.max() < bright or (colors > full).any() or pixels[lit & ~whole].sum() > SOFT * codes.size:
        return None
    return 2 * colors.max(axis=1).astype(int) >= full.max()
