"""The strong recipe: a locator finds the places that may show an object, and the network looks at them in crops.

docs/strong_recipe.md explains it; samples.py draws the crops of training, choice.py chooses among looks. Training
searches its own pairs, for mining.py and fit.py.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.distributed import World
from common.errors import UserError
from formats.crop import Crop, cut, cut_mask
from formats.masks import iou
from formats.pairs import Pairs
from formats.results import THRESHOLD
from model.backbone import Backbone
from model.device import autocast
from model.features import Levels
from model.rows import cat, positions, rows_by_key
from model.xsegtx import Look
from recipes.base import Answer, NetworkRecipe, Search
from recipes.frame import Frame
from recipes.losses import compute_losses
from recipes.samples import DrawnPairs
from recipes.strong.choice import CLOSE_LOOKS, LookNumbers, highest_rows
from recipes.strong.config import StrongConfig, StrongOptions
from recipes.crops import (
    CLOSE,
    CONTEXT,
    Part,
    connected_parts,
    expected_shares,
    likeliest_spots,
    object_cells,
    size_ratios,
    spot_of,
    spots_at,
    whole_frame,
)
from recipes.strong.fit import fit_choice
from recipes.locator import Description, Matches
from recipes.strong.mining import as_mined, mined_by_pair
from recipes.strong.network import ObjectCrops, StrongNetwork
from recipes.places import Looks, Marked, Places, Sought
from recipes.strong.samples import TARGET_CROPS, CropBatch, grouped_by_size, read_crops

SEARCH = 8  # version of the prediction, stored in a run's record; raise it with each change of the answers
ROUNDS = 6  # close looks at a place, at most; each crop can be 1.5 times as large as the one before
MINED_LOOKS = 5  # places at which a pair is searched for wrong ones
PLACE_WEIGHT = 0.15  # of the loss `place`


class Strong(NetworkRecipe):
    Config, Options, Network, looks_default = StrongConfig, StrongOptions, StrongNetwork, 4
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
        found, seen = {row: [] for row in frame.row}, frame.with_objects()
        if seen.row:
            with self.computing():
                places, numbers, answers = self.search(seen, count)
                existence = self.network.choice.existence(numbers).sigmoid().tolist()
            for pair, answer, prob in zip(places.pair, answers, existence, strict=True):
                found[seen.row[pair]].append(answer._replace(existence=prob))
        empty = [Answer(np.zeros(image.shape[:2], np.float32), 0.0) for image in frame.pictures]
        return [found[row] or [empty[target]] for row, target in zip(frame.row, frame.target, strict=True)]

    def search(self, frame: Frame, count: int, close: int = CLOSE_LOOKS) -> tuple[Places, LookNumbers, list[Answer]]:
        """Look closely at `close` places of each pair. Returns the `count` best ones, their numbers, which tell the
        existence, and the answers, which lack it.
        """
        marked, choice = Marked.of(frame), self.network.choice
        query, close_query = (self.encode(marked, times) for times in (CONTEXT, CLOSE))
        sought = self.sizes(frame, marked)  # 1. Sizes
        places = self.locate(frame, marked, sought, self.looks).likely(max(count, close))  # 2. Candidates
        looks = self.look(query, places, CONTEXT)  # 3. Looks
        numbers = LookNumbers.of(places, looks)
        best = highest_rows(choice.glance(numbers).tolist(), places.pair, max(count, close))
        places, looks, numbers = places[best], looks[best], numbers[best]
        closer = self.look(close_query, places.at_parts(looks), CLOSE)  # 4. Close looks
        numbers = numbers.with_close(closer)
        best = highest_rows(choice.score(numbers).tolist(), places.pair, count, close)  # 5. Choice
        places, looks, closer, numbers = places[best], looks[best], closer[best], numbers[best]
        numbers = replace(numbers, **self.look_back(frame, marked, query.description, places, looks))  # 6. Look back
        return places, numbers, self.draw(close_query, places, looks, closer)  # 7. Answer

    def sizes(self, frame: Frame, marked: Marked) -> list[Sought]:
        """1. The sizes that the object of each pair may have in the target."""
        sought = []
        for pair, (row, target) in enumerate(zip(frame.object, frame.target, strict=True)):
            ratios = size_ratios(frame.kinds[frame.view[row]], frame.kinds[target])
            for share in expected_shares(marked.spot[row], marked.mask[row].shape, ratios):
                sought.append(Sought(pair, row, target, share, self.config.frame_length(share)))
        return sought

    def locate(self, frame: Frame, marked: Marked, sought: list[Sought], count: int) -> Places:
        """2. The `count` highest peaks of the similarity maps of each pair, for all of these sizes."""
        wide = list(dict.fromkeys((x.object, x.share) for x in sought))  # what several pairs ask for is described once
        crops = [self.config.wide_crop(marked.spot[row], share) for row, share in wide]
        crops = self.query_crops(marked[[row for row, _ in wide]], crops, self.config.wide_size)
        described = self.network.describe(*crops)[positions(((x.object, x.share) for x in sought), wide)]
        order, highest = [], []
        for (target, long_side), rows in rows_by_key((x.target, x.long_side) for x in sought).items():
            cells = self.picture_cells(frame.pictures[target], long_side)
            highest.append(self.in_batches(partial(self.network.locator.peaks, cells, 2 * count), described[rows]))
            order += [(sought[row], cells.shape[1:3]) for row in rows]
        found: list[list] = [[] for _ in frame.row]  # some of the peaks are next to others
        for (x, grid), peaks in zip(order, torch.cat(highest).tolist(), strict=True):
            found[x.pair] += spots_at(peaks, grid, frame.pictures[x.target].shape[:2], x.share)
        return Places.of(frame, [likeliest_spots(of_pair, count) for of_pair in found])

    def look(self, objects: ObjectCrops, places: Places, context: float) -> Looks:
        """3. and 4. Look at the places in crops, and tell how well the matches agree with what the looks show."""
        crops, of, found = places.crops(context), self.to_device(places.object), []
        for start in range(0, len(crops), self.batch_size):
            rows = slice(start, start + self.batch_size)
            query, side = objects[of[rows]], self.config.input_size
            images = self.stacked(cut(*row, side) for row in zip(places.image[rows], crops[rows], strict=True))
            levels = self.encoder.levels(images)
            with autocast(self.device, self.precision):
                target = self.network.encode_target(levels)
                look = self.network.look(query, target)
            matches = self.network.locator.match(query.cells, query.coverage, target.cells)
            found.append((look, matches, target.cells))
        look, matches, cells = map(cat, zip(*found, strict=True))
        agreement, cosine = matches.agreement(look.target_mask_prob > THRESHOLD), matches.mean(matches.cosine)
        prob = look.target_mask_prob.cpu().numpy()
        shown = zip(prob > THRESHOLD, crops, places.image, strict=True)
        part = self.best_parts([connected_parts(mask, crop, image.shape[:2]) for mask, crop, image in shown], matches)
        return Looks(crops, prob, part, look.logit, agreement, cosine, cells)

    def best_parts(self, parts: list[list[Part]], matches: Matches) -> list[Part | None]:
        """The part of each look that agrees best: an answer can cover two things that look alike."""
        best = [of_look[0] if of_look else None for of_look in parts]
        if several := [(row, part) for row, of_look in enumerate(parts) if len(of_look) > 1 for part in of_look]:
            rows = [row for row, _ in several]
            agreement = matches[rows].agreement(self.stacked(part.mask for _, part in several)).tolist()
            for number in highest_rows(agreement, rows, 1):
                best[rows[number]] = several[number][1]
        return best

    def look_back(
        self, frame: Frame, marked: Marked, described: Description, places: Places, looks: Looks
    ) -> dict[str, Tensor]:
        """6. How well what looks show leads back to their objects, in the whole pictures in which these are marked, and
        how well the objects and their look-alikes there fit the objects' descriptions.
        """
        order, found, cells_of = [], [], {}
        shown = self.in_batches(self.network.describe_answers, looks.cells, self.stacked(looks.prob))
        for row, of_object in rows_by_key(places.object).items():
            image, mask = marked.image[row], marked.mask[row]
            [share] = expected_shares(marked.spot[row], mask.shape, [1.0])
            picture = frame.view[row], self.config.frame_length(share)
            if picture not in cells_of:
                cells_of[picture] = self.picture_cells(image, picture[1])
            cells = cells_of[picture]
            on_object = self.stacked([object_cells(mask, cells.shape[1:3])])
            back = self.network.look_back(shown[of_object], cells, on_object)
            at_home = self.network.at_home(described[[row]], cells, on_object).expand(len(back), 2)
            found.append(torch.cat(((back[:, None] + 1e-3).log(), at_home), 1))
            order += of_object
        log_back, home, elsewhere = torch.cat(found)[self.to_device(np.argsort(order))].unbind(1)
        return {"log_back": log_back, "home": home, "elsewhere": elsewhere}

    def draw(self, objects: ObjectCrops, places: Places, looks: Looks, close_looks: Looks) -> list[Answer]:
        """7. The masks of the close looks; where one shows nothing, the mask of the look with context. While a mask is
        cut off by its crop, the network looks again, at the new mask. The answers lack an existence.
        """
        answers = [Answer(prob, 0.0, crop) for prob, crop in zip(looks.prob, looks.crop, strict=True)]
        rows = range(len(places))
        for _ in range(ROUNDS):
            for row, prob, crop, part in zip(rows, close_looks.prob, close_looks.crop, close_looks.part, strict=True):
                if part:
                    answers[row] = Answer(prob, 0.0, crop)
            cut_off = [k for k, part in enumerate(close_looks.part) if part and not part.is_whole]
            if not cut_off:
                break
            rows, places = [rows[k] for k in cut_off], places[cut_off].at_parts(close_looks[cut_off])
            close_looks = self.look(objects, places, CLOSE)
        return answers

    # What the steps share

    def encode(self, marked: Marked, context: float) -> ObjectCrops:
        """The objects, in crops around them."""
        levels, masks = self.query_crops(marked, marked.crops(context), self.config.input_size)
        mask_feat = self.in_batches(self.encoder.masks, masks)
        with autocast(self.device, self.precision):
            return self.in_batches(self.network.encode, levels, masks, mask_feat)

    def query_crops(self, marked: Marked, crops: list[Crop], side: int) -> tuple[Levels, Tensor]:
        """The features of a crop of each object's picture, and the masks in the crops (N, side, side)."""
        images = self.stacked(cut(*row, side) for row in zip(marked.image, crops, strict=True))
        masks = self.stacked(cut_mask(*row, side) for row in zip(marked.mask, crops, strict=True))
        return self.in_batches(self.encoder.levels, images), masks

    def picture_cells(self, image: np.ndarray, long_side: int) -> Tensor:
        """The locator's cells of a whole picture, (1, h, w, WIDTH)."""
        return self.network.locator.cells(self.encoder.levels(self.stacked([whole_frame(image, long_side)])))

    # Training

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
        return as_mined(search(self.wrong_places, self.training.mine_pairs))

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
        size = self.training.fit_pairs
        return fit_choice(self.network.choice, search(self.all_looks, size), seed) if size else ""

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
