"""Square crops: cut out of images and resized to a network's input; and answers put back into the image."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from formats.geometry import Size, resize


class Crop(NamedTuple):
    """A square in an image, in the image's pixels. The part of a crop beyond the image is black."""

    top: int
    left: int
    side: int

    @classmethod
    def whole(cls, size: Size) -> "Crop":
        """The smallest square around an image of `size` (H, W), which letterboxing shows. No crop is larger."""
        side = max(size)
        top, left = (-((side - length) // 2) for length in size)
        return cls(top, left, side)


def cut(image: np.ndarray, crop: Crop, size: int, degrees: float = 0.0) -> np.ndarray:
    """Cut a crop out of (H, W) or (H, W, C), turn it around its middle, and resize it to (size, size[, C])."""
    if degrees:
        wide, margin = round(size * math.sqrt(2)), round(crop.side * (math.sqrt(2) - 1) / 2)
        square = cut(image, Crop(crop.top - margin, crop.left - margin, crop.side + 2 * margin), wide)
        turn = cv2.getRotationMatrix2D(((wide - 1) / 2, (wide - 1) / 2), degrees, 1.0)
        turn[:, 2] -= (wide - size) / 2
        return cv2.warpAffine(square, turn, (size, size))
    rows, cols, inside_rows, inside_cols = _overlap(crop, image.shape[:2])
    part = image[rows, cols]
    if part.shape[:2] != (crop.side, crop.side):
        square = np.zeros((crop.side, crop.side, *image.shape[2:]), image.dtype)
        square[inside_rows, inside_cols] = part
        part = square
    return resize(part, (size, size))


def cut_mask(mask: np.ndarray, crop: Crop, size: int, degrees: float = 0.0) -> np.ndarray:
    """Cut a crop out of a mask (H, W) of 0 and 1 -> (size, size) uint8 of 0 and 1. A pixel is 1 if the object covers at
    least half of it. If no pixel is covered by half, a pixel is 1 if its cover is at least half of the largest cover.
    """
    cover = cut(mask.astype(np.float32), crop, size, degrees)
    return ((cover > 0) & (cover >= min(0.5, cover.max() / 2))).astype(np.uint8)


def put_back(prob: np.ndarray, crop: Crop, size: Size) -> np.ndarray:
    """Probabilities (S, S) in a crop -> (H, W) float32 in an image of `size`, which are 0 outside of the crop."""
    image = np.zeros(size, np.float32)
    rows, cols, inside_rows, inside_cols = _overlap(crop, size)
    image[rows, cols] = resize(prob, (crop.side, crop.side))[inside_rows, inside_cols]
    return image


def _overlap(crop: Crop, size: Size) -> tuple[slice, slice, slice, slice]:
    """The rows and columns of an image of `size` that a crop shows, and their rows and columns in the crop."""
    outside, inside = [], []
    for first, length in zip(crop[:2], size, strict=True):
        begin = min(max(first, 0), length)
        end = max(min(first + crop.side, length), begin)
        outside.append(slice(begin, end))
        inside.append(slice(begin - first, end - first))
    return *outside, *inside
