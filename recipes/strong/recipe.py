"""The strong recipe: a locator finds the places that may show an object, and the network looks at them in crops.

search.py finds the objects of a frame, samples.py draws the crops of training, choice.py chooses among looks.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.distributed import World
from common.errors import UserError
from formats.crop import put_back
from formats.masks import RLE, fit_rle, iou
from formats.pairs import PairSet
from formats.results import THRESHOLD
from model.backbone import Backbone
from model.device import autocast
from model.features import Levels
from model.xsegtx import Look
from recipes.base import Answer, NetworkRecipe
from recipes.frame import Frame, FrameDataset, TakeFrame, frame_plans
from recipes.losses import Counts, compute_losses
from recipes.samples import DrawnPairs
from recipes.strong.choice import LooksOfPairs, choice_figures, fit, looks_of_pairs
from recipes.strong.config import StrongConfig
from recipes.strong.network import StrongNetwork
from recipes.strong.samples import TARGET_CROPS, CropBatch, FrameGroup, collate_crops, read_crops
from recipes.strong.search import SEARCH, Search

PLACE_WEIGHT = 0.15  # of the loss `place`
HELD_OUT = 5  # every fifth take is held out from the fit of the choice, and tells how good it is
LEAST_PAIRS, LEAST_HIDDEN = 300, 30  # the choice is not fitted to fewer pairs, or fewer pairs whose object is hidden


class Strong(NetworkRecipe):
    Config, Network, looks_default = StrongConfig, StrongNetwork, 3
    network: StrongNetwork
    config: StrongConfig
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
            raise UserError(f"the strong recipe reads an earlier layer of the backbone, and {backbone.name} has none")
        return super().channels_of(backbone)

    # Prediction

    def predict(self, frame: Frame) -> list[Answer]:
        return [places[0] for places in self.places(frame, 1)]

    def places(self, frame: Frame, count: int) -> list[list[Answer]]:
        with self.computing():
            return Search(self, frame, self.looks).places(count)

    # Training

    def read(self, pairs: PairSet, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        return read_crops(pairs, drawn, rng, self.config, self.cache)

    def collate(self, samples: list[dict[str, Any]]) -> CropBatch:
        return collate_crops(samples)

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
        counts = Counts(contained.numel() * world.size, world.sum(contained.sum()))
        target_mask = batch.target_mask.flatten(0, 1)
        paper = compute_losses(looks, None, target_mask, contained.flatten(), counts, object_weight=1)

        # In every step, each parameter takes part in the losses, as data-parallel training requires.
        place, located = 0 * locator.scale, torch.zeros_like(locator.scale)
        for group_heat, group in zip(heat, batch.frames, strict=True):
            visible = batch.visible[group.rows].float()
            place = place + (place_loss(locator.scale * group_heat, group.cells) * visible).sum()
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
            heat.append(self.network.locator.heat(described, self.cells(group)))
        return heat

    def cells(self, group: FrameGroup) -> Tensor:
        """The locator's cells of whole frames: (n, h, w, WIDTH)."""
        with torch.autocast(self.device.type, enabled=False):  # under autocast, float16 cannot be stacked
            levels = Levels(*self.cache(group.keys, group.images, self.encoder.levels))
        return self.network.locator.cells(levels)

    def look(self, batch: CropBatch) -> Look:
        """Look at every target crop: B * TARGET_CROPS rows, sample by sample."""
        count = len(batch)
        levels = self.encoder.levels(torch.cat((batch.query, batch.target.flatten(0, 1))))
        query, target = Levels(*(x[:count] for x in levels)), Levels(*(x[count:] for x in levels))
        query = self.network.encode(query, batch.query_mask, self.encoder.masks(batch.query_mask))
        rows = torch.arange(count, device=batch.query.device).repeat_interleave(TARGET_CROPS)
        return self.network.look(query.rows(rows), self.network.encode_target(target))

    # The fit of the choice

    def finish(self, pairs: PairSet, size: int, seed: int, stopped: Callable[[], bool]) -> str:
        """Fit the choice among looks, and the existence, to what the search finds in random frames with `size` training
        pairs. A fifth of the takes is held out from the fit; if the fit makes these worse, the former choice stays.
        """
        plans, number_of = frame_plans(pairs, range(len(pairs)))
        order = np.random.default_rng(seed).permutation(len(plans))
        counts = np.cumsum([len(plans[i].pairs) for i in order])
        plans = [plans[i] for i in order[: np.searchsorted(counts, min(size, len(pairs))) + 1]]
        numbers = [number_of[plan.take_uid, plan.number, pair] for plan in plans for pair in plan.pairs]
        takes, visible = sorted({plan.take_uid for plan in plans}), int(pairs.visible[numbers].sum())
        hidden = len(numbers) - visible
        if len(numbers) < LEAST_PAIRS or min(visible, hidden) < LEAST_HIDDEN or len(takes) < HELD_OUT:
            needed = f"{LEAST_PAIRS} pairs of {HELD_OUT} takes, {LEAST_HIDDEN} of them hidden"
            found = f"{len(numbers)} pairs of {len(takes)}, {hidden} hidden"
            return f"the choice among looks stays as it was, since a fit needs {needed}, and there are {found}"
        looks, uids = [], []
        for frame in map(FrameDataset(plans, self.prepare).__getitem__, range(len(plans))):
            if stopped():
                return ""
            truths = [pairs.target_mask(number_of[frame.take_uid, frame.number, pair]) for pair in frame.pairs]
            looks += self.looks_at(frame, truths)
            uids += [frame.take_uid] * (len(looks) - len(uids))
        if len(looks) < LEAST_PAIRS:
            return f"the choice among looks stays as it was, since only {len(looks)} of its pairs can be read"
        return self.fit(looks_of_pairs(looks), torch.tensor([takes.index(uid) % HELD_OUT == 0 for uid in uids]), seed)

    def fit(self, looks: LooksOfPairs, held_out: Tensor, seed: int) -> str:
        """Fit the choice to the pairs that are not `held_out`, (P,) bool, and tell how good it is on the others."""
        choice, former = self.network.choice.cpu(), copy.deepcopy(self.network.choice)
        before = choice_figures(choice, looks.rows(held_out))
        fit(choice, looks.rows(~held_out), seed)
        after = choice_figures(choice, looks.rows(held_out))
        is_worse = not sum(after) >= sum(before)  # also if the takes held out have no visible object
        if is_worse:
            choice.load_state_dict(former.state_dict())
        choice.to(self.device)
        what = "stays as it was, since a fit is worse" if is_worse else "is fitted"
        change = f"IoU {before[0]:.4f} -> {after[0]:.4f}, existence {before[1]:.4f} -> {after[1]:.4f}"
        return f"the choice among looks {what}: on {int(held_out.sum())} pairs of takes held out, {change}"

    def looks_at(self, frame: TakeFrame, truths: Sequence[RLE | None]) -> list[tuple[Tensor, Tensor, bool]]:
        """The looks at each pair of a frame: numbers (K, NUMBERS), IoUs (K,), and whether the object is visible.
        `truths` has the true masks of the pairs. A pair whose query mask is empty has no looks, and is left out.
        """
        search, found = Search(self, frame, self.looks), []
        if not search.spots:
            return []
        with self.computing():
            looks, numbers = search.look_and_back(search.encode_objects())
            stacked = numbers.stacked().cpu()
        for pair in dict.fromkeys(place.pair for place in looks.places):
            rows = [row for row, place in enumerate(looks.places) if place.pair == pair]
            size, rle = frame.images[frame.pairs[pair].target_camera].shape[:2], truths[pair]
            truth = np.zeros(size, bool) if rle is None else fit_rle(rle, size).astype(bool)
            ious = [iou(put_back(looks.probs[row], looks.crops[row], size) > THRESHOLD, truth) for row in rows]
            found.append((stacked[rows], torch.tensor(ious), rle is not None))
        return found


def place_loss(logits: Tensor, cells: Tensor) -> Tensor:
    """Logits of targets (n, h, w) and cells of the object (n, h, w) bool -> -log of the cells' softmax sum, (n,)."""
    return logits.logsumexp((1, 2)) - logits.masked_fill(~cells, -1e4).logsumexp((1, 2))
