"""A second look at small objects, enlarged, by a network that has learned from such views (train.py --closer_look)."""

import torch
from torch import Tensor

from formats.geometry import ZOOM, Corner, crop_corner
from formats.results import THRESHOLD
from inference.matcher import Matcher, PairBatch, resize_prob


class CloserLook:
    """Used like the `Matcher` that it wraps, on images `ZOOM` times as large. The matcher sees each pair whole, and
    where its answer is small a second time, both views cropped around the object at full size.
    """

    def __init__(self, matcher: Matcher):
        self.matcher, self.device, self.batch_size = matcher, matcher.device, matcher.batch_size
        self.side = ZOOM * matcher.side

    @torch.inference_mode()
    def predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """As `Matcher.predict`; masks are those of the second look if there is one, existence is the first one's."""
        whole = batch._replace(images=batch.images[:, ::ZOOM, ::ZOOM], masks=batch.masks[:, ::ZOOM, ::ZOOM])
        prob, existence = self.matcher.predict(whole)
        prob = resize_prob(prob, self.side)
        corners, query_corners = self._corners(prob > THRESHOLD), self._corners(batch.masks != 0)
        pairs = [p for p, corner in enumerate(corners) if corner is not None]
        for part in (pairs[i : i + self.batch_size] for i in range(0, len(pairs), self.batch_size)):
            close, _ = self.matcher.predict(self._crops(batch, part, corners, query_corners))
            for p, of_pair in zip(part, close, strict=True):
                prob[p] = 0
                self._crop(prob[p], corners[p]).copy_(of_pair)
        return prob, existence

    def _crops(
        self, batch: PairBatch, pairs: list[int], corners: list[Corner | None], query_corners: list[Corner | None]
    ) -> PairBatch:
        """The `pairs` of a batch, each target cropped at its corner, each query at its own or whole, shared as ever."""
        masks = sorted({int(batch.pair_mask[p]) for p in pairs})
        queries = [self._crop(batch.images[batch.mask_image[m]], query_corners[m]) for m in masks]
        targets = [self._crop(batch.images[batch.pair_target[p]], corners[p]) for p in pairs]
        return PairBatch(
            torch.stack(queries + targets),
            torch.stack([self._crop(batch.masks[m], query_corners[m]) for m in masks]),
            mask_image=torch.arange(len(masks)),
            pair_mask=torch.tensor([masks.index(int(batch.pair_mask[p])) for p in pairs]),
            pair_target=torch.arange(len(masks), len(masks) + len(pairs)),
        )

    def _corners(self, masks: Tensor) -> list[Corner | None]:
        """Of the crop around each of some masks (N, side, side) bool."""
        rows, cols = (masks.any(axis).cpu().numpy() for axis in (2, 1))
        return [crop_corner(*lines, self.matcher.side) for lines in zip(rows, cols, strict=True)]

    def _crop(self, image: Tensor, corner: Corner | None) -> Tensor:
        """(side, side[, C]) -> a view of the crop, as large as the matcher's input; None: the whole image, reduced."""
        if corner is None:
            return image[::ZOOM, ::ZOOM]
        return image[tuple(slice(first, first + self.matcher.side) for first in corner)]
