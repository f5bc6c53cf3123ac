"""Images whose objects are known by their color, and recipes that find objects by color."""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from formats.crop import Crop
from model.backbone import Backbone, Levels
from model.xsegtx import Look
from recipes.base import Answer
from recipes.paper import Paper
from recipes.scene import Scene
from recipes.search.locator import Description
from recipes.strong.network import LearnedLocator, StrongConfig, StrongNetwork, StrongObjects
from recipes.strong.recipe import Strong

OBJECT, OTHER, BACKGROUND = (200, 40, 90), (30, 220, 160), (90, 90, 90)


class KnownAnswer(Paper):
    """Finds exactly the target pixels that have the color of the marked query pixels."""

    def __init__(self, side: int):
        self.side, self.options = side, {}

    def prepare(self, scene: Scene) -> Scene:
        return scene.prepared(self.side)

    def predict(self, scene: Scene) -> list[Answer]:
        answers = []
        for number, shown in zip(scene.object, scene.target, strict=True):
            query, target = (scene.pictures[picture].astype(np.float32) for picture in (scene.view[number], shown))
            assert query.shape == target.shape == (self.side, self.side, 3)
            marked = query[scene.masks[number] != 0]
            color = np.median(marked, axis=0)
            assert (np.abs(marked - color).max(-1) < 60).mean() > 0.98  # the mask lies on the object
            prob = (np.abs(target - color).max(-1) < 60).astype(np.float32)
            answers.append(Answer(prob, float(prob.max()), Crop.whole(scene.sizes[shown])))
        return answers


class Colors(nn.Module):
    """Replaces the layers of a backbone: its features are the colors."""

    def __init__(self):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return F.avg_pool2d(images, 16)

    def levels(self, images: Tensor) -> Levels:
        return Levels(self(images), early=images)


class KnownPlace(LearnedLocator):
    """A locator whose similarity map has its maximum in the middle of the area with the object's color."""

    def cells(self, levels: Levels) -> Tensor:
        return F.adaptive_avg_pool2d(levels.early, [2 * x for x in levels.feat.shape[2:]]).movedim(1, 3)

    def unlike(self, description: Description, cells: Tensor) -> Tensor:
        return (cells - (description.total / description.area)[:, None, None]).abs().amax(3)

    def heat(self, description: Description, cells: Tensor) -> Tensor:
        share = (-30 * self.unlike(description, cells)).flatten(1).softmax(1).unflatten(1, cells.shape[1:3])
        axes = (torch.arange(length) for length in cells.shape[1:3])
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), 2)
        middle = (grid * share[..., None]).sum((1, 2))
        return -(grid - middle[:, None, None]).square().sum(3) / 1e3


class NearestColor(KnownPlace):
    """A locator whose similarity map is higher the closer the color around a cell is to the object's color."""

    def heat(self, description: Description, cells: Tensor) -> Tensor:
        return -F.avg_pool2d(self.unlike(description, cells)[:, None], 5, 1, 2, count_include_pad=False)[:, 0]


class KnownLook(StrongNetwork):
    """A network whose looks find exactly the pixels of their crop that have about the color of the query's object. The
    existence is lower if these pixels touch the border of the crop.
    """

    def __init__(self, config: StrongConfig, locator: type[KnownPlace]):
        super().__init__(config)
        self.locator = locator(config.feature_channels, config.early_channels)

    def encode(self, levels: Levels, masks: Tensor, mask_feat: Tensor) -> StrongObjects:
        weight = masks[:, None].float()
        color = (levels.early * weight).sum((2, 3)) / weight.sum((2, 3))
        return replace(super().encode(levels, masks, mask_feat), tokens=color[:, None])

    def look(self, query: StrongObjects, target: Levels) -> tuple[Look, Tensor]:
        prob = ((target.early - query.tokens[:, 0, :, None, None]).abs().amax(1) < 0.7).float()
        at_edge = prob.sum((1, 2)) > prob[:, 1:-1, 1:-1].sum((1, 2))
        return Look(prob, 60 * prob.amax((1, 2)) - 30 - 10 * at_edge.float()), self.locator.cells(target)


def color_recipe(locator: type[KnownPlace] = KnownPlace, **options: int) -> Strong:
    """The strong recipe with this network, with crops of 192 pixels and frames of 768 pixels."""
    torch.manual_seed(0)
    network = KnownLook(StrongConfig(mode="tiny", input_size=192, feature_channels=3, early_channels=3), locator)
    backbone = Backbone("colors", Colors(), channels=3, early_channels=3)
    return Strong(network, backbone, torch.device("cpu"), **options)


def scene(size: tuple[int, int], box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """An image with an object in `box` (top, bottom, left, right as fractions of the image) and another object in the
    lower right corner; and the mask of the first object.
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
    """The first row, last row, first column and last column of a mask."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([rows[0], rows[-1], cols[0], cols[-1]])
