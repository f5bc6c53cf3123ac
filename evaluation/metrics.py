"""The metrics: their names, how they are shown, and how the metrics of a mask are computed.

To add a metric that is a mean over masks of visible objects, add a field with a default at the end of MaskScores, its
value in `score_masks`, and a line in METRICS.

Masks are (H, W) uint8 arrays of 0 and 1 with a long side of 480 pixels; the true and the predicted mask have the same
size. Slow steps are computed only in the rectangle around both objects; the results are the same as on the whole image.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from pycocotools import mask as coco

from formats.geometry import EVAL_SIDE, Size
from formats.masks import RLE, decode_mask, encode_mask, iou

BOUNDARY_TOLERANCE = 0.008  # fraction of the image's diagonal: 5 pixels for 270x480, 6 for 480x480
LOCATION_SCALE = math.hypot(EVAL_SIDE, EVAL_SIDE)  # in pixels; the same for every image size
Box = tuple[int, int, int, int]  # left, top, width, height in pixels; width and height of an empty mask are 0


class MaskScores(NamedTuple):
    """The scores of a predicted mask."""

    iou: float
    contour_accuracy: float
    location_error: float
    location_error_corrected: float  # see `location_error`
    mask_presence: bool  # both masks are empty (the true one vanished when it was resized), or neither mask is empty
    truth_pixels: int
    predicted_pixels: int
    right_object: float = math.nan  # 1 or 0, see `right_object`; nan if no other object is in view
    objects_in_view: int = 1  # objects of the take, this one included, with a mask in the target frame
    shared_pixels: int = 0  # pixels that both masks have
    location_error_own_diagonal: float = math.nan  # the official distance as a fraction of this image's diagonal
    image_pixels: int = EVAL_SIDE**2


class Metric(NamedTuple):
    """How a metric is shown. A metric's values are fractions, which are printed multiplied by 100 if `percent`."""

    title: str
    official: bool = False  # part of the benchmark
    percent: bool = False
    higher_is_better: bool = True
    over: str = "visible"  # its sum over cases is divided by the number of these cases; "": it is no such ratio

    @property
    def heading(self) -> str:
        """The title with its unit, and a star if the metric is not part of the benchmark."""
        return ("" if self.official else "* ") + self.title + (" (%)" if self.percent else "")

    def as_text(self, value: float, sign: str = "") -> str:
        """The value as the paper prints it, "-" for nan. With `sign` "+", positive numbers get a sign, too."""
        if math.isnan(value):
            return "-"
        return f"{100 * value:{sign}.2f}" if self.percent else f"{value:{sign}.3f}"

    def interval_text(self, edges: Sequence[float], sign: str = "") -> str:
        """Both edges of an interval; "" if there is no interval."""
        return "" if math.isnan(edges[0]) else " to ".join(self.as_text(edge, sign) for edge in edges)

    def verdict(self, change: float) -> str:
        """Whether a change of the metric is "better" or "worse"; "" if the change is too small to be printed."""
        if math.isnan(change) or float(self.as_text(change)) == 0:
            return ""
        return "better" if (change > 0) == self.higher_is_better else "worse"


SEVERAL = "several_objects"  # cases of visible objects beside which another one is in view
METRICS = {  # the first four in the order of the paper's tables
    "iou": Metric("IoU", official=True, percent=True),
    "location_error": Metric("location error", official=True, higher_is_better=False),
    "contour_accuracy": Metric("contour accuracy", official=True),
    "balanced_accuracy": Metric("existence balanced accuracy", official=True, percent=True, over=""),
    "location_error_corrected": Metric("location error, empty masks centered", higher_is_better=False),
    "mask_presence": Metric("visible objects that get a mask", percent=True),
    "right_object": Metric("right object", percent=True, over=SEVERAL),
    "missed_existence": Metric("missed objects", percent=True, higher_is_better=False),
    "false_existence": Metric("invented objects", percent=True, higher_is_better=False, over="hidden"),
}
OFFICIAL = tuple(name for name, metric in METRICS.items() if metric.official)
TABLE_METRICS = (*OFFICIAL, "right_object")  # columns of the breakdowns
MASK_METRICS = tuple(name for name in METRICS if name in MaskScores._fields)  # means over masks


def score_masks(true_rle: RLE, prediction: np.ndarray, other_rles: Sequence[RLE] = ()) -> MaskScores:
    """All scores of a predicted mask, (H, W) uint8.

    All masks have the same size. `other_rles` are the true masks of the other objects in the same frame.
    """
    truth, predicted_rle = decode_mask(true_rle), encode_mask(prediction)
    rles: list[Any] = [true_rle, predicted_rle]
    size, (true_box, predicted_box) = truth.shape[:2], coco.toBbox(rles).astype(int).tolist()
    left, top, width, height = coco.toBbox(coco.merge(rles)).astype(int)
    # The window holds both objects and, except at the image's border, one pixel more on each side for the contour.
    window = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
    pair = np.ascontiguousarray(truth[window]), np.ascontiguousarray(prediction[window])
    truth_pixels, predicted_pixels = (int(np.count_nonzero(mask)) for mask in pair)
    distance = location_error(true_box, predicted_box, size)
    others = [rle for rle in other_rles if coco.area(rle)]  # pyrefly: ignore[no-matching-overload]
    return MaskScores(
        iou=iou(*pair),
        contour_accuracy=contour_accuracy(*pair, radius=math.ceil(BOUNDARY_TOLERANCE * math.hypot(*size))),
        location_error=distance,
        location_error_corrected=location_error(true_box, predicted_box, size, official=False),
        mask_presence=(truth_pixels > 0) == (predicted_pixels > 0),
        truth_pixels=truth_pixels,
        predicted_pixels=predicted_pixels,
        right_object=right_object(true_rle, predicted_rle, others) if truth_pixels and others else math.nan,
        objects_in_view=len(others) + (truth_pixels > 0),
        shared_pixels=int(np.count_nonzero(pair[0] & pair[1])),
        location_error_own_diagonal=distance * LOCATION_SCALE / math.hypot(*size),
        image_pixels=math.prod(size),
    )


def right_object(true_rle: RLE, prediction: RLE, others: Sequence[RLE]) -> float:
    """1 if the prediction covers a larger share of the right object than of each of the `others` in view, else 0.

    A tie counts as 0, and so does an empty prediction. Unlike IoU, this tells whether the right object was found.
    """
    # With True, coco.iou divides the intersection by the area of each true mask and not by the union.
    own_share, *other_shares = coco.iou([true_rle, *others], [prediction], [True])[:, 0]  # pyrefly: ignore
    return float(own_share > max(other_shares))


def contour_accuracy(truth: np.ndarray, prediction: np.ndarray, radius: int) -> float:
    """The boundary measure F of DAVIS, in [0, 1]: the harmonic mean of two shares, namely the share of each contour
    that lies within `radius` pixels of the other contour. F is 1 without contours, and 0 with only one contour.
    """
    truth, prediction = boundary(truth), boundary(prediction)
    n_truth, n_prediction = np.count_nonzero(truth), np.count_nonzero(prediction)
    if not n_truth or not n_prediction:
        return float(n_truth == n_prediction)
    precision = np.count_nonzero(prediction & cv2.dilate(truth, _disk(radius))) / n_prediction
    recall = np.count_nonzero(truth & cv2.dilate(prediction, _disk(radius))) / n_truth
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: np.ndarray) -> np.ndarray:
    """The mask of all pixels that differ from their right, lower or lower right neighbor (`seg2bmap` of DAVIS).

    Pixels of the last row are compared only with their right neighbor, pixels of the last column only with their lower
    neighbor, so the border of the image is no contour.
    """
    out = np.zeros_like(mask)
    inner = mask[:-1, :-1]
    out[:-1, :-1] = (inner ^ mask[:-1, 1:]) | (inner ^ mask[1:, :-1]) | (inner ^ mask[1:, 1:])
    out[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    out[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return out


def location_error(truth: Box, prediction: Box, size: Size, official: bool = True) -> float:
    """The distance between the centers of two boxes, as a fraction of 480 x sqrt(2) pixels.

    An empty mask counts as if it were in the middle of the image. The official evaluation swaps x and y of this middle,
    which is wrong unless the image is square; `official=False` does not swap them.
    """
    middle = (size[0] // 2, size[1] // 2) if official else (size[1] // 2, size[0] // 2)
    centers = []
    for left, top, width, height in (truth, prediction):
        centers.append(((2 * left + width - 1) // 2, (2 * top + height - 1) // 2) if width else middle)
    (x0, y0), (x1, y1) = centers
    return math.hypot(x0 - x1, y0 - y1) / LOCATION_SCALE


@lru_cache
def _disk(radius: int) -> np.ndarray:
    axis = np.arange(-radius, radius + 1)
    return (axis[:, None] ** 2 + axis**2 <= radius**2).astype(np.uint8)
