"""A batch's views as the network reads them, from the encoder or from a cache, since the backbone never changes."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from model.features import Encoder, Features, View, seen
from train.dataset import Batch, ImageKey


class BatchEncoder:
    """`BatchEncoder(encoder)(batch)` -> query view, target view, features of the query masks.

    `cache` keeps features by image, float16 on the CPU, until `cache_bytes` are used, and these images are not looked
    at again. Samples are drawn at random, so whichever images come first are as good as any others.
    """

    def __init__(self, encoder: Encoder, cache_bytes: int = 0):
        self.encoder = encoder
        self.cache: dict[ImageKey, list[Tensor]] = {}  # of an image or a mask: its features, (h, w, C) each
        self.cache_bytes = self._bytes_left = cache_bytes

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[View, View, Tensor]:
        """A batch on the encoder's device."""
        images = torch.cat((batch.query_image, batch.target_image))
        keys = [source.query.whole for source in batch.sources] + [source.target.whole for source in batch.sources]
        if self.cache_bytes:
            skipped = int(self.encoder.zoom == 1)  # the first two are the same then
            parts = self._cached(keys, images, lambda some, keys: self._encode(some, keys)[skipped:])
            features = [*parts[:skipped], *parts]
            mask_keys = [source.query_mask for source in batch.sources]
            [mask_feat] = self._cached(mask_keys, batch.query_mask, lambda some, _: [self.encoder.masks(some)])
        else:
            features, mask_feat = self._encode(images, keys), self.encoder.masks(batch.query_mask)
        query, target = (Features(*part) for part in zip(*(x.chunk(2) for x in features), strict=True))
        query_feat = seen(query.feat, query.fine, batch.query_corner)
        target_feat = seen(target.feat, target.fine, batch.target_corner)
        own = (batch.query_mask, None, batch.query_coverage, batch.query_corner, query.detail)
        query_view = View(query_feat, query.fine, *own)
        target_view = View(target_feat, target.fine, corner=batch.target_corner, detail=target.detail)
        return query_view, target_view, mask_feat

    def _encode(self, images: Tensor, keys: Iterable[ImageKey]) -> list[Tensor]:
        """`Features` of images, those that there are."""
        return [x for x in self.encoder.images(images, [key.near for key in keys]) if x is not None]

    def _cached(self, keys: list[ImageKey], pictures: Tensor, encode: Callable) -> list[Tensor]:
        """Features of images or masks, (N, C, h, w) float32 each, which `encode(pictures, keys)` gives for those that
        are not in the cache, each once. All go through float16, so the first visit is like the others.
        """
        old = [key for key in dict.fromkeys(keys) if key in self.cache]
        rows: dict[ImageKey, int] = {}
        for row, key in enumerate(keys):
            if key not in self.cache:
                rows.setdefault(key, row)
        found: dict[ImageKey, tuple[Tensor, ...]] = {}
        if old:  # they travel to the device together
            stored = (torch.stack(part) for part in zip(*(self.cache[key] for key in old), strict=True))
            there = [part.to(pictures.device, non_blocking=True) for part in stored]
            found |= zip(old, zip(*there, strict=True), strict=True)
        if rows:
            parts = encode(torch.stack([pictures[row] for row in rows.values()]), rows)
            compact = [part.movedim(1, -1).half() for part in parts]  # (N, h, w, C)
            found |= zip(rows, zip(*compact, strict=True), strict=True)
            self._keep(rows, [part.cpu() for part in compact])
        return [torch.stack(part).movedim(-1, 1).float() for part in zip(*(found[key] for key in keys), strict=True)]

    def _keep(self, keys: Iterable[ImageKey], parts: list[Tensor]) -> None:
        """Put features on the CPU, (N, h, w, C) each, into the cache as far as there is room."""
        for key, *entry in zip(keys, *parts, strict=True):
            size = sum(part.nbytes for part in entry)
            if size <= self._bytes_left:
                self.cache[key] = [part.clone() for part in entry]
                self._bytes_left -= size
