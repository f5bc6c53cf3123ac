"""Images whose objects are known by their color, and a matcher that finds them."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference.crop_matcher import CropMatcher
from inference.matcher import Matcher, PairBatch
from model.backbone import Backbone
from model.features import Levels
from model.locator import Description, Locator
from model.strong import Look, Query, StrongConfig, StrongXSegTx

OBJECT, OTHER, BACKGROUND = (200, 40, 90), (30, 220, 160), (90, 90, 90)


class KnownAnswer(Matcher):
    """In the place of a `Matcher`: finds what has the color of the marked query pixels, everywhere and only there."""

    def __init__(self, side: int, batch_size: int = 8):
        self.device, self.side, self.batch_size, self.precision = torch.device("cpu"), side, batch_size, "fp32"

    def predict(self, batch: PairBatch) -> tuple[torch.Tensor, torch.Tensor]:
        images, masks, mask_image, pair_mask, pair_target = batch[:5]
        assert images.shape[1:3] == masks.shape[1:3] == (self.side, self.side)
        probs = []
        for mask, target in zip(pair_mask, pair_target, strict=True):
            marked = images[mask_image[mask]][masks[mask] != 0].float()
            color = marked.median(0).values
            assert (marked - color).abs().amax(-1).lt(60).float().mean() > 0.98  # the mask lies on the object
            probs.append((images[target] - color).abs().amax(-1).lt(60).float())
        return torch.stack(probs), torch.stack([prob.amax() for prob in probs])


class Colors(nn.Module):
    """In the place of a backbone's layers: the colors themselves."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 16)

    def levels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, self(images)


class KnownPlace(Locator):
    """The heat is highest in the middle of what has the object's color."""

    def cells(self, levels: Levels) -> Tensor:
        return F.adaptive_avg_pool2d(levels.detail, [2 * x for x in levels.feat.shape[2:]]).movedim(1, 3)

    def heat(self, description: Description, cells: Tensor) -> Tensor:
        color = (description.total / description.area)[:, None, None]
        share = (-30 * (cells - color).abs().amax(3)).flatten(1).softmax(1).view(cells.shape[:3])
        axes = (torch.arange(length) for length in cells.shape[1:3])
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), 2)
        middle = (grid * share[..., None]).sum((1, 2))
        return -(grid - middle[:, None, None]).square().sum(3) / 1e3


class KnownLook(StrongXSegTx):
    """Looks find what has the color of the query's object, everywhere in their crop and only there, and would rather
    see all of it.
    """

    def __init__(self, config: StrongConfig):
        super().__init__(config)
        self.locator = KnownPlace(config.feature_channels, config.detail_channels)

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Tensor) -> Query:
        weight = masks[:, None].float()
        color = (levels.detail * weight).sum((2, 3)) / weight.sum((2, 3))
        return super().encode(levels, masks, mask_feat)._replace(tokens=color[:, None])

    def look(self, query: Query, target: Levels, both: bool = False) -> Look:
        prob = ((target.detail - query.tokens[:, 0, :, None, None]).abs().amax(1) < 0.7).float()
        at_edge = prob.sum((1, 2)) > prob[:, 1:-1, 1:-1].sum((1, 2))
        return Look(prob, prob, 60 * prob.amax((1, 2)) - 30 - 10 * at_edge.float())


def color_matcher(**options: int) -> CropMatcher:
    """Of crops of 192 pixels and frames of 768."""
    torch.manual_seed(0)
    network = KnownLook(StrongConfig("tiny", 192, feature_channels=3, detail_channels=3))
    backbone = Backbone("colors", Colors(), channels=3, detail_channels=3)
    return CropMatcher(backbone, network, torch.device("cpu"), **options)


def scene(size: tuple[int, int], box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """An image with an object in `box` (top, bottom, left, right as fractions of it) and another one in the lower
    right corner; the object's mask.
    """
    height, width = size
    top, bottom, left, right = (
        round(x * length) for x, length in zip(box, (height, height, width, width), strict=True)
    )
    image, mask = np.full((*size, 3), BACKGROUND, np.uint8), np.zeros(size, np.uint8)
    image[height - height // 8 :, width - width // 8 :] = OTHER
    image[top:bottom, left:right], mask[top:bottom, left:right] = OBJECT, 1
    return image, mask


def edges(mask: np.ndarray) -> np.ndarray:
    """The first and last row and column of the object."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([rows[0], rows[-1], cols[0], cols[-1]])
