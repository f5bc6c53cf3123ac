"""Find an object with nothing trained: the search, with the features of any frozen backbone."""

from dataclasses import asdict
from typing import Any

import torch

from common.existence import MATCHING_LIMITS, Limits
from model.backbone import STRIDE, Backbone
from recipes.crops import MatchingConfig
from recipes.matcher import Matcher
from recipes.outline import GRAB_CUT
from recipes.search import Search

# Side of crops, long side of whole pictures and side of cells, in pixels. Plain vision transformers have large cells.
USUAL_SIZES, PLAIN_SIZES = (240, 1024, 8), (448, 1440, 16)


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
