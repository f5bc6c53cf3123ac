"""Looks at small objects, enlarged, by a network that has learned from such views (train.py --closer_look): where to
look in images `zoom` times as large as the network's input, and what two answers make together.

All of it happens on the device, without waiting for it: no step depends on what an earlier one has found.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from formats.geometry import CROP_EXTENT
from formats.results import THRESHOLD
from model.backbone import STRIDE
from model.features import crop
from model.similarity import Similarity

ANSWER_WEIGHT = 2.0  # of the first answer's probability, beside standard deviations of similarity, in where to look
WIDE_WEIGHT = 1.3  # of the similarity of 3 x 3 cells, which varies less, beside that of one
SCORE_DROP = 0.3  # from the best cell to others of the same object, at most, as a share
PART_DROP = 0.15  # likewise, to other parts of an answer: an object is in one place
REACH = 1 / 3  # of a crop's side: how far they are, at most
FULL = 0.9  # of a crop's side: an answer as large is not all of the object
BLOCK = 8  # pixels a side: what is nearer hangs together
COMPACT = 0.3  # of its box: a first answer that fills more of it is one large object, not several guesses


class CloserLook:
    """Query views are cropped around their objects, if these are small. A target is seen whole first, then cropped at
    the most likely place. `input_size`: pixels per side of what the network sees. Corners are first rows and columns of
    crops in cells of `STRIDE` pixels, (P, 2) int64.
    """

    def __init__(self, input_size: int, zoom: int):
        self.input_size, self.zoom, self.cells = input_size, zoom, input_size // STRIDE

    def queries(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (M, side, side) -> the part that the network sees of each (M, S, S), and its corner; -1: all of it."""
        first, size = _box(masks != 0)
        corner = self._corner(first + size / 2)
        fits = self._within(size, CROP_EXTENT)
        closer = crop(masks[:, None], corner * STRIDE, self.input_size)[:, 0]
        seen = torch.where(fits[:, None, None], closer, masks[:, :: self.zoom, :: self.zoom])
        return seen, torch.where(fits[:, None], corner, -1)

    def place(self, prob: Tensor, similarity: Similarity, hints: Sequence[Tensor] = ()) -> tuple[Tensor, Tensor]:
        """Where to look again: the corner of the crop around the cells that are likely and similar to the object, by
        the first look's answer, probabilities (P, S, S), and by further `hints`, (P, k h, k w) each. It is the best
        cell, or the best nine, as a small object has but one and a large one stands out only as a whole, with those
        around that are nearly as good: a large object should not be cut off. And which cells, anywhere, are about as
        likely as the best, (P, k h, k w) bool.
        """
        wide = F.avg_pool2d(similarity.parts, 3, 1, 1, count_include_pad=False)
        similar = torch.maximum(similarity.parts, WIDE_WEIGHT * wide)
        score = sum(hints, similar + ANSWER_WEIGHT * F.adaptive_max_pool2d(prob, similar.shape[1:]))
        best, place = score.flatten(1).max(1)
        center = torch.stack((place // score.shape[2], place % score.shape[2]), 1)  # (P, 2)
        line = torch.arange(score.shape[1], device=score.device)
        near = ((line - center[..., None]).abs() <= int(self.cells * REACH)).unbind(1)  # (P, k h) each
        likely, good = (score >= (best - drop * best.abs())[:, None, None] for drop in (PART_DROP, SCORE_DROP))
        weight = good & near[0][:, :, None] & near[1][:, None]
        middle = torch.stack([(weight.sum(axis) * line).sum(1) for axis in (2, 1)], 1) / weight.sum((1, 2))[:, None]
        return self._corner((middle + 0.5) * STRIDE), likely

    def combine(self, first: Tensor, corner: Tensor, close: Tensor) -> Tensor:
        """The first look's answers and those of looks at `corner`, both (P, S, S) -> masks (P, side, side). A look
        counts if it shows an object, all of it, and the first answer is not one large object.
        """
        answer = first > THRESHOLD
        size = _box(answer)[1]
        large = (answer.sum((1, 2)) > COMPACT * size.prod(1)) & ~self._within(size * self.zoom, CROP_EXTENT)
        counts = (self._within(_box(close > THRESHOLD)[1], FULL) & ~large)[:, None, None]
        prob = torch.where(counts, 0, resize_prob(first, self.zoom * self.input_size))
        rows, cols = (corner[..., None] * STRIDE + torch.arange(self.input_size, device=corner.device)).unbind(1)
        inside = torch.arange(len(corner), device=corner.device)[:, None, None], rows[:, :, None], cols[:, None, :]
        prob[inside] = torch.where(counts, close, prob[inside])
        return prob

    def one_object(self, prob: Tensor, likely: Tensor) -> Tensor:
        """Answers (P, side, side) without their connected components that contain no `likely` cell, if others do."""
        answer = (F.max_pool2d(prob[None], BLOCK) > THRESHOLD).float()  # (1, P, rows, columns)
        answer = answer.contiguous(memory_format=torch.channels_last)  # three times as fast on a CPU
        kept = answer * F.interpolate(likely[None].float(), answer.shape[2:])
        for _ in range(answer.shape[2] // 2):  # it spreads by a block each time, as far as an object is long
            kept = F.max_pool2d(kept, 3, 1, 1) * answer
        kept = torch.where(kept.amax((2, 3), keepdim=True) > 0, kept, 1)[0]
        blocks = prob.unflatten(2, (-1, BLOCK)).unflatten(1, (-1, BLOCK))  # (P, rows, BLOCK, columns, BLOCK)
        return (blocks * kept[:, :, None, :, None]).flatten(3).flatten(1, 2)

    def _corner(self, center: Tensor) -> Tensor:
        """Of the crops around centers in pixels (N, 2), as `formats.geometry.crop_corner` has it."""
        corner = ((center - self.input_size / 2) / STRIDE).round().long()
        return corner.clamp(0, (self.zoom - 1) * self.cells)

    def _within(self, size: Tensor, share: float) -> Tensor:
        """Which objects of some rows and columns (N, 2) are there, and span less than a share of a crop's side."""
        largest = size.amax(1)
        return (largest > 0) & (largest - 1 < share * self.input_size)


def _box(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Of masks (N, H, H) bool: the first row and column of each, and how many it spans, (N, 2) int64; 0 if empty."""
    lines = torch.stack((masks.any(2), masks.any(1)), 1).byte()  # (N, 2, H)
    first, last = lines.argmax(2), lines.shape[2] - 1 - lines.flip(2).argmax(2)
    return first, (last - first + 1) * lines.amax(2)


def resize_prob(prob: Tensor, side: int) -> Tensor:
    """(P, S, S) -> (P, side, side), bilinear."""
    if prob.shape[-1] == side:
        return prob
    return F.interpolate(prob[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
