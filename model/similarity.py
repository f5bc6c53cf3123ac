"""The similarity prior: which parts of the target view look like the object, by frozen features."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import STRIDE
from model.features import crop, seen

METRIC_WIDTH = 128  # dimensions in which it compares parts of a cell, at most
INITIAL_THRESHOLD, INITIAL_SLOPE = 0.45, 10.0  # of existence: cosines reach 0.4 for hidden objects, 0.6 for others
STANDARD_EPS = 1e-6
DISTANCE_EPS = 1e-6  # squared; parts that differ less are equal, but for rounding


class Similarity(NamedTuple):
    """How much the target looks like the object: cosines, in the metric of the `SimilarityPrior`."""

    parts: Tensor  # (B, k h, k w) float32: of each part of the whole target; mean 0 and deviation 1 over both views
    cosine: Tensor  # (B, k h, k w) float32 in [-1, 1]: the same, not standardized


class SimilarityPrior(nn.Module):
    """Tells the tokens how much each part of the target resembles the object, so that the network need not discover
    matching by itself. A part is a cell of the image as the encoder got it, k = `zoom` times as large as the network's
    input: small objects show there.

    1. Project to `METRIC_WIDTH` dimensions by a learned matrix. It begins as a rotation, so that an untrained network
       starts from the features as they are, and it learns which of their differences tell objects apart.
    2. Center: subtract the mean over the parts of both views, and scale to unit length.
    3. The prototype of the object is the mean of the query's parts, weighted by how much of each the mask covers.
    4. Take the cosine of the prototype with every part of both views.
    5. Standardize over both views: over the target alone, some part would stand out even where the object is hidden.
    6. Add learned vectors to the tokens: to a target token one for each of its parts, times that part's similarity; to
       a query token one, times the mask's coverage of its cell. A token of a closer look has one part, for all of them.
    7. Existence: the logit rises by `slope * (largest cosine of the target - threshold)`, both learned. So it does not
       rest on the tokens alone, which the masks need, too.
    """

    def __init__(self, width: int, channels: int, zoom: int):
        super().__init__()
        self.zoom = zoom
        self.metric = nn.Linear(channels, min(channels, METRIC_WIDTH), bias=False)
        nn.init.orthogonal_(self.metric.weight)
        self.query = nn.Parameter(0.1 * torch.randn(width))
        self.target = nn.Parameter(0.1 * torch.randn(zoom**2, width))
        self.threshold = nn.Parameter(torch.tensor(INITIAL_THRESHOLD))
        self.slope = nn.Parameter(torch.tensor(INITIAL_SLOPE))

    def mark_query(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Query tokens (B, L, C), query mask (B, H, W) of 0 and 1, any dtype -> (B, L, C)."""
        return tokens + cell_coverage(mask).flatten(1)[..., None] * self.query

    def mark_target(self, tokens: Tensor, similarity: Similarity, corner: Tensor | None) -> Tensor:
        """Target tokens (B, L, C), and the `View.corner` of what they show -> (B, L, C)."""
        parts = F.pixel_unshuffle(similarity.parts[:, None], self.zoom)  # (B, k k, h, w)
        parts = seen(parts, similarity.parts[:, None], corner)
        return tokens + parts.flatten(2).transpose(1, 2) @ self.target

    def existence(self, similarity: Similarity, corner: Tensor | None) -> Tensor:
        """Logit (B,) of "the object is visible" in what the target shows, to be added to the existence head's."""
        best = similarity.cosine.amax((1, 2))
        if corner is not None and self.zoom > 1:
            closer = crop(similarity.cosine[:, None], corner.clamp(min=0), similarity.cosine.shape[1] // self.zoom)
            best = torch.where(corner[:, 0] >= 0, closer.amax((1, 2, 3)), best)
        return self.slope * (best - self.threshold)

    def parts(self, fine: Tensor) -> Tensor:
        """`View.fine` of some images (I, F, k h, k w) -> their parts in the metric (I, k k L, D) float32."""
        with torch.autocast(fine.device.type, enabled=False):
            return self.metric(fine.flatten(2).transpose(1, 2).float())

    def similarity(
        self, query: Tensor, coverage: Tensor, target: Tensor, remembered: tuple[Tensor, Tensor] | None = None
    ) -> Similarity:
        """`parts` of both views (B, k k L, D), whatever crops they show, and the query's `View.coverage`. `remembered`
        has what other frames show of the object: how many parts it covers in all of them, (B, 1), and their sum (B, D).
        """
        with torch.autocast(coverage.device.type, enabled=False):
            center = (query.mean(1) + target.mean(1))[..., None] / 2  # (B, D, 1)
            weight = coverage.flatten(1) / _distance(query, center)
            prototype = weight[:, None] @ query - weight.sum(1)[:, None, None] * center.mT  # (B, 1, D)
            if remembered is not None:  # a vector as long as theirs would be, if all of the object looked the same
                area, total = remembered
                prototype = prototype + (area * F.normalize(total - area * center[..., 0], dim=1))[:, None]
            prototype = F.normalize(prototype, dim=2).mT
            products = [(parts @ prototype - center.mT @ prototype)[..., 0] for parts in (query, target)]
            cosines = [x / _distance(parts, center) for x, parts in zip(products, (query, target), strict=True)]
            cosine = torch.cat(cosines, 1)
            standard = F.layer_norm(cosine, cosine.shape[1:], eps=STANDARD_EPS)  # its gradient is finite for equal ones
        return Similarity(*(x[:, query.shape[1] :].unflatten(1, coverage.shape[1:]) for x in (standard, cosine)))


def _distance(parts: Tensor, center: Tensor) -> Tensor:
    """(B, N, D), (B, D, 1) -> (B, N): by products, as the differences themselves would take the most of the prior's
    time and memory.
    """
    squared = parts.square().sum(2) - 2 * (parts @ center)[..., 0] + center.square().sum(1)
    return squared.clamp(min=DISTANCE_EPS).sqrt()


class NoPrior(nn.Module):
    """In the place of a `SimilarityPrior` where the network has none, as the published one: it changes nothing."""

    def mark_query(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return tokens

    def mark_target(self, tokens: Tensor, similarity: None, corner: None) -> Tensor:
        return tokens

    def existence(self, similarity: None, corner: None) -> float:
        return 0.0

    def parts(self, fine: Tensor | None) -> None:
        return None

    def similarity(self, query: None, coverage: Tensor | None, target: None) -> None:
        return None


def cell_coverage(mask: Tensor) -> Tensor:
    """Mask (B, H, W) of 0 and 1, any dtype -> (B, H / 16, W / 16) float32: how much of each cell the object covers."""
    return F.avg_pool2d(mask.float()[:, None], STRIDE)[:, 0]
