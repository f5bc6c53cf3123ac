"""Training losses of XSegTx: weighted mask BCE + Dice + existence BCE, in float32 (arXiv 2110.15904, section 3).

To add a loss: docs/extending.md.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.xsegtx import Look

OBJECT_WEIGHT = 10.0  # weight of the object's pixels in the mask loss; others have 1


def loss_weights(existence: float = 1.0) -> dict[str, float]:
    """The weight of each loss, by its name. The second half are losses of train/crop_step.py."""
    weights = {"mask": 1.0, "dice": 1.0, "existence": existence}
    return weights | {"place": 0.15, "heat": existence, "choice": existence}


def total_loss(losses: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """The weighted sum of losses, which training minimizes."""
    return sum(weights[name] * loss for name, loss in losses.items())


class Counts(NamedTuple):
    """Counts in the global batch, of which several processes have a part each."""

    samples: int
    visible: Tensor  # scalar


def compute_losses(
    look: Look, query_mask: Tensor, target_mask: Tensor, visible: Tensor, counts: Counts | None = None
) -> dict[str, Tensor]:
    """The losses of a batch by name, scalars on the device, for its true masks (B, H, W) and which objects are visible
    (B,). It does not wait for the device.

    - mask: BCE per pixel of both views, 0 for samples whose object is not visible, times `OBJECT_WEIGHT` where the mask
      is 1; its mean over all 2 B H W pixels, those of the others included.
    - dice: `1 - (2 sum(p q) + 1) / (sum(p) + sum(q) + 1)`, mean over the two views of the samples whose object is
      visible, 0 if there are none.
    - existence: BCE of the existence probability against `visible`, mean over the samples.

    With several processes, give the `counts` of the global batch: each process then returns its part, and the parts'
    sum is the loss of the global batch. DDP averages gradients over processes, so multiply the part by their number
    before `backward`.
    """
    with torch.autocast(visible.device.type, enabled=False):
        visible = visible.float()
        samples, count = counts or (len(visible), visible.sum())

        query_bce, query_dice = mask_losses(look.query_mask_prob, query_mask, visible)
        target_bce, target_dice = mask_losses(look.target_mask_prob, target_mask, visible)
        mask = (query_bce + target_bce) / (2 * samples)
        dice = (query_dice + target_dice) / (2 * count.clamp(min=1))
        existence = cross_entropy(look.logit.sigmoid().float(), visible) / samples
        return {"mask": mask, "dice": dice, "existence": existence}


def mask_losses(prob: Tensor, truth: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """BCE (mean over a view's pixels) and Dice of one view's masks (B, H, W), each summed over the visible samples."""
    prob, truth = prob.float().flatten(1), truth.float().flatten(1)  # (B, H * W)
    weight = visible[:, None] * (1 + (OBJECT_WEIGHT - 1) * truth)
    bce = cross_entropy(prob, truth, weight) / truth.shape[1]
    overlap, area = (prob * truth).sum(1), prob.sum(1) + truth.sum(1)  # (B,)
    dice = (visible * (1 - (2 * overlap + 1) / (area + 1))).sum()
    return bce, dice


def cross_entropy(prob: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sum of binary cross-entropies. PyTorch's refuses NaN, on a GPU by ending the process; the Dice loss passes it on
    to the total, so that whoever reads the losses can say where it happened.
    """
    return F.binary_cross_entropy(prob.nan_to_num(nan=0.5), truth, weight, reduction="sum")
