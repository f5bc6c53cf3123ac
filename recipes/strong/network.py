"""The strong network: both views are crops in which the object has about the same size; a locator says where to crop.

A look is the answer for a query crop and a target crop. The tokens of the crops pass the paper's layers; besides them,
the network reads two maps of the target crop from the locator, the similarity map and the propagated mask, and its mask
decoder reads a finer layer of the backbone. `Search.search` calls it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.option_fields import option
from model.backbone import Levels
from model.features import coverage_of
from model.transformer import InnerLayer
from model.xsegtx import Look, MaskDecoder, Parts, XSegTxConfig, as_grid, probabilities
from recipes.search.choice import Choice
from recipes.search.crops import SearchConfig
from recipes.search.locator import NOTHING, Description, Locator, ObjectCrops, early_of

WIDTH = 128  # dimensions of a cell's vector
MAPS = 2  # maps of a target crop from the locator
BLOCKS = 2  # residual blocks of the mask decoder


@dataclass(frozen=True)
class StrongConfig(XSegTxConfig, SearchConfig):
    frame_size: int = option(768, "long side of the whole images that the locator reads, pixels")
    early_channels: int = 0  # channels of the backbone's earlier layer

    def __post_init__(self):
        XSegTxConfig.__post_init__(self)
        SearchConfig.__post_init__(self)


@dataclass
class StrongObjects(ObjectCrops):
    tokens: Tensor  # (B, L, C)
    mask: Tensor  # (B, L, C) tokens


class LearnedLocator(Locator):
    """Projects both layers of the backbone to `WIDTH` dimensions. It is trained by cross-entropy over all cells of a
    target; the object's cells are the right ones.
    """

    def __init__(self, channels: int, early_channels: int):
        super().__init__()
        self.coarse = nn.Linear(channels, WIDTH, bias=False)
        self.fine = nn.Linear(early_channels, WIDTH, bias=False)
        for metric in (self.coarse, self.fine):
            nn.init.orthogonal_(metric.weight)
        self.part_weight = nn.Parameter(torch.tensor(1.0))
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def cells(self, levels: Levels) -> Tensor:
        """Features of N images -> cells (N, 2h, 2w, WIDTH) float32."""
        with torch.autocast(levels.feat.device.type, enabled=False):
            coarse = self.coarse(levels.feat.float().movedim(1, 3)).movedim(3, 1)
            early = early_of(levels)
            fine = self.fine(early.movedim(1, 3) / early.shape[1] ** 0.5)
            return F.interpolate(coarse, early.shape[2:], mode="bilinear", align_corners=False).movedim(1, 3) + fine


class DetailDecoder(MaskDecoder):
    """A mask decoder that also reads finer features, which enter after the first of its two transposed convolutions.
    Residual blocks on this finer grid follow.
    """

    def __init__(self, width: int, channels: int):
        super().__init__(width)
        self.detail = nn.Conv2d(channels, width // 2, kernel_size=3, padding=1)
        self.mix = nn.Conv2d(width // 2, width // 2, kernel_size=3, padding=1)
        self.blocks = nn.ModuleList(residual_block(width // 2) for _ in range(BLOCKS))

    def forward(self, features: Tensor, early: Tensor) -> Tensor:  # pyrefly: ignore
        x = F.relu(self.deconv1(features) + self.detail(early))
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
    """It takes the place of the `Matcher` in a search, and has its methods."""

    reads_masks = True  # `encode` also gets the backbone's features of the masks

    def __init__(self, config: StrongConfig):
        super().__init__()
        self.config = config
        width, channels = config.width, config.early_channels
        net = Parts(config, lambda width: DetailDecoder(width, channels + MAPS))
        self.locator = LearnedLocator(config.feature_channels, channels)
        self.net = net  # after the locator: Adam's moments in checkpoints have this order
        self.query_mark = nn.Parameter(0.1 * torch.randn(width))
        self.target_mark = nn.Parameter(0.1 * torch.randn(4 * MAPS, width))
        # slope * (highest similarity in a look - threshold) is added to the look's existence logit.
        self.slope, self.threshold = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(1.2))
        self.choice = Choice()
        blocks = self.net.encoder_blocks
        for layer in blocks.layers[blocks.last_cross :]:  # only the query's tokens pass these, and none reads them
            if isinstance(layer, InnerLayer):
                layer.cross_encoder_layer.requires_grad_(False)

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Tensor) -> StrongObjects:
        """Encode B objects, from query crops, the masks in them (B, S, S) and the masks' features (B, F, h, w)."""
        project, side = self.net.feat_proj, self.config.cells
        marks = coverage_of(masks, (side, side)).flatten(1)[..., None] * self.query_mark  # (B, L, C)
        tokens, mask = project.image(levels.feat) + marks, project(mask_feat)
        tokens = self.net.encoder_blocks.encode_query(tokens, mask)
        return StrongObjects(**vars(self.locator.object_crops(levels, masks)), tokens=tokens, mask=mask)

    def look(self, query: StrongObjects, target: Levels) -> tuple[Look, Tensor]:
        blocks, cells = self.net.encoder_blocks, self.locator.cells(target)  # (B, 2h, 2w, WIDTH)
        heat = self.locator.heat(query.description, cells)
        maps = torch.stack((heat, self.locator.propagate(query.cells, query.coverage, cells)), 1)  # (B, MAPS, 2h, 2w)
        tokens = blocks.encode_target(self.net.feat_proj.image(target.feat))
        tokens = tokens + F.pixel_unshuffle(maps, 2).flatten(2).mT @ self.target_mark
        grid = as_grid(blocks.attend_target(query.tokens, tokens, query.mask))
        logit = self.net.cls_branch(grid).float() + self.slope * (heat.amax((1, 2)) - self.threshold)
        return Look(probabilities(self.net.decoder(grid, torch.cat((early_of(target), maps), 1))), logit), cells

    def back(self, heat: Tensor, answers: Description, objects: Tensor) -> Tensor:
        """As the matcher's, but by the map as probabilities: the logarithm of the share on the object. An empty answer
        has none.
        """
        share = (self.locator.scale * heat).flatten(1).softmax(1)
        back = (share * objects.flatten(1)).sum(1) * (answers.area[:, 0] > NOTHING)
        return (back + 1e-3).log()
