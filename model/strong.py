"""The strong network: both views are crops that show the object about equally large; a locator says where to crop.

    description = network.describe(wide, wide_masks)            # objects, in crops at the scale of whole frames
    heat = network.locator.heat(description, cells)             # says where to look in whole target frames
    query = network.encode(levels, masks, mask_feat)            # objects, in crops around them
    target = network.encode_target(levels)                      # crops around peaks of the heat
    look = network.look(query, target)
    answers = network.describe_answers(target, look.target_mask_prob)
    back = network.look_back(answers, cells, objects)           # whether they lead back to the object in its frame

The paper's network answers each look. It is also shown, by the locator, which cells of the target crop resemble the
object, and its mask decoder reads the backbone's finer layer. inference/search.py makes an answer of looks.
"""

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
from model.locator import NOTHING, Description, Locator, coverage_of, detail_of
from model.xsegtx import MODES, PROB_EPS, Look, MaskDecoder, XSegTx, XSegTxConfig

BACK_WEIGHT = 1.5  # weight of the look back's logarithm in the choice among looks; 1 to 2 are equally good


@dataclass(frozen=True)
class StrongConfig(XSegTxConfig):
    frame_size: int = option(768, "--frame_size", help="long side of whole images as the locator reads them, pixels")
    detail_channels: int = 0  # channels of the backbone's earlier layer

    def __post_init__(self):
        super().__post_init__()
        if not 4 * STRIDE <= self.frame_size <= 1 << 13:
            raise UserError(f"frame size {self.frame_size} must be from {4 * STRIDE} to {1 << 13} pixels")

    @property
    def wide_size(self) -> int:
        """Side of the wide crops of queries that the locator reads, in pixels."""
        return max(2, self.input_size // (2 * STRIDE)) * STRIDE

    def frame_length(self, share: float) -> int:
        """Long side, in pixels, of the frame in which to locate an object that spans `share` of it: `frame_size`, or
        half of that, and so on, so that the object fills at most half of a wide crop.
        """
        length = self.frame_size
        while share * length > self.wide_size / 2 and length >= 4 * self.wide_size:
            length //= 2
        return length

    def wide_crop(self, spot: Spot, share: float) -> Crop:
        """The locator's query crop. It shows the object at `spot` as large as the target's frame should, of which the
        object spans `share`, but no larger than half of the crop.
        """
        extent = share * self.frame_length(share)  # in the target's frame, pixels
        return spot.square(max(self.wide_size * spot.extent / extent, 2 * spot.extent))


class ObjectCrops(NamedTuple):
    """The query crops of B objects, encoded."""

    tokens: Tensor  # (B, L, C)
    mask: Tensor  # (B, L, C) tokens
    description: Description

    def rows(self, rows: Tensor) -> "ObjectCrops":
        return ObjectCrops(self.tokens[rows], self.mask[rows], self.description.rows(rows))


class TargetCrops(NamedTuple):
    """B crops of targets, encoded."""

    tokens: Tensor  # (B, L, C)
    cells: Tensor  # (B, 2h, 2w, WIDTH), of the locator
    detail: Tensor  # (B, D, 2h, 2w)


class DetailDecoder(MaskDecoder):
    """A mask decoder that also reads finer features, after the first of its two convolutions."""

    def __init__(self, width: int, channels: int):
        super().__init__(width)
        self.detail = nn.Conv2d(channels, width // 2, kernel_size=3, padding=1)
        self.mix = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1)

    def forward(self, features: Tensor, detail: Tensor | None = None) -> Tensor:
        if detail is None:  # as for the query's mask
            return super().forward(features)
        x = F.relu(self.deconv1(features) + self.detail(detail))
        return self.enlarge(x + F.relu(self.mix(x)))


class StrongXSegTx(XSegTx):
    def __init__(self, config: StrongConfig):
        channels = config.detail_channels
        super().__init__(config, lambda width: DetailDecoder(width, channels + 1))
        self.locator = Locator(config.feature_channels, channels)
        width = MODES[config.mode][0]
        self.query_mark = nn.Parameter(0.1 * torch.randn(width))
        self.target_mark = nn.Parameter(0.1 * torch.randn(4, width))
        # slope * (highest heat of a look - threshold) is added to its existence logit.
        self.slope, self.threshold = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(1.2))

    def forward(self, *_):
        raise NotImplementedError(
            "crops depend on the heat: train/crop_step.py calls the parts, and inference/search.py"
        )

    def describe(self, wide: Levels, masks: Tensor) -> Description:
        """Objects for the locator, by wide crops (B, ...) of queries and the masks in them (B, N, N)."""
        cells = self.locator.cells(wide)
        return self.locator.describe(cells, coverage_of(masks, cells.shape[1:3]))

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Tensor) -> ObjectCrops:
        """B objects, by query crops (B, ...), the masks in them (B, S, S) of 0 and 1, and the masks' features."""
        marks = coverage_of(masks, (self.cells, self.cells)).flatten(1)[..., None] * self.query_mark  # (B, L, C)
        query = self.encode_query(self.tokens(levels.feat) + marks, self.project(mask_feat))
        return ObjectCrops(*query, self.describe(levels, masks))

    def encode_target(self, levels: Levels) -> TargetCrops:
        """B target crops (B, ...), for `look`."""
        return TargetCrops(super().encode_target(levels.feat), self.locator.cells(levels), detail_of(levels))

    def look(self, query: ObjectCrops, target: TargetCrops, both: bool = False) -> Look:
        heat = self.locator.heat(query.description, target.cells)
        tokens = target.tokens + F.pixel_unshuffle(heat[:, None], 2).flatten(2).mT @ self.target_mark
        if both:
            query_tokens, tokens = self.attend(self.layers[self.first_cross :], query.tokens, tokens, query.mask)
        else:
            tokens = self.attend_target(query.tokens, tokens, query.mask)
        logit = self.existence_logit(tokens) + self.slope * (heat.amax((1, 2)) - self.threshold)
        detail = torch.cat((target.detail, heat[:, None]), 1)
        mask = self.net.decoder(self.features(tokens), detail).sigmoid().clamp(PROB_EPS, 1 - PROB_EPS)
        return Look(mask, logit, self.mask_prob(query_tokens) if both else None)

    def describe_answers(self, target: TargetCrops, mask_prob: Tensor) -> Description:
        """What masks (B, S, S) in target crops show, for the locator."""
        return self.locator.describe(target.cells, coverage_of(mask_prob > 0.5, target.cells.shape[1:3]))

    def look_back(self, answers: Description, cells: Tensor, objects: Tensor) -> Tensor:
        """How well answers lead back to their objects: (B,) float32 in [0, 1], the share of an answer's heat in the
        query's whole frame, as a softmax over all cells, that lies on the object. 0 where an answer shows nothing.

        cells: (B, h, w, WIDTH), the locator's, of query frames; objects: (B, h, w) bool, the cells of the object.
        """
        share = (self.locator.scale * self.locator.heat(answers, cells)).flatten(1).softmax(1)
        return (share * objects.flatten(1)).sum(1) * (answers.area[:, 0] > NOTHING)

    def score(self, logit: Tensor, heat: Tensor, back: Tensor) -> Tensor:
        """The look with the highest score is chosen: by the looks' existence logits, the heat at their places, and how
        well they lead back.
        """
        return self.locator.scale * heat + logit / 2 + BACK_WEIGHT * (back + 1e-3).log()

    def existence(self, logit: Tensor, highest: Tensor) -> Tensor:
        """Probability that the object is visible in a target, by the look's logit there and its highest heat."""
        return ((logit + self.locator.heat_logit(highest)) / 2).sigmoid()
