"""A training step of the strong recipe: looks around objects and their rivals, and what comes of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.crops import Spot, cell_middles
from model.device import autocast
from model.features import Levels
from model.locator import peaks
from model.xsegtx import Look
from train.crops import LOOKS, RIVAL_PEAKS, CropBatch, FrameGroup, cut_target
from train.engine import Step
from train.losses import Counts, compute_losses, cross_entropy


class CropLosses(NamedTuple):
    """Those of the paper, of all looks, and

    - place: cross-entropy of the object among all cells of the target, where it is visible.
    - heat: of whether it is visible, by the highest heat; visible and hidden targets weigh alike.
    - choice: of the two looks at a target, the one that shows the object is to have the higher existence.
    """

    total: Tensor
    mask: Tensor
    dice: Tensor
    existence: Tensor
    place: Tensor
    heat: Tensor
    choice: Tensor


class CropStep(Step):
    def forward(self, batch: CropBatch) -> CropLosses:
        with autocast(self.encoder.device, self.precision):
            heat = self.heat(batch)
            target, target_mask, contained = self.with_peaks(batch, [x.detach() for x in heat])
            looks = self.look(batch, target)
        return self.losses(batch, looks, target_mask, contained, heat)

    def heat(self, batch: CropBatch) -> list[Tensor]:
        """(n, h, w) of each group of target frames."""
        described = self.network.describe(self.encoder.levels(batch.wide), batch.wide_mask)
        return [self.network.locator.heat(described.rows(group.rows), self.cells(group)) for group in batch.frames]

    def cells(self, group: FrameGroup) -> Tensor:
        """The locator's, of whole frames: (n, h, w, WIDTH)."""
        with torch.autocast(self.encoder.device.type, enabled=False):  # it refuses to stack float16
            levels = Levels(*self.cache(group.keys, group.images, self.encoder.levels))
        return self.network.locator.cells(levels)

    def with_peaks(self, batch: CropBatch, heat: Sequence[Tensor]) -> list[Tensor]:
        """Target crops, the object's masks in them, and whether they show it: those that are known, and those at peaks
        of the heat, away from the object. The one question that a step asks the device.
        """
        known = [batch.target, batch.target_mask, batch.contained]
        places = [(row, look) for row, peaks in enumerate(batch.peaks) for look, peak in enumerate(peaks) if peak]
        if not places:
            return known
        cuts, middles = [], peak_middles(batch, heat)
        for row, look in places:
            (number, offset), image = batch.peaks[row][look], batch.images[row]
            middle = middles[row][number % len(middles[row])]  # there may be fewer peaks
            spot = Spot(middle[0] + offset.row, middle[1] + offset.col, offset.extent)
            cuts.append(cut_target(image, batch.masks[row], spot.crop(image.shape[:2]), known[0].shape[2]))
        index = tuple(torch.tensor(places).T.to(self.encoder.device, non_blocking=True))
        cuts = (
            torch.from_numpy(np.stack(x)).to(self.encoder.device, non_blocking=True) for x in zip(*cuts, strict=True)
        )
        return [old.index_put(index, new) for old, new in zip(known, cuts, strict=True)]

    def look(self, batch: CropBatch, target: Tensor) -> Look:
        """At target crops (B, LOOKS, ...): of B LOOKS."""
        count = len(batch)
        levels = self.encoder.levels(torch.cat((batch.query, target.flatten(0, 1))))
        query, target = Levels(*(x[:count] for x in levels)), Levels(*(x[count:] for x in levels))
        query = self.network.encode(query, batch.query_mask, self.encoder.masks(batch.query_mask))
        rows = torch.arange(count, device=batch.query.device).repeat_interleave(LOOKS)
        return self.network.look(query.rows(rows), self.network.encode_target(target), both=True)

    def losses(
        self,
        batch: CropBatch,
        looks: Look,
        target_mask: Tensor,
        contained: Tensor,
        heat: Sequence[Tensor],
    ) -> CropLosses:
        locator, weights, shows = self.network.locator, self.weights, contained.flatten()
        counts = Counts(len(shows) * self.ranks.size, self.ranks.sum(shows.sum()))
        query_mask = batch.query_mask.repeat_interleave(LOOKS, 0)
        paper = compute_losses(looks, query_mask, target_mask.flatten(0, 1), shows, weights, counts)

        order = torch.cat([group.rows for group in batch.frames]).argsort()
        places = [place_loss(locator.scale * x, group.cells) for x, group in zip(heat, batch.frames, strict=True)]
        place, highest = torch.cat(places)[order], torch.cat([x.amax((1, 2)) for x in heat])[order]
        visible = batch.visible.float()
        kinds = torch.stack((visible, 1 - visible))  # (2, B)
        totals = self.ranks.sum(kinds.sum(1)).clamp(min=1)
        place = (place * visible).sum() / totals[0]
        known = cross_entropy(locator.heat_logit(highest).sigmoid(), visible, (kinds / totals[:, None]).mean(0))
        one_shows = contained.sum(1) == 1
        choice = F.cross_entropy(looks.logit.view(-1, LOOKS), contained.float().argmax(1), reduction="none") * one_shows
        choice = choice.sum() / self.ranks.sum(one_shows.sum()).clamp(min=1)
        total = paper.total + weights.place * place + weights.existence * (known + choice)
        return CropLosses(total, *paper[1:], place, known, choice)


def peak_middles(batch: CropBatch, heat: Sequence[Tensor]) -> dict[int, list[tuple[float, float]]]:
    """Of each target, by its number: the middles of the heat's highest peaks away from the object, in its pixels."""
    highest, targets, middles = [], [], {}
    for of_group, group in zip(heat, batch.frames, strict=True):
        values, cells = peaks(of_group.masked_fill(near(group.cells), -torch.inf), RIVAL_PEAKS)
        highest.append(torch.cat((values[..., None], cells.float()), 2))
        targets += [(number, of_group.shape[1:]) for number in group.numbers]
    for (number, grid), of_target in zip(targets, torch.cat(highest).tolist(), strict=True):
        cells = [cell for value, *cell in of_target if math.isfinite(value)] or [of_target[0][1:]]
        middles[number] = cell_middles(cells, grid, batch.masks[number].shape)
    return middles


def near(cells: Tensor) -> Tensor:
    """Cells (n, h, w) bool with all that are at most 2 away from them."""
    return F.max_pool2d(cells.float()[:, None], 5, 1, 2)[:, 0] > 0


def place_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Of targets (n, h, w): - log of how likely the object's cells are, among all."""
    return logits.logsumexp((1, 2)) - logits.masked_fill(~cells, -1e4).logsumexp((1, 2))
