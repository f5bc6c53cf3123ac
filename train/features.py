"""Backbone features of a batch: one pass over all its images, or from a cache, since the backbone never changes."""

from itertools import zip_longest

import torch
from torch import Tensor

from model.backbone import Backbone, fine_features, fold_batch_norm, mask_to_image
from model.mask_features import MaskFeatures
from train.batches import Batch
from train.dataset import ImageKey

AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # precisions by name; None is float32


class FeatureExtractor:
    """Runs the frozen backbone, in the precision `amp` (None = float32). `fine`: also on images enlarged, for the
    similarity prior.

    `cache` keeps features by image, float16 on the CPU, until `cache_bytes` are used, and these images are not looked
    at again. Samples are drawn at random, so whichever images come first are as good as any others.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        amp: torch.dtype | None = None,
        cache_bytes: int = 0,
        fine: bool = False,
    ):
        self.backbone = fold_batch_norm(backbone).to(device)
        self.mask_features = MaskFeatures(self.backbone) if device.type == "cpu" else None
        self.device, self.amp, self.fine = device, amp, fine
        self.cache: dict[ImageKey, list[Tensor]] = {}  # an image's features, and the fine ones if there are any
        self.cache_bytes = self._bytes_left = cache_bytes

    def autocast(self) -> torch.autocast:
        """The precision of all forward passes, for a `with`; weights and losses are float32."""
        return torch.autocast(self.device.type, self.amp, enabled=self.amp is not None)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """A batch on `device` -> what `XSegTx.forward` takes, by argument, float32."""
        images = torch.cat((batch.query_image, batch.target_image))
        features, fine = self._cached(batch, images) if self.cache_bytes else self._run(images, batch.query_mask)
        inputs = dict(zip(("query_feat", "target_feat", "mask_feat"), features.chunk(3), strict=True))
        if self.fine:
            inputs["query_mask"] = batch.query_mask
            inputs["query_fine"], inputs["target_fine"] = fine.chunk(2)
        return inputs

    def _run(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, S, S, 3) uint8 images and (M, S, S) masks -> (N + M, C, h, w), and the images' fine features."""
        images = self.backbone.normalize(images)
        with self.autocast():
            fine = fine_features(self.backbone, images) if self.fine and len(images) else None
            if self.mask_features is None or not len(masks):
                return self.backbone(torch.cat((images, mask_to_image(masks)))), fine
            features = self.mask_features(masks)
            return torch.cat((self.backbone(images), features)) if len(images) else features, fine

    def _cached(self, batch: Batch, images: Tensor) -> tuple[Tensor, Tensor | None]:
        query, target, mask = zip(*(source.image_keys for source in batch.sources), strict=True)
        keys = query + target + mask  # of the rows of `images` and then of the masks
        new = {}  # key: row, each image once
        for row, key in enumerate(keys):
            if key not in self.cache:
                new.setdefault(key, row)
        if new:
            image_rows = [row for row in new.values() if row < len(images)]
            mask_rows = [row - len(images) for row in new.values() if row >= len(images)]
            found = self._run(images[image_rows], batch.query_mask[mask_rows])
            found = [features.movedim(1, -1).half() for features in found if features is not None]  # channels last
            entries = ([part for part in parts if part is not None] for parts in zip_longest(*found))
            new = dict(zip(new, entries, strict=True))
            for key, entry in new.items():
                size = sum(part.nbytes for part in entry)
                if size <= self._bytes_left:
                    self.cache[key] = [part.to("cpu", copy=True) for part in entry]
                    self._bytes_left -= size
        # float16 either way, so the first visit is like the others
        entries = [
            new[k] if k in new else [part.to(self.device, non_blocking=True) for part in self.cache[k]] for k in keys
        ]
        features, fine = [entry[0] for entry in entries], [entry[1] for entry in entries if len(entry) > 1]
        return _stack(features), _stack(fine) if fine else None


def _stack(features: list[Tensor]) -> Tensor:
    """N of (h, w, C), float16 -> (N, C, h, w) float32."""
    return torch.stack(features).movedim(-1, 1).float()
