"""Looks at small objects, enlarged, by a network that has learned from such views (train.py --closer_look): where to
look in images `zoom` times as large as the network's input, and what the answers make together.

All of it happens on the device, without waiting for it: no step depends on what an earlier one has found.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from formats.geometry import CROP_EXTENT
from formats.results import THRESHOLD
from model.backbone import STRIDE
from model.features import crop
from model.similarity import Similarity

FULL = 0.9  # of a crop's side: an answer as large is not all of the object
COMPACT = 0.3  # of its box: a first answer that fills more of it is one large object, not several guesses
PEAK = 4  # where an answer is strongest: in a square of a quarter of the network's input


class CloserLook:
    """Query views are cropped around their objects, if these are small. A target is seen whole first, then cropped, at
    several places; the look that finds the object most surely counts. `input_size`: pixels per side of what the network
    sees. Corners are first rows and columns of crops in cells of `STRIDE` pixels, (..., 2) int64.
    """

    def __init__(self, input_size: int, zoom: int):
        self.input_size, self.zoom, self.cells = input_size, zoom, input_size // STRIDE

    def queries(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (M, side, side) -> the part that the network sees of each (M, S, S), and its corner; -1: all of it."""
        corner, size = self._around(masks != 0)
        fits = self._within(size, CROP_EXTENT)
        closer = crop(masks[:, None], corner * STRIDE, self.input_size)[:, 0]
        seen = torch.where(fits[:, None, None], closer, masks[:, :: self.zoom, :: self.zoom])
        return seen, torch.where(fits[:, None], corner, -1)

    def places(self, prob: Tensor, similarity: Similarity) -> Tensor:
        """Where to look again: corners (2, P, 2).

        1. Around the first look's answer, probabilities (P, side, side); where it is strongest, if it is too large.
        2. Around the part that is most similar to the object.
        """
        corner, size = self._around(prob > THRESHOLD)
        window = self.input_size // PEAK
        strongest = self._centered(F.avg_pool2d(prob[:, None], window, STRIDE)[:, 0], window / 2)
        smooth = F.avg_pool2d(similarity.parts[:, None], 3, 1, 1)[:, 0]
        around = torch.where(self._within(size, CROP_EXTENT)[:, None], corner, strongest)
        return torch.stack((around, self._centered(smooth, STRIDE / 2)))

    def combine(self, first: Tensor, corners: Tensor, close: Tensor, judged: Tensor) -> Tensor:
        """The first look's answers (P, side, side), and those of n looks at `corners` (n, P, 2): masks (n, P, S, S) and
        existence (n, P) -> masks (P, side, side). A look counts if it shows an object, all of it, and the first answer
        is not one large object.
        """
        answer = first > THRESHOLD
        size = self._around(answer)[1]
        compact = answer.sum((1, 2)) > COMPACT * size.prod(1)
        large = compact & ~self._within(size, CROP_EXTENT)
        whole = self._within(self._around(close.flatten(0, 1) > THRESHOLD)[1], FULL)
        best, which = judged.where(whole.view_as(judged), -1.0).max(0)
        pairs = torch.arange(len(first), device=first.device)
        line = torch.arange(self.input_size, device=first.device)
        rows, cols = (corners[which, pairs] * STRIDE)[..., None].add(line).unbind(1)  # (P, S)
        closer = torch.zeros_like(first)
        closer[pairs[:, None, None], rows[:, :, None], cols[:, None, :]] = close[which, pairs]
        return torch.where((large | (best < 0))[:, None, None], first, closer)

    def _around(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Of masks (N, H, H) bool: the corner of the crop centered on each, as `formats.geometry.crop_corner` has it,
        and the rows and columns that it spans, (N, 2) int64; 0 if it is empty.
        """
        lines = torch.stack((masks.any(2), masks.any(1)), 1).byte()  # (N, 2, H)
        first, last = lines.argmax(2), lines.shape[2] - 1 - lines.flip(2).argmax(2)
        corner = ((first + last + 1 - self.input_size) / (2 * STRIDE)).round().long()
        return corner.clamp(0, (self.zoom - 1) * self.cells), (last - first + 1) * lines.amax(2)

    def _within(self, size: Tensor, share: float) -> Tensor:
        """Which objects of some rows and columns (N, 2) are there, and span less than a share of a crop's side."""
        largest = size.amax(1)
        return (largest > 0) & (largest - 1 < share * self.input_size)

    def _centered(self, maps: Tensor, offset: float) -> Tensor:
        """Of maps (P, n, n) with a step of `STRIDE` pixels, the corner of the crop centered on the largest value of
        each; `offset`: pixels from the edge of the picture to the center of the first value.
        """
        place = maps.flatten(1).argmax(1)
        center = torch.stack((place // maps.shape[2], place % maps.shape[2]), 1) * STRIDE + offset
        corner = ((center - self.input_size / 2) / STRIDE).round().long()
        return corner.clamp(0, (self.zoom - 1) * self.cells)


def resize_prob(prob: Tensor, side: int) -> Tensor:
    """(P, S, S) -> (P, side, side), bilinear."""
    if prob.shape[-1] == side:
        return prob
    return F.interpolate(prob[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
