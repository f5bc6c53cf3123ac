"""A cache of backbone features of images and masks, which never change because the backbone is frozen."""

import sys
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor


class FeatureCache:
    """Keeps features, in float16 on the CPU, until `size` bytes are used; then no more features are added. Samples are
    drawn at random, so the first features are as useful as any others.
    """

    LATER = 1000  # pictures that are asked for once the cache is full, before `shortage` says how many were in it

    def __init__(self, size: int = 0):
        self.entries: dict[Hashable, list[Tensor]] = {}  # features of a picture, (h, w, C) each
        self.size = self._bytes_left = size
        self._asked = self._held = 0  # pictures since the cache is full
        self._is_full = False

    def __reduce__(self):  # a spawned loader process gets an empty cache, and reads the pictures
        return FeatureCache, ()

    def __contains__(self, key: Hashable) -> bool:
        return key in self.entries

    def shortage(self) -> str:
        """Once, a line if the cache is full and holds less than half of the pictures that are asked for."""
        if self._asked < self.LATER or 2 * self._held >= self._asked:
            return ""
        share, size = self._held / self._asked, self.size / 1e9
        self._asked = -sys.maxsize
        needed = f"about {size / max(share, 0.001):,.0f} GB in each process would hold all"
        return f"--cache_features {size:g} is full and holds {share:.0%} of the pictures that are drawn; {needed}"

    def __call__(
        self, keys: Sequence[Hashable], pictures: Tensor, encode: Callable[[Tensor], Sequence[Tensor]]
    ) -> list[Tensor]:
        """Features of N images or masks of the same size, (N, C, h, w) float32 each. `encode(pictures)` computes
        features that are not in the cache, once for each key. All features are rounded to float16, so that the first
        visit gives the same as later visits; if the cache has no size, nothing is rounded.
        """
        if not self.size:
            return list(encode(pictures))
        stored = [key for key in dict.fromkeys(keys) if key in self.entries]
        if self._is_full:
            self._asked, self._held = self._asked + len(set(keys)), self._held + len(stored)
        # A row for each picture that is not in the cache.
        rows = {key: row for row, key in enumerate(keys) if key not in self.entries}
        features: dict[Hashable, tuple[Tensor, ...]] = {}
        if stored:  # the stored features are copied to the device together
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
                else:
                    self._is_full = True
        parts = zip(*(features[key] for key in keys), strict=True)
        return [torch.stack(part).movedim(-1, 1).float() for part in parts]
