"""The locator computes how much each cell of an image resembles an object in another image: the similarity map.

It compares the cells of the frozen backbone as they are. The strong network projects them first (strong/network.py).
In the code, a similarity map is called `heat`.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import STRIDE, Levels
from model.features import coverage_of
from model.rows import Rows

PARTS = 5  # number of parts, which look different, that describe an object
REACH = 16  # pixels by which a part may be away from its place in the query view
APART = 16  # pixels between two peaks of a similarity map, at least
EPS = 1e-6
NOTHING = 1e-3  # a mask that covers less than this, in cells, shows no object


@dataclass
class Description(Rows):
    """The appearance of B objects, each in one view, as vectors of the locator's cells."""

    area: Tensor  # (B, 1): the number of cells that the object covers
    total: Tensor  # (B, C): the sum of these cells
    parts: Tensor  # (B, PARTS, C): the mean of the cells of each part
    shares: Tensor  # (B, PARTS): the share of the object's area that each part has
    context: Tensor  # (B, C): the mean of all cells of the view


@dataclass
class ObjectCrops(Rows):
    """The query crops of B objects."""

    cells: Tensor  # (B, h, w, C)
    coverage: Tensor  # (B, h, w): the part of each cell that the object covers
    description: Description


@dataclass
class Matches(Rows):
    """For each cell of B crops that show objects, the nearest cell of a target crop, by cosine similarity. Both crops
    have h x h cells.
    """

    of_object: Tensor  # (B, h * h) float32: 1 if the object covers the cell, else 0
    nearest: Tensor  # (B, h * h) int64: the number of the target's cell
    cosine: Tensor  # (B, h * h)
    is_mutual: Tensor  # (B, h * h) bool: the target's cell is nearest to this cell or to one next to it

    def mean(self, of_cells: Tensor) -> Tensor:
        """The mean over the object's cells: (B, h * h) -> (B,)."""
        return (of_cells * self.of_object).sum(1) / self.of_object.sum(1).clamp(min=1)

    def agreement(self, masks: Tensor) -> Tensor:
        """The share of the object's cells whose match is mutual and lies in the target's mask (B, S, S): (B,)."""
        cells = math.isqrt(self.nearest.shape[1])
        return self.mean(self.is_mutual * shown_cells(coverage_of(masks, (cells, cells))).gather(1, self.nearest))


class Locator(nn.Module):
    """1. Two layers of the backbone, on a grid of `cell` pixels a cell, make a vector of C numbers for each cell.
    2. The object is described by the mean of the cells that it covers, and by the means of `PARTS` parts from k-means.
    3. The mean of all cells of both views is subtracted, and cells are compared by cosine similarity.
    4. The similarity map has for each cell of the target the cosine with the object's mean, plus the cosines with the
       parts, weighted by their shares of the area. The cosine with a part is the largest one within `REACH` cells,
       because parts lie in the target only roughly as in the query.
    """

    def __init__(self, cell: int = STRIDE // 2):
        super().__init__()
        self.cell, self.reach, self.apart = cell, REACH // cell, APART // cell
        self.part_weight: Any = 1.0
        self.scale: Any = 10.0  # turns similarities into logits of a softmax over cells
        self.sharpness: Any = 60.0  # turns cosines into logits, for `propagate`

    def cells(self, levels: Levels) -> Tensor:
        """Features of N images -> cells (N, H, W, C) float32: both layers side by side, of about the same length."""
        with torch.autocast(levels.feat.device.type, enabled=False):
            both = normalized(levels.feat.float()), early_of(levels, self.cell)
            coarse, fine = (x / x.shape[1] ** 0.5 for x in both)
            coarse = F.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)
            return torch.cat((coarse, fine), 1).movedim(1, 3)

    def object_crops(self, levels: Levels, masks: Tensor) -> ObjectCrops:
        """Features of N crops, and the masks of objects in them, (N, S, S) of 0 and 1 -> the objects' crops."""
        cells = self.cells(levels)
        coverage = coverage_of(masks, cells.shape[1:3])
        return ObjectCrops(cells, coverage, self.describe(cells, coverage))

    def describe(self, cells: Tensor, coverage: Tensor) -> Description:
        """Describe B objects, from cells of views (B, h, w, C) and the covered part of each cell (B, h, w)."""
        with torch.autocast(cells.device.type, enabled=False):
            context = cells.mean((1, 2))
            cells, weight = cells.flatten(1, 2), coverage.flatten(1)
            weight = weight + EPS / weight.shape[1]  # so that an empty mask has a description, too
            total = (weight[:, None] @ cells)[:, 0]
            nearest = self._part_members(F.normalize(cells - context[:, None], dim=2), weight)
            member = nearest * weight[..., None]  # (B, cells, PARTS)
            area = member.sum(1)
            parts = member.mT @ cells / area.clamp(min=EPS)[..., None]
            return Description(weight.sum(1, keepdim=True), total, parts, area / area.sum(1, keepdim=True), context)

    @torch.no_grad()
    def _part_members(self, cells: Tensor, weight: Tensor) -> Tensor:
        """Group unit vectors (B, N, D) with weights (B, N) by k-means, which begins with centers far from each other.
        Returns (B, N, PARTS) bool: True if a vector belongs to a part.
        """
        rows, numbers = (torch.arange(count, device=cells.device) for count in (len(cells), PARTS))
        center = cells[rows, weight.argmax(1)][:, None]
        other, nearness = weight <= 0.3 * weight.amax(1, keepdim=True), [torch.zeros_like(weight[:, 0])]
        for _ in range(PARTS - 1):
            cosine, cell = (cells @ center.mT).amax(2).masked_fill(other, torch.inf).min(1)
            center = torch.cat((center, cells[rows, cell][:, None]), 1)
            nearness.append(cosine)
        # An object with few cells has fewer parts; otherwise rounding would choose between two equal centers.
        spare = torch.stack(nearness, 1)[:, None] > 0.999
        for step in range(4):
            nearest = (cells @ center.mT).masked_fill(spare, -torch.inf).argmax(2, keepdim=True) == numbers
            if step < 3:  # nothing reads the last centers
                center = F.normalize((nearest * weight[..., None]).mT @ cells + EPS * center, dim=2)
        return nearest

    def heat(self, description: Description, cells: Tensor) -> Tensor:
        """Similarity maps (B, H, W) float32: how much each cell of targets (B or 1, H, W, C) is like the object."""
        with torch.autocast(cells.device.type, enabled=False):
            center = (description.context + cells.mean((1, 2)))[:, None] / 2  # (B, 1, C)
            mean = F.normalize(description.total[:, None] / description.area[..., None] - center, dim=2)
            parts = F.normalize(description.parts - center, dim=2)
            unit = F.normalize(cells - center[:, None], dim=3)
            cosine = (unit.flatten(1, 2) @ torch.cat((mean, parts), 1).mT).mT.unflatten(2, cells.shape[1:3])
            reach = self.reach
            reached = F.max_pool2d(cosine[:, 1:], (2 * reach + 1, 1), 1, (reach, 0))  # rows, then columns: less work
            reached = F.max_pool2d(reached, (1, 2 * reach + 1), 1, (0, reach))
            return cosine[:, 0] + self.part_weight * (reached * description.shares[..., None, None]).sum(1)

    def propagate(self, cells: Tensor, coverage: Tensor, target: Tensor) -> Tensor:
        """Carry a mask from crops (B, h, w, C) to target crops (B, H, W, C), cell by cell. Each target cell
        attends to all cells of the crop by cosine similarity, and takes the mean of the part that the object covers of
        each, (B, h, w). Unlike `heat`, this tells the object from its neighbors, which the crop shows too. Returns
        (B, H, W) float32 in [0, 1]. The method is label propagation, as in space-time memory networks (1904.00607).
        """
        with torch.autocast(cells.device.type, enabled=False):  # rounded cosines would be multiplied by 60
            source, unit = unit_vectors(cells, target)
            share = (self.sharpness * (unit @ source.mT)).softmax(2)
            return (share @ coverage.flatten(1)[..., None]).squeeze(2).unflatten(1, target.shape[1:3])

    def match(self, cells: Tensor, coverage: Tensor, target: Tensor) -> Matches:
        """Match the cells of crops (B, h, h, C), whose objects cover the part (B, h, h) of each, with the cells of
        target crops (B, h, h, C).
        """
        with torch.autocast(cells.device.type, enabled=False):
            source, unit = unit_vectors(cells, target)
            similarity = source @ unit.mT  # (B, h * h, h * h)
        cosine, nearest = similarity.max(2)
        back, width = similarity.argmax(1).gather(1, nearest), cells.shape[2]
        here = torch.arange(back.shape[1], device=back.device)
        rows, cols = (back // width - here // width).abs(), (back % width - here % width).abs()
        return Matches(shown_cells(coverage), nearest, cosine, torch.maximum(rows, cols) <= 1)

    def on_and_away(self, heat: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """The highest values of maps (B, h, w) on objects (B, h, w) bool, and away from them, (B,) each. It is -1 away
        from an object that fills its map.
        """
        around = F.max_pool2d(objects[:, None].float(), 2 * self.apart + 1, 1, self.apart)[:, 0] > 0
        return heat.masked_fill(~objects, -1).amax((1, 2)), heat.masked_fill(around, -1).amax((1, 2))


def unit_vectors(cells: Tensor, target: Tensor) -> list[Tensor]:
    """Subtract the mean cell of two crops (B, h, w, C) from their cells -> unit vectors (B, h * w, C)."""
    center = (cells.mean((1, 2)) + target.mean((1, 2)))[:, None] / 2  # (B, 1, C)
    return [F.normalize(x.flatten(1, 2) - center, dim=2) for x in (cells, target)]


def shown_cells(coverage: Tensor) -> Tensor:
    """The cells that are covered more than half as much as the most covered one: (B, h, w) -> (B, h * w), 1 or 0."""
    coverage = coverage.flatten(1)
    return (coverage > coverage.amax(1, keepdim=True) / 2).float()


def early_of(levels: Levels, cell: int = STRIDE // 2) -> Tensor:
    """The earlier layer of N images on cells of `cell` pixels, normalized in each image -> (N, D, H, W) float32."""
    early, size = levels.early.float(), [length * STRIDE // cell for length in levels.feat.shape[2:]]
    if list(early.shape[2:]) != size:
        early = F.interpolate(early, size, mode="bilinear", align_corners=False)
    return normalized(early)


def normalized(features: Tensor) -> Tensor:
    """Features (N, D, h, w) without the mean of each image, divided by the deviation in it."""
    features = features - features.mean((2, 3), keepdim=True)
    return features / features.std((1, 2, 3), keepdim=True).clamp(min=EPS)


def peaks(heat: Tensor, count: int, apart: int) -> Tensor:
    """The `count` highest local maxima of maps (B, H, W), more than `apart` cells from each other, as values, rows and
    columns: (B, count, 3) float32. If a map has fewer maxima, the other values are -inf.
    """
    highest = heat == F.max_pool2d(heat[:, None], 2 * apart + 1, 1, apart)[:, 0]
    values, cell = heat.masked_fill(~highest, -torch.inf).flatten(1).topk(min(count, heat[0].numel()))
    found = torch.stack((values, cell // heat.shape[2], cell % heat.shape[2]), 2)
    return F.pad(found, (0, 0, 0, count - found.shape[1]), value=-torch.inf)
