"""The strong network: both views are crops in which the object has about the same size; a locator says where to crop.

A look is the answer for a query crop and a target crop. The tokens of the crops pass the paper's layers; besides them,
the network reads two maps of the target crop from the locator, the similarity map and the propagated mask, and its mask
decoder reads a finer layer of the backbone. `Strong.search` in recipe.py calls it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.features import Levels, coverage_of
from model.rows import Rows
from model.transformer import InnerLayer
from model.xsegtx import Look, MaskDecoder, Parts, as_grid, probabilities
from recipes.strong.choice import Choice
from recipes.strong.config import StrongConfig
from recipes.locator import APART, NOTHING, Description, Locator, detail_of

MAPS = 2  # maps of a target crop from the locator
BLOCKS = 2  # residual blocks of the mask decoder


@dataclass
class ObjectCrops(Rows):
    """The encoded query crops of B objects."""

    tokens: Tensor  # (B, L, C)
    mask: Tensor  # (B, L, C) tokens
    cells: Tensor  # (B, 2h, 2w, WIDTH) cells of the locator
    coverage: Tensor  # (B, 2h, 2w): the part of each cell that the object covers
    description: Description


@dataclass
class TargetCrops(Rows):
    """B encoded target crops."""

    tokens: Tensor  # (B, L, C)
    cells: Tensor  # (B, 2h, 2w, WIDTH) cells of the locator
    detail: Tensor  # (B, D, 2h, 2w)


class DetailDecoder(MaskDecoder):
    """A mask decoder that also reads finer features, which enter after the first of its two transposed convolutions.
    Residual blocks on this finer grid follow.
    """

    def __init__(self, width: int, channels: int):
        super().__init__(width)
        self.detail = nn.Conv2d(channels, width // 2, kernel_size=3, padding=1)
        self.mix = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(residual_block(width // 2) for _ in range(BLOCKS))

    def forward(self, features: Tensor, detail: Tensor) -> Tensor:  # pyrefly: ignore
        x = F.relu(self.deconv1(features) + self.detail(detail))
        x = x + F.relu(self.mix(x))
        for block in self.blocks:
            x = x + block(x)
        return self.enlarge(x)


def residual_block(channels: int) -> nn.Sequential:
    """Two convolutions; the second one starts at 0, so that the block changes nothing before it is trained."""
    first, second = (nn.Conv2d(channels, channels, kernel_size=3, padding=1) for _ in range(2))
    nn.init.zeros_(second.weight)
    nn.init.zeros_(second.bias)  # pyrefly: ignore
    return nn.Sequential(first, nn.ReLU(), second)


class StrongNetwork(nn.Module):
    def __init__(self, config: StrongConfig):
        super().__init__()
        self.config, width, channels = config, config.width, config.detail_channels
        self.net = Parts(config, lambda width: DetailDecoder(width, channels + MAPS))
        self.locator = Locator(config.feature_channels, channels)
        self.query_mark = nn.Parameter(0.1 * torch.randn(width))
        self.target_mark = nn.Parameter(0.1 * torch.randn(4 * MAPS, width))
        # slope * (highest similarity in a look - threshold) is added to the look's existence logit.
        self.slope, self.threshold = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(1.2))
        self.choice = Choice()
        blocks = self.net.encoder_blocks
        for layer in blocks.layers[blocks.last_cross :]:  # only the query's tokens pass these, and none reads them
            if isinstance(layer, InnerLayer):
                layer.cross_encoder_layer.requires_grad_(False)

    def describe(self, wide: Levels, masks: Tensor) -> Description:
        """Describe objects for the locator, from wide query crops (B, ...) and the masks in them (B, N, N)."""
        cells = self.locator.cells(wide)
        return self.locator.describe(cells, coverage_of(masks, cells.shape[1:3]))

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Tensor) -> ObjectCrops:
        """Encode B objects, from query crops (B, ...), the masks in them (B, S, S) of 0 and 1, and mask features."""
        project, side = self.net.feat_proj, self.config.cells
        marks = coverage_of(masks, (side, side)).flatten(1)[..., None] * self.query_mark  # (B, L, C)
        tokens, mask = project.image(levels.feat) + marks, project(mask_feat)
        tokens = self.net.encoder_blocks.encode_query(tokens, mask)
        cells = self.locator.cells(levels)
        coverage = coverage_of(masks, cells.shape[1:3])
        return ObjectCrops(tokens, mask, cells, coverage, self.locator.describe(cells, coverage))

    def encode_target(self, levels: Levels) -> TargetCrops:
        """Encode B target crops (B, ...) for `look`."""
        tokens = self.net.encoder_blocks.encode_target(self.net.feat_proj.image(levels.feat))
        return TargetCrops(tokens, self.locator.cells(levels), detail_of(levels))

    def look(self, query: ObjectCrops, target: TargetCrops) -> Look:
        """Look for B objects, each in one target crop."""
        heat = self.locator.heat(query.description, target.cells)
        propagated = self.locator.propagate(query.cells, query.coverage, target.cells)
        maps = torch.stack((heat, propagated), 1)  # (B, MAPS, 2h, 2w)
        tokens = target.tokens + F.pixel_unshuffle(maps, 2).flatten(2).mT @ self.target_mark
        grid = as_grid(self.net.encoder_blocks.attend_target(query.tokens, tokens, query.mask))
        logit = self.net.cls_branch(grid).float() + self.slope * (heat.amax((1, 2)) - self.threshold)
        return Look(probabilities(self.net.decoder(grid, torch.cat((target.detail, maps), 1))), logit)

    def describe_answers(self, cells: Tensor, mask_prob: Tensor) -> Description:
        """Describe for the locator what predicted masks (B, S, S) show, from the cells of their target crops."""
        return self.locator.describe(cells, coverage_of(mask_prob > 0.5, cells.shape[1:3]))

    def look_back(self, answers: Description, cells: Tensor, objects: Tensor) -> Tensor:
        """How well answers lead back to their objects: (B,) float32 in [0, 1]. The locator seeks the answer in the
        whole query frame; the softmax of this similarity map is summed over the object's cells. An empty answer gets 0.

        cells: (B, h, w, WIDTH), the locator's cells of query frames; objects: (B, h, w) bool, the cells of the object.
        """
        share = (self.locator.scale * self.locator.heat(answers, cells)).flatten(1).softmax(1)
        return (share * objects.flatten(1)).sum(1) * (answers.area[:, 0] > NOTHING)

    def at_home(self, objects: Description, cells: Tensor, on_objects: Tensor) -> Tensor:
        """The highest similarity of objects to the cells of their own frames, on them and away from them: (B, 2). It is
        -1 away from an object that fills its frame.

        cells: (B, h, w, WIDTH), the locator's cells of query frames; on_objects: (B, h, w) bool, the objects' cells.
        """
        heat = self.locator.heat(objects, cells)
        around = F.max_pool2d(on_objects[:, None].float(), 2 * APART + 1, 1, APART)[:, 0] > 0
        return torch.stack([heat.masked_fill(x, -1).amax((1, 2)) for x in (~on_objects, around)], 1)
