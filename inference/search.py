"""The strong network finds the objects of a frame in six steps:

1. objects      Each object is encoded once, in a crop around it, and described for the locator.
2. candidates   Peaks of the locator's similarity map are the places in a target that may show the object.
3. looks        The network predicts a mask at each candidate.
4. look back    The locator seeks what the mask shows in the query frame: it should find the given object again.
5. choice       A small network chooses one of the looks, and computes the probability that the object is visible.
6. close look   The network draws the final mask in crops of both views that the object nearly fills.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.arguments import LOOKS
from formats.results import THRESHOLD
from inference.frame import Frame, prepare_frame
from inference.matcher import Answer, NetworkMatcher
from model.crops import (
    CLOSE,
    CONTEXT,
    LARGEST,
    Crop,
    Spot,
    cell_middles,
    cut,
    cut_mask,
    expected_shares,
    largest_part,
    object_cells,
    size_ratios,
    spot_of,
    whole_frame,
)
from model.device import autocast
from model.features import Encoder, Levels
from model.locator import Description, peaks
from model.strong import ObjectCrops, StrongXSegTx

SEARCH = 5  # version of this search, stored in a run's record; raise it with each change of the answers
ROUNDS = 6  # close looks at a target, at most; each crop can be 1.5 times as large as the one before
QueryObject = tuple[str, str]  # object, query camera


class ExpectedSize(NamedTuple):
    """A size at which to seek the object of a pair."""

    pair: int  # the pair's number in the frame
    query: QueryObject
    ratio: float  # the object's share of the long side in the target, divided by its share in the query
    share: float  # the part of the target's long side that the object is expected to span


class Candidate(NamedTuple):
    """A place at which to look for the object of a pair."""

    pair: int  # the pair's number in the frame
    spot: Spot
    heat: float  # the similarity at this place


class Objects(NamedTuple):
    """The objects of a frame whose query masks are not empty."""

    frame: Frame
    spots: dict[QueryObject, Spot]
    crops: dict[float, ObjectCrops]  # by CONTEXT and CLOSE; rows are in the order of `spots`
    expected: list[ExpectedSize]
    descriptions: dict[tuple[QueryObject, float], Description]  # by object and ratio; each has one row
    cells: dict[tuple[str, int], Tensor]  # the locator's cells of whole frames by camera and long side

    def target(self, number: int) -> np.ndarray:
        """The target image of the pair with this number."""
        return self.frame.images[self.frame.pairs[number].target_camera]

    def crop(self, candidate: Candidate, context: float) -> Crop:
        """The crop of the target in which the network looks at a candidate."""
        return candidate.spot.crop(self.target(candidate.pair).shape[:2], context)


class FirstLooks(NamedTuple):
    """What the first looks at a frame have found."""

    objects: Objects
    candidates: list[Candidate]
    answers: list[Answer]  # of the candidates, without existence
    numbers: Tensor  # (N, NUMBERS): the numbers from which `Choice` chooses, of the candidates


class StrongMatcher(NetworkMatcher):
    """Looks with the strong network at the `looks` likeliest places of a target, and chooses one of these looks."""

    prepare = staticmethod(prepare_frame)

    def __init__(
        self,
        encoder: Encoder,
        network: StrongXSegTx,
        precision: str = "fp32",
        batch_size: int | None = None,
        looks: int | None = None,
    ):
        super().__init__(encoder, network, precision, batch_size)
        self.config, self.looks = network.config, looks or LOOKS
        self.options |= {"looks": self.looks, "search": SEARCH}

    def predict(self, frame: Frame) -> list[Answer]:
        return [places[0] for places in self.places(frame, 1)]

    def places(self, frame: Frame, count: int) -> list[list[Answer]]:
        """Run the six steps. For each pair, returns the answers at up to `count` places, the likeliest first. An object
        whose query mask is empty is answered as hidden, with an empty mask.
        """
        answers: list[list[Answer]] = [[] for _ in frame.pairs]
        with self.computing():
            if found := self.looks_of(frame):
                chosen = self._choose(found, count)
                self._look_closely(found.objects, chosen)
                for number, answer in chosen:
                    answers[number].append(answer)
        hidden = Answer(np.zeros((self.config.input_size, self.config.input_size), np.float32), 0.0)
        return [found or [hidden] for found in answers]

    def looks_of(self, frame: Frame) -> FirstLooks | None:
        """The first four steps, in `computing`; None if all query masks are empty."""
        queries = dict.fromkeys(pair[:2] for pair in frame.pairs)
        spots = {query: spot for query in queries if (spot := spot_of(frame.masks[query]))}
        if not spots:
            return None
        objects = self._objects(frame, spots)
        candidates = self._candidates(objects)
        probs, logits, described, back_closely = self._look(objects, candidates, CONTEXT)
        back = self._look_back(objects, candidates, described)
        heat = torch.tensor([candidate.heat for candidate in candidates], device=self.device)
        answers, of_masks = [], []
        for candidate, prob in zip(candidates, probs, strict=True):
            crop, size = objects.crop(candidate, CONTEXT), objects.target(candidate.pair).shape[:2]
            answers.append(Answer(prob, math.nan, crop))
            of_masks.append(mask_numbers(prob, crop, candidate.spot, size))
        of_masks = torch.tensor(of_masks, dtype=torch.float32, device=self.device)
        first = torch.stack((heat, logits, (back + 1e-3).log(), back), 1)
        return FirstLooks(objects, candidates, answers, torch.cat((first, of_masks, back_closely), 1))

    def _objects(self, frame: Frame, spots: dict[QueryObject, Spot]) -> Objects:
        """Encode and describe the objects; crops of the same size go through the backbone together."""
        encoded = {}
        for context in (CONTEXT, CLOSE):
            crops = [(query, spot.crop(frame.masks[query].shape, context)) for query, spot in spots.items()]
            levels, masks = self._query_crops(frame, crops, self.config.input_size)
            mask_feat = self._batches(self.encoder.masks, masks)
            with autocast(self.device, self.precision):
                encoded[context] = self.network.encode(levels, masks, mask_feat)
        expected = expected_sizes(frame, spots)
        wide = {(x.query, x.ratio): (x.query, self.config.wide_crop(spots[x.query], x.share)) for x in expected}
        described = self.network.describe(*self._query_crops(frame, list(wide.values()), self.config.wide_size))
        descriptions = {key: described.rows(slice(i, i + 1)) for i, key in enumerate(wide)}
        return Objects(frame, spots, encoded, expected, descriptions, cells={})

    def _query_crops(self, frame: Frame, crops: Sequence[tuple[QueryObject, Crop]], size: int) -> tuple[Levels, Tensor]:
        """The features of crops around objects, and the masks in the crops (N, size, size)."""
        images = np.stack([cut(frame.images[query[1]], crop, size) for query, crop in crops])
        masks = np.stack([cut_mask(frame.masks[query], crop, size) for query, crop in crops])
        return self._levels(images), torch.from_numpy(masks).to(self.device)

    def _candidates(self, objects: Objects) -> list[Candidate]:
        """The places at which to look in the targets, pair by pair, with the highest similarity first. A target is
        encoded once for each long side at which it is searched.
        """
        frame, groups = objects.frame, defaultdict(list)  # by camera and long side
        for expected in objects.expected:
            camera = frame.pairs[expected.pair].target_camera
            groups[camera, self.config.frame_length(expected.share)].append(expected)
        hottest = defaultdict(list)  # by pair
        for (camera, long_side), rows in self._group_batches(groups):
            size = frame.images[camera].shape[:2]
            cells = self._cells(objects, camera, long_side)
            described = [objects.descriptions[expected.query, expected.ratio] for expected in rows]
            described = Description(*map(torch.cat, zip(*described, strict=True)))
            heat = self.network.locator.heat(described, cells.expand(len(rows), *cells.shape[1:]))
            values, places = (x.tolist() for x in peaks(heat, 2 * self.looks))  # `likeliest` drops neighbors
            for row, (number, _, _, share) in enumerate(rows):
                middles = cell_middles(places[row], heat.shape[1:], size)
                for middle, value in zip(middles, values[row], strict=True):
                    if math.isfinite(value):  # the map may have fewer peaks
                        hottest[number].append(Candidate(number, Spot(*middle, share * max(size)), value))
        return [x for number in sorted(hottest) for x in likeliest(hottest[number], self.looks)]

    def _cells(self, objects: Objects, camera: str, long_side: int) -> Tensor:
        """The locator's cells of a whole frame: (1, h, w, WIDTH)."""
        key = camera, long_side
        if key not in objects.cells:
            picture = whole_frame(objects.frame.images[camera], long_side)
            objects.cells[key] = self.network.locator.cells(self._levels(picture[None]))
        return objects.cells[key]

    def _choose(self, found: FirstLooks, count: int) -> list[tuple[int, Answer]]:
        """The looks with the `count` highest scores of each pair, as the pair's number and the answer with its
        existence; the pairs in their order, and the highest score first.
        """
        scores, logits = self.network.choice(found.numbers)
        scores, existence = scores.tolist(), logits.sigmoid().tolist()
        rows_of = defaultdict(list)
        for row, candidate in enumerate(found.candidates):
            rows_of[candidate.pair].append(row)
        best = [sorted(rows, key=scores.__getitem__, reverse=True)[:count] for rows in rows_of.values()]
        return [
            (found.candidates[row].pair, found.answers[row]._replace(existence=existence[row]))
            for rows in best
            for row in rows
        ]

    def _look_closely(self, objects: Objects, answers: list[tuple[int, Answer]]) -> None:
        """Replace each answer by a close look at the largest part of the found mask. If the new mask is cut off by its
        crop, the network looks once more, at the new mask.
        """
        looks = []  # rows of `answers`, with the places at which to look
        for row, (number, answer) in enumerate(answers):
            part = largest_part(answer.prob > THRESHOLD, answer.crop, objects.target(number).shape[:2])
            if part:
                looks.append((row, Candidate(number, part.spot, 0.0)))
        for _ in range(ROUNDS):
            if not looks:
                break
            looked, looks = zip(looks, self._look(objects, [look for _, look in looks], CLOSE)[0], strict=True), []
            for (row, look), prob in looked:
                crop = objects.crop(look, CLOSE)
                part = largest_part(prob > THRESHOLD, crop, objects.target(look.pair).shape[:2])
                if part is None:  # the close look shows nothing, so the previous answer stays
                    continue
                answers[row] = look.pair, answers[row][1]._replace(crop=crop, prob=prob)
                if not part.is_whole:
                    looks.append((row, look._replace(spot=part.spot)))

    def _look(
        self, objects: Objects, candidates: Sequence[Candidate], context: float
    ) -> tuple[np.ndarray, Tensor, Description, Tensor]:
        """Look at one or more candidates. Returns the masks in their crops (N, S, S) float32, the logits of existence
        (N,), descriptions of what the masks show, and the numbers of `look_back_closely` (N, 5).
        """
        row_of, looks = {query: row for row, query in enumerate(objects.spots)}, []
        for batch in self._slices(candidates):
            crops = [cut(objects.target(x.pair), objects.crop(x, context), self.config.input_size) for x in batch]
            rows = [row_of[objects.frame.pairs[x.pair][:2]] for x in batch]
            with autocast(self.device, self.precision):
                target = self.network.encode_target(self._levels(np.stack(crops)))
                query = objects.crops[context].rows(rows)
                prob, logit, _ = self.network.look(query, target)
                described = self.network.describe_answers(target, prob)
                back = self.network.look_back_closely(described, query)
                looks.append((prob.float(), logit.float(), back, *described))
        prob, logit, back, *described = map(torch.cat, zip(*looks, strict=True))
        return prob.cpu().numpy(), logit, Description(*described), back

    def _look_back(self, objects: Objects, candidates: Sequence[Candidate], described: Description) -> Tensor:
        """How well the looks at candidates lead back to their objects, (N,). `described` is what the masks show."""
        frame, groups = objects.frame, defaultdict(list)  # by query camera and long side
        for row, candidate in enumerate(candidates):
            query = frame.pairs[candidate.pair][:2]
            share = min(objects.spots[query].extent / max(frame.masks[query].shape), LARGEST)
            groups[query[1], self.config.frame_length(share)].append((row, query))
        backs = torch.zeros(len(candidates), device=self.device)
        for key, part in self._group_batches(groups):
            rows, queries = zip(*part, strict=True)
            cells = self._cells(objects, *key)
            on_object = np.stack([object_cells(frame.masks[query], cells.shape[1:3]) for query in queries])
            rows, on_object = torch.tensor(rows, device=self.device), torch.from_numpy(on_object).to(self.device)
            cells = cells.expand(len(rows), *cells.shape[1:])
            backs[rows] = self.network.look_back(described.rows(rows), cells, on_object)
        return backs

    def _group_batches(self, groups: dict[Any, Sequence]) -> Iterator[tuple[Any, Sequence]]:
        """Yield at most `batch_size` members of a group at a time, with the group's key."""
        for key, members in groups.items():
            for batch in self._slices(members):
                yield key, batch

    def _levels(self, images: np.ndarray) -> Levels:
        return self._batches(self.encoder.levels, torch.from_numpy(images).to(self.device))


def expected_sizes(frame: Frame, spots: dict[QueryObject, Spot]) -> list[ExpectedSize]:
    """The sizes at which to seek objects, which are at `spots` in their query views."""
    sizes = []
    for number, pair in enumerate(frame.pairs):
        if pair[:2] in spots:
            ratios = size_ratios(*(frame.kinds.get(camera) for camera in pair[1:]))
            shares = expected_shares(spots[pair[:2]], frame.masks[pair[:2]].shape, ratios)
            sizes += [ExpectedSize(number, pair[:2], ratio, share) for ratio, share in shares.items()]
    return sizes


def likeliest(candidates: Sequence[Candidate], looks: int) -> list[Candidate]:
    """The `looks` candidates of a pair with the highest similarities, without candidates near better candidates."""
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.heat):
        if len(chosen) < looks and not any(candidate.spot.is_near(x.spot) for x in chosen):
            chosen.append(candidate)
    return chosen


def mask_numbers(prob: np.ndarray, crop: Crop, spot: Spot, size: tuple[int, int]) -> list[float]:
    """What `Choice` needs to know of the mask (S, S) that a look at `spot` found in a target of `size` (H, W)."""
    mask = prob > THRESHOLD
    area, part = float(mask.mean()), largest_part(mask, crop, size)
    found = part.spot if part else spot._replace(extent=1.0)
    return [
        math.log(area + 1e-3),
        float(prob[mask].mean()) if area else 0.0,
        float(((prob > 0.2) & (prob < 0.8)).mean()) / (area + 0.01),  # uncertain pixels
        math.log(found.extent / spot.extent),  # the found size and the expected size
        max(abs(found.row - spot.row), abs(found.col - spot.col)) / spot.extent if part else 2.0,
        float(part.is_whole) if part else 1.0,
        float(prob.max()),
        part.share if part else 0.0,
        spot.extent / max(size),
    ]
