"""Backbone features of a batch: one pass over all its images, or from a cache, since the backbone never changes."""

import torch
from torch import Tensor

from model.backbone import Backbone, fold_batch_norm, mask_to_image, normalize_image
from model.mask_features import MaskFeatures
from train.batches import Batch
from train.dataset import ImageKey


class FeatureCache:
    """Features by image, float16 on the CPU, until `capacity` bytes are used; then it keeps what it has.

    Samples are drawn at random, so whichever images stay are as good as any others.
    """

    def __init__(self, capacity: int):
        self.capacity, self.used = capacity, 0
        self._features: dict[ImageKey, Tensor] = {}

    def __contains__(self, key: ImageKey) -> bool:
        return key in self._features

    def __getitem__(self, key: ImageKey) -> Tensor:
        return self._features[key]

    def __len__(self) -> int:
        return len(self._features)

    def add(self, key: ImageKey, feature: Tensor) -> None:
        size = 2 * feature.numel()
        if key not in self and self.used + size <= self.capacity:
            self._features[key] = feature.to("cpu", torch.float16, copy=True)
            self.used += size


class FeatureExtractor:
    """Runs the frozen backbone. With a cache, images that it knows are not even looked at."""

    def __init__(self, backbone: Backbone, device: torch.device, amp: torch.dtype | None = None, cache_bytes: int = 0):
        self.backbone = fold_batch_norm(backbone).to(device)
        self.mask_features = MaskFeatures(self.backbone) if device.type == "cpu" else None
        self.device, self.amp = device, amp
        self.cache = FeatureCache(cache_bytes) if cache_bytes else None

    def known(self, key: ImageKey) -> bool:
        return self.cache is not None and key in self.cache

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """A batch on `device` -> features of query image, target image, query mask: each (B, 1024, h, w) float32."""
        images = torch.cat((batch.query_image, batch.target_image))
        features = self._run(images, batch.query_mask) if self.cache is None else self._cached(batch, images)
        return features.chunk(3)

    def _run(self, images: Tensor, masks: Tensor) -> Tensor:
        """(N, S, S, 3) uint8 images and (M, S, S) masks -> (N + M, 1024, h, w)."""
        with torch.autocast(self.device.type, self.amp, enabled=self.amp is not None):
            if self.mask_features is None or not len(masks):
                return self.backbone(torch.cat((normalize_image(images), mask_to_image(masks))))
            features = self.mask_features(masks)
            return torch.cat((self.backbone(normalize_image(images)), features)) if len(images) else features

    def _cached(self, batch: Batch, images: Tensor) -> Tensor:
        keys = [key for keys in zip(*(source.image_keys for source in batch.sources), strict=True) for key in keys]
        first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self.cache}  # each image once
        first = dict(sorted(first.items(), key=lambda item: item[1]))  # images before masks
        new = {}
        if first:
            numbers = list(first.values())
            image_numbers = [i for i in numbers if i < len(images)]
            mask_numbers = [i - len(images) for i in numbers if i >= len(images)]
            features = self._run(images[image_numbers], batch.query_mask[mask_numbers])
            new = dict(zip(first, features.movedim(1, -1).half(), strict=True))  # (h, w, 1024): channels last
            for key, feature in new.items():
                self.cache.add(key, feature)
        rows = [new[key] if key in new else self.cache[key].to(self.device, non_blocking=True) for key in keys]
        return torch.stack(rows).movedim(-1, 1).float()  # float16 either way, so the first visit is like the others
