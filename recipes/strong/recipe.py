"""The strong recipe: a locator finds the places that may show an object, and the network looks at them in crops.

search.py finds the objects of a frame, samples.py draws the crops of training, choice.py chooses among looks,
learning.py searches training pairs.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.distributed import World
from common.errors import UserError
from formats.pairs import PairSet
from model.backbone import Backbone
from model.device import autocast
from model.features import Levels
from model.xsegtx import Look
from recipes.base import Answer, NetworkRecipe
from recipes.frame import Frame
from recipes.losses import compute_losses
from recipes.samples import DrawnPairs
from recipes.strong.config import StrongConfig
from recipes.strong.learning import fit_choice, mine_places
from recipes.strong.network import StrongNetwork
from recipes.strong.samples import TARGET_CROPS, CropBatch, frame_groups, read_crops
from recipes.strong.search import SEARCH, Search

PLACE_WEIGHT = 0.15  # of the loss `place`


class Strong(NetworkRecipe):
    Config, Network, looks_default = StrongConfig, StrongNetwork, 3
    network: StrongNetwork
    config: StrongConfig
    mined: dict[int, np.ndarray] | None = None  # wrong places by pair, which `read` shows
    # Without dropout, a step takes four fifths of the time. --block is of the paper's recipe.
    defaults = {
        "existence_weight": 0.05,
        "backbone": "efficientnet_lite0",
        "dropout": 0.0,
        "drop_feat": 0.0,
        "block": 0.0,
    }
    without = ("block",)

    def __init__(self, network: StrongNetwork, *args: Any, **options: Any):
        super().__init__(network, *args, **options)
        self.looks = self.looks or self.looks_default
        self.options |= {"looks": self.looks, "search": SEARCH}

    @classmethod
    def channels_of(cls, backbone: Backbone) -> dict[str, int]:
        if not backbone.detail_channels:
            raise UserError(
                f"the strong recipe reads an earlier layer of the backbone, and {backbone.name} has none; "
                "choose another --backbone"
            )
        return super().channels_of(backbone)

    # Prediction

    def predict(self, frame: Frame) -> list[Answer]:
        return [places[0] for places in self.places(frame, 1)]

    def places(self, frame: Frame, count: int) -> list[list[Answer]]:
        with self.computing():
            return Search(self, frame, self.looks).places(count)

    # Training

    def read(self, pairs: PairSet, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        return read_crops(pairs, drawn, rng, self.config, self.mined)

    def collate(self, samples: list[dict[str, Any]]) -> CropBatch:
        return CropBatch.of(samples, frames=frame_groups([sample["frame"] for sample in samples]))

    def weights(self, existence: float) -> dict[str, float]:
        return {"mask": 1.0, "dice": 1.0, "existence": existence, "place": PLACE_WEIGHT, "choice": existence}

    def losses(self, batch: CropBatch, world: World) -> dict[str, Tensor]:
        """The paper's losses, as means over all looks. They do not ask for the mask of the query, and all pixels of a
        mask have the same weight. Two losses are added:

        - place: for visible objects whose sample trains the locator, the cross-entropy of the object's cells among all
          cells of the target.
        - choice: if a target has crops that show the object and crops that do not, the cross-entropy of the crops that
          show the object, from the existence logits of all its crops.
        """
        with autocast(self.device, self.precision):
            heat, looks = self.heat(batch), self.look(batch)
        locator, contained = self.network.locator, batch.contained
        target_mask = batch.target_mask.flatten(0, 1)
        paper = compute_losses(looks, None, target_mask, contained.flatten(), world, object_weight=1)

        # In every step, each parameter takes part in the losses, as data-parallel training requires.
        place, located = 0 * locator.scale, torch.zeros_like(locator.scale)
        for group_heat, group in zip(heat, batch.frames, strict=True):
            logits, visible = locator.scale * group_heat, batch.visible[group.rows].float()
            loss = logits.logsumexp((1, 2)) - logits.masked_fill(~group.cells, -1e4).logsumexp((1, 2))
            place = place + (loss * visible).sum()
            located = located + visible.sum()
        place = place / world.sum(located).clamp(min=1)
        logit = looks.logit.float().view(-1, TARGET_CROPS)
        differ = contained.any(1) & ~contained.all(1)
        choice = logit.logsumexp(1) - logit.masked_fill(~contained, -1e4).logsumexp(1)
        choice = (choice * differ).sum() / world.sum(differ.sum()).clamp(min=1)
        return {**paper, "place": place, "choice": choice}

    def heat(self, batch: CropBatch) -> list[Tensor]:
        """The similarity maps of each group of target frames, (n, h, w)."""
        heat = []
        for group in batch.frames:
            described = self.network.describe(self.encoder.levels(batch.wide[group.rows]), batch.wide_mask[group.rows])
            with torch.autocast(self.device.type, enabled=False):  # under autocast, float16 cannot be stacked
                levels = Levels(*self.cache(group.keys, group.images, self.encoder.levels))
            heat.append(self.network.locator.heat(described, self.network.locator.cells(levels)))
        return heat

    def look(self, batch: CropBatch) -> Look:
        """Look at every target crop: B * TARGET_CROPS rows, sample by sample."""
        count = len(batch)
        levels = self.encoder.levels(torch.cat((batch.query, batch.target.flatten(0, 1))))
        query, target = Levels(*(x[:count] for x in levels)), Levels(*(x[count:] for x in levels))
        query = self.network.encode(query, batch.query_mask, self.encoder.masks(batch.query_mask))
        rows = torch.arange(count, device=batch.query.device).repeat_interleave(TARGET_CROPS)
        return self.network.look(query.rows(rows), self.network.encode_target(target))

    # What training learns from searches

    mine, finish = mine_places, fit_choice  # of learning.py

    def use_mined(self, mined: dict[str, Tensor]) -> None:
        numbers, firsts = np.unique(mined["pairs"].numpy(), return_index=True)
        self.mined = dict(zip(numbers.tolist(), np.split(mined["spots"].numpy(), firsts[1:]), strict=False))
