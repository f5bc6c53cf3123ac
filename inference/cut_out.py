"""Find the mask of the object inside a box that a person drew, by colors."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from common.errors import UserError
from formats.geometry import Size, resize
from formats.masks import grab_cut

MIN_SIDE = 4  # pixels that each side of a box has at least
WORK_SIDE = 240  # colors are compared in a reduced image, in which the box's long side has at most so many pixels
MARGIN = 0.35  # width of the margin around the box, which counts as background, as a fraction of the box's sides
CORE = 0.5  # size of the ellipse in the box's middle that counts as object, as a fraction of the box's sides


def cut_out(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB and the box around an object (left, top, right, bottom in pixels) -> the object's
    mask, (H, W) uint8 of 0 and 1, which is 0 outside the box.

    1. The box and a margin around it are reduced and smoothed; edges stay sharp. 2. GrabCut separates the
    colors. Outside the box is background; the middle of the box is object.

    Raises UserError as `whole_pixels` does.
    """
    left, top, right, bottom = whole_pixels(box, image.shape[:2])
    margin_x, margin_y = round(MARGIN * (right - left)) + 1, round(MARGIN * (bottom - top)) + 1
    window = np.s_[max(0, top - margin_y) : bottom + margin_y, max(0, left - margin_x) : right + margin_x]
    around = image[window]
    scale = min(1, WORK_SIDE / max(right - left, bottom - top))
    rows, columns = (max(MIN_SIDE, round(length * scale)) for length in around.shape[:2])
    small = resize(np.ascontiguousarray(around), (rows, columns))
    small = cv2.bilateralFilter(small, 5, 40, 5)

    center = np.array([left + right, top + bottom]) / 2 - (window[1].start, window[0].start)
    half = np.array([right - left, bottom - top]) / 2
    lengths = zip((rows, columns), around.shape[:2], strict=True)
    y, x = np.meshgrid(*((np.arange(n) + 0.5) * whole / n for n, whole in lengths), indexing="ij")
    x, y = abs(x - center[0]) / half[0], abs(y - center[1]) / half[1]  # both are 1 at the box's sides
    labels = np.where((x < 1) & (y < 1), cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    labels[[0, -1]] = labels[:, [0, -1]] = cv2.GC_BGD  # GrabCut needs background, even if the box is the whole image
    labels[np.hypot(x, y) < CORE] = cv2.GC_FGD
    small_mask = grab_cut(small, labels, rounds=3).astype(np.uint8)

    mask = np.zeros(image.shape[:2], np.uint8)
    mask[window] = cv2.resize(small_mask, around.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    mask[:top] = mask[bottom:] = mask[:, :left] = mask[:, right:] = 0
    return mask


def whole_pixels(box: Any, size: Size) -> tuple[int, int, int, int]:
    """The box of whole pixels around a box of four numbers, in an image of `size` (H, W); right and bottom are not
    included. Raises UserError if the box is not four numbers, has a side of less than MIN_SIDE, or reaches out of the
    image by more than a pixel.
    """
    height, width = size
    numbers = np.asarray(box)
    if numbers.shape != (4,) or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
        raise UserError(f"the box {box!r:.60} is not four numbers; give left, top, right, bottom in pixels")
    edges = np.concatenate([np.floor(numbers[:2]), np.ceil(numbers[2:])])
    left, top, right, bottom = inside = np.clip(edges, 0, [width, height] * 2).astype(int).tolist()
    if min(edges[2:] - edges[:2]) < MIN_SIDE:
        remedy = f"give left, top, right, bottom, at least {MIN_SIDE} pixels apart"
        raise UserError(f"the box {box!r:.60} is {edges[2] - edges[0]:g}x{edges[3] - edges[1]:g} pixels; {remedy}")
    if abs(edges - inside).max() > 1 or min(right - left, bottom - top) < MIN_SIDE:
        remedy = f"give left and right from 0 to {width}, top and bottom from 0 to {height}"
        raise UserError(f"the box {box!r:.60} reaches out of its image, which is {width}x{height} pixels; {remedy}")
    return left, top, right, bottom
