"""Training losses of XSegTx: weighted mask BCE + Dice + existence BCE, in float32 (arXiv 2110.15904, section 3)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.xsegtx import Prediction

OBJECT_WEIGHT = 10.0  # of a pixel in the object, in the mask loss; 1 elsewhere


class Losses(NamedTuple):
    """Scalars on the device; `total` is the sum of the others, existence weighted, and what to call `backward` on."""

    total: Tensor
    mask: Tensor
    dice: Tensor
    existence: Tensor


def compute_losses(
    prediction: Prediction,
    query_mask: Tensor,
    target_mask: Tensor,
    positive: Tensor,
    whole: Tensor | None = None,
    batch_size: int | None = None,
    positive_count: Tensor | None = None,
    existence_weight: float = 1.0,
) -> Losses:
    """Losses of a batch, without waiting for the device.

    query_mask, target_mask: (B, H, W) of 0 and 1, any dtype; positive: (B,) bool, the object is visible in the target;
    whole: (B,) bool, the target shows its whole view (None: all do).

    - mask: BCE per pixel of both views, 0 for negative samples, times `OBJECT_WEIGHT` where the mask is 1; its mean
      over all 2 B H W pixels, those of negatives included.
    - dice: `1 - (2 sum(p q) + 1) / (sum(p) + sum(q) + 1)`, mean over the two views of the positive samples, 0 if none.
    - existence: BCE of the existence probability against `positive`, 0 where the target is not whole, mean over the
      samples.

    With several processes, give `batch_size` and `positive_count` of the global batch: each process then returns its
    share, and the shares' sum is the loss of the global batch. DDP averages gradients over processes, so multiply the
    share by their number before `backward`.
    """
    with torch.autocast(positive.device.type, enabled=False):
        positive = positive.float()
        batch_size = len(positive) if batch_size is None else batch_size
        positive_count = positive.sum() if positive_count is None else positive_count

        query_bce, query_dice = mask_losses(prediction.query_mask_prob, query_mask, positive)
        target_bce, target_dice = mask_losses(prediction.target_mask_prob, target_mask, positive)
        mask = (query_bce + target_bce) / (2 * batch_size)
        dice = (query_dice + target_dice) / (2 * positive_count.clamp(min=1))
        weight = None if whole is None else whole.float()
        existence = _cross_entropy(prediction.existence.float(), positive, weight) / batch_size
        return Losses(mask + dice + existence_weight * existence, mask, dice, existence)


def mask_losses(prob: Tensor, truth: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """BCE (mean over a view's pixels) and Dice of one view's masks (B, H, W), each summed over the positive samples."""
    prob, truth = prob.float().flatten(1), truth.float().flatten(1)  # (B, H * W)
    weight = positive[:, None] * (1 + (OBJECT_WEIGHT - 1) * truth)
    bce = _cross_entropy(prob, truth, weight) / truth.shape[1]
    overlap, area = (prob * truth).sum(1), prob.sum(1) + truth.sum(1)  # (B,)
    dice = (positive * (1 - (2 * overlap + 1) / (area + 1))).sum()
    return bce, dice


def _cross_entropy(prob: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of binary cross-entropies. PyTorch's refuses NaN, on a GPU by ending the process; the Dice loss passes it on
    to the total, so that whoever reads the losses can say where it happened.
    """
    return F.binary_cross_entropy(prob.nan_to_num(nan=0.5), truth, weight, reduction="sum")
