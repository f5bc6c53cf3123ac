"""The pointer: which places of the target look like the object, by features finer than the tokens'."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.features import View, crop

WIDTH = 128  # dimensions in which it compares
RIVALS = 8  # places of the target that look like the object and are not, for each sample in training
APART = 2  # cells of 16 pixels between a rival and the object, and from one rival to the next
TEMPERATURE = 0.1  # of the cosines, in training
EPS = 1e-6


class Pointer(nn.Module):
    """Describes what a mask covers: the mean of the detail under it, less that of the image, in a learned metric. Two
    masks of one object have descriptions with a high cosine, and so has the object with its place in the target.

    It learns beside the rest of the network, from true masks: the mask decoder reads it (`marked`) without teaching it,
    and the similarity prior says which places of the target are confused with the object.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.metric = nn.Linear(channels, WIDTH, bias=False)
        nn.init.orthogonal_(self.metric.weight)

    def describe(self, detail: Tensor, coverage: Tensor) -> Tensor:
        """`Features.detail` of whole images (B, D, H, W), and how much of each of its cells some masks cover
        (B, N, H, W) -> unit vectors (B, N, WIDTH) float32, of zeros for a mask that is empty.
        """
        with torch.autocast(detail.device.type, enabled=False):
            detail, weight = detail.flatten(2).float(), coverage.flatten(2).float()
            mean = weight @ detail.mT / weight.sum(2, keepdim=True).clamp(min=EPS)  # (B, N, D)
            found = self.metric(mean - detail.mean(2)[:, None])
            return F.normalize(found, dim=2) * (weight.sum(2, keepdim=True) > EPS)

    def regions(self, detail: Tensor) -> Tensor:
        """The descriptions of all squares of 3 x 3 cells of whole images (B, D, H, W) -> (B, H, W, WIDTH)."""
        with torch.autocast(detail.device.type, enabled=False):
            mean = F.avg_pool2d(detail.float(), 3, 1, 1, count_include_pad=False)
            return F.normalize(self.metric((mean - detail.mean((2, 3), keepdim=True)).movedim(1, 3)), dim=3)

    def marked(
        self,
        detail: Tensor,
        description: Tensor,
        corner: Tensor | None,
        cells: int,
        zoom: int,
        rows: Tensor | None = None,
    ) -> Tensor:
        """What the mask decoder sees of `Features.detail` (N, D, H, W), or of the `rows` of it that B pairs look at:
        the part that a view of `cells` tokens a side with the `View.corner` shows, resized to twice as many, less the
        image's mean; and the cosine of each with the object's description (B, WIDTH) -> (B, D + 1, 2 cells, 2 cells).
        """
        with torch.autocast(detail.device.type, enabled=False):
            detail = detail.float()
            rows = torch.arange(len(detail), device=detail.device) if rows is None else rows
            part = F.adaptive_avg_pool2d(detail, 2 * cells)[rows]
            if corner is not None and zoom > 1:
                side = detail.shape[2]
                closer = crop(detail, corner.clamp(min=0) * side // (zoom * cells), side // zoom, rows)
                if side // zoom != 2 * cells:
                    closer = F.interpolate(closer, (2 * cells, 2 * cells), mode="bilinear", align_corners=False)
                part = torch.where((corner[:, 0] >= 0)[:, None, None, None], closer, part)
            part = part - detail.mean((2, 3), keepdim=True)[rows]
            cosine = F.normalize(self.metric(part.movedim(1, 3)), dim=3) @ description[:, None, :, None]
            return torch.cat((part / part.std((1, 2, 3), keepdim=True).clamp(min=EPS), cosine[:, None, ..., 0]), 1)

    def forward(self, description: Tensor, target: View, similarity: Tensor) -> Tensor:
        """Training: how much the query's object (B, WIDTH) resembles that of the target view, and `RIVALS` regions of
        its form elsewhere in the target, where the `similarity` (B, k h, k w) is highest -> logits (B, 1 + RIVALS).
        """
        there = view_coverage(target)
        places = rival_places(there, similarity)
        regions = torch.cat((there[:, None], moved(there, places)), 1)
        return (self.describe(target.detail, regions) @ description[..., None])[..., 0] / TEMPERATURE


def mask_coverage(masks: Tensor, detail: Tensor) -> Tensor:
    """Masks of whole images (B, S, S) -> how much of each cell of their `detail` they cover, (B, H, W) float32."""
    return F.adaptive_avg_pool2d(masks.float()[:, None], detail.shape[2:])[:, 0]


def view_coverage(view: View) -> Tensor:
    """How much of each cell of a view's `detail` the object covers, (B, H, W) float32, by what the view shows of it."""
    mask, side = view.mask.float()[:, None], view.detail.shape[2]
    whole = mask_coverage(view.mask, view.detail)
    if view.corner is None or view.fine.shape == view.feat.shape:
        return whole
    cells = side * view.feat.shape[2] // view.fine.shape[2]  # of the detail that a crop shows
    first = view.corner.clamp(min=0) * side // view.fine.shape[2]
    rows, cols = (first[:, axis, None] + torch.arange(cells, device=first.device) for axis in (0, 1))
    closer = torch.zeros_like(whole)
    batch = torch.arange(len(whole), device=first.device)[:, None, None]
    closer[batch, rows[:, :, None], cols[:, None, :]] = F.adaptive_avg_pool2d(mask, cells)[:, 0]
    return torch.where((view.corner[:, 0] >= 0)[:, None, None], closer, whole)


def rival_places(coverage: Tensor, similarity: Tensor) -> Tensor:
    """The cells (B, RIVALS, 2) of the detail in the middle of the most similar places that the object is not near."""
    near = F.adaptive_max_pool2d(coverage[:, None], similarity.shape[1:])
    near = F.max_pool2d(near, 2 * APART + 1, 1, APART)[:, 0] > 0
    peak = similarity == F.max_pool2d(similarity[:, None], 2 * APART + 1, 1, APART)[:, 0]
    score = similarity.masked_fill(near | ~peak, -math.inf)
    place = score.flatten(1).topk(RIVALS).indices
    cell = torch.stack((place // score.shape[2], place % score.shape[2]), 2) + 0.5
    return cell * coverage.shape[1] / score.shape[1]


def moved(coverage: Tensor, places: Tensor) -> Tensor:
    """A region (B, H, W), each time with its middle at one of some places (B, N, 2) -> (B, N, H, W)."""
    line = torch.arange(coverage.shape[1], device=coverage.device)
    total = coverage.sum((1, 2)).clamp(min=EPS)
    middle = torch.stack([(coverage.sum(axis) * (line + 0.5)).sum(1) / total for axis in (2, 1)], 1)
    source = line - (places - middle[:, None]).round().long()[..., None]  # (B, N, 2, H)
    inside = (source >= 0) & (source < len(line))
    rows, cols = source.clamp(0, len(line) - 1).unbind(2)
    batch = torch.arange(len(coverage), device=coverage.device)[:, None, None, None]
    found = coverage[batch, rows[..., :, None], cols[..., None, :]]
    return found * (inside[:, :, 0, :, None] & inside[:, :, 1, None, :])
