"""A second look at small objects, enlarged, by a network that has learned from such views (train.py --closer_look)."""

import torch
from torch import Tensor

from formats.geometry import ZOOM, Corner, crop_corner
from formats.results import THRESHOLD
from inference.matcher import Matcher, PairBatch, resize_prob
from model.features import Encoder


class CloserLook:
    """Used like the `Matcher` that it wraps, on images `ZOOM` times as large. The matcher sees each pair whole, and
    where its answer is small a second time, both views cropped around the object at full size.
    """

    def __init__(self, matcher: Matcher):
        self.matcher, self.device, self.side = matcher, matcher.device, ZOOM * matcher.side

    @property
    def batch_size(self) -> int:
        return self.matcher.batch_size

    @property
    def encoder(self) -> Encoder:
        return self.matcher.encoder

    @torch.inference_mode()
    def predict(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """As `Matcher.predict`; masks are those of the second look if there is one, existence is the first one's."""
        # The pixels go to the device once, and all that follows happens there; which belong together stays on the CPU.
        images, masks = (pixels.to(self.device, non_blocking=True) for pixels in batch[:2])
        mask_image, pair_mask, pair_target = (tensor.tolist() for tensor in batch[2:])
        whole = batch._replace(images=images[:, ::ZOOM, ::ZOOM], masks=masks[:, ::ZOOM, ::ZOOM])
        prob, existence = self.matcher.predict(whole)
        prob = resize_prob(prob, self.side)
        corners = self._corners(torch.cat((prob > THRESHOLD, masks != 0)))
        corners, query_corners = corners[: len(prob)], corners[len(prob) :]
        pairs = [p for p, corner in enumerate(corners) if corner is not None]
        for part in (pairs[i : i + self.batch_size] for i in range(0, len(pairs), self.batch_size)):
            given = sorted({pair_mask[p] for p in part})
            queries = [self._crop(images[mask_image[m]], query_corners[m]) for m in given]
            targets = [self._crop(images[pair_target[p]], corners[p]) for p in part]
            crops = PairBatch(
                torch.stack(queries + targets),
                torch.stack([self._crop(masks[m], query_corners[m]) for m in given]),
                mask_image=torch.arange(len(given)),
                pair_mask=torch.tensor([given.index(pair_mask[p]) for p in part]),
                pair_target=torch.arange(len(given), len(given) + len(part)),
            )
            close, _ = self.matcher.predict(crops)
            for p, of_pair in zip(part, close, strict=True):
                prob[p] = 0
                self._crop(prob[p], corners[p]).copy_(of_pair)
        return prob, existence

    def _corners(self, masks: Tensor) -> list[Corner | None]:
        """Of the crop around each of some masks (N, side, side) bool."""
        rows, cols = torch.stack((masks.any(2), masks.any(1))).cpu().numpy()  # the only wait for the device
        return [crop_corner(*lines, self.matcher.side) for lines in zip(rows, cols, strict=True)]

    def _crop(self, image: Tensor, corner: Corner | None) -> Tensor:
        """(side, side[, C]) -> a view of the crop, as large as the matcher's input; None: the whole image, reduced."""
        if corner is None:
            return image[::ZOOM, ::ZOOM]
        return image[tuple(slice(first, first + self.matcher.side) for first in corner)]
