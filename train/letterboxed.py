"""Samples and steps of the paper's recipe: whole frames, letterboxed to the network's input."""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formats.geometry import letterbox
from formats.masks import RLE, letterbox_mask
from formats.pairs import PairSet
from model.backbone import STRIDE
from model.device import autocast
from train.dataset import Batch, DrawnPairs, ViewKey, common_fields, read_view, source_of, stacked_tensors
from train.engine import Step
from train.losses import Counts, compute_losses


@dataclass
class LetterboxedBatch(Batch):
    """B samples of S x S pixels."""

    query_image: Tensor  # (B, S, S, 3) uint8 RGB
    target_image: Tensor  # (B, S, S, 3) uint8 RGB
    query_mask: Tensor  # (B, S, S) uint8 of 0 and 1
    target_mask: Tensor  # (B, S, S) uint8 of 0 and 1; all 0 if the object is not visible
    block: Tensor | None  # (B,) bool, True if target tokens outside the object are blocked; None if none are


class LetterboxReader:
    """Reads samples of the paper's recipe. Images whose features are `cached` are left black."""

    def __init__(self, side: int, cached: Container[ViewKey] = ()):
        self.side, self.cached = side, cached

    def read(self, pairs: PairSet, drawn: DrawnPairs, rng: np.random.Generator | None = None) -> dict[str, Any]:
        source = source_of(pairs, drawn)
        target_rle = pairs.target_mask(drawn.target) if drawn.query == drawn.target else None
        return {
            "source": source,
            "visible": target_rle is not None,
            "query_image": self.image(pairs, source.query),
            "target_image": self.image(pairs, source.target),
            "query_mask": self.mask(pairs.query_mask(drawn.query)),
            "target_mask": self.mask(target_rle),
            "block": drawn.block,
        }

    def image(self, pairs: PairSet, key: ViewKey) -> np.ndarray:
        """(S, S, 3) uint8 RGB."""
        if key in self.cached:
            return np.zeros((self.side, self.side, 3), np.uint8)
        return letterbox(read_view(pairs, key), self.side)

    def mask(self, rle: RLE | None) -> np.ndarray:
        """(S, S) uint8 of 0 and 1; all 0 for None."""
        return np.zeros((self.side, self.side), np.uint8) if rle is None else letterbox_mask(rle, self.side)

    def collate(self, samples: list[dict]) -> LetterboxedBatch:
        tensors = stacked_tensors(samples, "query_image", "target_image", "query_mask", "target_mask", "block")
        if not tensors["block"].any():
            tensors["block"] = None  # attention without a mask has faster kernels
        return LetterboxedBatch(**common_fields(samples), **tensors)


class LetterboxStep(Step):
    def losses(self, batch: LetterboxedBatch) -> dict[str, Tensor]:
        features = self.encode(batch)
        with autocast(self.encoder.device, self.precision):
            look = self.network(*features, target_blocked=blocked_tokens(batch))
        counts = Counts(len(batch) * self.world.size, self.world.sum(batch.visible.sum()))
        return compute_losses(look, batch.query_mask, batch.target_mask, batch.visible, counts)

    def encode(self, batch: LetterboxedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Features of query images, target images and query masks."""
        images = torch.cat((batch.query_image, batch.target_image))
        keys = [source.query for source in batch.sources] + [source.target for source in batch.sources]
        [features] = self.cache(keys, images, lambda images: [self.encoder.images(images)])
        mask_keys = [source.query_mask for source in batch.sources]
        [mask_feat] = self.cache(mask_keys, batch.query_mask, lambda masks: [self.encoder.masks(masks)])
        return *features.chunk(2), mask_feat


def blocked_tokens(batch: LetterboxedBatch) -> Tensor | None:
    """(B, L) bool: in samples with `block`, the tokens outside the target mask, which is read at one pixel for each
    token; None if no sample has `block`. If all tokens of a sample are blocked, as in negatives, the model blocks none.
    """
    if batch.block is None:
        return None
    outside = batch.target_mask[:, ::STRIDE, ::STRIDE] == 0
    return outside.flatten(1) & batch.block[:, None]
