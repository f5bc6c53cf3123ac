"""The strong recipe: a locator finds the places that may show an object, and the network looks at them in crops.

search.py finds the objects of a frame, samples.py draws the crops of training, choice.py chooses among looks.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.distributed import Stopped, World
from common.errors import UserError
from formats.masks import fit_rle, iou
from formats.pairs import PairSet
from formats.results import THRESHOLD
from model.backbone import Backbone
from model.device import autocast
from model.features import Levels
from model.xsegtx import Look
from recipes.base import Answer, NetworkRecipe
from recipes.frame import Frame, FrameDataset, TakeFrame, frame_plans
from recipes.losses import compute_losses
from recipes.samples import DrawnPairs
from recipes.strong.choice import choice_figures, fit, looks_of_pairs, shift_existence
from recipes.strong.config import StrongConfig
from recipes.strong.crops import spot_of
from recipes.strong.network import StrongNetwork
from recipes.strong.samples import TARGET_CROPS, CropBatch, frame_groups, read_crops
from recipes.strong.search import SEARCH, Search

PLACE_WEIGHT = 0.15  # of the loss `place`
HELD_OUT = 5  # every fifth take is held out from the fit of the choice, and tells how good it is
LEAST_PAIRS, LEAST_HIDDEN = 300, 30  # the choice is not fitted to fewer pairs, or fewer pairs whose object is hidden
MINED_PAIRS, MINED_LOOKS = 20_000, 5  # training pairs that are searched for wrong places, and the places in each


class Strong(NetworkRecipe):
    Config, Network, looks_default = StrongConfig, StrongNetwork, 3
    network: StrongNetwork
    config: StrongConfig
    mined: dict[int, np.ndarray] | None = None  # wrong places by pair, which `read` shows

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
        return read_crops(pairs, drawn, rng, self.config, self.cache, self.mined)

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

    def mine(self, pairs: PairSet, seed: int, world: World) -> dict[str, Tensor]:
        _, found = self.search_frames(pairs, MINED_PAIRS, seed, world, self.wrong_places)
        numbers, *spots = torch.tensor(sorted(sum(found, [])), dtype=torch.float64).reshape(-1, 4).T
        return {"pairs": numbers.int(), "spots": torch.stack(spots, 1).float()}

    def use_mined(self, mined: dict[str, Any], pairs: PairSet) -> None:
        rows, spots = (np.asarray(mined.get(name)) for name in ("pairs", "spots"))
        fits = (rows.dtype, spots.dtype, spots.shape) == (np.int32, np.float32, (*rows.shape, 3)) and rows.ndim == 1
        if not fits or (np.diff(rows, prepend=0, append=len(pairs) - 1) < 0).any() or not np.isfinite(spots).all():
            what = f"the checkpoint's mined places are no int32 numbers of {len(pairs)} pairs and float32 spots (N, 3)"
            raise UserError(f"{what}; take an earlier file, or start anew with --init_weights")
        numbers, firsts = np.unique(rows, return_index=True)
        self.mined = dict(zip(numbers.tolist(), np.split(spots, firsts[1:]), strict=False))

    def wrong_places(self, frame: TakeFrame, numbers: list[int], truths: list[np.ndarray]) -> list[tuple[float, ...]]:
        """The candidates in a frame that are not at their objects: the pair's number, and the fields of the `Spot`."""
        search = Search(self, frame, MINED_LOOKS)
        if not search.spots:
            return []
        with self.computing():
            places, _ = search.locate()
        true = [spot_of(truth) for truth in truths]
        wrong = [place for place in places if not ((spot := true[place.pair]) and spot.is_near(place.spot))]
        return [(numbers[place.pair], *place.spot) for place in wrong]

    def search_frames(
        self, pairs: PairSet, size: int, seed: int, world: World, search: Callable[..., list]
    ) -> tuple[list[str], list[list]]:
        """What `search` finds in random frames with `size` pairs or a few more: the take of each frame, and the result.
        The processes share the frames, and all get all results. `search` is given a frame, and the numbers of its pairs
        and their true masks, (H, W) uint8.
        """
        self.network.eval()
        plans, number_of = frame_plans(pairs, range(len(pairs)))
        order = np.random.default_rng(seed).permutation(len(plans))
        counts = np.cumsum([len(plans[i].pairs) for i in order])
        chosen = np.sort(order[: np.searchsorted(counts, min(size, len(pairs))) + 1])  # a take is read once
        plans = [plans[i] for i in chosen]
        found, frames = [], FrameDataset(plans[world.rank :: world.size], self.prepare)
        rows = tqdm(range(len(frames)), "search", unit="frame", leave=False, disable=None if world.is_main else True)
        for frame in map(frames.__getitem__, rows):
            if world.signal:
                break
            numbers = [number_of[frame.take_uid, frame.number, pair] for pair in frame.pairs]
            sizes = [frame.images[pair.target_camera].shape[:2] for pair in frame.pairs]
            rles = [pairs.target_mask(number) for number in numbers]
            truths = [fit_rle(x, size) if x else np.zeros(size, np.uint8) for x, size in zip(rles, sizes, strict=True)]
            found.append(search(frame, numbers, truths))
        signals, parts = zip(*world.gather((world.signal, found)), strict=True)
        if any(signals):
            raise Stopped
        return [plan.take_uid for plan in plans], [parts[i % world.size][i // world.size] for i in range(len(plans))]

    def finish(self, pairs: PairSet, seed: int, world: World) -> str:
        """Fit the choice among looks, and the existence, to what the search finds in random frames with `fit_pairs`
        training pairs. A fifth of the takes is held out from the fit. If the fit makes these worse, or if there are too
        few pairs, the former choice stays, with a shift of its existence: training moves the logits that it reads.
        """
        if not self.training.fit_pairs:
            return ""
        uids, found = self.search_frames(pairs, self.training.fit_pairs, seed, world, self.looks_at)
        takes = sorted({uid for uid, rows in zip(uids, found, strict=True) if rows})
        held_out = [takes.index(uid) % HELD_OUT == 0 for uid, rows in zip(uids, found, strict=True) for _ in rows]
        if not held_out:
            return "the choice among looks stays as it was, since no training pair can be read"
        looks, held_out = looks_of_pairs(sum(found, [])), torch.tensor(held_out)
        count, hidden = len(held_out), int((~looks.visible).sum())
        choice, former = self.network.choice.cpu(), copy.deepcopy(self.network.choice)
        if count < LEAST_PAIRS or min(hidden, count - hidden) < LEAST_HIDDEN or len(takes) < HELD_OUT:
            needed = f"{LEAST_PAIRS} pairs of {HELD_OUT} takes, {LEAST_HIDDEN} of them hidden"
            text = f"since a fit needs {needed}, and there are {count} pairs of {len(takes)}, {hidden} hidden"
        else:
            before = choice_figures(choice, looks.rows(held_out))
            fit(choice, looks.rows(~held_out), seed)
            after = choice_figures(choice, looks.rows(held_out))
            text = f"on {int(held_out.sum())} pairs of takes held out, "
            text += f"IoU {before[0]:.4f} -> {after[0]:.4f}, existence {before[1]:.4f} -> {after[1]:.4f}"
            if np.nansum(after) >= np.nansum(before):  # without visible or hidden objects held out, one of them is NaN
                choice.to(self.device)
                return f"the choice among looks is fitted: {text}"
            choice.load_state_dict(former.state_dict())
            text = f"since a fit is worse: {text}"
        shift = shift_existence(choice, looks)
        choice.to(self.device)
        effect = f"{'more' if shift > 0 else 'fewer'} things are called visible (logit of existence {shift:+.2f})"
        return f"the choice among looks stays as it was, but {effect}, {text}"

    def looks_at(self, frame: TakeFrame, numbers: list[int], truths: list[np.ndarray]) -> list[tuple]:
        """The looks at each pair of a frame: numbers (K, NUMBERS), IoUs (K,), and whether the object is visible. A pair
        whose query mask is empty has no looks, and is left out.
        """
        search, found = Search(self, frame, self.looks), []
        if not search.spots:
            return []
        with self.computing():
            objects = search.encode_objects()
            looks, of_looks = search.look_and_back(objects)
            drawn, logits = search.draw(objects, looks, range(len(looks.places)))
            of_looks = torch.cat((of_looks, logits[:, None]), 1).cpu()
        for pair in dict.fromkeys(place.pair for place in looks.places):
            rows = [row for row, place in enumerate(looks.places) if place.pair == pair]
            truth = truths[pair].astype(bool)
            ious = [iou(drawn[row].prob_in_image(truth.shape) > THRESHOLD, truth) for row in rows]
            found.append((of_looks[rows], torch.tensor(ious), bool(truth.any())))
        return found
