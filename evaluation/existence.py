"""How far the existence confidence can be trusted: precision and recall, calibration. None of it is official."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from evaluation.score import Case

BINS = 10


class Bin(NamedTuple):
    """Cases whose confidence lies in one tenth of 0..1."""

    low: float
    high: float
    count: int
    mean_confidence: float
    share_visible: float


class Existence(NamedTuple):
    average_precision: float  # area under precision over recall, as steps
    calibration_error: float  # mean distance of confidence and share visible over the bins, weighted by count
    recall: list[float]
    precision: list[float]
    bins: list[Bin]


def existence(cases: Sequence[Case], points: int = 101) -> Existence:
    """Precision-recall curve, at most `points` long, and calibration of "the object is visible in the target"."""
    confidence = np.array([case.confidence for case in cases], float)
    visible = np.array([case.visible for case in cases], bool)
    recall, precision = precision_recall(visible, confidence)
    average = float(np.sum(np.diff(recall, prepend=0) * precision)) if len(recall) else math.nan
    bins = calibration(visible, confidence)
    error = sum(b.count * abs(b.mean_confidence - b.share_visible) for b in bins) / len(cases) if cases else math.nan
    kept = np.unique(np.linspace(0, len(recall) - 1, min(points, len(recall))).astype(int)) if len(recall) else []
    return Existence(average, error, recall[kept].tolist(), precision[kept].tolist(), bins)


def precision_recall(visible: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at each distinct threshold, from the highest confidence down; empty if none is visible."""
    if not visible.any():
        return np.empty(0), np.empty(0)
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(visible[order])
    last = np.append(np.flatnonzero(np.diff(confidence[order])), len(order) - 1)  # equal confidences fall together
    return hits[last] / hits[-1], hits[last] / (last + 1)


def calibration(visible: np.ndarray, confidence: np.ndarray) -> list[Bin]:
    """Ten bins of equal width, empty ones left out."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        Bin(
            b / BINS, (b + 1) / BINS, int(inside.sum()), float(confidence[inside].mean()), float(visible[inside].mean())
        )
        for b in range(BINS)
        if (inside := place == b).any()
    ]
