"""Find an object with nothing trained: the search, with the features of any frozen backbone."""

from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from common.constants import THRESHOLD
from common.existence import MATCHING_LIMITS, Limits
from common.parallel import in_threads
from formats.crop import cut
from formats.masks import grab_cut
from model.backbone import STRIDE, Backbone
from recipes.base import Answer
from recipes.crops import MatchingConfig, connected_parts
from recipes.matcher import Matcher
from recipes.places import Searched
from recipes.search import Search

# Side of crops, long side of whole pictures and side of cells, in pixels. Plain vision transformers have large cells.
USUAL_SIZES, PLAIN_SIZES = (240, 1024, 8), (448, 1440, 16)
SHARPEN_SIDE = 192  # the crop in which outlines are sharpened, in pixels
SURE = 0.95  # above it, or below 1 - SURE, GrabCut may not change a pixel


class Matching(Search):
    Config, Network = MatchingConfig, Matcher
    close_looks = 3  # with raw features the third one pays (docs/experiments.md)

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

    def draw(self, objects: Any, found: Searched, existence: Tensor) -> list[Answer]:
        return in_threads(sharpened, super().draw(objects, found, existence), found.places.image)


def sharpened(answer: Answer, image: np.ndarray) -> Answer:
    """The answer with an outline that follows the colors of the picture (H, W, 3) uint8 RGB: GrabCut decides what is
    not sure. Crumbs are dropped.
    """
    prob = cv2.resize(answer.prob, (SHARPEN_SIDE, SHARPEN_SIDE))
    labels = np.where(prob > THRESHOLD, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[prob > SURE], labels[prob < 1 - SURE] = cv2.GC_FGD, cv2.GC_BGD
    if {cv2.GC_FGD, cv2.GC_BGD} - {*np.unique(labels).tolist()}:  # GrabCut needs both
        return answer
    mask = grab_cut(cut(image, answer.crop, SHARPEN_SIDE), labels, rounds=1)  # pyrefly: ignore
    parts = [part.mask for part in connected_parts(mask, answer.crop, image.shape[:2])]  # pyrefly: ignore
    return answer._replace(prob=np.any([*parts, np.zeros_like(mask)], 0).astype(np.float32))
