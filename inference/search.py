"""The strong network finds the objects of a frame in six steps:

1. objects      Each object is encoded once, in a crop around it, and described for the locator.
2. candidates   Peaks of the locator's similarity map are the places in a target that may show the object.
3. looks        The network predicts a mask at each candidate.
4. look back    The locator seeks what the mask shows in the query frame: it should find the given object again.
5. choice       One of the looks is chosen, and the probability that the object is visible is computed.
6. close look   The network draws the final mask in crops of both views that the object nearly fills.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

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

SEARCH = 3  # version of this search, stored in a run's record; raise it with each change of the answers
LOOKS = 3  # default number of looks at a target
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
        """Run the six steps. An object whose query mask is empty is answered as hidden, with an empty mask."""
        hidden = Answer(np.zeros((self.config.input_size, self.config.input_size), np.float32), 0.0)
        queries = dict.fromkeys(pair[:2] for pair in frame.pairs)
        spots = {query: spot for query in queries if (spot := spot_of(frame.masks[query]))}
        if not spots:
            return [hidden] * len(frame.pairs)
        with self.computing():
            objects = self._objects(frame, spots)
            candidates = self._candidates(objects)
            answers = self._choose(objects, candidates)
            self._look_closely(objects, answers)
        return [answers.get(number, hidden) for number in range(len(frame.pairs))]

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

    def _choose(self, objects: Objects, candidates: Sequence[Candidate]) -> dict[int, Answer]:
        """The answer of each pair, by the pair's number: the look with the highest score. The existence follows from
        the logit of this look and from the highest similarity in the target.
        """
        probs, logits, described = self._look(objects, candidates, CONTEXT)
        backs = self._look_back(objects, candidates, described)
        heat = torch.tensor([candidate.heat for candidate in candidates], device=self.device)
        score = self.network.score(logits, heat, backs).tolist()
        rows_of = defaultdict(list)
        for row, candidate in enumerate(candidates):
            rows_of[candidate.pair].append(row)
        best = [max(rows, key=score.__getitem__) for rows in rows_of.values()]
        highest = torch.stack([heat[rows].max() for rows in rows_of.values()])
        existence = self.network.existence(logits[best], highest).tolist()
        return {
            candidates[row].pair: Answer(probs[row], value, objects.crop(candidates[row], CONTEXT))
            for row, value in zip(best, existence, strict=True)
        }

    def _look_closely(self, objects: Objects, answers: dict[int, Answer]) -> None:
        """Replace each answer by a close look at the largest part of the found mask. If the new mask is cut off by its
        crop, the network looks once more, at the new mask.
        """
        looks = []
        for number, answer in answers.items():
            place, _ = largest_part(answer.prob > THRESHOLD, answer.crop, objects.target(number).shape[:2])
            if place:
                looks.append(Candidate(number, place, 0.0))
        for _ in range(ROUNDS):
            if not looks:
                break
            looked, looks = zip(looks, self._look(objects, looks, CLOSE)[0], strict=True), []
            for look, prob in looked:
                crop = objects.crop(look, CLOSE)
                place, is_whole = largest_part(prob > THRESHOLD, crop, objects.target(look.pair).shape[:2])
                if place is None:  # the close look shows nothing, so the previous answer stays
                    continue
                answers[look.pair] = answers[look.pair]._replace(crop=crop, prob=prob)
                if not is_whole:
                    looks.append(look._replace(spot=place))

    def _look(
        self, objects: Objects, candidates: Sequence[Candidate], context: float
    ) -> tuple[np.ndarray, Tensor, Description]:
        """Look at one or more candidates. Returns the masks in their crops (N, S, S) float32, the logits of existence
        (N,), and descriptions of what the masks show.
        """
        row_of, looks = {query: row for row, query in enumerate(objects.spots)}, []
        for batch in self._slices(candidates):
            crops = [cut(objects.target(x.pair), objects.crop(x, context), self.config.input_size) for x in batch]
            rows = [row_of[objects.frame.pairs[x.pair][:2]] for x in batch]
            with autocast(self.device, self.precision):
                target = self.network.encode_target(self._levels(np.stack(crops)))
                prob, logit, _ = self.network.look(objects.crops[context].rows(rows), target)
                looks.append((prob.float(), logit.float(), *self.network.describe_answers(target, prob)))
        prob, logit, *described = map(torch.cat, zip(*looks, strict=True))
        return prob.cpu().numpy(), logit, Description(*described)

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
