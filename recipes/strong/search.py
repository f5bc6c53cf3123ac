"""How the strong recipe finds the objects of a frame, in six steps:

1. objects      Each object is encoded once, in a crop around it, and described for the locator.
2. candidates   Peaks of the locator's similarity map are the places in a target that may show the object.
3. looks        The network predicts a mask at each candidate.
4. look back    The locator seeks what the mask shows in the query frame: it should find the given object again.
5. choice       A small network chooses one of the looks.
6. close look   The network draws the final mask in crops of both views that the object nearly fills. Another small
                network computes the probability that the object is visible, from this look and the chosen one.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from formats.crop import Crop, cut, cut_mask
from formats.geometry import Size
from formats.results import THRESHOLD
from model.device import autocast
from model.features import Levels
from model.xsegtx import Look
from recipes.base import Answer, NetworkRecipe
from recipes.frame import Frame
from recipes.strong.crops import CLOSE, CONTEXT, Part, Spot, connected_parts, object_cells, spot_of, whole_frame
from recipes.strong.locator import Description, peaks
from recipes.strong.network import ObjectCrops, StrongNetwork, TargetCrops
from recipes.strong.sizes import expected_shares, size_ratios

SEARCH = 7  # version of this search, stored in a run's record; raise it with each change of the answers
ROUNDS = 6  # close looks at a target, at most; each crop can be 1.5 times as large as the one before
UNSEEN = -6.0  # the close look's logit of existence where nothing was found, so that there is nothing to look at
QueryObject = tuple[str, str]  # object, query camera
Objects = dict[float, ObjectCrops]  # the objects of a frame, in the order of `Search.spots`, by CONTEXT and CLOSE


class ExpectedSize(NamedTuple):
    """A size at which to seek the object of a pair."""

    pair: int  # the pair's number in the frame
    query: QueryObject
    ratio: float  # the object's share of the long side in the target, divided by its share in the query
    share: float  # the part of the target's long side that the object is expected to span


class Place(NamedTuple):
    """Where to look for the object of a pair."""

    pair: int  # the pair's number in the frame
    spot: Spot


class Looks(NamedTuple):
    """The looks at N places, in crops with context."""

    places: list[Place]
    crops: list[Crop]
    probs: np.ndarray  # (N, S, S) masks in the crops
    logits: Tensor  # (N,) logits of existence
    described: Description  # what the masks show


class Search:
    """The search of one frame. Objects whose query mask is empty are left out: they have no spot."""

    def __init__(self, recipe: NetworkRecipe, frame: Frame, looks: int):
        """looks: the number of candidates of each pair."""
        self.recipe, self.frame, self.looks = recipe, frame, looks
        self.network: StrongNetwork = recipe.network
        queries = dict.fromkeys(pair[:2] for pair in frame.pairs)
        self.spots = {query: spot for query in queries if (spot := spot_of(frame.masks[query]))}
        self._cells_of: dict[tuple[str, int], Tensor] = {}
        self._homes: dict[QueryObject, tuple[Tensor, Tensor]] = {}

    def places(self, count: int) -> list[list[Answer]]:
        """For each pair, the answers at up to `count` places, the likeliest first. An object whose query mask is empty
        is hidden, with an empty mask.
        """
        found: list[list[Answer]] = [[] for _ in self.frame.pairs]
        if self.spots:
            objects = self.encode_objects()
            looks, numbers = self.look_and_back(objects)
            scores = self.network.choice.score(numbers).tolist()
            rows = highest_rows(scores, looks.places, count)
            answers, logits = self.draw(objects, looks, rows)
            existence = self.network.choice.existence(torch.cat((numbers[rows], logits[:, None]), 1)).sigmoid()
            for row, answer, prob in zip(rows, answers, existence.tolist(), strict=True):
                found[looks.places[row].pair].append(answer._replace(existence=prob))
        side = self.network.config.input_size
        return [answers or [Answer(np.zeros((side, side), np.float32), 0.0)] for answers in found]

    def look_and_back(self, objects: Objects) -> tuple[Looks, Tensor]:
        """Steps 2 to 4: the looks at N places, and their `LookNumbers` but for the last, (N, NUMBERS - 1)."""
        places, similarity = self.locate()
        looks = self.look(objects, places)
        back = self.look_back(looks.places, looks.described)
        of_looks = torch.stack((similarity, looks.logits, (back + 1e-3).log()), 1)
        row_of = {query: row for row, query in enumerate(self.spots)}
        home = self.at_home(objects)[[row_of[self.frame.pairs[place.pair][:2]] for place in places]]
        of_masks = [self.mask_numbers(*found) for found in zip(places, looks.crops, looks.probs, strict=True)]
        of_masks = torch.tensor(of_masks, dtype=torch.float32, device=self.recipe.device)
        return looks, torch.cat((of_looks, home, of_masks), 1)

    # 1. objects

    def encode_objects(self) -> Objects:
        """Encode the objects; crops of the same size go through the backbone together."""
        encoded = {}
        for context in (CONTEXT, CLOSE):
            crops = {query: spot.crop(self.frame.masks[query].shape, context) for query, spot in self.spots.items()}
            levels, masks = self._query_crops(list(crops.items()), self.network.config.input_size)
            mask_feat = self.recipe.in_batches(self.recipe.encoder.masks, masks)
            with autocast(self.recipe.device, self.recipe.precision):
                encoded[context] = self.network.encode(levels, masks, mask_feat)
        return encoded

    def describe_objects(self) -> dict[tuple[QueryObject, float], Description]:
        """Describe each object for the locator, at each size that it may have in the targets, by object and ratio."""
        wide_crop, wide_size = self.network.config.wide_crop, self.network.config.wide_size
        wide = {(x.query, x.ratio): wide_crop(self.spots[x.query], x.share) for x in self.expected_sizes()}
        crops = [(query, crop) for (query, _), crop in wide.items()]
        described = self.network.describe(*self._query_crops(crops, wide_size))
        return {key: described.rows(slice(i, i + 1)) for i, key in enumerate(wide)}

    def expected_sizes(self) -> list[ExpectedSize]:
        sizes = []
        for number, pair in enumerate(self.frame.pairs):
            if spot := self.spots.get(pair[:2]):
                ratios = size_ratios(*(self.frame.kinds.get(camera) for camera in pair[1:]))
                shares = expected_shares(spot, self.frame.masks[pair[:2]].shape, ratios)
                sizes += [ExpectedSize(number, pair[:2], ratio, share) for ratio, share in shares.items()]
        return sizes

    def _query_crops(self, crops: Sequence[tuple[QueryObject, Crop]], size: int) -> tuple[Levels, Tensor]:
        """The features of crops around objects, and the masks in the crops (N, size, size)."""
        images = np.stack([cut(self.frame.images[query[1]], crop, size) for query, crop in crops])
        masks = np.stack([cut_mask(self.frame.masks[query], crop, size) for query, crop in crops])
        return self._levels(images), torch.from_numpy(masks).to(self.recipe.device)

    # 2. candidates

    def locate(self) -> tuple[list[Place], Tensor]:
        """The N places at which to look in the targets, pair by pair, with the highest similarity first; and their
        similarities (N,). A target is encoded once for each long side at which it is searched.
        """
        descriptions = self.describe_objects()
        groups = defaultdict(list)  # by camera and long side
        for expected in self.expected_sizes():
            camera = self.frame.pairs[expected.pair].target_camera
            groups[camera, self.network.config.frame_length(expected.share)].append(expected)
        found = defaultdict(list)  # by pair
        for (camera, long_side), group in groups.items():
            size, cells = self.frame.images[camera].shape[:2], self._cells(camera, long_side)
            for rows in self.recipe.slices(group):
                described = [descriptions[expected.query, expected.ratio] for expected in rows]
                described = Description(*map(torch.cat, zip(*described, strict=True)))
                heat = self.network.locator.heat(described, cells.expand(len(rows), *cells.shape[1:]))
                values, places = (x.tolist() for x in peaks(heat, 2 * self.looks))  # `likeliest_places` drops neighbors
                for expected, of_row, cells_of_row in zip(rows, values, places, strict=True):
                    extent = expected.share * max(size)
                    for middle, value in zip(cell_middles(cells_of_row, heat.shape[1:], size), of_row, strict=True):
                        if math.isfinite(value):  # the map may have fewer peaks
                            found[expected.pair].append((value, Place(expected.pair, Spot(*middle, extent))))
        kept = [x for pair in sorted(found) for x in likeliest_places(found[pair], self.looks)]
        similarity = torch.tensor([value for value, _ in kept], device=self.recipe.device)
        return [place for _, place in kept], similarity

    # 3. looks

    def look(self, objects: Objects, places: list[Place]) -> Looks:
        """Look at places in crops with context."""
        probs, logits, described = [], [], []
        for target, look in self._looks(objects, places, CONTEXT):
            with autocast(self.recipe.device, self.recipe.precision):
                described.append(self.network.describe_answers(target, look.target_mask_prob))
            probs.append(look.target_mask_prob.float())
            logits.append(look.logit.float())
        described = Description(*map(torch.cat, zip(*described, strict=True)))
        crops = [self._crop(place, CONTEXT) for place in places]
        return Looks(places, crops, torch.cat(probs).cpu().numpy(), torch.cat(logits), described)

    def _looks(self, objects: Objects, places: Sequence[Place], context: float) -> Iterator[tuple[TargetCrops, Look]]:
        """Yield the looks at places, `batch_size` at a time. A crop is `context` times as large as its object."""
        row_of, side = {query: row for row, query in enumerate(self.spots)}, self.network.config.input_size
        for batch in self.recipe.slices(places):
            crops = np.stack([cut(self._target(x.pair), self._crop(x, context), side) for x in batch])
            rows = [row_of[self.frame.pairs[x.pair][:2]] for x in batch]
            with autocast(self.recipe.device, self.recipe.precision):
                target = self.network.encode_target(self._levels(crops))
                look = self.network.look(objects[context].rows(rows), target)
            yield target, look

    # 4. look back

    def look_back(self, places: Sequence[Place], described: Description) -> Tensor:
        """How well what the masks at places show leads back to the objects in the whole query frames, (N,)."""
        rows_of, back = defaultdict(list), torch.zeros(len(places), device=self.recipe.device)
        for row, place in enumerate(places):
            rows_of[self.frame.pairs[place.pair][:2]].append(row)
        for query, rows in rows_of.items():
            for part in map(list, self.recipe.slices(rows)):
                cells, on_object = (x.expand(len(part), *x.shape[1:]) for x in self._home(query))
                back[part] = self.network.look_back(described.rows(part), cells, on_object)
        return back

    # 5. choice

    def at_home(self, objects: Objects) -> Tensor:
        """How much the objects' own frames resemble them, at their places and elsewhere: (objects, 2)."""
        described = objects[CONTEXT].description
        homes = [(described.rows([row]), *self._home(query)) for row, query in enumerate(self.spots)]
        return torch.cat([self.network.at_home(*home) for home in homes])

    def mask_numbers(self, place: Place, crop: Crop, prob: np.ndarray) -> list[float]:
        """What `LookNumbers` says of the mask that a look has found, from `log_area` to `largest_share`."""
        mask, parts = prob > THRESHOLD, self._parts(place.pair, crop, prob)
        area = float(mask.mean())
        return [
            math.log(area + 1e-3),
            float(((prob > 0.2) & (prob < 0.8)).mean()) / (area + 0.01),
            math.log(parts[0].spot.extent / place.spot.extent) if parts else -math.log(place.spot.extent),
            parts[0].share if parts else 0.0,
        ]

    # 6. close look

    def draw(self, objects: Objects, looks: Looks, rows: Sequence[int]) -> tuple[list[Answer], Tensor]:
        """Draw the masks of these `rows` of looks, R of them, in close looks at their parts that lead back best. While
        a new mask is cut off by its crop, the network looks again, at the new mask. Returns the answers, without an
        existence, and the first close looks' logits of existence (R,).
        """
        drawn = [Answer(looks.probs[row], 0.0, looks.crops[row]) for row in rows]
        logits = torch.full((len(rows),), UNSEEN, device=self.recipe.device)
        places = {}  # the places at which to look, by number in `rows`
        for number, row in enumerate(rows):
            pair, crop = looks.places[row].pair, looks.crops[row]
            if parts := self._parts(pair, crop, looks.probs[row]):
                places[number] = Place(pair, self._best_part(pair, crop, parts).spot)
        for repeat in range(ROUNDS):
            close = [look for _, look in self._looks(objects, list(places.values()), CLOSE)]
            if places and not repeat:
                logits[list(places)] = torch.cat([look.logit.float() for look in close])
            probs = [prob for look in close for prob in look.target_mask_prob.float().cpu().numpy()]
            cut_off = {}
            for (number, place), prob in zip(places.items(), probs, strict=True):
                crop = self._crop(place, CLOSE)
                if parts := self._parts(place.pair, crop, prob):  # if it shows nothing, the previous answer stays
                    drawn[number] = Answer(prob, 0.0, crop)
                    if not parts[0].is_whole:
                        cut_off[number] = place._replace(spot=parts[0].spot)
            places = cut_off
        return drawn, logits

    def _parts(self, pair: int, crop: Crop, prob: np.ndarray) -> list[Part]:
        return connected_parts(prob > THRESHOLD, crop, self._target(pair).shape[:2])

    def _best_part(self, pair: int, crop: Crop, parts: list[Part]) -> Part:
        """The part of an answer that leads back best: an answer can cover two things that look alike."""
        if len(parts) == 1:
            return parts[0]
        levels = self._levels(cut(self._target(pair), crop, self.network.config.input_size)[None])
        with autocast(self.recipe.device, self.recipe.precision):
            target = self.network.encode_target(levels)
        masks = self.recipe.stacked(part.mask for part in parts)
        target = type(target)(*(x.expand(len(parts), *x.shape[1:]) for x in target))
        described = self.network.describe_answers(target, masks.float())
        place = Place(pair, parts[0].spot)
        return parts[int(self.look_back([place] * len(parts), described).argmax())]

    def _target(self, pair: int) -> np.ndarray:
        """The target image of the pair with this number."""
        return self.frame.images[self.frame.pairs[pair].target_camera]

    def _crop(self, place: Place, context: float) -> Crop:
        """The crop of the target in which the network looks at a place."""
        return place.spot.crop(self._target(place.pair).shape[:2], context)

    def _home(self, query: QueryObject) -> tuple[Tensor, Tensor]:
        """The locator's cells of an object's own frame, (1, h, w, WIDTH), and which of them show it, (1, h, w)."""
        if query not in self._homes:
            mask = self.frame.masks[query]
            share = expected_shares(self.spots[query], mask.shape, [1.0])[1.0]
            cells = self._cells(query[1], self.network.config.frame_length(share))
            self._homes[query] = cells, self.recipe.stacked([object_cells(mask, cells.shape[1:3])])
        return self._homes[query]

    def _cells(self, camera: str, long_side: int) -> Tensor:
        """The locator's cells of a whole frame, which is encoded once: (1, h, w, WIDTH)."""
        key = camera, long_side
        if key not in self._cells_of:
            picture = whole_frame(self.frame.images[camera], long_side)
            self._cells_of[key] = self.network.locator.cells(self._levels(picture[None]))
        return self._cells_of[key]

    def _levels(self, images: np.ndarray) -> Levels:
        return self.recipe.in_batches(self.recipe.encoder.levels, torch.from_numpy(images).to(self.recipe.device))


def cell_middles(cells: Sequence[Sequence[int]], grid: Sequence[int], size: Size) -> list[tuple[float, float]]:
    """The middles, in pixels, of cells (row, column) of a grid that lies over an image of `size`."""
    return [((row + 0.5) * size[0] / grid[0], (col + 0.5) * size[1] / grid[1]) for row, col in cells]


def likeliest_places(found: Sequence[tuple[float, Place]], looks: int) -> list[tuple[float, Place]]:
    """The `looks` places of a pair with the highest similarities, without places near better ones."""
    chosen: list[tuple[float, Place]] = []
    for similarity, place in sorted(found, key=lambda row: -row[0]):
        if len(chosen) < looks and not any(place.spot.is_near(better.spot) for _, better in chosen):
            chosen.append((similarity, place))
    return chosen


def highest_rows(scores: Sequence[float], places: Sequence[Place], count: int) -> list[int]:
    """The rows of the `count` highest scores of each pair; the pairs in their order, and the highest score first."""
    rows_of = defaultdict(list)
    for row, place in enumerate(places):
        rows_of[place.pair].append(row)
    return [row for rows in rows_of.values() for row in sorted(rows, key=scores.__getitem__, reverse=True)[:count]]
