"""The strong recipe: a locator finds the places that may show an object, and the network looks at them in crops.

docs/strong_recipe.md explains it; samples.py draws the crops of training, choice.py chooses among looks, learning.py
searches training pairs.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.distributed import World
from common.errors import UserError
from formats.crop import Crop, cut, cut_mask
from formats.pairs import PairSet
from model.backbone import Backbone
from model.device import autocast
from model.features import Levels
from model.rows import cat, rows_by_key
from model.xsegtx import Look
from recipes.base import Answer, NetworkRecipe, Search
from recipes.frame import Frame, numbers
from recipes.losses import compute_losses
from recipes.samples import DrawnPairs
from recipes.strong.choice import LookNumbers, Looks, Marked, Places, highest_rows
from recipes.strong.config import StrongConfig, StrongOptions
from recipes.strong.crops import (
    CLOSE,
    CONTEXT,
    Spot,
    expected_shares,
    likeliest_spots,
    middle_of_cell,
    object_cells,
    size_ratios,
    whole_frame,
)
from recipes.strong.learning import fit_choice, mine_places
from recipes.strong.locator import Description, peaks
from recipes.strong.network import ObjectCrops, StrongNetwork, TargetCrops
from recipes.strong.samples import TARGET_CROPS, CropBatch, grouped_by_size, read_crops

SEARCH = 7  # version of the prediction, stored in a run's record; raise it with each change of the answers
ROUNDS = 6  # close looks at a target, at most; each crop can be 1.5 times as large as the one before
UNSEEN = -6.0  # the close look's logit of existence where nothing was found, so that there is nothing to look at
PLACE_WEIGHT = 0.15  # of the loss `place`
Picture = tuple[int, int]  # the number of a picture in its frame, and the long side to which it is resized


class Objects(NamedTuple):
    """The encoded objects of a frame."""

    context: ObjectCrops  # in crops around them
    close: ObjectCrops  # in close crops
    cells: list[Tensor]  # of the whole pictures in which they are marked, (1, h, w, WIDTH)
    on_object: list[Tensor]  # which of these cells show them, (1, h, w) bool
    at_home: Tensor  # (O, 2), from `StrongNetwork.at_home`


class Strong(NetworkRecipe):
    Config, Options, Network, looks_default = StrongConfig, StrongOptions, StrongNetwork, 3
    network: StrongNetwork
    config: StrongConfig
    side = None  # crops are cut from whole images
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

    # Prediction, in the steps of docs/strong_recipe.md

    def predict(self, frame: Frame) -> list[Answer]:
        return [answers[0] for answers in self.answers_at_places(frame, 1)]

    def answers_at_places(self, frame: Frame, count: int) -> list[list[Answer]]:
        """An object whose query mask is empty is hidden, with an empty mask."""
        found, seen = {pair: [] for pair in frame.pairs}, frame.with_objects()
        if seen.pairs:
            with self.computing():
                places, numbers, answers = self.search(seen, count)
                existence = self.network.choice.existence(numbers.stacked()).sigmoid().tolist()
            for pair, answer, prob in zip(places.pair, answers, existence, strict=True):
                found[seen.pairs[pair]].append(answer._replace(existence=prob))
        empty = {name: np.zeros(image.shape[:2], np.float32) for name, image in frame.images.items()}
        return [found[pair] or [Answer(empty[pair.target_camera], 0.0)] for pair in frame.pairs]

    def search(self, frame: Frame, count: int) -> tuple[Places, LookNumbers, list[Answer]]:
        """The `count` best places of each pair, what tells the existence there, and the answers, which lack it."""
        marked = Marked.of(frame)
        objects = self.encode(frame, marked)  # 1
        places = self.locate(frame, marked, self.looks)  # 2
        looks = self.look(objects, places)  # 3
        back = self.look_back(objects, places.object, looks.shown)  # 4
        numbers = LookNumbers.of(places, looks, back, objects.at_home[self.to_device(places.object)])  # 5
        best = highest_rows(self.network.choice.score(numbers.stacked()).tolist(), places.pair, count)
        places, looks, numbers = places[best], looks[best], numbers[best]
        answers, numbers.close_logit = self.draw(objects, places, looks)  # 6
        return places, numbers, answers

    def encode(self, frame: Frame, marked: Marked) -> Objects:
        """1. The objects, in crops around them and in their whole pictures."""
        context, close = (self.encode_crops(marked, times) for times in (CONTEXT, CLOSE))
        sizes = [mask.shape for mask in marked.mask]
        shares = [expected_shares(*row, [1.0])[1.0] for row in zip(marked.spot, sizes, strict=True)]
        cells = self.whole_pictures(frame, list(zip(frame.view, map(self.config.frame_length, shares), strict=True)))
        rows = zip(marked.mask, cells, strict=True)
        on_object = [self.stacked([object_cells(mask, of_picture.shape[1:3])]) for mask, of_picture in rows]
        numbers = range(len(cells))
        at_home = self.in_groups(self.network.at_home, context.description, numbers, cells, on_object)
        return Objects(context, close, cells, on_object, at_home)

    def locate(self, frame: Frame, marked: Marked, count: int) -> Places:
        """2. The `count` highest peaks of the similarity maps of each pair, for all sizes that its object may have."""
        kinds, sizes = [frame.kinds.get(camera) for camera in frame.images], []
        for pair, (row, target) in enumerate(zip(frame.object, frame.target, strict=True)):
            ratios = size_ratios(kinds[frame.view[row]], kinds[target])
            shares = expected_shares(marked.spot[row], marked.mask[row].shape, ratios)
            sizes += [(pair, row, share) for share in shares.values()]
        wide = list(dict.fromkeys(size[1:] for size in sizes))  # what several pairs ask for is described once
        crops = [self.config.wide_crop(marked.spot[row], share) for row, share in wide]
        crops = self.query_crops(marked[[row for row, _ in wide]], crops, self.config.wide_size)
        described = self.network.describe(*crops)[numbers((size[1:] for size in sizes), wide)]
        pictures = [(frame.target[pair], self.config.frame_length(share)) for pair, _, share in sizes]
        cells, heat = self.whole_pictures(frame, pictures), self.network.locator.heat
        of_picture = dict(zip(pictures, cells, strict=True))
        highest = self.in_groups(lambda *given: peaks(heat(*given), 2 * count), described, pictures, of_picture)
        found: list[list] = [[] for _ in frame.pairs]  # some of the peaks are next to others
        for (pair, _, share), grid, of_size in zip(sizes, cells, highest.tolist(), strict=True):
            size = frame.pictures[frame.target[pair]].shape[:2]
            for similarity, row, col in of_size:
                if math.isfinite(similarity):  # the map may have fewer peaks
                    middle = middle_of_cell(row, col, grid.shape[1:3], size)
                    found[pair].append((similarity, Spot(*middle, share * max(size))))
        places = []
        for pair, (row, target) in enumerate(zip(frame.object, frame.target, strict=True)):
            likeliest = likeliest_spots(found[pair], count)
            places += [(frame.pictures[target], spot, pair, row, similarity) for similarity, spot in likeliest]
        return Places(*map(list, zip(*places, strict=True)))

    def look(self, objects: Objects, places: Places) -> Looks:
        """3. Look at the places in crops with context."""
        crops, found = places.crops(CONTEXT), []
        for target, look in self.looks_in(objects.context, places, crops):
            found.append((look, target.cells, self.network.describe_answers(target.cells, look.target_mask_prob)))
        look, cells, shown = map(cat, zip(*found, strict=True))
        prob = look.target_mask_prob.cpu().numpy()
        return Looks(crops, prob, places.parts(crops, prob), look.logit, cells, shown)

    def look_back(self, objects: Objects, of: list[int], shown: Description) -> Tensor:
        """4. How well what answers show leads back to the objects `of`, in their whole pictures: (N,)."""
        return self.in_groups(self.network.look_back, shown, of, objects.cells, objects.on_object)

    def draw(self, objects: Objects, places: Places, looks: Looks) -> tuple[list[Answer], Tensor]:
        """6. Draw the masks of R looks in close looks at their parts that lead back best. While a new mask is cut off
        by its crop, the network looks again, at the new mask. Returns the answers, without an existence, and the first
        close looks' logits of existence (R,).
        """
        answers = [Answer(prob, 0.0, crop) for prob, crop in zip(looks.prob, looks.crop, strict=True)]
        logits = torch.full((len(answers),), UNSEEN, device=self.device)
        spots = self.best_parts(objects, places.object, looks)
        for repeat in range(ROUNDS):
            rows, closer = list(spots), replace(places[list(spots)], spot=list(spots.values()))
            if not rows:
                break
            crops = closer.crops(CLOSE)
            look = cat([look for _, look in self.looks_in(objects.close, closer, crops)])
            if not repeat:
                logits[self.to_device(rows)] = look.logit
            spots, probs = {}, look.target_mask_prob.cpu().numpy()
            for row, crop, prob, parts in zip(rows, crops, probs, closer.parts(crops, probs), strict=True):
                if parts:  # if it shows nothing, the previous answer stays
                    answers[row] = Answer(prob, 0.0, crop)
                    if not parts[0].is_whole:
                        spots[row] = parts[0].spot
        return answers, logits

    def best_parts(self, objects: Objects, of: list[int], looks: Looks) -> dict[int, Spot]:
        """By row, where the part of each look is that leads back best: an answer can cover two things that look alike.
        Looks that show nothing are left out.
        """
        best = {row: parts[0].spot for row, parts in enumerate(looks.parts) if parts}
        several = [(row, part) for row, parts in enumerate(looks.parts) if len(parts) > 1 for part in parts]
        if several:
            rows, masks = [row for row, _ in several], self.stacked(part.mask for _, part in several)
            shown = self.in_batches(self.network.describe_answers, looks.cells[self.to_device(rows)], masks)
            back = self.look_back(objects, [of[row] for row in rows], shown).tolist()
            best |= {rows[number]: several[number][1].spot for number in highest_rows(back, rows, 1)}
        return best

    # What the steps share

    def encode_crops(self, marked: Marked, context: float) -> ObjectCrops:
        levels, masks = self.query_crops(marked, marked.crops(context), self.config.input_size)
        mask_feat = self.in_batches(self.encoder.masks, masks)
        with autocast(self.device, self.precision):
            return self.in_batches(self.network.encode, levels, masks, mask_feat)

    def query_crops(self, marked: Marked, crops: list[Crop], side: int) -> tuple[Levels, Tensor]:
        """The features of a crop of each object's picture, and the masks in the crops (N, side, side)."""
        images = self.stacked(cut(*row, side) for row in zip(marked.image, crops, strict=True))
        masks = self.stacked(cut_mask(*row, side) for row in zip(marked.mask, crops, strict=True))
        return self.in_batches(self.encoder.levels, images), masks

    def whole_pictures(self, frame: Frame, pictures: list[Picture]) -> list[Tensor]:
        """The locator's cells of whole pictures, (1, h, w, WIDTH) each. A picture that is there twice is read once."""
        cells = {}
        for number, long_side in dict.fromkeys(pictures):
            image = self.stacked([whole_frame(frame.pictures[number], long_side)])
            cells[number, long_side] = self.network.locator.cells(self.encoder.levels(image))
        return [cells[picture] for picture in pictures]

    def in_groups(self, function: Callable, described: Description, keys: Sequence, *of_keys: Any) -> Tensor:
        """Apply a function to descriptions and to the tensors (1, ...) that `of_keys` have for their keys. Rows with
        the same key are computed together.
        """
        groups, found = rows_by_key(keys), []
        order = self.to_device([row for rows in groups.values() for row in rows])
        described = described[order]
        for key, rows in groups.items():
            shared = (tensors[key].expand(len(rows), *tensors[key].shape[1:]) for tensors in of_keys)
            found.append(self.in_batches(function, described[: len(rows)], *shared))
            described = described[len(rows) :]
        found = torch.cat(found)
        return torch.empty_like(found).index_copy_(0, order, found)

    def looks_in(self, query: ObjectCrops, places: Places, crops: list[Crop]) -> Iterator[tuple[TargetCrops, Look]]:
        """Yield the looks at places in these crops, `batch_size` at a time."""
        of, side = self.to_device(places.object), self.config.input_size
        for start in range(0, len(crops), self.batch_size):
            rows = slice(start, start + self.batch_size)
            images = self.stacked(cut(*row, side) for row in zip(places.image[rows], crops[rows], strict=True))
            levels = self.encoder.levels(images)
            with autocast(self.device, self.precision):
                target = self.network.encode_target(levels)
                look = self.network.look(query[of[rows]], target)
            yield target, look

    # Training

    def read(self, pairs: PairSet, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
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
        heat = []
        for group in batch.frames:
            described = self.network.describe(self.encoder.levels(batch.wide[group.rows]), batch.wide_mask[group.rows])
            with torch.autocast(self.device.type, enabled=False):  # under autocast, float16 cannot be stacked
                levels = Levels(*self.cache(group.keys, group.images, lambda x: self.encoder.levels(x).columns()))
            heat.append(self.network.locator.heat(described, self.network.locator.cells(levels)))
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
        return mine_places(self, search, self.training.mine_pairs)

    def use_mined(self, mined: dict[str, Any], pairs: PairSet) -> None:
        rows, spots = (np.asarray(mined.get(name)) for name in ("pairs", "spots"))
        fits = (rows.dtype, spots.dtype, spots.shape) == (np.int32, np.float32, (*rows.shape, 3)) and rows.ndim == 1
        if not fits or (np.diff(rows, prepend=0, append=len(pairs) - 1) < 0).any() or not np.isfinite(spots).all():
            what = f"the checkpoint's mined places are no int32 numbers of {len(pairs)} pairs and float32 spots (N, 3)"
            raise UserError(f"{what}; take an earlier file, or start anew with --init_weights")
        numbers, firsts = np.unique(rows, return_index=True)
        self.mined = dict(zip(numbers.tolist(), np.split(spots, firsts[1:]), strict=False))

    def finish(self, search: Search, seed: int) -> str:
        size = self.training.fit_pairs
        return fit_choice(self, search, size, seed) if size else ""
