"""The paper's recipe: whole frames, letterboxed to the network's input (arXiv 2311.18259)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.distributed import World
from common.option_fields import option
from formats.geometry import letterbox
from formats.masks import RLE, letterbox_mask
from formats.pairs import Pairs
from model.backbone import STRIDE
from model.device import autocast
from model.rows import rows_among
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.base import Answer, NetworkRecipe, letterboxed_answers
from recipes.losses import compute_losses
from recipes.samples import Batch, DrawnPairs
from recipes.scene import Scene
from recipes.training import RecipeTraining


@dataclass
class LetterboxedBatch(Batch):
    """B samples of S x S pixels."""

    query_image: Tensor  # (B, S, S, 3) uint8 RGB
    target_image: Tensor  # (B, S, S, 3) uint8 RGB
    query_mask: Tensor  # (B, S, S) uint8 of 0 and 1
    target_mask: Tensor  # (B, S, S) uint8 of 0 and 1; all 0 if the object is not visible
    block: Tensor | None  # (B,) bool, True if target tokens outside the object are blocked; None if none are


def read_letterboxed(
    pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator, side: int, block: float = 0
) -> dict[str, Any]:
    """One sample, with the fields of a `LetterboxedBatch`. In the share `block` of samples, the target tokens outside
    the object are to be blocked.
    """

    def mask(rle: RLE | None) -> np.ndarray:
        return np.zeros((side, side), np.uint8) if rle is None else letterbox_mask(rle, side)

    target_rle = pairs.target_mask(drawn.target) if drawn.query == drawn.target else None
    return {
        "visible": target_rle is not None,
        "query_image": letterbox(pairs.query_image(drawn.query), side),
        "target_image": letterbox(pairs.target_image(drawn.target), side),
        "query_mask": mask(pairs.query_mask(drawn.query)),
        "target_mask": mask(target_rle),
        "block": drawn.chance < block,
    }


def collate_letterboxed(samples: list[dict[str, Any]]) -> LetterboxedBatch:
    block = torch.tensor([sample["block"] for sample in samples])  # attention without a mask has faster kernels
    return LetterboxedBatch.of(samples, block=block if block.any() else None)


@dataclass(frozen=True)
class PaperOptions:
    block: float = option(0.5, "share of samples with blocked tokens around the object", limits=[0, 1])


class Paper(NetworkRecipe):
    Config, Network = XSegTxConfig, XSegTx
    network: XSegTx
    config: XSegTxConfig

    def prepare(self, scene: Scene) -> Scene:
        return scene.prepared(self.config.input_size)

    def predict(self, scene: Scene) -> list[Answer]:
        """Encode each image and each mask once, then predict the pairs. The CPU waits for a GPU only at the end."""
        targets = list(dict.fromkeys(scene.target))  # the pictures in which objects are sought
        of_pairs = self.to_device([scene.object, rows_among(scene.target, targets)])
        with self.computing():
            feat = self.in_batches(self.encoder.images, self.stacked(scene.pictures)).contiguous()
            mask_feat = self.in_batches(self.encoder.masks, self.stacked(scene.masks))
            with autocast(self.device, self.precision):
                query = self.in_batches(self.network.encode, feat[self.to_device(scene.view)], mask_feat)
                target = self.in_batches(self.network.encode_target, feat[self.to_device(targets)])
                look = self.in_batches(lambda q, t: self.network.look(query[q], target[t]), *of_pairs)
            return letterboxed_answers(scene, look)


class PaperTraining(RecipeTraining):
    Options = PaperOptions
    recipe: Paper

    def read(self, pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        return read_letterboxed(pairs, drawn, rng, self.recipe.config.input_size, self.options.block)

    def collate(self, samples: list[dict[str, Any]]) -> LetterboxedBatch:
        return collate_letterboxed(samples)

    def weights(self, existence: float) -> dict[str, float]:
        return {"mask": 1.0, "dice": 1.0, "existence": existence}

    def losses(self, batch: LetterboxedBatch, world: World) -> dict[str, Tensor]:
        query, target = self.recipe.encoder.images(torch.cat((batch.query_image, batch.target_image))).chunk(2)
        mask = self.recipe.encoder.masks(batch.query_mask)
        with autocast(self.recipe.device, self.recipe.precision):
            look = self.recipe.network(query, target, mask, target_blocked=blocked_tokens(batch))
        return compute_losses(look, batch.query_mask, batch.target_mask, batch.visible, world)


def blocked_tokens(batch: LetterboxedBatch) -> Tensor | None:
    """(B, L) bool: in samples with `block`, the tokens outside the target mask, which is read at one pixel for each
    token; None if no sample has `block`. If all tokens of a sample are blocked, as in negatives, the model blocks none.
    """
    if batch.block is None:
        return None
    outside = batch.target_mask[:, ::STRIDE, ::STRIDE] == 0
    return outside.flatten(1) & batch.block[:, None]
