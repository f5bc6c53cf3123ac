"""The options of the strong network and of its training."""

from dataclasses import dataclass

from common.options import option
from model.xsegtx import XSegTxConfig
from recipes.base import TENTH
from recipes.crops import MatchingConfig


@dataclass(frozen=True)
class StrongConfig(XSegTxConfig, MatchingConfig):
    frame_size: int = option(768, "long side of the whole images that the locator reads, pixels")
    detail_channels: int = 0  # channels of the backbone's earlier layer

    def __post_init__(self):
        XSegTxConfig.__post_init__(self)
        MatchingConfig.__post_init__(self)


@dataclass(frozen=True)
class StrongOptions:
    mine_epochs: list[int] = option((), "epochs to mine rivals after (default: 1/6, 1/2, 5/6 of all)", limits=[0])
    mine_share: float | None = option(None, f"share of the pairs to mine rivals in {TENTH}", limits=[0.001, 1])
    fit_share: float | None = option(None, f"share of the pairs to fit the choice to; 0: none {TENTH}", limits=[0, 1])
