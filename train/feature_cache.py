"""A batch's views as the network reads them, from the encoder or from a cache, since the backbone never changes."""

from collections import defaultdict

import torch
from torch import Tensor

from formats.pairs import PairSet
from model.backbone import FINE, STRIDE
from model.features import Encoder, View
from train.dataset import Batch, ImageKey


class BatchEncoder:
    """`BatchEncoder(encoder)(batch)` -> query view, target view, features of the query masks.

    `cache` keeps features by image, float16 on the CPU, until `cache_bytes` are used, and these images are not looked
    at again. Samples are drawn at random, so whichever images come first are as good as any others.
    """

    def __init__(self, encoder: Encoder, cache_bytes: int = 0):
        self.encoder = encoder
        self.cache: dict[ImageKey, list[Tensor]] = {}  # an image's features and fine features, a mask's features
        self.cache_bytes = self._bytes_left = cache_bytes

    def fitting(self, pairs: PairSet, side: int) -> float:
        """The share of the images and masks of `pairs`, each whole, that the cache has room for."""
        seen: dict[tuple, set[int]] = defaultdict(set)  # frames by take and camera, and by these and object
        for track, frames in pairs.views():
            for camera in (track.query_camera, track.target_camera):
                seen[track.take_uid, camera].update(frames.tolist())
            seen[track.take_uid, track.query_camera, track.object_name].update(frames.tolist())
        images = sum(len(frames) for key, frames in seen.items() if len(key) == 2)
        masks = sum(len(frames) for key, frames in seen.items() if len(key) == 3)
        cell_bytes = 2 * self.encoder.backbone.channels * (side // STRIDE) ** 2
        needed = cell_bytes * (images * (1 + FINE**2 * self.encoder.fine) + masks)
        return min(1.0, self.cache_bytes / max(needed, 1))

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[View, View, Tensor]:
        """A batch on the encoder's device."""
        images = torch.cat((batch.query_image, batch.target_image))
        if self.cache_bytes:
            (feat, fine), mask_feat = self._cached(batch, images)
        else:
            (feat, fine), mask_feat = self.encoder.images(images), self.encoder.masks(batch.query_mask)
        (query_feat, target_feat), (query_fine, target_fine) = feat.chunk(2), fine.chunk(2)
        return View(query_feat, query_fine, batch.query_mask), View(target_feat, target_fine), mask_feat

    def _cached(self, batch: Batch, images: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """As above; each image and mask that is not in the cache is encoded once."""
        sources = batch.sources
        image_keys = [source.query for source in sources] + [source.target for source in sources]
        mask_keys = [source.query_mask for source in sources]
        new: dict[ImageKey, list[Tensor]] = {}
        if rows := self._missing(image_keys):
            parts = self.encoder.images(images[list(rows.values())])
            new |= dict(zip(rows, zip(*map(_compact, parts), strict=True), strict=True))
        if rows := self._missing(mask_keys):
            features = self.encoder.masks(batch.query_mask[list(rows.values())])
            new |= dict(zip(rows, zip(_compact(features), strict=True), strict=True))
        for key, entry in new.items():
            size = sum(part.nbytes for part in entry)
            if size <= self._bytes_left:
                self.cache[key] = [part.to("cpu", copy=True) for part in entry]
                self._bytes_left -= size
        # float16 either way, so the first visit is like the others
        device = self.encoder.device
        found = {
            key: new[key] if key in new else [part.to(device, non_blocking=True) for part in self.cache[key]]
            for key in dict.fromkeys(image_keys + mask_keys)
        }
        feat, fine = zip(*(found[key] for key in image_keys), strict=True)
        return (_stack(feat), _stack(fine)), _stack([found[key][0] for key in mask_keys])

    def _missing(self, keys: list[ImageKey]) -> dict[ImageKey, int]:
        """The keys that are not in the cache, each with the first row that it stands for."""
        rows = {}
        for row, key in enumerate(keys):
            if key not in self.cache:
                rows.setdefault(key, row)
        return rows


def _compact(features: Tensor) -> Tensor:
    """(N, C, h, w) -> (N, h, w, C) float16."""
    return features.movedim(1, -1).half()


def _stack(features: list[Tensor]) -> Tensor:
    """N of (h, w, C) float16 -> (N, C, h, w) float32."""
    return torch.stack(features).movedim(-1, 1).float()
