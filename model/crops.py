"""Square crops: cut out of images and resized to the network's input, and answers put back into the image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from formats.geometry import resize

CONTEXT = 3.0  # width of a crop in which the network finds an object, as a multiple of the object's width
CLOSE = 1.5  # width of the crop for the close look, which draws the mask, as a multiple of the object's width
COVERED = 0.3  # a cell belongs to the object if its coverage exceeds this fraction of the largest coverage
LARGEST = 0.7  # the largest part of a view's long side that an object is expected to span
# For each kind of camera, how many times larger a camera shows things than an exo camera does, if sizes are measured in
# parts of the image's long side. Ego cameras have two values, because the magnification differs among takes.
MAGNIFICATIONS = {"ego": (3.0, 1.25), "exo": (1.0,)}


class Crop(NamedTuple):
    """A square in an image, in the image's pixels. The part of a crop beyond the image is black."""

    top: int
    left: int
    side: int

    @classmethod
    def whole(cls, size: tuple[int, int]) -> "Crop":
        """The smallest square around an image of `size` (H, W), which letterboxing shows. No crop is larger."""
        side = max(size)
        return cls(*(-((side - length) // 2) for length in size), side)


class Spot(NamedTuple):
    """The place of an object: the middle of its bounding box, and the box's longer side, in pixels."""

    row: float
    col: float
    extent: float

    def crop(self, size: tuple[int, int], context: float = CONTEXT) -> Crop:
        """The crop to look at the object: `context` times its extent, but not larger than the image's `size` (H, W)."""
        return self.square(min(context * self.extent, max(size)))

    def square(self, side: float) -> Crop:
        """The crop around the object with this side, in whole pixels."""
        side = max(1, round(side))
        return Crop(round(self.row - side / 2), round(self.col - side / 2), side)

    def moved(self, rows: float, cols: float, octaves: float) -> "Spot":
        """The spot, moved by `rows` and `cols` times its extent, and enlarged by a factor of 2 ** `octaves`."""
        row, col = self.row + rows * self.extent, self.col + cols * self.extent
        return Spot(row, col, self.extent * math.pow(2, octaves))

    def is_near(self, other: "Spot") -> bool:
        """True if the middle of the other spot is closer than half of this spot's extent."""
        return max(abs(self.row - other.row), abs(self.col - other.col)) < self.extent / 2


def spot_of(mask: np.ndarray) -> Spot | None:
    """The spot of a mask's object, (H, W); None if the mask is empty."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Spot(top + height / 2, left + width / 2, float(max(height, width))) if width else None


class Part(NamedTuple):
    """The largest connected part of a mask in a crop."""

    spot: Spot
    is_whole: bool  # False if the crop cuts the part off
    share: float  # the part's area divided by the mask's area


def largest_part(mask: np.ndarray, crop: Crop, size: tuple[int, int]) -> Part | None:
    """The largest connected part of a mask (S, S) in a crop, in an image of `size` (H, W), or None if the mask is
    empty. Mask pixels beyond the image do not count.
    """
    pixel = crop.side / len(mask)
    middles = (np.arange(len(mask)) + 0.5) * pixel
    rows, cols = ((x + middles >= 0) & (x + middles < length) for x, length in zip(crop[:2], size, strict=True))
    _, _, stats, _ = cv2.connectedComponentsWithStats((mask & np.outer(rows, cols)).astype(np.uint8))
    if len(stats) == 1:
        return None
    areas = stats[1:, cv2.CC_STAT_AREA]
    left, top, width, height, area = stats[1 + areas.argmax()].tolist()
    row, col = crop.top + (top + height / 2) * pixel, crop.left + (left + width / 2) * pixel
    is_whole = min(left, top) > 0 and max(left + width, top + height) < len(mask)
    extent = min(max(width, height) * pixel, LARGEST * max(size))
    return Part(Spot(row, col, extent), is_whole, area / areas.sum())


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


def put_back(prob: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
    """Probabilities (S, S) in a crop -> (H, W) float32 in an image of `size`, which are 0 outside of the crop."""
    image = np.zeros(size, np.float32)
    rows, cols, inside_rows, inside_cols = _overlap(crop, size)
    image[rows, cols] = resize(prob, (crop.side, crop.side))[inside_rows, inside_cols]
    return image


def object_cells(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The cells of a grid over a mask (H, W) of 0 and 1 that belong to the object (see COVERED), (h, w) bool."""
    cover = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    return cover > max(COVERED * cover.max(), 1e-6)


def _overlap(crop: Crop, size: tuple[int, int]) -> tuple[slice, slice, slice, slice]:
    """The rows and columns of an image of `size` that a crop shows, and their rows and columns in the crop."""
    outside, inside = [], []
    for first, length in zip(crop[:2], size, strict=True):
        begin = min(max(first, 0), length)
        end = max(min(first + crop.side, length), begin)
        outside.append(slice(begin, end))
        inside.append(slice(begin - first, end - first))
    return *outside, *inside


def expected_shares(spot: Spot, size: tuple[int, int], ratios: Sequence[float]) -> dict[float, float]:
    """For each ratio, the share of a target's long side that an object may span. The object is at `spot` in a query of
    `size` (H, W); a ratio is the object's share in the target, divided by its share in the query. Ratios that give more
    than LARGEST are left out. If all ratios give more, only the smallest ratio is kept, with LARGEST.
    """
    shares = {ratio: ratio * spot.extent / max(size) for ratio in ratios}
    least = min(shares.values())
    return {ratio: min(share, LARGEST) for ratio, share in shares.items() if share <= max(LARGEST, least)}


def size_ratios(query_kind: str | None, target_kind: str | None) -> tuple[float, ...]:
    """The possible ratios of an object's share of the long side in the target and its share in the query. The kinds are
    keys of MAGNIFICATIONS, or None for a camera of unknown kind.
    """
    if query_kind is None or target_kind is None:
        return 1 / 3, 1.0, 3.0
    of_query, of_target = MAGNIFICATIONS[query_kind], MAGNIFICATIONS[target_kind]
    return tuple(dict.fromkeys(target / query for target in of_target for query in of_query))


def frame_size(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """The size at which the locator reads an image of `size` (H, W): multiples of 16 pixels, about `long_side` long."""
    height, width = (max(2, round(length * long_side / max(size) / 16)) * 16 for length in size)
    return height, width


def whole_frame(image: np.ndarray, long_side: int) -> np.ndarray:
    """Resize an image (H, W, 3) to its `frame_size`."""
    return resize(image, frame_size(image.shape[:2], long_side))


def cell_middles(
    cells: Sequence[Sequence[int]], grid: tuple[int, int], size: tuple[int, int]
) -> list[tuple[float, float]]:
    """Rows and columns of cells of a grid over an image of `size` -> the middles of these cells, in pixels."""
    return [((row + 0.5) * size[0] / grid[0], (col + 0.5) * size[1] / grid[1]) for row, col in cells]
