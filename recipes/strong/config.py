"""The options of the strong network and of its training."""

from dataclasses import dataclass
from typing import Any

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

    @staticmethod
    def defaults(epochs: int) -> dict[str, Any]:
        """As xsegtx_tiny.pth was trained. With dropout, a step takes a quarter longer."""
        mine_epochs = sorted({epochs * part // 6 for part in (1, 3, 5)} - {0})
        rate = {"lr": 5e-4, "lr_schedule": [], "lr_falls": (epochs + 1) // 2, "mine_epochs": mine_epochs}
        network = {"backbone": "efficientnet_lite0", "mode": "tiny", "input_size": 192}
        return rate | network | {"dropout": 0.0, "drop_feat": 0.0, "existence_weight": 0.3}
