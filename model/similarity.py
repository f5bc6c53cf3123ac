"""The similarity prior: what in the target view looks like the object, by frozen features (for model/xsegtx.py)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import FINE, STRIDE

METRIC_WIDTH = 128  # dimensions in which it compares parts of a cell, at most
THRESHOLD, SLOPE = 0.45, 10.0  # of its existence logit at first: cosines reach 0.4 for hidden objects, 0.6 for others
STANDARD_EPS = 1e-6


class Similarity(NamedTuple):
    """How much the target looks like the object: cosines, in the metric of the `SimilarityPrior`."""

    parts: Tensor  # (B, L, 4) float32: of each target cell the parts row by row, mean 0 and deviation 1 over both views
    best: Tensor  # (B,) float32 in [-1, 1]: the largest of the target, not standardized


class SimilarityPrior(nn.Module):
    """How much each part of the target resembles the object: tokens that know it need not discover matching.

    It reads the frozen features on a grid `FINE` times as fine as the tokens' (`fine_features` in model/backbone.py),
    in which small objects and edges show. The object's feature is the mean of the query's, weighted by the share of
    each part that the mask covers; its cosine with the target's parts is taken after a learned projection. That begins
    as a rotation, or as a random one onto `METRIC_WIDTH` dimensions, so that an untrained network sees what the
    features tell by themselves, and learns which of their differences tell objects apart.

    What all parts of both views have in common is taken away before. The cosines are standardized over both views; over
    the target's parts alone, some would stand out even where the object is hidden. Learned vectors carry them into the
    tokens, one for each part of a target cell, and one more the mask's share of a query cell. Where not even the best
    part comes near the object, it is hidden: how far the largest cosine, as it is, lies above a learned threshold joins
    the existence logit. So existence does not rest on the tokens alone, which the masks need, too.
    """

    def __init__(self, width: int, channels: int):
        super().__init__()
        self.metric = nn.Linear(channels, min(channels, METRIC_WIDTH), bias=False)
        nn.init.orthogonal_(self.metric.weight)
        self.query = nn.Parameter(0.1 * torch.randn(width))
        self.target = nn.Parameter(0.1 * torch.randn(FINE**2, width))
        self.threshold = nn.Parameter(torch.tensor(THRESHOLD))
        self.slope = nn.Parameter(torch.tensor(SLOPE))

    def mark_query(self, query: Tensor, share: Tensor) -> Tensor:
        """query tokens (B, L, C), share of each cell that the object covers (B, L) -> (B, L, C)."""
        return query + share[..., None] * self.query

    def mark_target(self, target: Tensor, similarity: Similarity) -> Tensor:
        """target tokens (B, L, C) -> (B, L, C)."""
        return target + similarity.parts @ self.target

    def existence(self, similarity: Similarity) -> Tensor:
        """Logit (B,) of "the object is visible", to be added to the existence head's."""
        return self.slope * (similarity.best - self.threshold)

    def similarity(self, query_fine: Tensor, query_mask: Tensor, target_fine: Tensor) -> Similarity:
        """query_fine, target_fine: unit vectors (B, F, 2 h, 2 w); query_mask (B, H, W) of 0 and 1, any dtype."""
        share = cell_share(query_mask, STRIDE // FINE)
        with torch.autocast(share.device.type, enabled=False):
            parts = torch.cat((query_fine.flatten(2), target_fine.flatten(2)), 2).float().transpose(1, 2)  # (B, 8 L, F)
            parts = F.normalize(parts - parts.mean(1, keepdim=True), dim=2)
            parts = F.normalize(self.metric(parts), dim=2)
            prototype = F.normalize(torch.einsum("bl,bld->bd", share, parts[:, : share.shape[1]]), dim=1)
            cosine = torch.einsum("bld,bd->bl", parts, prototype)
            best = cosine[:, share.shape[1] :].amax(1)
            cosine = F.layer_norm(cosine, cosine.shape[1:], eps=STANDARD_EPS)  # its gradient is finite for equal ones
        of_target = cosine[:, None, share.shape[1] :].unflatten(2, target_fine.shape[2:])  # (B, 1, 2 h, 2 w)
        return Similarity(F.pixel_unshuffle(of_target, FINE).flatten(2).transpose(1, 2), best)


def cell_share(mask: Tensor, stride: int = STRIDE) -> Tensor:
    """Mask (B, H, W) of 0 and 1, any dtype -> (B, L) float32: which part of each cell the object covers."""
    return F.avg_pool2d(mask.float()[:, None], stride).flatten(1)
