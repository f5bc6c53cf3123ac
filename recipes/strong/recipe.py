"""The strong recipe: a locator finds the places that may show an object, and the network looks at them in crops.

docs/strong_recipe.md explains it; samples.py draws the crops of training, choice.py chooses among looks. Training
searches its own pairs, for mining.py and fit.py.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.constants import THRESHOLD
from common.distributed import World
from formats.crop import cut
from formats.masks import iou
from formats.pairs import Pairs
from model.device import autocast
from model.features import coverage_of
from model.rows import rows_by_key
from model.xsegtx import Look
from recipes.base import Answer, Search
from recipes.crops import CLOSE, spot_of
from recipes.frame import Frame
from recipes.locator import Locator
from recipes.losses import compute_losses
from recipes.matching import Matching
from recipes.places import LookNumbers, Looks, Marked, Places
from recipes.samples import DrawnPairs
from recipes.strong.config import StrongConfig, StrongOptions
from recipes.strong.fit import fit_choice
from recipes.strong.mining import as_mined, mined_by_pair
from recipes.strong.network import StrongNetwork, StrongObjects
from recipes.strong.samples import TARGET_CROPS, CropBatch, grouped_by_size, read_crops

MINED_LOOKS = 5  # places at which a pair is searched for wrong ones
PLACE_WEIGHT = 0.15  # of the loss `place`
SECOND_OPINION = 3.0, 0.5  # how much the agreement of features that have not learned counts, and what changes nothing


class Strong(Matching):
    Config, Options, Network = StrongConfig, StrongOptions, StrongNetwork
    network: StrongNetwork
    config: StrongConfig
    mined: dict[int, np.ndarray] | None = None  # wrong places by pair, which `read` shows

    def encode_crops(self, images: Tensor, masks: Tensor) -> StrongObjects:
        levels, mask_feat = self.encoder.levels(images), self.encoder.masks(masks)
        with autocast(self.device, self.precision):
            return self.network.encode(levels, masks, mask_feat)

    def compare(self, frame: Frame, marked: Marked, places: Places, looks: Looks) -> dict[str, Tensor]:
        """4. The matcher's numbers, and in pictures of unknown cameras a second opinion: the agreement of features that
        have learned nothing, and so nothing wrong from renderings. In takes, it is the value that changes nothing.
        """
        side, raw = self.config.input_size, Locator()
        agreement = torch.full((len(places),), SECOND_OPINION[1], device=self.device)
        unknown = [row for row, pair in enumerate(places.pair) if frame.kinds[frame.target[pair]] is None]
        if unknown:
            images, masks = self.query_crops(marked, marked.crops(CLOSE), side)
            query, of = raw.cells(self.encoder.levels(images)), self.to_device([places.object[row] for row in unknown])
            crops = [cut(places.image[row], looks.crop[row], side) for row in unknown]
            target = raw.cells(self.encoder.levels(self.stacked(crops)))
            matches = raw.match(query[of], coverage_of(masks, query.shape[1:3])[of], target)
            agreement[unknown] = matches.agreement(self.stacked(looks.prob[unknown] > THRESHOLD))
        return super().compare(frame, marked, places, looks) | {"raw_agreement": agreement}

    def existence(self, numbers: LookNumbers) -> Tensor:
        opinion, neutral = SECOND_OPINION
        return self.network.choice.existence(numbers) + opinion * (numbers.raw_agreement - neutral)  # pyrefly: ignore

    def outlined(self, answers: list[Answer], images: list[np.ndarray]) -> list[Answer]:
        return answers  # the decoder has drawn the outlines

    def read(self, pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        return read_crops(pairs, drawn, rng, self.config, self.mined)

    def collate(self, samples: list[dict[str, Any]]) -> CropBatch:
        return CropBatch.of(samples, frames=grouped_by_size([sample["frame"] for sample in samples]))

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
            heat, looks = self.heat(batch), self.look_at_crops(batch)
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
        if not batch.frames:
            return []
        rows, heat = torch.cat([group.rows for group in batch.frames]), []
        described = self.network.describe(self.encoder.levels(batch.wide[rows]), batch.wide_mask[rows])
        for group in batch.frames:
            of_group, described = described[: len(group.rows)], described[len(group.rows) :]
            cells = self.network.locator.cells(self.encoder.levels(group.images))
            heat.append(self.network.locator.heat(of_group, cells))
        return heat

    def look_at_crops(self, batch: CropBatch) -> Look:
        """Look at every target crop: B * TARGET_CROPS rows, sample by sample."""
        count = len(batch)
        levels = self.encoder.levels(torch.cat((batch.query, batch.target.flatten(0, 1))))
        query = self.network.encode(levels[:count], batch.query_mask, self.encoder.masks(batch.query_mask))
        rows = torch.arange(count, device=batch.query.device).repeat_interleave(TARGET_CROPS)
        return self.network.look(query[rows], self.network.encode_target(levels[count:]))

    # What training learns from searches

    def mine(self, search: Search) -> dict[str, Tensor]:
        return as_mined(search(self.wrong_places, self.training.mine_share))

    def wrong_places(self, frame: Frame) -> list[np.ndarray]:
        """The candidates of each pair that are not at the object, as the fields of `Spot`s, (n, 3)."""
        with self.computing():
            marked = Marked.of(frame)
            places = self.locate(frame, marked, self.sizes(frame, marked), MINED_LOOKS)
        true, wrong = list(map(spot_of, frame.truths)), [[] for _ in frame.truths]
        for pair, place in zip(places.pair, places.spot, strict=True):
            if not ((spot := true[pair]) and spot.is_near(place)):
                wrong[pair].append(place)
        return [np.array(sorted(of_pair), np.float32).reshape(-1, 3) for of_pair in wrong]

    def use_mined(self, mined: dict[str, Any], pairs: Pairs) -> None:
        self.mined = mined_by_pair(mined, len(pairs))

    def finish(self, search: Search, seed: int) -> str:
        share = self.training.fit_share
        return "" if share == 0 else fit_choice(self.network.choice, search(self.all_looks, share), seed)

    def all_looks(self, frame: Frame) -> list[tuple[LookNumbers, Tensor, bool]]:
        """All looks at each pair: their numbers, their IoUs (K,), and whether the object is visible."""
        with self.computing():
            places, numbers, answers = self.search(frame, self.looks, close=self.looks)
            numbers, found = LookNumbers(*torch.stack(numbers.columns()).cpu()), []
        rows_of = rows_by_key(places.pair)
        for pair, truth in enumerate(frame.truths):
            shown = [answers[row].in_image(truth.shape) > THRESHOLD for row in rows_of[pair]]
            ious = torch.tensor([iou(mask, truth.astype(bool)) for mask in shown])
            found.append((numbers[rows_of[pair]], ious, bool(truth.any())))
        return found
