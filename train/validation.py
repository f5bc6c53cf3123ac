"""What validation tells: figures as the official evaluation computes them, on the network's grid, and examples."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from formats.drawing import PREDICTION, QUERY, TRUTH, overlay
from model.xsegtx import Prediction
from train.batches import Batch
from train.dataset import Samples, Source

THRESHOLD = 0.5  # of mask probabilities and of the existence probability, as in the official evaluation
SIZES = {"small": (0.0, 0.003), "medium": (0.003, 0.015), "large": (0.015, 2.0)}  # query mask's share of its image


class Example(NamedTuple):
    """A validation sample and its prediction; masks (S, S), on the CPU."""

    source: Source
    query_mask: np.ndarray
    target_mask: np.ndarray
    target_mask_prob: np.ndarray


def score(batch: Batch, prediction: Prediction) -> Tensor:
    """(B, 4) float64 on the CPU: IoU (NaN for negatives), existence probability, true existence, query mask's share.

    What is predicted outside the target frame, in the padding, does not count: the results file has it cropped.
    """
    side = batch.target_mask.shape[-1]
    cells = torch.arange(side, device=batch.target_mask.device)
    first_row, end_row, first_col, end_col = batch.inside[..., None].unbind(1)  # each (B, 1)
    rows, cols = (cells >= first_row) & (cells < end_row), (cells >= first_col) & (cells < end_col)
    predicted = (prediction.target_mask_prob > THRESHOLD) & rows[:, :, None] & cols[:, None, :]
    truth = batch.target_mask.bool()
    union = (predicted | truth).sum((1, 2))
    iou = (predicted & truth).sum((1, 2)) / (union + 1e-7)
    iou = torch.where(union == 0, 1.0, iou)  # a mask too small for the grid, and nothing predicted
    iou = torch.where(batch.positive, iou, math.nan)
    share = batch.query_mask.float().mean((1, 2))
    return torch.stack((iou, prediction.existence, batch.positive, share), 1).double().cpu()


def summarize(rows: Tensor) -> dict[str, float]:
    """(N, 4) rows of `score` -> mean IoU over positives and balanced accuracy of existence, also by object size, and by
    how much the existence probabilities differ.

    Figures without a sample to rest on are left out.
    """
    figures = _figures(rows, "")
    if len(rows):
        figures["existence_range"] = float(rows[:, 1].max() - rows[:, 1].min())
    for name, (low, high) in SIZES.items():
        figures |= _figures(rows[(rows[:, 3] >= low) & (rows[:, 3] < high)], f"_{name}")
    return figures


def _figures(rows: Tensor, suffix: str) -> dict[str, float]:
    iou, predicted, truth = rows[:, 0], rows[:, 1] > THRESHOLD, rows[:, 2].bool()
    figures = {}
    if truth.any():
        figures["iou"] = iou[truth].mean()
    recalls = [(predicted[truth == kind] == kind).double().mean() for kind in (True, False) if (truth == kind).any()]
    if recalls:
        figures["existence_accuracy"] = sum(recalls) / len(recalls)
    figures["samples"] = len(rows)
    return {f"{name}{suffix}": float(value) for name, value in figures.items()}


def positives(batch: Batch, prediction: Prediction) -> list[Example]:
    """The samples of a batch whose object is visible in the target view."""
    masks = [x.cpu().numpy() for x in (batch.query_mask, batch.target_mask, prediction.target_mask_prob)]
    return [Example(batch.sources[i], *(x[i] for x in masks)) for i in batch.positive.nonzero()[:, 0].tolist()]


def draw_example(example: Example, samples: Samples) -> np.ndarray:
    """Query with its mask | target with the predicted mask | target with the true one -> (S, 3 S, 3) uint8 RGB."""
    query, target = samples.image(example.source.query), samples.image(example.source.target)
    views = (
        overlay(query, example.query_mask, QUERY),
        overlay(target, example.target_mask_prob > THRESHOLD, PREDICTION),
        overlay(target, example.target_mask, TRUTH),
    )
    return np.concatenate(views, axis=1)
