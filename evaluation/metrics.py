"""The benchmark's metrics of a predicted mask and of a set of existence confidences, as its official scripts have them.

Masks are (H, W) uint8 arrays of 0 and 1, long side 480 pixels, truth and prediction of the same size. Everything that
costs time happens in the rectangle that holds both objects; the numbers are those of the whole image.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from formats.geometry import EVAL_SIDE, Size

CONFIDENCE_THRESHOLD = 0.5  # an object is said to be visible above it
BOUNDARY_TOLERANCE = 0.008  # of the image's diagonal
LOCATION_SCALE = math.hypot(EVAL_SIDE, EVAL_SIDE)  # pixels; the same for every image size


class MaskScores(NamedTuple):
    iou: float
    contour_accuracy: float
    location_error: float
    location_error_corrected: float  # not official: see `location_error`


class Box(NamedTuple):
    """Smallest rectangle around a mask's object, in pixels; `width` and `height` are 0 if the mask is empty."""

    left: int
    top: int
    width: int
    height: int


def score_masks(truth: np.ndarray, prediction: np.ndarray) -> MaskScores:
    """All metrics of a mask against the truth. Raises ValueError if the sizes differ."""
    if truth.shape != prediction.shape:
        raise ValueError(f"the prediction's size {prediction.shape} is not the truth's, {truth.shape}")
    boxes = Box(*cv2.boundingRect(truth)), Box(*cv2.boundingRect(prediction))
    window = _window(*boxes, truth.shape)
    pair = truth[window], prediction[window]
    return MaskScores(
        iou(*pair),
        contour_accuracy(*pair, radius=boundary_radius(truth.shape)),
        location_error(*boxes, truth.shape),
        location_error(*boxes, truth.shape, official=False),
    )


def iou(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Intersection over union in [0, 1]; 1 if both masks are empty."""
    union = np.count_nonzero(truth | prediction)
    return float(np.count_nonzero(truth & prediction) / (union + 1e-7)) if union else 1.0


def contour_accuracy(truth: np.ndarray, prediction: np.ndarray, radius: int) -> float:
    """DAVIS boundary F in [0, 1]: harmonic mean of the shares of the two contours that lie near the other one.

    Near means within a disk of `radius` pixels. 1 if neither mask has a contour, 0 if only one has.
    """
    truth, prediction = boundary(truth), boundary(prediction)
    n_truth, n_prediction = np.count_nonzero(truth), np.count_nonzero(prediction)
    if not n_truth or not n_prediction:
        return float(n_truth == n_prediction)
    precision = np.count_nonzero(prediction & cv2.dilate(truth, _disk(radius))) / n_prediction
    recall = np.count_nonzero(truth & cv2.dilate(prediction, _disk(radius))) / n_truth
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour, as a mask (DAVIS's `seg2bmap`).

    The last row looks only to the right, the last column only down: a border of the image is no contour.
    """
    out = np.zeros_like(mask)
    here = mask[:-1, :-1]
    out[:-1, :-1] = (here ^ mask[:-1, 1:]) | (here ^ mask[1:, :-1]) | (here ^ mask[1:, 1:])
    out[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    out[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return out


def boundary_radius(size: Size) -> int:
    """How far, in pixels, a contour of an image of `size` may be off: 5 for 270x480, 6 for 480x480."""
    return math.ceil(BOUNDARY_TOLERANCE * math.hypot(*size))


def location_error(truth: Box, prediction: Box, size: Size, official: bool = True) -> float:
    """Distance of the two boxes' centers as a fraction of 480 x sqrt(2) pixels.

    An empty mask counts as centered in the image. The official center swaps its x and y, which puts it off-center in
    every image that is not square; `official=False` does not.
    """
    height, width = size
    middle = (height // 2, width // 2) if official else (width // 2, height // 2)
    (x0, y0), (x1, y1) = (_center(box) if box.width else middle for box in (truth, prediction))
    return math.hypot(x0 - x1, y0 - y1) / LOCATION_SCALE


def balanced_accuracy(visible: np.ndarray, confidence: np.ndarray) -> float:
    """Mean over the classes (visible, not visible) that occur of the share of them that `confidence` > 0.5 gets right.

    Both are (N,); nan if N is 0.
    """
    visible = np.asarray(visible, bool)
    right = (np.asarray(confidence) > CONFIDENCE_THRESHOLD) == visible
    shares = [right[visible == label].mean() for label in (False, True) if (visible == label).any()]
    return float(np.mean(shares)) if shares else math.nan


def _center(box: Box) -> tuple[int, int]:
    return (2 * box.left + box.width - 1) // 2, (2 * box.top + box.height - 1) // 2


def _window(truth: Box, prediction: Box, size: Size) -> tuple[slice, slice]:
    """Rows and columns that hold both objects and, where the image goes on, one pixel more: room for the contour."""
    boxes = [box for box in (truth, prediction) if box.width]
    if not boxes:
        return slice(0, 1), slice(0, 1)
    top, left = min(box.top for box in boxes), min(box.left for box in boxes)
    bottom, right = max(box.top + box.height for box in boxes), max(box.left + box.width for box in boxes)
    return slice(max(top - 1, 0), min(bottom + 1, size[0])), slice(max(left - 1, 0), min(right + 1, size[1]))


@lru_cache
def _disk(radius: int) -> np.ndarray:
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.uint8)
