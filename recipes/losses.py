"""The training losses of XSegTx: weighted mask BCE + Dice + existence BCE, in float32 (arXiv 2110.15904, section 3).

docs/extending.md says how to add a loss.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from common.distributed import World
from model.xsegtx import OBJECT_WEIGHT, Look


def compute_losses(
    look: Look,
    query_mask: Tensor | None,
    target_mask: Tensor,
    visible: Tensor,
    world: World | None = None,
    object_weight: float = OBJECT_WEIGHT,
) -> dict[str, Tensor]:
    """The losses of a batch by name, scalars on the device, from true masks (B, H, W) and `visible` (B,), which is True
    if the object is visible in the target. Without `query_mask`, mask and dice are means over the target's view alone.
    The function does not wait for the device.

    - mask: BCE of each pixel of both views, times `object_weight` if the mask is 1 there, and 0 for samples whose
      object is not visible; the mean over all 2 B H W pixels, including samples with 0.
    - dice: `1 - (2 sum(p q) + 1) / (sum(p) + sum(q) + 1)`, mean over both views of the samples whose object is visible;
      0 if there are no such samples.
    - existence: BCE of the existence probability against `visible`, mean over the samples.

    With several processes, give the `world`. Each process then returns its part; the sum of the parts is the loss of
    the global batch.
    """
    with torch.autocast(visible.device.type, enabled=False):
        visible = visible.float()
        samples, shown = len(visible), visible.sum()
        if world:  # the counts of the global batch
            samples, shown = samples * world.size, world.sum(shown)

        views: list[tuple] = [(look.target_mask_prob, target_mask)]
        if query_mask is not None:
            views.append((look.query_mask_prob, query_mask))
        losses = [mask_losses(prob, mask, visible, object_weight) for prob, mask in views]
        bce, dice = (sum(parts) for parts in zip(*losses, strict=True))
        mask, dice = bce / (len(views) * samples), dice / (len(views) * shown.clamp(min=1))
        existence = cross_entropy(look.logit.sigmoid().float(), visible) / samples
        return {"mask": mask, "dice": dice, "existence": existence}  # pyrefly: ignore


def mask_losses(prob: Tensor, mask: Tensor, visible: Tensor, object_weight: float) -> tuple[Tensor, Tensor]:
    """BCE (mean over the pixels) and Dice of the masks (B, H, W) of one view, each summed over the visible samples."""
    prob, mask = prob.float().flatten(1), mask.float().flatten(1)  # (B, H * W)
    weight = visible[:, None] * (1 + (object_weight - 1) * mask)
    bce = cross_entropy(prob, mask, weight) / mask.shape[1]
    overlap, areas = (prob * mask).sum(1), prob.sum(1) + mask.sum(1)  # (B,)
    dice = (visible * (1 - (2 * overlap + 1) / (areas + 1))).sum()
    return bce, dice


def cross_entropy(prob: Tensor, expected: Tensor, weight: Tensor | None = None) -> Tensor:
    """The sum of binary cross-entropies. NaN counts as 0.5, because PyTorch's function refuses NaN, on a GPU by ending
    the process. The total is still NaN through the Dice loss, so the log can report where it happened.
    """
    return F.binary_cross_entropy(prob.nan_to_num(nan=0.5), expected, weight, reduction="sum")
