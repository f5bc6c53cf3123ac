"""A training step of the strong recipe, which looks at objects and at the objects' rivals, and computes the losses."""

import torch
from torch import Tensor

from model.device import autocast
from model.features import Levels
from model.xsegtx import Look
from train.crops import TARGET_CROPS, CropBatch, FrameGroup
from train.engine import Step
from train.losses import Counts, compute_losses


class CropStep(Step):
    def losses(self, batch: CropBatch) -> dict[str, Tensor]:
        """The paper's losses, as means over all looks. They do not ask for the mask of the query, and all pixels of a
        mask have the same weight. Two losses are added:

        - place: for visible objects whose sample trains the locator, the cross-entropy of the object's cells among all
          cells of the target.
        - choice: if a target has crops that show the object and crops that do not, the cross-entropy of the crops that
          show the object, from the existence logits of all its crops.
        """
        with autocast(self.encoder.device, self.precision):
            heat, looks = self.heat(batch), self.look(batch)
        locator, contained = self.network.locator, batch.contained
        counts = Counts(contained.numel() * self.world.size, self.world.sum(contained.sum()))
        target_mask = batch.target_mask.flatten(0, 1)
        paper = compute_losses(looks, None, target_mask, contained.flatten(), counts, object_weight=1)

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

    def look(self, batch: CropBatch) -> Look:
        """The looks at the target crops, B * TARGET_CROPS rows."""
        count = len(batch)
        levels = self.encoder.levels(torch.cat((batch.query, batch.target.flatten(0, 1))))
        query, target = Levels(*(x[:count] for x in levels)), Levels(*(x[count:] for x in levels))
        query = self.network.encode(query, batch.query_mask, self.encoder.masks(batch.query_mask))
        rows = torch.arange(count, device=batch.query.device).repeat_interleave(TARGET_CROPS)
        return self.network.look(query.rows(rows), self.network.encode_target(target))


def place_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Logits of targets (n, h, w) and cells of the object (n, h, w) bool -> -log of the cells' softmax sum, (n,)."""
    return logits.logsumexp((1, 2)) - logits.masked_fill(~cells, -1e4).logsumexp((1, 2))
