"""Square crops of images: cut out and resized to the network's input, and answers put back into the image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from formats.geometry import resize

CONTEXT = 3.0  # side of a crop in sides of the object in it: the network sees the object's surroundings, to find it
CLOSE = 1.5  # side of a crop in sides of the object for the close look, which draws the mask
COVERED = 0.3  # A cell belongs to the object if its coverage exceeds this fraction of the largest coverage.
LARGEST = 0.7  # the largest share of a view's long side that an object is expected to span
# By a camera's kind: how many times as large as an exo camera it shows things, in shares of the image's long side. Ego
# cameras have two values, since this differs from take to take.
MAGNIFICATIONS = {"ego": (3.0, 1.25), "exo": (1.0,)}


class Crop(NamedTuple):
    """A square of an image, in its pixels. It may reach beyond the image, which is black there."""

    top: int
    left: int
    side: int

    @classmethod
    def whole(cls, size: tuple[int, int]) -> "Crop":
        """The smallest one around all of an image of `size` (H, W): the letterbox's square, the largest of all."""
        side = max(size)
        return cls(*(-((side - length) // 2) for length in size), side)


class Spot(NamedTuple):
    """The place of an object: the middle of its bounding box, and the longer side of that, in pixels."""

    row: float
    col: float
    extent: float

    def crop(self, size: tuple[int, int], context: float = CONTEXT) -> Crop:
        """The crop to look at it: `context` times as large, but no larger than its image, which is of `size` (H, W)."""
        return self.square(min(context * self.extent, max(size)))

    def square(self, side: float) -> Crop:
        """The crop of this side around it, in whole pixels."""
        side = max(1, round(side))
        return Crop(round(self.row - side / 2), round(self.col - side / 2), side)

    def moved(self, rows: float, cols: float, octaves: float) -> "Spot":
        """Moved by `rows` and `cols` times its extent, and enlarged by a factor of 2 ** `octaves`."""
        row, col = self.row + rows * self.extent, self.col + cols * self.extent
        return Spot(row, col, self.extent * math.pow(2, octaves))

    def is_near(self, other: "Spot") -> bool:
        """Whether the other's middle is less than half of this one's extent away."""
        return max(abs(self.row - other.row), abs(self.col - other.col)) < self.extent / 2


def spot_of(mask: np.ndarray) -> Spot | None:
    """The spot of a mask's object, (H, W); None if the mask is empty."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Spot(top + height / 2, left + width / 2, float(max(height, width))) if width else None


def largest_part(mask: np.ndarray, crop: Crop, size: tuple[int, int]) -> tuple[Spot | None, bool]:
    """The place in an image of `size` of the largest connected part of a mask (S, S), which an answer has in a crop;
    None if the mask is empty. And whether that part ends inside the crop. What lies beyond the image does not count.
    """
    pixel = crop.side / len(mask)
    middles = (np.arange(len(mask)) + 0.5) * pixel
    rows, cols = ((x + middles >= 0) & (x + middles < length) for x, length in zip(crop[:2], size, strict=True))
    _, _, stats, _ = cv2.connectedComponentsWithStats((mask & np.outer(rows, cols)).astype(np.uint8))
    if len(stats) == 1:
        return None, True
    left, top, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()].tolist()
    row, col = crop.top + (top + height / 2) * pixel, crop.left + (left + width / 2) * pixel
    is_whole = min(left, top) > 0 and max(left + width, top + height) < len(mask)
    return Spot(row, col, min(max(width, height) * pixel, LARGEST * max(size))), is_whole


def cut(image: np.ndarray, crop: Crop, size: int, degrees: float = 0.0) -> np.ndarray:
    """(H, W) or (H, W, C) -> the crop, resized to (size, size[, C]), of the same dtype; turned around its middle."""
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
    """(H, W) of 0 and 1 -> (size, size) uint8 of 0 and 1: the pixels of which the object covers at least half. If it
    covers half of none, the pixels of which it covers at least half as much as of the pixel that it covers most.
    """
    cover = cut(mask.astype(np.float32), crop, size, degrees)
    return ((cover > 0) & (cover >= min(0.5, cover.max() / 2))).astype(np.uint8)


def put_back(prob: np.ndarray, crop: Crop, size: tuple[int, int]) -> np.ndarray:
    """Probabilities (S, S) of a crop -> (H, W) float32 of an image of `size`, 0 outside of the crop."""
    image = np.zeros(size, np.float32)
    rows, cols, inside_rows, inside_cols = _overlap(crop, size)
    image[rows, cols] = resize(prob, (crop.side, crop.side))[inside_rows, inside_cols]
    return image


def object_cells(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The object's cells of a grid over a mask (H, W) of 0 and 1, by the rule of COVERED: (h, w) bool."""
    cover = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    return cover > max(COVERED * cover.max(), 1e-6)


def _overlap(crop: Crop, size: tuple[int, int]) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of an image of `size` that a crop shows, and the rows and columns of the crop that show them."""
    outside, inside = [], []
    for first, length in zip(crop[:2], size, strict=True):
        begin = min(max(first, 0), length)
        end = max(min(first + crop.side, length), begin)
        outside.append(slice(begin, end))
        inside.append(slice(begin - first, end - first))
    return *outside, *inside


def expected_shares(spot: Spot, size: tuple[int, int], ratios: Sequence[float]) -> dict[float, float]:
    """Ratio -> the share of a target's long side that an object may span. The object is at `spot` in a query of `size`
    (H, W); a ratio is its share in the target, divided by that in the query. Ratios that give more than LARGEST are
    left out, unless all do; then the smallest gives LARGEST.
    """
    shares = {ratio: ratio * spot.extent / max(size) for ratio in ratios}
    least = min(shares.values())
    return {ratio: min(share, LARGEST) for ratio, share in shares.items() if share <= max(LARGEST, least)}


def size_ratios(query_kind: str | None, target_kind: str | None) -> tuple[float, ...]:
    """The possible ratios of a thing's shares of the long side in target and query. The kinds are keys of
    MAGNIFICATIONS, or None for a camera of which nothing is known.
    """
    if query_kind is None or target_kind is None:
        return 1 / 3, 1.0, 3.0
    of_query, of_target = MAGNIFICATIONS[query_kind], MAGNIFICATIONS[target_kind]
    return tuple(dict.fromkeys(target / query for target in of_target for query in of_query))


def frame_size(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """The size in which the locator reads an image of `size` (H, W): multiples of 16 pixels, about `long_side` long."""
    height, width = (max(2, round(length * long_side / max(size) / 16)) * 16 for length in size)
    return height, width


def whole_frame(image: np.ndarray, long_side: int) -> np.ndarray:
    """(H, W, 3) -> resized to `frame_size`."""
    return resize(image, frame_size(image.shape[:2], long_side))


def cell_middles(
    cells: Sequence[Sequence[int]], grid: tuple[int, int], size: tuple[int, int]
) -> list[tuple[float, float]]:
    """Rows and columns of a grid over an image of `size` -> the middles of these cells, in pixels."""
    return [((row + 0.5) * size[0] / grid[0], (col + 0.5) * size[1] / grid[1]) for row, col in cells]
