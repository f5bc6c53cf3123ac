"""A batch's views as the network reads them, from the encoder or from a cache, since the backbone never changes."""

from collections.abc import Iterable

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
        self.cache: dict[ImageKey, list[Tensor]] = {}  # of an image `Features`, of a mask its features
        self.cache_bytes = self._bytes_left = cache_bytes

    @torch.no_grad()
    def __call__(self, batch: Batch) -> tuple[View, View, Tensor]:
        """A batch on the encoder's device."""
        images = torch.cat((batch.query_image, batch.target_image))
        if self.cache_bytes:
            features, mask_feat = self._cached(batch, images)
        else:
            near = [source.query.near for source in batch.sources] + [source.target.near for source in batch.sources]
            features, mask_feat = self.encoder.images(images, near), self.encoder.masks(batch.query_mask)
        query, target = (Features(*part) for part in zip(*(x.chunk(2) for x in features if x is not None), strict=True))
        query_feat = seen(query.feat, query.fine, batch.query_corner)
        target_feat = seen(target.feat, target.fine, batch.target_corner)
        own = (batch.query_mask, None, batch.query_coverage, batch.query_corner, query.detail)
        query_view = View(query_feat, query.fine, *own)
        target_view = View(target_feat, target.fine, corner=batch.target_corner, detail=target.detail)
        return query_view, target_view, mask_feat

    def _cached(self, batch: Batch, images: Tensor) -> tuple[Features, Tensor]:
        """As above; each image and mask that is not in the cache is encoded once."""
        sources = batch.sources
        image_keys = [source.query.whole for source in sources] + [source.target.whole for source in sources]
        mask_keys = [source.query_mask for source in sources]
        new: dict[ImageKey, tuple[Tensor, ...]] = {}
        count = 2 + self.encoder.detail if self.encoder.zoom > 1 else 1  # tensors of an image: both may be the same
        if rows := self._missing(image_keys):
            missing = torch.stack([images[row] for row in rows.values()])
            parts = self.encoder.images(missing, [key.near for key in rows])
            new |= self._keep(rows, *parts[:count])
        if rows := self._missing(mask_keys):
            masks = torch.stack([batch.query_mask[row] for row in rows.values()])
            new |= self._keep(rows, self.encoder.masks(masks))
        # float16 either way, so the first visit is like the others
        features = [self._gather(image_keys, new, part) for part in range(count)]
        return Features(*(features if count > 1 else features * 2)), self._gather(mask_keys, new, 0)

    def _keep(self, keys: Iterable[ImageKey], *parts: Tensor) -> dict[ImageKey, tuple[Tensor, ...]]:
        """Parts of features, (N, C, h, w) each, in float16 by key; a copy goes to the cache if there is room."""
        compact = [part.movedim(1, -1).half() for part in parts]  # (N, h, w, C)
        copies = [part.cpu() for part in compact]
        for row, key in enumerate(keys):
            entry = [copy[row] for copy in copies]
            size = sum(part.nbytes for part in entry)
            if size <= self._bytes_left:
                self.cache[key] = [part.clone() for part in entry]
                self._bytes_left -= size
        return dict(zip(keys, zip(*compact, strict=True), strict=True))

    def _gather(self, keys: list[ImageKey], new: dict[ImageKey, tuple[Tensor, ...]], part: int) -> Tensor:
        """A part of the features of `keys`, (N, C, h, w) float32 on the device; old ones travel there together."""
        device = self.encoder.device
        found = {key: entry[part] for key, entry in new.items() if part < len(entry)}
        old = [key for key in dict.fromkeys(keys) if key not in found]
        features = [self.cache[key][part] for key in old]
        if old and device.type != "cpu":
            together = torch.stack(features)
            together = together.pin_memory() if device.type == "cuda" else together
            features = together.to(device, non_blocking=True)
        found |= zip(old, features, strict=True)
        return torch.stack([found[key] for key in keys]).movedim(-1, 1).float()

    def _missing(self, keys: list[ImageKey]) -> dict[ImageKey, int]:
        """The keys that are not in the cache, each with the first row that it stands for."""
        rows = {}
        for row, key in enumerate(keys):
            if key not in self.cache:
                rows.setdefault(key, row)
        return rows
