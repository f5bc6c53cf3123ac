"""The paper's views: whole frames, letterboxed to the network's input."""

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formats.geometry import letterbox, letterbox_axes
from formats.masks import RLE, letterbox_mask
from formats.pairs import PairSet
from formats.results import THRESHOLD
from model.backbone import STRIDE
from model.features import Encoder
from model.xsegtx import XSegTx
from train.dataset import Batch, Draw, ViewKey, collate, read_view, source_of
from train.distributed import Ranks
from train.feature_cache import FeatureCache
from train.losses import Counts, Losses, LossWeights, compute_losses
from train.scores import Scored, draw_example, mask_iou, scored


@dataclass
class LetterboxedBatch(Batch):
    """B samples, S pixels a side."""

    query_image: Tensor  # (B, S, S, 3) uint8 RGB
    target_image: Tensor  # likewise
    query_mask: Tensor  # (B, S, S) uint8 of 0 and 1
    target_mask: Tensor  # (B, S, S) uint8, zeros where the object is not visible
    block: Tensor | None  # (B,) bool, block the target tokens outside the object; None: in no sample
    frame_rows: Tensor  # (B, 2) int64, rows of the square that the target frame covers: the first, the end
    frame_cols: Tensor  # (B, 2) int64, columns, likewise


class LetterboxReader:
    """Images whose features are `cached` are left black."""

    def __init__(self, side: int, cached: Container[ViewKey] = ()):
        self.side, self.cached = side, cached

    def read(self, pairs: PairSet, draw: Draw, rng: np.random.Generator | None) -> dict[str, Any]:
        source, is_pair = source_of(pairs, draw), draw.query == draw.target
        query_rle, target_rle = pairs.query_mask(draw.query), pairs.target_mask(draw.target) if is_pair else None
        _, _, rows, cols = letterbox_axes(tuple((target_rle or query_rle)["size"]), self.side)
        return {
            "sources": source,
            "visible": target_rle is not None,
            "query_image": self.image(pairs, source.query),
            "target_image": self.image(pairs, source.target),
            "query_mask": self.mask(query_rle),
            "target_mask": self.mask(target_rle),
            "block": draw.block,
            "frame_rows": [rows.start, rows.stop],
            "frame_cols": [cols.start, cols.stop],
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
        batch = collate(LetterboxedBatch, samples)
        return batch if batch.block.any() else replace(batch, block=None)  # attention without a mask has faster kernels


class LetterboxStep:
    """What the network makes of a batch, on one device."""

    def __init__(self, encoder: Encoder, cache: FeatureCache, weights: LossWeights):
        self.encoder, self.cache, self.weights = encoder, cache, weights

    def losses(self, model: XSegTx, autocast: torch.autocast, batch: LetterboxedBatch, ranks: Ranks) -> Losses:
        features = self.encode(batch)
        with autocast:
            prediction = model(*features, target_blocked=blocked_tokens(batch))
        counts = Counts(len(batch) * ranks.size, ranks.sum(batch.visible.sum()))
        masks = batch.query_mask, batch.target_mask, batch.visible
        return compute_losses(prediction, *masks, self.weights, counts)

    def score(self, network: XSegTx, autocast: torch.autocast, batch: LetterboxedBatch) -> Scored:
        """Without any knowledge of the target mask. Predictions in the padding do not count: the results file has them
        cropped.
        """
        features = self.encode(batch)
        with autocast:
            prediction = network(*features)
        cells = torch.arange(batch.target_mask.shape[-1], device=batch.target_mask.device)
        rows, cols = (  # (B, S) bool
            (cells >= span[:, :1]) & (cells < span[:, 1:]) for span in (batch.frame_rows, batch.frame_cols)
        )
        found = prediction.target_mask_prob > THRESHOLD
        inside, truth = found & rows[:, :, None] & cols[:, None, :], batch.target_mask.bool()
        iou = mask_iou((inside & truth).sum((1, 2)), (inside | truth).sum((1, 2)))
        return scored(iou, prediction.existence, batch.visible, found)

    def draw(self, pairs: PairSet, batch: LetterboxedBatch, found: Tensor, row: int) -> np.ndarray:
        """A sample and the mask that was found, (S, 3 S, 3) uint8 RGB."""
        reader = LetterboxReader(batch.query_mask.shape[-1])  # no image is black
        query, target = (reader.image(pairs, view) for view in batch.sources[row][1:])
        masks = (x[row].cpu().numpy() for x in (batch.query_mask, found, batch.target_mask))
        return draw_example(query, target, *masks)

    def encode(self, batch: LetterboxedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Features of query images, target images and query masks."""
        images = torch.cat((batch.query_image, batch.target_image))
        keys = [source.query for source in batch.sources] + [source.target for source in batch.sources]
        [features] = self.cache(keys, images, lambda some: [self.encoder.images(some)])
        mask_keys = [source.query_mask for source in batch.sources]
        [mask_feat] = self.cache(mask_keys, batch.query_mask, lambda some: [self.encoder.masks(some)])
        return *features.chunk(2), mask_feat


def blocked_tokens(batch: LetterboxedBatch) -> Tensor | None:
    """(B, L) bool: tokens outside the target mask, seen at one pixel a token, of the samples that ask for it. None
    if none does. Where no token is left, as in negatives, the model blocks nothing.
    """
    if batch.block is None:
        return None
    outside = batch.target_mask[:, ::STRIDE, ::STRIDE] == 0
    return outside.flatten(1) & batch.block[:, None]
