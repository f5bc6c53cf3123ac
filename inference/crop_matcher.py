"""The strong network ready to predict: the pairs of a frame at a time, each image and each object encoded once."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from formats.masks import fit_mask
from formats.results import THRESHOLD
from formats.takes import size_ratios
from inference.frame import Frame
from inference.matcher import NetworkMatcher
from inference.memory import Memory
from model.backbone import Backbone
from model.crops import (
    Crop,
    Spot,
    cell_at,
    cell_middles,
    cut,
    cut_mask,
    expected_shares,
    object_in,
    put_back,
    spot_of,
    whole_frame,
)
from model.device import autocast
from model.features import Levels
from model.locator import Description, peaks
from model.strong import Query, StrongXSegTx

LOOKS = 3  # at a target, by default
MISFIT = 0.8, 1.8  # of an answer's extent, by the expected one: beyond, the network looks again, at the answer's size
ROUNDS = 3  # of that, at most: a crop shows a third of what is three times as large as expected
PEAKS = 2  # of each heat for each look: some are of one place
APART = 2  # cells between two peaks
BATCH_SIZE = 32
Track = tuple[str, str]  # object, query camera


class Asked(NamedTuple):
    """A size at which to look for the object of a pair."""

    pair: int  # its number in the frame
    track: Track
    ratio: float  # of the object's shares of the long side in target and query
    share: float  # in the target


class Candidate(NamedTuple):
    """Where to look."""

    pair: int  # its number in the frame
    spot: Spot
    heat: float


class Found(NamedTuple):
    spot: Spot
    mask: np.ndarray  # (S, S) float32, probabilities in the crop at `spot`
    logit: Tensor  # (), of existence, of the first look


class Objects(NamedTuple):
    """The objects of a frame, as its query views show them: those with a mask that shows something."""

    frame: Frame  # with masks as large as their images
    asked: list[Asked]
    rows: dict[Track, int]  # of `query`
    query: Query | None  # None: there are no objects
    descriptions: dict[tuple[Track, float], Description]  # at the scale that a ratio of sizes asks for; one row each


class CropMatcher(NetworkMatcher):
    """The strong network, `batch_size` crops at a time. `looks`: at how many places of a target it looks, the likeliest
    first; with one, there is nothing to choose.
    """

    side = None  # it takes images as they are

    def __init__(
        self,
        backbone: Backbone,
        network: StrongXSegTx,
        device: torch.device,
        precision: str = "fp32",
        batch_size: int | None = None,
        looks: int | None = None,
    ):
        super().__init__(backbone, network, device, precision, batch_size or BATCH_SIZE)
        self.config, self.looks = network.config, looks or LOOKS

    def predict(self, frame: Frame, memory: Memory | None = None) -> tuple[list[np.ndarray], Tensor]:
        """Of each pair: the mask's probability in the target's image, (H, W) float32, and the existence (P,)."""
        sizes = [frame.images[pair.target_camera].shape[:2] for pair in frame.pairs]
        probs, existence = [np.zeros(size, np.float32) for size in sizes], torch.zeros(len(sizes))
        with self.computing():
            objects = self._objects(frame)
            candidates = self._candidates(objects, memory)
            answers = self._answers(objects, candidates)
            if answers:
                logits = torch.stack([answer.logit for answer in answers.values()])
                highest = {x.pair: x.heat for x in reversed(candidates)}  # of each pair, the first
                heat = torch.tensor([highest[number] for number in answers], device=self.device)
                existence[list(answers)] = self.network.existence(logits, heat).cpu()
            if memory:
                memory.remember(objects.descriptions)
        for number, (spot, mask, _) in answers.items():
            probs[number] = put_back(mask, spot.crop(), sizes[number])
            if memory and existence[number] > THRESHOLD:
                place, _ = object_in(mask > THRESHOLD, spot, sizes[number])
                if place:
                    memory.spots[frame.pairs[number]] = place
        return probs, existence

    def _objects(self, frame: Frame) -> Objects:
        """Crops of one size are encoded together. Masks may be larger or smaller than their images."""
        masks = {track: fit_mask(mask, frame.images[track[1]].shape[:2]) for track, mask in frame.masks.items()}
        frame = replace(frame, masks=masks)
        spots = {track: spot for track, mask in masks.items() if (spot := spot_of(mask))}
        if not spots:
            return Objects(frame, [], {}, None, {})
        crops = [(track, spot.crop()) for track, spot in spots.items()]
        levels, masks = self._query_crops(frame, crops, self.config.input_size)
        mask_feat = self.encoder.masks(masks)
        with autocast(self.device, self.precision):
            query = self.network.encode(levels, masks, mask_feat)
        asked, crops = asked_of(frame, spots), {}
        for _, track, ratio, share in asked:
            crops[track, ratio] = track, self.config.wide_crop(spots[track], share)
        described = self.network.describe(*self._query_crops(frame, list(crops.values()), self.config.wide_size))
        descriptions = {key: described.rows(slice(i, i + 1)) for i, key in enumerate(crops)}
        return Objects(frame, asked, {track: row for row, track in enumerate(spots)}, query, descriptions)

    def _query_crops(self, frame: Frame, crops: Sequence[tuple[Track, Crop]], size: int) -> tuple[Levels, Tensor]:
        """Features of crops around objects, and the masks in them (N, size, size)."""
        images = np.stack([cut(frame.images[track[1]], crop, size) for track, crop in crops])
        masks = np.stack([cut_mask(frame.masks[track], crop, size) for track, crop in crops])
        return self._levels(images), torch.from_numpy(masks).to(self.device)

    def _candidates(self, objects: Objects, memory: Memory | None) -> list[Candidate]:
        """Where to look in each pair's target, pair by pair, the hottest place first. Each target is encoded once at
        each size that is asked for.
        """
        frame, together = objects.frame, defaultdict(list)  # by camera and long side
        for asked in objects.asked:
            together[frame.pairs[asked.pair].target_camera, self.config.frame_length(asked.share)].append(asked)
        found, lasts = defaultdict(list), defaultdict(list)  # by pair; the latter of a memory
        for (camera, long_side), rows in together.items():
            image, size = frame.images[camera], frame.images[camera].shape[:2]
            heat = self._heat(whole_frame(image, long_side), objects, rows, memory)
            values, cells = (x.tolist() for x in peaks(heat, PEAKS * self.looks, APART))
            for row, (number, _, _, share) in enumerate(rows):
                middles, extent = cell_middles(cells[row], heat.shape[1:], size), share * max(size)
                for middle, value in zip(middles, values[row], strict=True):
                    if math.isfinite(value):  # there may be fewer peaks
                        found[number].append(Candidate(number, Spot(*middle, extent), value))
                if memory and (last := memory.spots.get(frame.pairs[number])):
                    cell = cell_at(last, heat.shape[1:], size)
                    lasts[number].append(Candidate(number, last, heat[row][cell].item()))
        return [x for number in sorted(found) for x in likeliest(found[number], lasts[number], self.looks)]

    def _heat(self, picture: np.ndarray, objects: Objects, rows: Sequence[Asked], memory: Memory | None) -> Tensor:
        """How much each cell of a target, a (H, W, 3) for the locator, resembles each of the objects: (N, h, w)."""
        keys = [(asked.track, asked.ratio) for asked in rows]
        shown = [objects.descriptions[key] for key in keys]
        if memory:
            shown = list(map(memory.recall, keys, shown))
        cells = self.network.locator.cells(self._levels(picture[None]))
        described = Description(*map(torch.cat, zip(*shown, strict=True)))
        return self.network.locator.heat(described, cells.expand(len(rows), *cells.shape[1:]))

    def _answers(self, objects: Objects, candidates: Sequence[Candidate]) -> dict[int, Found]:
        """The best look of each pair, by its number; looked at again where the object is of another size."""
        masks, logits = self._look(objects, candidates)
        heat = torch.tensor([candidate.heat for candidate in candidates], device=self.device)
        score = self.network.score(logits, heat).tolist()
        best: dict[int, int] = {}
        for row, candidate in enumerate(candidates):
            if score[row] > score[best.setdefault(candidate.pair, row)]:
                best[candidate.pair] = row
        answers = {number: Found(candidates[row].spot, masks[row], logits[row]) for number, row in best.items()}
        for _ in range(ROUNDS):
            again = []
            for number, (spot, mask, _) in answers.items():
                target = objects.frame.images[objects.frame.pairs[number].target_camera]
                place, is_whole = object_in(mask > THRESHOLD, spot, target.shape[:2])
                if place and not (is_whole and MISFIT[0] < place.extent / spot.extent < MISFIT[1]):
                    again.append(Candidate(number, place, 0.0))
            if not again:
                break
            for candidate, mask in zip(again, self._look(objects, again)[0], strict=True):
                answers[candidate.pair] = answers[candidate.pair]._replace(spot=candidate.spot, mask=mask)
        return answers

    def _look(self, objects: Objects, candidates: Sequence[Candidate]) -> tuple[np.ndarray, Tensor]:
        """The masks of the candidates' crops (N, S, S) float32, and the logits of their existence (N,)."""
        frame, size = objects.frame, self.config.input_size
        masks, logits = [np.zeros((0, size, size), np.float32)], [torch.zeros(0, device=self.device)]
        for start in range(0, len(candidates), self.batch_size):
            some = candidates[start : start + self.batch_size]
            pairs = [frame.pairs[candidate.pair] for candidate in some]
            targets = [frame.images[pair.target_camera] for pair in pairs]
            cuts = [cut(image, x.spot.crop(), size) for image, x in zip(targets, some, strict=True)]
            rows = torch.tensor([objects.rows[pair[:2]] for pair in pairs], device=self.device)
            with autocast(self.device, self.precision):
                found = self.network.look(objects.query.rows(rows), self._levels(np.stack(cuts)))
            masks.append(found.target_mask_prob.float().cpu().numpy())
            logits.append(found.logit.float())
        return np.concatenate(masks), torch.cat(logits)

    def _levels(self, images: np.ndarray) -> Levels:
        return self.encoder.levels(torch.from_numpy(images).to(self.device))


def asked_of(frame: Frame, spots: dict[Track, Spot]) -> list[Asked]:
    """The sizes at which to look for objects that are at `spots` of their query views."""
    asked = []
    for number, pair in enumerate(frame.pairs):
        if pair[:2] in spots:
            ratios = size_ratios(*(frame.kinds.get(camera) for camera in pair[1:]))
            shares = expected_shares(spots[pair[:2]], frame.masks[pair[:2]].shape, ratios)
            asked += [Asked(number, pair[:2], ratio, share) for ratio, share in shares.items()]
    return asked


def likeliest(candidates: Sequence[Candidate], lasts: Sequence[Candidate], looks: int) -> list[Candidate]:
    """The `looks` hottest of a pair that are not near a hotter one, and where its object was last, with its highest
    heat, if that is not near one of them.
    """
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: -candidate.heat):
        if len(chosen) < looks and not any(candidate.spot.is_near(x.spot) for x in chosen):
            chosen.append(candidate)
    last = max(lasts, key=lambda candidate: candidate.heat, default=None)
    if last and not any(last.spot.is_near(x.spot) for x in chosen):
        chosen.append(last)
    return chosen
