"""The options of the strong network and of its training."""

from dataclasses import dataclass
from typing import Any

from common.arguments import option
from common.errors import UserError
from formats.crop import Crop
from model.backbone import STRIDE
from model.xsegtx import XSegTxConfig
from recipes.crops import Spot


@dataclass(frozen=True)
class StrongConfig(XSegTxConfig):
    frame_size: int = option(768, "long side of the whole images that the locator reads, pixels")
    detail_channels: int = 0  # channels of the backbone's earlier layer

    def __post_init__(self):
        super().__post_init__()
        if not 4 * STRIDE <= self.frame_size <= 1 << 13:
            raise UserError(f"frame size {self.frame_size} must be from {4 * STRIDE} to {1 << 13} pixels")

    @property
    def wide_size(self) -> int:
        """The locator reads wide query crops of this side, in pixels."""
        return max(2, self.input_size // (2 * STRIDE)) * STRIDE

    def frame_length(self, share: float) -> int:
        """The long side, in pixels, of the frame in which to locate an object that spans the part `share` of the frame.
        The result is `frame_size`, halved until the object fills at most half of a wide crop.
        """
        length = self.frame_size
        while share * length > self.wide_size / 2 and length >= 4 * self.wide_size:
            length //= 2
        return length

    def wide_crop(self, spot: Spot, share: float) -> Crop:
        """The query crop that the locator reads. The crop shows the object at `spot` as large as the object is
        expected in the target's frame, where the object spans the part `share`, but not larger than half of the crop.
        """
        extent = share * self.frame_length(share)  # pixels in the target's frame
        return spot.square(max(self.wide_size * spot.extent / extent, 2 * spot.extent))


@dataclass(frozen=True)
class StrongOptions:
    mine_epochs: list[int] = option((), "epochs to mine rivals after (default: 1/6, 1/2, 5/6 of all)", limits=[0])
    mine_pairs: int = option(20_000, "pairs in which rivals are mined, each time; 0: all", limits=[0])
    fit_pairs: int = option(20_000, "pairs to which the choice among looks is fitted at the end; 0: none", limits=[0])

    @staticmethod
    def defaults(epochs: int) -> dict[str, Any]:
        """As xsegtx_tiny.pth was trained. With dropout, a step takes a quarter longer."""
        mine_epochs = sorted({epochs * part // 6 for part in (1, 3, 5)} - {0})
        rate = {"lr": 5e-4, "lr_schedule": [], "lr_falls": (epochs + 1) // 2, "mine_epochs": mine_epochs}
        network = {"backbone": "efficientnet_lite0", "mode": "tiny", "input_size": 192}
        return rate | network | {"dropout": 0.0, "drop_feat": 0.0, "existence_weight": 0.3}
