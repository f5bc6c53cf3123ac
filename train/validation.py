"""Validation: predict some pairs exactly as eval_segswap.py does, and compute their official scores."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from common.distributed import Stopped
from common.existence import balanced_accuracy
from formats.masks import iou, resize_mask
from formats.pairs import PairSet
from formats.results import THRESHOLD
from recipes.base import NetworkRecipe
from recipes.take_frames import FrameDataset, frame_plans, predict_frames
from train.log import Log


class PairScore(NamedTuple):
    number: int  # the pair's number
    iou: float  # NaN if the object is not visible
    existence: float  # predicted probability
    visible: bool


class Validation:
    """A fixed selection of `size` pairs (0: all pairs), which is the same in every run on the same data."""

    def __init__(self, pairs: PairSet, size: int, recipe: NetworkRecipe, log: Log):
        size = min(size, len(pairs)) or len(pairs)
        self.pairs, self.recipe, self.log = pairs, recipe, log
        plans = frame_plans(pairs, np.sort(np.random.default_rng(0).permutation(len(pairs))[:size]))
        own = FrameDataset(plans[log.world.rank :: log.world.size], pairs, recipe.prepare)
        self.frames = DataLoader(own, batch_size=None, **recipe.loading)

    def run(self, step: int, epoch: str) -> float:
        """Validate, report the scores and return the IoU. Raises Stopped after a signal.

        Each process predicts its frames by itself, since frames are predicted in groups and processes that waited for
        each other after each frame would compute one after the other.
        """
        self.log.say(f"{epoch} validation ...")
        self.recipe.network.eval()
        scores, unreadable = [], 0
        for frame, answers in predict_frames(self.recipe, self.log.bar(self.frames, "validation", "frame")):
            where = f"{frame.take_uid}/{frame.number}"
            reasons = [f"{where} {' '.join(pair)}: {reason}" for pair, reason in frame.left_out.items()]
            self.log.note_unreadable(reasons)
            unreadable += len(reasons)
            for pair, mask, existence in answers:
                number = self.pairs.number(frame.take_uid, pair, frame.number)
                scores.append(self.score(number, mask, existence))
            if self.log.world.signal:
                break
        signals, parts, counts = zip(*self.log.world.gather((self.log.world.signal, scores, unreadable)), strict=True)
        if any(signals):
            raise Stopped
        figures = validation_figures(sorted(chain.from_iterable(parts)))
        if any(counts):
            figures["unreadable"] = sum(counts)
        self.log.report_validation(step, epoch, figures)
        return figures.get("iou", 0.0)

    def score(self, number: int, mask: np.ndarray, existence: float) -> PairScore:
        """The official score of a mask in the size of results files. The IoU is 1 if both masks are empty; the true
        mask can be empty in this size if the object is very small.
        """
        rle, overlap = self.pairs.target_mask(number), math.nan
        if rle:
            overlap = iou(mask, resize_mask(rle, mask.shape).astype(bool))
        return PairScore(number, overlap, existence, rle is not None)


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
