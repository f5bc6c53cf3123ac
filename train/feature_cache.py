"""Backbone features of images and masks, from the encoder or from a cache, since the backbone never changes."""

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor


class FeatureCache:
    """Keeps features, float16 on the CPU, until `size` bytes are used; what is in it is not encoded again. Samples are
    drawn at random, so whichever come first are as good as any others.
    """

    def __init__(self, size: int = 0):
        self.entries: dict[Hashable, list[Tensor]] = {}  # features of a picture, (h, w, C) each
        self.size = self._bytes_left = size

    def __contains__(self, key: Hashable) -> bool:
        return key in self.entries

    def __call__(
        self, keys: Sequence[Hashable], pictures: Tensor, encode: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Features of images or masks of one size, (N, C, h, w) float32 each, which `encode(pictures)` gives for those
        that are not in the cache, each once. All go through float16, so the first visit is like the others; but
        nothing does if there is no cache.
        """
        if not self.size:
            return list(encode(pictures))
        stored = [key for key in dict.fromkeys(keys) if key in self.entries]
        rows: dict[Hashable, int] = {}  # of those that are not in the cache
        for row, key in enumerate(keys):
            if key not in self.entries:
                rows.setdefault(key, row)
        features: dict[Hashable, tuple[Tensor, ...]] = {}
        if stored:  # they travel to the device together
            parts = (torch.stack(part) for part in zip(*(self.entries[key] for key in stored), strict=True))
            parts = [part.to(pictures.device, non_blocking=True) for part in parts]
            features |= zip(stored, zip(*parts, strict=True), strict=True)
        if rows:
            parts = encode(torch.stack([pictures[row] for row in rows.values()]))
            compact = [part.movedim(1, -1).half() for part in parts]  # (N, h, w, C)
            features |= zip(rows, zip(*compact, strict=True), strict=True)
            for key, *entry in zip(rows, *(part.cpu() for part in compact), strict=True):
                size = sum(part.nbytes for part in entry)
                if size <= self._bytes_left:
                    self.entries[key] = [part.clone() for part in entry]
                    self._bytes_left -= size
        parts = zip(*(features[key] for key in keys), strict=True)
        return [torch.stack(part).movedim(-1, 1).float() for part in parts]
