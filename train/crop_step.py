"""A training step of the strong recipe, which looks at objects and at the objects' rivals, and computes the losses."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.crops import Spot, cell_middles
from model.device import autocast
from model.features import Levels
from model.locator import peaks
from model.xsegtx import Look
from train.crops import RIVAL_PEAKS, TARGET_CROPS, CropBatch, FrameGroup, cut_target
from train.engine import Step
from train.losses import Counts, compute_losses


class CropStep(Step):
    def losses(self, batch: CropBatch) -> dict[str, Tensor]:
        with autocast(self.encoder.device, self.precision):
            heat = self.heat(batch)
            target, target_mask, contained = self.with_peaks(batch, [part.detach() for part in heat])
            looks = self.look(batch, target)
        return self.losses_of(batch, looks, target_mask, contained, heat)

    def heat(self, batch: CropBatch) -> list[Tensor]:
        """The similarity maps of each group of target frames, (n, h, w)."""
        heat = []
        for group in batch.frames:
            described = self.network.describe(self.encoder.levels(batch.wide[group.rows]), batch.wide_mask[group.rows])
            heat.append(self.network.locator.heat(described, self.cells(group)))
        return heat

    def cells(self, group: FrameGroup) -> Tensor:
        """The locator's cells of whole frames: (n, h, w, WIDTH)."""
        with torch.autocast(self.encoder.device.type, enabled=False):  # under autocast, float16 cannot be stacked
            levels = Levels(*self.cache(group.keys, group.images, self.encoder.levels))
        return self.network.locator.cells(levels)

    def with_peaks(self, batch: CropBatch, heat: Sequence[Tensor]) -> list[Tensor]:
        """The target crops, the object's masks in them, and whether they show the object. The loader has cut some
        crops; the others are cut here, at peaks of the similarity map away from the object. This is the only place at
        which a step waits for the device.
        """
        crops = [batch.target, batch.target_mask, batch.contained]
        places = [(row, look) for row, peaks in enumerate(batch.peaks) for look, peak in enumerate(peaks) if peak]
        if not places:
            return crops
        cuts, middles = [], peak_middles(batch, heat)
        for row, look in places:
            (number, offset, context), image = batch.peaks[row][look], batch.images[row]
            middle = middles[row][number % len(middles[row])]  # the map may have fewer peaks
            spot = Spot(middle[0] + offset.row, middle[1] + offset.col, offset.extent)
            cuts.append(cut_target(image, batch.masks[row], spot.crop(image.shape[:2], context), crops[0].shape[2]))
        places = tuple(torch.tensor(places).T.to(self.encoder.device, non_blocking=True))
        cuts = [torch.from_numpy(np.stack(arrays)) for arrays in zip(*cuts, strict=True)]
        cuts = [tensor.to(self.encoder.device, non_blocking=True) for tensor in cuts]
        return [tensor.index_put(places, values) for tensor, values in zip(crops, cuts, strict=True)]

    def look(self, batch: CropBatch, target: Tensor) -> Look:
        """The looks at target crops (B, TARGET_CROPS, ...), as B * TARGET_CROPS rows."""
        count = len(batch)
        levels = self.encoder.levels(torch.cat((batch.query, target.flatten(0, 1))))
        query, target = Levels(*(x[:count] for x in levels)), Levels(*(x[count:] for x in levels))
        query = self.network.encode(query, batch.query_mask, self.encoder.masks(batch.query_mask))
        rows = torch.arange(count, device=batch.query.device).repeat_interleave(TARGET_CROPS)
        return self.network.look(query.rows(rows), self.network.encode_target(target), both=True)

    def losses_of(
        self, batch: CropBatch, looks: Look, target_mask: Tensor, contained: Tensor, heat: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The paper's losses over all looks, and further losses:

        - place: for visible objects whose sample trains the locator, the cross-entropy of the object's cells among all
          cells of the target.
        - choice: if a target has crops that show the object and crops that do not, the cross-entropy of the crops that
          show the object, from the existence logits of all its crops.
        """
        locator, visible_there = self.network.locator, contained.flatten()
        counts = Counts(len(visible_there) * self.world.size, self.world.sum(visible_there.sum()))
        query_mask = batch.query_mask.repeat_interleave(TARGET_CROPS, 0)
        paper = compute_losses(looks, query_mask, target_mask.flatten(0, 1), visible_there, counts)

        # In every step, each parameter takes part in the losses, as data-parallel training requires.
        place, located = 0 * locator.scale, torch.zeros_like(locator.scale)
        for group_heat, group in zip(heat, batch.frames, strict=True):
            visible = batch.visible[group.rows].float()
            place = place + (place_loss(locator.scale * group_heat, group.cells) * visible).sum()
            located = located + visible.sum()
        place = place / self.world.sum(located).clamp(min=1)
        logit = looks.logit.float().view(-1, TARGET_CROPS)
        differ = contained.any(1) & ~contained.all(1)
        choice = logit.logsumexp(1) - logit.masked_fill(~contained, -1e4).logsumexp(1)
        choice = (choice * differ).sum() / self.world.sum(differ.sum()).clamp(min=1)
        return {**paper, "place": place, "choice": choice}


def peak_middles(batch: CropBatch, heat: Sequence[Tensor]) -> dict[int, list[tuple[float, float]]]:
    """The middles (pixels) of the highest peaks of similarity maps away from the object, by the target's number."""
    highest, targets, middles = [], [], {}
    for group_heat, group in zip(heat, batch.frames, strict=True):
        values, cells = peaks(group_heat.masked_fill(cells_near(group.cells), -torch.inf), RIVAL_PEAKS)
        highest.append(torch.cat((values[..., None], cells.float()), 2))
        targets += [(number, group_heat.shape[1:]) for number in group.numbers]
    for (number, grid), target_peaks in zip(targets, torch.cat(highest).tolist(), strict=True):
        cells = [cell for value, *cell in target_peaks if math.isfinite(value)] or [target_peaks[0][1:]]
        middles[number] = cell_middles(cells, grid, batch.masks[number].shape)
    return middles


def cells_near(cells: Tensor) -> Tensor:
    """Cells (n, h, w) bool, extended by all cells at a distance of at most 2."""
    return F.max_pool2d(cells.float()[:, None], 5, 1, 2)[:, 0] > 0


def place_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Logits of targets (n, h, w) and cells of the object (n, h, w) bool -> -log of the cells' softmax sum, (n,)."""
    return logits.logsumexp((1, 2)) - logits.masked_fill(~cells, -1e4).logsumexp((1, 2))
