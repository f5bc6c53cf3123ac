"""A complete recipe: its options, network, samples, losses and prediction. docs/extending.md says how to make it yours.

    cp examples/own_recipe.py mine.py
    bash train/run_ego.sh --recipe mine.py:OwnRecipe --out-dir runs/mine

The network multiplies the features of the target, cell by cell, by the mean feature of the object, and turns the
products into a mask. The object is visible if any cell shows it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from common.distributed import World
from common.option_fields import option
from formats.pairs import Pairs
from model.device import autocast
from model.features import coverage_of
from model.xsegtx import Look
from recipes.base import Answer, NetworkRecipe, letterboxed_answers
from recipes.losses import compute_losses
from recipes.paper import LetterboxedBatch, collate_letterboxed, read_letterboxed
from recipes.samples import DrawnPairs
from recipes.scene import Scene
from recipes.training import RecipeTraining


@dataclass(frozen=True)
class OwnConfig:
    """What defines the network. Checkpoints hold it, and each `option` is a flag of train.py."""

    width: int = option(64, "channels of the network", limits=[1])
    input_size: int = option(320, "side of the square input in pixels", limits=[48])
    feature_channels: int = 0  # of the backbone, which is known later


@dataclass(frozen=True)
class OwnOptions:
    """What only this training has, as `self.options`; train/options.py has what all trainings have."""

    flip: float = option(0.5, "share of samples that are mirrored", limits=[0, 1])


class OwnNetwork(nn.Module):
    def __init__(self, config: OwnConfig):
        super().__init__()
        self.config, width = config, config.width
        self.project = nn.Sequential(nn.Conv2d(config.feature_channels, width, kernel_size=1), nn.GroupNorm(1, width))
        self.decode = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, query: Tensor, target: Tensor, mask: Tensor) -> Look:
        """Features (B, F, h, w) of both views, query mask (B, S, S) -> masks (B, S, S) of both, logit of existence."""
        query, target = self.project(query), self.project(target)  # (B, C, h, w)
        cover = coverage_of(mask, query.shape[2:])[:, None]  # (B, 1, h, w), the part of each cell that is the object
        mean = (query * cover).sum((2, 3), keepdim=True) / cover.sum((2, 3), keepdim=True).clamp(min=1e-6)
        logits = [self.decode(view * mean).float() for view in (query, target)]  # (B, 1, h, w)
        query_prob, target_prob = (F.interpolate(x, mask.shape[1:], mode="bilinear")[:, 0].sigmoid() for x in logits)
        return Look(target_prob, logits[1].amax((1, 2, 3)), query_prob)


class OwnTraining(RecipeTraining):
    """How `self.recipe`, an `OwnRecipe`, is trained."""

    Options = OwnOptions

    @staticmethod
    def defaults(epochs: int) -> dict[str, Any]:
        """What this recipe takes in place of the defaults of train/options.py, in a run of so many epochs."""
        return {"backbone": "efficientnet_lite0", "lr": 1e-3, "lr_schedule": [], "lr_falls": epochs // 2}

    def read(self, pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        """A training sample, in a loader process. Both views are mirrored together, as in a mirrored world."""
        sample = read_letterboxed(pairs, drawn, rng, self.recipe.config.input_size)
        if rng.random() < self.options.flip:
            sample |= {name: value[:, ::-1] for name, value in sample.items() if isinstance(value, np.ndarray)}
        return sample

    def collate(self, samples: list[dict[str, Any]]) -> LetterboxedBatch:
        return collate_letterboxed(samples)

    def losses(self, batch: LetterboxedBatch, world: World) -> dict[str, Tensor]:
        recipe = self.recipe
        query, target = (recipe.encoder.images(images) for images in (batch.query_image, batch.target_image))
        with autocast(recipe.device, recipe.precision):  # of the products; the losses are computed in float32
            look = recipe.network(query, target, batch.query_mask)
        return compute_losses(look, batch.query_mask, batch.target_mask, batch.visible, world)

    def weights(self, existence: float) -> dict[str, float]:
        return {"mask": 1.0, "dice": 1.0, "existence": existence}


class OwnRecipe(NetworkRecipe):
    Config, Network, Training = OwnConfig, OwnNetwork, OwnTraining

    def prepare(self, scene: Scene) -> Scene:
        """The frame to predict, letterboxed to squares, in a loader process."""
        return scene.prepared(self.config.input_size)

    def predict(self, scene: Scene) -> list[Answer]:
        """The answers for a frame's pairs; each picture is encoded once."""
        query = [scene.view[number] for number in scene.object]  # for each pair, the number of its query picture
        with self.computing():
            feat = self.in_batches(self.encoder.images, self.stacked(scene.pictures))  # (pictures, F, h, w)
            masks = self.stacked(scene.masks)  # (objects, S, S)
            with autocast(self.device, self.precision):
                look = self.in_batches(self.network, feat[query], feat[scene.target], masks[scene.object])
            return letterboxed_answers(scene, look)
