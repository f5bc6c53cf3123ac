"""Backbone features of a batch: one pass over all its images, or from a cache, since the backbone never changes."""

import torch
from torch import Tensor

from model.backbone import Backbone, fold_batch_norm, mask_to_image
from model.mask_features import MaskFeatures
from train.batches import Batch
from train.dataset import ImageKey

AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # precisions by name; None is float32


class FeatureExtractor:
    """Runs the frozen backbone, in the precision `amp` (None = float32).

    `cache` keeps features by image, float16 on the CPU, until `cache_bytes` are used, and these images are not looked
    at again. Samples are drawn at random, so whichever images come first are as good as any others.
    """

    def __init__(self, backbone: Backbone, device: torch.device, amp: torch.dtype | None = None, cache_bytes: int = 0):
        self.backbone = fold_batch_norm(backbone).to(device)
        self.mask_features = MaskFeatures(self.backbone) if device.type == "cpu" else None
        self.device, self.amp = device, amp
        self.cache: dict[ImageKey, Tensor] = {}
        self.cache_bytes = self._bytes_left = cache_bytes

    def autocast(self) -> torch.autocast:
        """The precision of all forward passes, for a `with`; weights and losses are float32."""
        return torch.autocast(self.device.type, self.amp, enabled=self.amp is not None)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """A batch on `device` -> features of query image, target image, query mask: each (B, C, h, w) float32."""
        images = torch.cat((batch.query_image, batch.target_image))
        features = self._cached(batch, images) if self.cache_bytes else self._run(images, batch.query_mask)
        return features.chunk(3)

    def _run(self, images: Tensor, masks: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 images and (M, S, S) masks -> (N + M, C, h, w)."""
        with self.autocast():
            if self.mask_features is None or not len(masks):
                return self.backbone(torch.cat((self.backbone.normalize(images), mask_to_image(masks))))
            features = self.mask_features(masks)
            return torch.cat((self.backbone(self.backbone.normalize(images)), features)) if len(images) else features

    def _cached(self, batch: Batch, images: Tensor) -> Tensor:
        query, target, mask = zip(*(source.image_keys for source in batch.sources), strict=True)
        keys = query + target + mask  # of the rows of `images` and then of the masks
        new = {}  # key: row, each image once
        for row, key in enumerate(keys):
            if key not in self.cache:
                new.setdefault(key, row)
        if new:
            image_rows = [row for row in new.values() if row < len(images)]
            mask_rows = [row - len(images) for row in new.values() if row >= len(images)]
            features = self._run(images[image_rows], batch.query_mask[mask_rows])
            new = dict(zip(new, features.movedim(1, -1).half(), strict=True))  # (h, w, C): channels last
            for key, feature in new.items():
                if feature.nbytes <= self._bytes_left:
                    self.cache[key] = feature.to("cpu", copy=True)
                    self._bytes_left -= feature.nbytes
        rows = [new[key] if key in new else self.cache[key].to(self.device, non_blocking=True) for key in keys]
        return torch.stack(rows).movedim(-1, 1).float()  # float16 either way, so the first visit is like the others
