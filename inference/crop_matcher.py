"""The strong network ready to predict: the pairs of a frame at a time, each image and each object encoded once."""

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from formats.geometry import EVAL_SIDE, Size
from formats.processed import CameraPair
from formats.results import THRESHOLD
from formats.takes import size_ratios
from inference.frame import Frame
from inference.memory import Memory
from model.backbone import Backbone
from model.crops import (
    LARGEST,
    Crop,
    Spot,
    cell_middles,
    cut,
    cut_mask,
    expected_shares,
    frame_side,
    matched_crop,
    put_back,
    spot_of,
    whole_frame,
)
from model.device import PRECISIONS, autocast, memory_errors, tf32
from model.features import Encoder, Levels
from model.locator import Description, peaks
from model.strong import Query, StrongXSegTx

LOOKS = 3  # at a target, by default
MISFIT = 0.8, 1.8  # of an answer's side, by the expected one: beyond, the network looks again, at the answer's size
ROUNDS = 3  # of that, at most: a crop shows a third of what is three times as large as expected
PEAKS = 2  # of each heat for each look: some are of one place
APART = 2  # cells between two peaks
BATCH_SIZE = 32
Track = tuple[str, str]  # object, query camera


class Candidate(NamedTuple):
    """Where to look."""

    pair: int  # its number in the frame
    spot: Spot
    heat: float


class Answer(NamedTuple):
    spot: Spot
    mask: np.ndarray  # (S, S) float32, probabilities in the crop at `spot`
    logit: Tensor  # (), of existence


class Objects(NamedTuple):
    """The objects of a frame, as its query views show them."""

    spots: dict[Track, Spot]
    rows: dict[Track, int]  # of `query`
    query: Query
    descriptions: dict[tuple[Track, float], Description]  # at the scale that a ratio of sizes asks for; one row each


class CropMatcher:
    """Backbone and strong network on one device, `batch_size` crops at a time. `looks`: at how many places of a target
    the network looks, the likeliest first; with one, there is nothing to choose.
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
        self.device, self.precision = device, precision
        self.batch_size, self.looks = batch_size or BATCH_SIZE, looks or LOOKS
        self.encoder = Encoder(backbone, device, PRECISIONS[precision], self.batch_size)
        self.network = network.to(device).eval()
        self.config = network.config

    @torch.inference_mode()
    def remember(self, frame: Frame, memory: Memory) -> None:
        """Show a memory the query views of a frame; those of targets may be missing."""
        with self._running():
            for key, description in self._objects(frame).descriptions.items():
                memory.remember(key, description)

    @torch.inference_mode()
    def predict(self, frame: Frame, memory: Memory | None = None, side: int = EVAL_SIDE) -> tuple[Tensor, Tensor]:
        """Of each pair: the target mask's probability (P, side, side), letterboxed, and the existence (P,), float32."""
        prob, existence = torch.zeros(len(frame.pairs), side, side), torch.zeros(len(frame.pairs))
        with self._running():
            objects = self._objects(frame)
            candidates, highest = self._candidates(frame, objects, memory)
            answers = self._answers(frame, objects, candidates)
            if answers:
                logits = torch.stack([answer.logit for answer in answers.values()])
                heat = torch.tensor([highest[number] for number in answers], device=self.device)
                existence[list(answers)] = self.network.existence(logits, heat).cpu()
        for number, (spot, mask, _) in answers.items():
            pair = frame.pairs[number]
            size = frame.images[pair.target_camera].shape[:2]
            found = put_back(mask, spot.crop(), size)
            prob[number] = torch.from_numpy(in_square(found, side))
            if memory and existence[number] > THRESHOLD and (place := object_in(mask, spot, size)[0]):
                memory.spots[pair] = place
        if memory and memory.choice == "past":
            for key, description in objects.descriptions.items():
                memory.remember(key, description)
        return prob, existence

    def _running(self) -> contextlib.ExitStack:
        stack = contextlib.ExitStack()
        stack.enter_context(memory_errors("give a smaller --batch_size, or another --device"))
        stack.enter_context(tf32(self.precision == "tf32"))
        return stack

    def _objects(self, frame: Frame) -> Objects:
        """Those with a mask that shows something; crops of one size are encoded together."""
        tracks = dict.fromkeys(pair[:2] for pair in frame.pairs)
        spots = {track: spot for track in tracks if (spot := spot_of(frame.masks[track]))}
        asked: dict[tuple[Track, float], float] = {}  # by ratio: the object's share of the target's long side
        for pair in frame.pairs:
            if pair[:2] in spots:
                asked |= {(pair[:2], ratio): share for ratio, share in shares_of(frame, pair, spots[pair[:2]]).items()}
        if not spots:
            return Objects(spots, {}, None, {})
        levels, masks = self._query_crops(
            frame, [(track, spot.crop()) for track, spot in spots.items()], self.config.input_size
        )
        mask_feat = self.encoder.masks(masks)
        with autocast(self.device, self.precision):
            query = self.network.encode(levels, masks, mask_feat)
        near, crops = self.config.near_size, []
        for (track, _), share in asked.items():
            side = share * frame_side(share, self.config.frame_size, near)
            crops.append((track, matched_crop(spots[track], side, near)))
        levels, masks = self._query_crops(frame, crops, near)
        found = self.network.describe(levels, masks)
        rows = {track: row for row, track in enumerate(spots)}
        return Objects(spots, rows, query, {key: found.rows(slice(i, i + 1)) for i, key in enumerate(asked)})

    def _query_crops(self, frame: Frame, crops: Sequence[tuple[Track, Crop]], size: int) -> tuple[Levels, Tensor]:
        """Features of crops around objects, and the masks in them (N, size, size)."""
        images = np.stack([cut(frame.images[track[1]], crop, size) for track, crop in crops])
        masks = np.stack([cut_mask(frame.masks[track], crop, size) for track, crop in crops])
        return self._levels(images), torch.from_numpy(masks).to(self.device)

    def _candidates(
        self, frame: Frame, objects: Objects, memory: Memory | None
    ) -> tuple[list[Candidate], dict[int, float]]:
        """Where to look in each pair's target, and the highest heat there, by the pair's number. Each target is encoded
        once at each size that is asked for.
        """
        asked: dict[tuple[str, int], list[tuple[int, float, float]]] = {}  # by camera and size: pair, ratio, share
        for number, pair in enumerate(frame.pairs):
            spot = objects.spots.get(pair[:2])
            for ratio, share in shares_of(frame, pair, spot).items() if spot else ():
                size = frame_side(share, self.config.frame_size, self.config.near_size)
                asked.setdefault((pair.target_camera, size), []).append((number, ratio, share))
        found: dict[int, list[Candidate]] = {}
        lasts: dict[int, Candidate] = {}  # of a memory
        for (camera, long_side), rows in asked.items():
            image, descriptions = frame.images[camera], []
            for number, ratio, _ in rows:
                key = frame.pairs[number][:2], ratio
                shown = objects.descriptions[key]
                descriptions.append(memory.recall(key, shown) if memory else shown)
            cells = self.network.locator.cells(self._levels(whole_frame(image, long_side)[None]))
            heat = self.network.locator.heat(stacked(descriptions), cells.expand(len(rows), *cells.shape[1:]))
            values, places = (x.tolist() for x in peaks(heat, PEAKS * self.looks, APART))
            for row, (number, _, share) in enumerate(rows):
                middles = cell_middles(places[row], heat.shape[1:], image.shape[:2])
                side, some = share * max(image.shape[:2]), found.setdefault(number, [])
                some += [
                    Candidate(number, Spot(*at, side), x)
                    for at, x in zip(middles, values[row], strict=True)
                    if math.isfinite(x)
                ]
                last = memory and memory.spots.get(frame.pairs[number])
                if last and number not in lasts:
                    at = [
                        min(int(x * on / of), on - 1)
                        for x, on, of in zip(last, heat.shape[1:], image.shape, strict=False)
                    ]
                    lasts[number] = Candidate(number, last, heat[row, at[0], at[1]].item())
        chosen, highest = [], {}
        for number, some in sorted(found.items()):
            some.sort(key=lambda candidate: -candidate.heat)
            highest[number], places = some[0].heat, []
            for candidate in some:
                if len(places) < self.looks and not any(candidate.spot.is_near(x.spot) for x in places):
                    places.append(candidate)
            last = lasts.get(number)
            if last and not any(last.spot.is_near(x.spot) for x in places):
                places.append(last)
            chosen += places
        return chosen, highest

    def _answers(self, frame: Frame, objects: Objects, candidates: Sequence[Candidate]) -> dict[int, Answer]:
        """The best look of each pair, by its number; looked at again where the object is of another size."""
        masks, logits = self._look(frame, objects, candidates)
        heat = torch.tensor([candidate.heat for candidate in candidates], device=self.device)
        score = (self.network.locator.scale * heat + logits / 2).tolist()
        best: dict[int, int] = {}
        for row, candidate in enumerate(candidates):
            if score[row] > score[best.setdefault(candidate.pair, row)]:
                best[candidate.pair] = row
        answers = {number: Answer(candidates[row].spot, masks[row], logits[row]) for number, row in best.items()}
        sizes = {number: frame.images[frame.pairs[number].target_camera].shape[:2] for number in answers}
        for _ in range(ROUNDS):
            again = []
            for number, (spot, mask, _) in answers.items():
                place, is_whole = object_in(mask, spot, sizes[number])
                if place and not (is_whole and MISFIT[0] < place.side / spot.side < MISFIT[1]):
                    again.append(Candidate(number, place, 0.0))
            for candidate, mask in zip(again, self._look(frame, objects, again)[0], strict=True):
                answers[candidate.pair] = answers[candidate.pair]._replace(spot=candidate.spot, mask=mask)
        return answers

    def _look(self, frame: Frame, objects: Objects, candidates: Sequence[Candidate]) -> tuple[np.ndarray, Tensor]:
        """The masks of the candidates' crops (N, S, S) float32, and the logits of their existence (N,)."""
        size = self.config.input_size
        masks, logits = [np.zeros((0, size, size), np.float32)], [torch.zeros(0, device=self.device)]
        for start in range(0, len(candidates), self.batch_size):
            some = candidates[start : start + self.batch_size]
            pairs = [frame.pairs[candidate.pair] for candidate in some]
            cuts = [
                cut(frame.images[pair.target_camera], candidate.spot.crop(), size)
                for pair, candidate in zip(pairs, some, strict=True)
            ]
            rows = torch.tensor([objects.rows[pair[:2]] for pair in pairs], device=self.device)
            with autocast(self.device, self.precision):
                found = self.network.look(objects.query.rows(rows), self._levels(np.stack(cuts)))
            masks.append(found.target_mask_prob.float().cpu().numpy())
            logits.append(found.existence.float())
        return np.concatenate(masks), torch.cat(logits)

    def _levels(self, images: np.ndarray) -> Levels:
        return self.encoder.levels(torch.from_numpy(images).to(self.device))


def shares_of(frame: Frame, pair: CameraPair, spot: Spot) -> dict[float, float]:
    """What share of the target's long side the object may span, by the ratio of its shares in target and query."""
    kinds = (frame.kinds.get(camera) for camera in pair[1:])
    return expected_shares(spot, frame.masks[pair[:2]].shape, size_ratios(*kinds))


def object_in(mask: np.ndarray, spot: Spot, size: Size) -> tuple[Spot | None, bool]:
    """The largest connected part of an answer in the crop at `spot` of an image of `size`, probabilities (S, S), and
    whether the crop shows all of it; None if there is none. What lies beyond the image does not count.
    """
    crop = spot.crop()
    pixel, found = crop.side / len(mask), mask > THRESHOLD
    middles = (np.arange(len(mask)) + 0.5) * pixel
    for axis, (first, length) in enumerate(zip(crop[:2], size, strict=True)):
        found = found & np.expand_dims((first + middles >= 0) & (first + middles < length), 1 - axis)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8))
    if len(stats) == 1:
        return None, True
    left, top, width, height, _ = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()].tolist()
    row, col = crop.top + (top + height / 2) * pixel, crop.left + (left + width / 2) * pixel
    is_whole = min(left, top) > 0 and max(left + width, top + height) < len(mask)
    return Spot(row, col, min(max(width, height) * pixel, LARGEST * max(size))), is_whole


def stacked(descriptions: Sequence[Description]) -> Description:
    return Description(*map(torch.cat, zip(*descriptions, strict=True)))


def in_square(image: np.ndarray, side: int) -> np.ndarray:
    """(H, W) float32 -> (side, side), letterboxed."""
    height, width = (max(1, int(length * side / max(image.shape))) for length in image.shape)
    method = cv2.INTER_AREA if side < max(image.shape) else cv2.INTER_LINEAR
    square, top, left = np.zeros((side, side), np.float32), (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=method)
    return square
