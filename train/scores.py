"""Figures of validation, as the official evaluation computes them, on the network's grid."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.drawing import PREDICTION, QUERY, TRUTH, overlay
from formats.results import THRESHOLD


class SampleScores(NamedTuple):
    """Of N validation samples, (N,) float64 each, on the CPU."""

    iou: Tensor  # NaN where the object is not visible
    existence: Tensor  # predicted probability
    visible: Tensor  # 1 or 0


class Scored(NamedTuple):
    scores: SampleScores
    found: Tensor  # (N, S, S) bool, the predicted masks


def scored(iou: Tensor, existence: Tensor, visible: Tensor, found: Tensor) -> Scored:
    iou = torch.where(visible, iou, math.nan)
    return Scored(SampleScores(*torch.stack((iou, existence, visible)).double().cpu()), found)


def mask_iou(intersection: Tensor, union: Tensor) -> Tensor:
    """1 where both are empty: a mask too small for the grid, and nothing predicted."""
    return torch.where(union == 0, 1.0, intersection / (union + 1e-7))


def validation_figures(scores: SampleScores) -> dict[str, float]:
    """Mean IoU of visible objects and balanced accuracy of existence. What has no samples to rest on is left out; the
    accuracy needs both kinds.
    """
    predicted, visible = scores.existence > THRESHOLD, scores.visible.bool()
    figures = {}
    if visible.any():
        figures["iou"] = scores.iou[visible].mean()
    if visible.any() and not visible.all():
        recalls = [(predicted[visible == truth] == truth).double().mean() for truth in (True, False)]
        figures["existence_accuracy"] = sum(recalls) / 2
    return {name: float(value) for name, value in figures.items()} | {"samples": len(scores.iou)}


def draw_example(
    query: np.ndarray, target: np.ndarray, query_mask: np.ndarray, found: np.ndarray, truth: np.ndarray
) -> np.ndarray:
    """Query with its mask | target with the predicted mask | target with the true one -> (S, 3 S, 3) uint8 RGB."""
    drawn = (query, query_mask, QUERY), (target, found, PREDICTION), (target, truth, TRUTH)
    return np.concatenate([overlay(*each) for each in drawn], axis=1)
