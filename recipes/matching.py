"""Find an object with nothing trained: the search, with the features of any frozen backbone.

The matcher looks at crops. It propagates masks from cell to cell, and fixed sums of numbers choose among places. The
strong network has learned to do both.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.existence import MATCHING_LIMITS, Limits
from model.backbone import STRIDE, Backbone, Levels
from model.xsegtx import Look
from recipes.search.crops import SearchConfig
from recipes.search.locator import EPS, Description, Locator, ObjectCrops
from recipes.search.outline import GRAB_CUT
from recipes.search.places import Numbers
from recipes.search.search import Search

# Side of crops, long side of whole pictures and side of cells, in pixels. Plain vision transformers have large cells.
USUAL_SIZES, PLAIN_SIZES = (240, 1024, 8), (448, 1440, 16)
FIXED_EXISTENCE, FIXED_BIAS = (1.5, 4.3, 2.1, 0.2, 0.4, 2.0), -3.8  # fitted to rendered takes, with EfficientNet-Lite0


@dataclass(frozen=True)
class MatchingConfig(SearchConfig):
    def __str__(self) -> str:
        return f"matching in crops of {self.input_size} pixels"


def read_by_existence(x: Numbers) -> tuple[Tensor, ...]:
    """A cosine counts beside the highest similarity of the object to its own place, as backbones differ in scale."""
    return x.agreement, x.close_agreement, x.color, x.contrast, x.back, x.close_cosine / x.home.clamp(min=0.2)


class FixedChoice:
    """The judges of places, as `Choice` has them, but as sums whose weights never change."""

    def glance(self, x: Numbers) -> Tensor:
        return added(1.0 * x.cosine, 0.2 * x.agreement, 0.1 * x.similarity)

    def score(self, x: Numbers) -> Tensor:
        return added(1.0 * x.close_cosine, 0.2 * x.close_agreement, 0.1 * x.similarity, 0.1 * x.color)

    def existence(self, x: Numbers) -> Tensor:
        *alike, of_home = (
            weight * number for weight, number in zip(FIXED_EXISTENCE, read_by_existence(x), strict=True)
        )
        return added(*alike) + of_home + FIXED_BIAS


def added(*numbers: Tensor) -> Tensor:
    return torch.stack(numbers).sum(0)


class Matcher(nn.Module):
    """Looks for objects in crops, without a parameter."""

    reads_masks = False

    def __init__(self, config: Any):
        super().__init__()
        self.config, self.locator, self.choice = config, Locator(config.cell), FixedChoice()

    def encode(self, levels: Levels, masks: Tensor) -> ObjectCrops:
        """Encode B objects, from query crops (B, ...) and the masks in them (B, S, S) of 0 and 1."""
        return self.locator.object_crops(levels, masks)

    def look(self, query: ObjectCrops, target: Levels) -> tuple[Look, Tensor]:
        """Look for B objects, each in one target crop; also returns the locator's cells of the crops (B, h, w, C)."""
        cells, size = self.locator.cells(target), 2 * (self.config.input_size,)
        propagated = self.locator.propagate(query.cells, query.coverage, cells)
        prob = F.interpolate(propagated[:, None], size, mode="bilinear", align_corners=False)[:, 0]
        return Look(prob, torch.zeros_like(prob[:, 0, 0])), cells  # no logit of existence, which must be learned

    def back(self, heat: Tensor, answers: Description, objects: Tensor) -> Tensor:
        """How well answers lead back to objects (B, h, w) bool of query frames, by their similarity maps (B, h, w) in
        these: how much higher is the similarity on the object than away from it, in deviations of the map? (B,)
        """
        back, away = self.locator.on_and_away(heat, objects)
        return (back - away) / heat.std((1, 2)).clamp(min=EPS)


class Matching(Search):
    Config, Network = MatchingConfig, Matcher
    close_looks = 3  # with raw features the third one pays (docs/experiments.md)
    usual_outline = GRAB_CUT

    @classmethod
    def of(
        cls,
        backbone: Backbone,
        device: torch.device,
        precision: str = "fp32",
        input_size: int | None = None,
        **options: Any,
    ) -> "Matching":
        """The recipe with a frozen backbone. `input_size`: the side of its crops in pixels. Raises UserError if the
        backbone is unfit.
        """
        config = MatchingConfig(**cls.channels_of(backbone, input_size))
        made = cls(Matcher(config), backbone, device, precision, **options)
        made.options |= {"backbone": backbone.name} | asdict(config)
        return made

    @classmethod
    def channels_of(cls, backbone: Backbone, input_size: int | None = None) -> dict[str, int]:
        side, long_side, cell = PLAIN_SIZES if backbone.is_plain else USUAL_SIZES
        size = (input_size or side) // STRIDE * STRIDE
        sizes = {"input_size": size, "frame_size": size * long_side // side, "cell": cell}
        return super().channels_of(backbone) | sizes

    @property
    def limits(self) -> Limits:
        return MATCHING_LIMITS
