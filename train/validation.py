"""Validation: predict some pairs exactly as eval_segswap.py does, and compute their official scores."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from common.constants import THRESHOLD
from common.distributed import Stopped
from common.existence import balanced_accuracy
from formats.masks import iou, resize_mask
from formats.pairs import Pairs
from recipes.base import NetworkRecipe
from recipes.frame import Frames, answered
from train.log import Log


class PairScore(NamedTuple):
    row: int  # of the pair
    iou: float  # NaN if the object is not visible
    existence: float  # predicted probability
    visible: bool


class Validation:
    """A fixed selection of `size` pairs (0: all pairs), which is the same in every run on the same data."""

    def __init__(self, pairs: Pairs, size: int, recipe: NetworkRecipe, log: Log):
        self.pairs, self.size, self.recipe, self.log = pairs, min(size, len(pairs)) or len(pairs), recipe, log
        rows = np.sort(np.random.default_rng(0).permutation(len(pairs))[: self.size])
        groups = [rows[group] for group in pairs[rows].groups("take", "frame")]
        own = Frames(pairs, groups[log.world.rank :: log.world.size], recipe.prepare)
        ends: dict[str, Any] = {**recipe.loading, "persistent_workers": False}  # no memory is kept between validations
        self.frames = DataLoader(own, batch_size=None, **ends)

    def run(self, step: int, epoch: str) -> float:
        """Validate, report the scores and return the IoU. Raises Stopped after a signal."""
        self.log.say(f"{epoch} validation ...")
        self.recipe.network.eval()
        scores = []
        frames = self.log.bar(self.frames, "validation", "frame")
        for frame, answers in answered(self.recipe, frames, world=self.log.world):
            reasons = [f"{' '.join(map(str, self.pairs.named(row)))}: {why}" for row, why in frame.left_out.items()]
            self.log.note_unreadable(reasons)
            for pair, (row, answer) in enumerate(zip(frame.row, answers, strict=True)):
                mask, truth, overlap = frame.compared(pair, answer), self.pairs.target_mask(row), math.nan
                if truth:  # at this size, a very small truth can be empty; the IoU is 1 if both are
                    overlap = iou(mask, resize_mask(truth, mask.shape).astype(bool))
                scores.append(PairScore(row, overlap, answer.existence, truth is not None))
        # Processes meet at the end alone, as their groups of frames differ.
        signals, parts = zip(*self.log.world.gather((self.log.world.signal, scores)), strict=True)
        if any(signals):
            raise Stopped
        figures = validation_figures(sorted(chain.from_iterable(parts)))
        if unreadable := self.size - figures["samples"]:
            figures["unreadable"] = unreadable
        self.log.report_validation(step, epoch, figures)
        return figures.get("iou", 0.0)


def validation_figures(scores: Sequence[PairScore]) -> dict[str, float]:
    """The mean IoU of visible objects, and the balanced accuracy of existence. The IoU is left out without visible
    objects; the accuracy is left out without visible or without hidden objects.
    """
    _, overlap, existence, visible = np.array(scores, np.float64).reshape(-1, 4).T
    predicted, visible = existence > THRESHOLD, visible > 0
    figures = {}
    if visible.any():
        figures["iou"] = overlap[visible].mean()
    if visible.any() and not visible.all():
        figures["existence_accuracy"] = balanced_accuracy(predicted[visible].mean(), (~predicted[~visible]).mean())
    return {name: float(value) for name, value in figures.items()} | {"samples": len(scores)}
