"""Matching whose existence is fitted to training pairs. Nothing else is fitted, so a backbone is tuned in minutes:

python train/train.py --recipe matching --backbone vit_large_patch16_dinov3.lvd1689m --out-dir tuned
python eval_segswap.py --setting ego-exo --ckpt_path tuned/netLast.pth
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from common.options import option
from model.backbone import Backbone
from recipes.base import TENTH, SearchPairs
from recipes.choice import Judge
from recipes.crops import MatchingConfig
from recipes.fit import all_looks, fit_choice
from recipes.matcher import EXISTENCE, EXISTENCE_BIAS, FixedChoice, Matcher, read_by_existence
from recipes.matching import Matching, sizes_for
from recipes.places import Compared, Glanced, Judged

SHARPNESS = 1e3  # of the softmax over scores that draws a place in the fit: nearly always the highest one
MORE = 4  # numbers that only a fitted existence reads


def read_by_tuned_existence(x: Judged) -> tuple[Tensor, ...]:
    return *read_by_existence(x), x.similarity, x.close_cosine, x.home, x.elsewhere


class TunedChoice(nn.Module):
    """The fixed glance and score, and an existence that begins with the fixed sum and is fitted."""

    def __init__(self):
        super().__init__()
        self.fixed, weights = FixedChoice(), (*EXISTENCE, *MORE * [0.0])
        self.existence = Judge(read_by_tuned_existence, weights, EXISTENCE_BIAS)
        self.requires_grad_(False)

    def glance(self, x: Glanced) -> Tensor:
        return SHARPNESS * self.fixed.glance(x)

    def score(self, x: Compared) -> Tensor:
        return SHARPNESS * self.fixed.score(x)


@dataclass(frozen=True)
class TunedOptions:
    fit_share: float | None = option(None, f"share of the pairs to fit existence to {TENTH}", limits=[0.001, 1])


class TunedMatcher(Matcher):
    Choice = TunedChoice


class Tuned(Matching):
    Config, Options, Network = MatchingConfig, TunedOptions, TunedMatcher

    @staticmethod
    def defaults(epochs: int) -> dict[str, Any]:
        return {"backbone": "efficientnet_lite0", "n_epoch": 0, "warmUpIter": 0}

    @classmethod
    def channels_of(cls, backbone: Backbone) -> dict[str, int]:
        return super().channels_of(backbone) | sizes_for(backbone)

    def finish(self, search_pairs: SearchPairs, seed: int) -> str:
        return fit_choice(self, search_pairs(partial(all_looks, self), self.training.fit_share), seed)
