"""The matcher looks for objects in crops, with nothing trained: it propagates masks from cell to cell of a frozen
backbone, and fixed sums of numbers choose among places. The strong network, in its place, has learned to do both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.constants import THRESHOLD
from model.features import Levels, coverage_of
from model.rows import Rows
from model.xsegtx import Look
from recipes.locator import EPS, Description, Locator
from recipes.places import LookNumbers

# What the fixed sums read. Existence reads nothing whose scale the backbone decides: a cosine counts beside the highest
# similarity of the object to its own place. Its weights were fitted to rendered takes, with EfficientNet-Lite0.
GLANCE = {"cosine": 1.0, "agreement": 0.2, "similarity": 0.1}
SCORE = {"close_cosine": 1.0, "close_agreement": 0.2, "similarity": 0.1, "color": 0.1}
EXISTENCE = {"agreement": 1.5, "close_agreement": 4.3, "color": 2.1, "contrast": 0.2, "back": 0.4}
LIKENESS, EXISTENCE_BIAS = 2.0, -3.8


class FixedChoice:
    """The judges of places, as `Choice` of the strong recipe has them, but as sums whose weights never change."""

    def glance(self, numbers: LookNumbers) -> Tensor:
        return weighted(numbers, GLANCE)

    def score(self, numbers: LookNumbers) -> Tensor:
        return weighted(numbers, SCORE)

    def existence(self, numbers: LookNumbers) -> Tensor:
        likeness = numbers.close_cosine / numbers.home.clamp(min=0.2)  # pyrefly: ignore
        return weighted(numbers, EXISTENCE) + LIKENESS * likeness + EXISTENCE_BIAS


def weighted(numbers: LookNumbers, weights: Mapping[str, float]) -> Tensor:
    """The sum of these numbers of looks, each times its weight."""
    return torch.stack([weight * getattr(numbers, name) for name, weight in weights.items()]).sum(0)


@dataclass
class ObjectCrops(Rows):
    """The encoded query crops of B objects."""

    cells: Tensor  # (B, h, w, C) cells of the locator
    coverage: Tensor  # (B, h, w): the part of each cell that the object covers
    description: Description


@dataclass
class TargetCrops(Rows):
    """B encoded target crops."""

    cells: Tensor  # (B, h, w, C) cells of the locator


class Matcher(nn.Module):
    """Looks for objects in crops without parameters."""

    def __init__(self, config: Any):
        super().__init__()
        self.config, self.locator = config, Locator(config.cell)
        self.choice: Any = FixedChoice()

    def describe(self, wide: Levels, masks: Tensor) -> Description:
        """Describe objects for the locator, from wide query crops (B, ...) and the masks in them (B, N, N)."""
        cells = self.locator.cells(wide)
        return self.locator.describe(cells, coverage_of(masks, cells.shape[1:3]))

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Any = None) -> Any:
        """Encode B objects, from query crops (B, ...) and the masks in them (B, S, S) of 0 and 1."""
        cells = self.locator.cells(levels)
        coverage = coverage_of(masks, cells.shape[1:3])
        return ObjectCrops(cells, coverage, self.locator.describe(cells, coverage))

    def encode_target(self, levels: Levels) -> Any:
        """Encode B target crops (B, ...)."""
        return TargetCrops(self.locator.cells(levels))

    def look(self, query: Any, target: Any) -> Look:
        """Look for B objects, each in one target crop."""
        propagated = self.locator.propagate(query.cells, query.coverage, target.cells)
        size = 2 * (self.config.input_size,)
        prob = F.interpolate(propagated[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return Look(prob, torch.zeros_like(prob[:, 0, 0]))  # without a logit of existence, which must be learned

    def describe_answers(self, cells: Tensor, mask_prob: Tensor) -> Description:
        """Describe for the locator what predicted masks (B, S, S) show, from the cells of their target crops."""
        return self.locator.describe(cells, coverage_of(mask_prob > THRESHOLD, cells.shape[1:3]))

    def look_back(self, answers: Description, cells: Tensor, objects: Tensor) -> Tensor:
        """How well answers lead back to their objects, (B,) float32. The locator seeks the answer in the whole query
        frame: how much higher is the similarity on the object than away from it, in standard deviations of the map?

        cells: (B, h, w, C), the locator's cells of query frames; objects: (B, h, w) bool, the cells of the object.
        """
        heat = self.locator.heat(answers, cells)
        back, away = highest_on_and_away(heat, objects, self.locator.apart).unbind(1)
        return (back - away) / heat.std((1, 2)).clamp(min=EPS)

    def at_home(self, objects: Description, cells: Tensor, on_objects: Tensor) -> Tensor:
        """The highest similarity of objects to the cells of their own frames, on them and away from them: (B, 2). It is
        -1 away from an object that fills its frame.

        cells: (B, h, w, C), the locator's cells of query frames; on_objects: (B, h, w) bool, the objects' cells.
        """
        return highest_on_and_away(self.locator.heat(objects, cells), on_objects, self.locator.apart)


def highest_on_and_away(heat: Tensor, objects: Tensor, apart: int) -> Tensor:
    """The highest values of maps (B, h, w) on objects (B, h, w), and `apart` cells or more away from them: (B, 2)."""
    around = F.max_pool2d(objects[:, None].float(), 2 * apart + 1, 1, apart)[:, 0] > 0
    return torch.stack([heat.masked_fill(x, -1).amax((1, 2)) for x in (~objects, around)], 1)
