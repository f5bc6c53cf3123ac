"""Where an object is in a picture, how large it may be in another, and its crops and grids of cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from common.errors import UserError
from formats.crop import Crop
from formats.geometry import Size
from model.backbone import STRIDE

CONTEXT = 3.0  # width of a crop in which the network finds an object, as a multiple of the object's width
CLOSE = 1.5  # width of the crop for the close look, which draws the mask, as a multiple of the object's width
COVERED = 0.3  # a cell belongs to the object if its coverage exceeds this fraction of the largest coverage
LEAST_PART = 0.25  # parts of a mask that are smaller than this, beside the largest one, are crumbs
LARGEST_SHARE = 0.7  # the largest part of a view's long side that an object is expected to span

# For each kind of camera, how many times larger a camera shows things than an exo camera does, if sizes are measured in
# parts of the image's long side. Ego cameras have two values, because the magnification differs among takes.
MAGNIFICATIONS = {"ego": (3.0, 1.25), "exo": (1.0,)}
UNKNOWN = 1 / 3, 3**-0.5, 1.0, 3**0.5, 3.0  # the ratios for cameras of unknown kind


class Spot(NamedTuple):
    """The place of an object: the middle of its bounding box, and the box's longer side, in pixels."""

    row: float
    col: float
    extent: float

    def crop(self, size: Size, context: float = CONTEXT) -> Crop:
        """The crop to look at the object: `context` times its extent, but not larger than the image's `size` (H, W)."""
        return self.square(min(context * self.extent, max(size)))

    def square(self, side: float) -> Crop:
        """The crop around the object with this side, in whole pixels."""
        side = max(1, round(side))
        return Crop(round(self.row - side / 2), round(self.col - side / 2), side)

    def is_near(self, other: "Spot") -> bool:
        """True if the middle of the other spot is closer than half of this spot's extent."""
        return max(abs(self.row - other.row), abs(self.col - other.col)) < self.extent / 2


def spot_of(mask: np.ndarray) -> Spot | None:
    """The spot of a mask's object, (H, W); None if the mask is empty."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Spot(top + height / 2, left + width / 2, float(max(height, width))) if width else None


@dataclass(frozen=True)
class SearchConfig:
    """The sizes at which a search reads pictures."""

    input_size: int = 240  # side of the crops in which it looks, in pixels
    frame_size: int = 1024  # long side of the whole pictures that the locator reads
    cell: int = STRIDE // 2  # pixels of a cell of the locator; those of a plain vision transformer are twice as long

    def __post_init__(self):
        if not 4 * STRIDE <= self.frame_size <= 1 << 13:
            what = f"frame size {self.frame_size}, with input size {self.input_size},"
            raise UserError(f"{what} must be from {4 * STRIDE} to {1 << 13} pixels")

    @property
    def wide_size(self) -> int:
        """The locator reads wide query crops of this side, in pixels."""
        return max(2, self.input_size // (2 * STRIDE)) * STRIDE

    def frame_length(self, share: float) -> int:
        """The long side, in pixels, at which a whole target is read to locate an object that spans its part `share`:
        `frame_size`, halved until the object fills at most half of a wide crop, but not below twice `wide_size`.
        """
        length = self.frame_size
        while share * length > self.wide_size / 2 and length >= 4 * self.wide_size:
            length //= 2
        return length

    def wide_crop(self, spot: Spot, share: float) -> Crop:
        """The query crop that the locator reads. The crop shows the object at `spot` as large as the object is
        expected in the target's frame, where the object spans the part `share`, but not larger than half of the crop.
        """
        extent = share * self.frame_length(share)  # pixels in the target's frame
        return spot.square(max(self.wide_size * spot.extent / extent, 2 * spot.extent))


class Part(NamedTuple):
    """A connected part of a mask in a crop."""

    spot: Spot
    is_uncut: bool  # False if the crop cuts the part off
    mask: np.ndarray  # (S, S) bool


def connected_parts(mask: np.ndarray, crop: Crop, size: Size) -> list[Part]:
    """The connected parts of a mask (S, S) in a crop, in an image of `size` (H, W), without those that have less than
    LEAST_PART of the largest one's area; the largest comes first. Mask pixels beyond the image do not count.
    """
    pixel = crop.side / len(mask)
    middles = (np.arange(len(mask)) + 0.5) * pixel
    rows, cols = ((x + middles >= 0) & (x + middles < length) for x, length in zip(crop[:2], size, strict=True))
    _, labels, stats, _ = cv2.connectedComponentsWithStats((mask & np.outer(rows, cols)).astype(np.uint8))
    areas, parts = stats[1:, cv2.CC_STAT_AREA], []
    for number in np.argsort(-areas, kind="stable").tolist():
        left, top, width, height, area = stats[1 + number].tolist()
        if area < LEAST_PART * areas.max():
            break
        row, col = crop.top + (top + height / 2) * pixel, crop.left + (left + width / 2) * pixel
        is_uncut = min(left, top) > 0 and max(left + width, top + height) < len(mask)
        extent = min(max(width, height) * pixel, LARGEST_SHARE * max(size))
        parts.append(Part(Spot(row, col, extent), is_uncut, labels == 1 + number))
    return parts


def expected_shares(spot: Spot, size: Size, query_kind: str | None, target_kind: str | None) -> list[float]:
    """The shares of a target's long side that an object may span. In the query, of `size` (H, W), it is at `spot`. A
    camera's kind is a key of MAGNIFICATIONS, or None if unknown. Shares above LARGEST_SHARE are left out; if all
    are, LARGEST_SHARE is the only one.
    """
    ratios = UNKNOWN
    if query_kind and target_kind:
        of_query, of_target = MAGNIFICATIONS[query_kind], MAGNIFICATIONS[target_kind]
        ratios = tuple(dict.fromkeys(larger / smaller for larger in of_target for smaller in of_query))
    shares = [ratio * spot.extent / max(size) for ratio in ratios]
    return [share for share in shares if share <= LARGEST_SHARE] or [LARGEST_SHARE]


def object_cells(mask: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """The cells of a grid over a mask (H, W) of 0 and 1 that belong to the object (see COVERED), (h, w) bool."""
    cover = cv2.resize(mask.astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    return cover > max(COVERED * cover.max(), 1e-6)


def size_to_read(size: Size, long_side: int) -> Size:
    """The size at which the locator reads an image of `size` (H, W): multiples of 16 pixels, about `long_side` long."""
    height, width = (max(2, round(length * long_side / max(size) / 16)) * 16 for length in size)
    return height, width
