"""The strong network: both views are crops of their images at matched scale, and a locator says where to crop.

    description = network.describe(wide, wide_masks)        # of objects, by crops at the scale of the locator's frames
    heat = network.locator.heat(description, network.locator.cells(frame))         # of whole targets
    query = network.encode(levels, masks, mask_feat)        # by crops around the objects, `CONTEXT` times as large
    look = network.look(query, target)                      # at crops of the targets, around peaks of the heat

The paper's network answers each look. It is also told, by the locator, which cells of the target crop resemble the
object, and its mask decoder reads the backbone's finer layer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.arguments import option
from common.errors import UserError
from model.backbone import STRIDE
from model.crops import Crop, Spot
from model.features import Levels
from model.locator import Description, Locator, coverage_of, detail_of, heat_logit
from model.xsegtx import MODES, PROB_EPS, MaskDecoder, XSegTx, XSegTxConfig


@dataclass(frozen=True)
class StrongConfig(XSegTxConfig):
    frame_size: int = option(768, "--frame_size", help="long side of whole images as the locator reads them, pixels")
    detail_channels: int = 0  # of the backbone's earlier layer

    def __post_init__(self):
        super().__post_init__()
        if not 4 * STRIDE <= self.frame_size <= 1 << 13:
            raise UserError(f"frame size {self.frame_size} must be from {4 * STRIDE} to {1 << 13} pixels")

    @property
    def wide_size(self) -> int:
        """Side of the wide crops of queries that the locator reads, in pixels."""
        return max(2, self.input_size // (2 * STRIDE)) * STRIDE

    def frame_length(self, share: float) -> int:
        """Long side, in pixels, of the frame in which to locate an object that spans such a share of it: `frame_size`,
        or half of that, and so on, so that the object fills at most half of a wide crop.
        """
        length = self.frame_size
        while share * length > self.wide_size / 2 and length >= 4 * self.wide_size:
            length //= 2
        return length

    def wide_crop(self, spot: Spot, share: float) -> Crop:
        """The locator's query crop: it shows the object as large as that frame should, or half as large as itself."""
        shown = share * self.frame_length(share)
        return spot.crop(max(self.wide_size * spot.extent / shown, 2 * spot.extent))


class Query(NamedTuple):
    """What the looks for B objects need of their query crops."""

    tokens: Tensor  # (B, L, C)
    mask: Tensor  # (B, L, C) tokens
    description: Description

    def rows(self, rows: Tensor) -> "Query":
        return Query(self.tokens[rows], self.mask[rows], self.description.rows(rows))


class Look(NamedTuple):
    """The network's answer for B query crops and target crops."""

    query_mask_prob: Tensor | None  # (B, S, S) float32, as `Prediction` has it; None if it was not asked for
    target_mask_prob: Tensor  # (B, S, S) float32
    logit: Tensor  # (B,) float32, of existence


@dataclass
class Views:
    """What training looks at."""

    query: Levels  # of crops around B objects
    query_mask: Tensor  # (B, S, S) of 0 and 1
    mask_feat: Tensor  # (B, F, h, w)
    target: Levels  # of B K crops: K of each target, which follow each other


class Answer(NamedTuple):
    """Of a step of training."""

    looks: Look  # of B K
    heat: list[Tensor]  # B of (H, W) float32
    views: Views


class DetailDecoder(MaskDecoder):
    """Finer features come in after the first of the two convolutions."""

    def __init__(self, width: int, channels: int):
        super().__init__(width)
        self.detail = nn.Conv2d(channels, width // 2, kernel_size=3, padding=1)
        self.mix = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1)

    def forward(self, features: Tensor, detail: Tensor | None = None) -> Tensor:
        if detail is None:  # the query's mask is known
            return super().forward(features)
        x = F.relu(self.deconv1(features) + self.detail(detail))
        return self.enlarge(x + F.relu(self.mix(x)))


class StrongXSegTx(XSegTx):
    def __init__(self, config: StrongConfig):
        super().__init__(config)
        width, channels = MODES[config.mode][0], config.detail_channels
        self.net["decoder"] = DetailDecoder(width, channels + 1)
        self.locator = Locator(config.feature_channels, channels)
        self.query_mark = nn.Parameter(0.1 * torch.randn(width))
        self.target_mark = nn.Parameter(0.1 * torch.randn(4, width))
        self.slope, self.threshold = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(1.2))

    def describe(self, wide: Levels, masks: Tensor) -> Description:
        """Of objects, for the locator, by wide crops (B, ...) of queries and the masks in them (B, N, N)."""
        cells = self.locator.cells(wide)
        return self.locator.describe(cells, coverage_of(masks, cells.shape[1:3]))

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Tensor) -> Query:
        """Query crops (B, ...), the masks in them (B, S, S) of 0 and 1, and the masks' features."""
        tokens, mask = self._drop(self.project(levels.feat)), self.project(mask_feat)
        marks = coverage_of(masks, (self.cells, self.cells)).flatten(1)[..., None] * self.query_mark  # (B, L, C)
        return Query(self.encode_query(tokens + marks, mask), mask, self.describe(levels, masks))

    def look(self, query: Query, target: Levels, both: bool = False) -> Look:
        """At target crops (B, ...); the query crops' masks are found, too, for `both`."""
        heat = self.locator.heat(query.description, self.locator.cells(target))
        tokens = self.encode_target(self._drop(self.project(target.feat)))
        tokens = tokens + F.pixel_unshuffle(heat[:, None], 2).flatten(2).mT @ self.target_mark
        query_tokens, tokens = self._exchange(query.tokens, query.mask, tokens, target_only=not both)
        logit = self._existence(tokens) + heat_logit(self, heat.amax((1, 2)))
        detail = torch.cat((detail_of(target), heat[:, None]), 1)
        mask = self.net.decoder(self._features(tokens), detail).sigmoid().clamp(PROB_EPS, 1 - PROB_EPS)
        return Look(self._mask_prob(query_tokens) if both else None, mask, logit)

    def heat(self, wide: Levels, masks: Tensor, frames: Sequence[Levels]) -> list[Tensor]:
        """Of whole targets, (H, W) float32 each, by what `describe` takes of their queries."""
        description = self.describe(wide, masks)
        one = (description.rows(slice(row, row + 1)) for row in range(len(frames)))
        return [self.locator.heat(row, self.locator.cells(frame))[0] for row, frame in zip(one, frames, strict=True)]

    def forward(
        self, wide: Levels, wide_masks: Tensor, frames: Sequence[Levels], aim: Callable[[list[Tensor]], Views]
    ) -> Answer:
        """For training: the `heat` of B targets, by which `aim` says where to look, and the looks. All in one call, as
        data-parallel training needs it.
        """
        heat = self.heat(wide, wide_masks, frames)
        views = aim([each.detach() for each in heat])
        query, looks = self.encode(views.query, views.query_mask, views.mask_feat), len(views.target.feat) // len(heat)
        rows = torch.arange(len(heat), device=wide_masks.device).repeat_interleave(looks)
        return Answer(self.look(query.rows(rows), views.target, both=True), heat, views)

    def score(self, look: Tensor, heat: Tensor) -> Tensor:
        """By which to choose among looks at a target: the largest, by their logits and the heat where they look."""
        return self.locator.scale * heat + look / 2

    def existence(self, look: Tensor, highest: Tensor) -> Tensor:
        """Probability that the object is visible in a target, by the look's logit there and its highest heat."""
        return ((look + heat_logit(self.locator, highest)) / 2).sigmoid()
