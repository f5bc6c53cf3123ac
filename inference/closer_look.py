"""Looks at small objects, enlarged, by a network that has learned from such views (train.py --closer_look): where to
look in images `zoom` times as large as the network's input, and what the answers make together.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from formats.geometry import crop_corner
from formats.results import THRESHOLD
from model.backbone import STRIDE


class CloserLook:
    """Query views are cropped around their objects, if these are small. A target is seen whole first, and where the
    answer is small a second time, cropped around it. `input_size`: pixels per side of what the network sees.
    """

    def __init__(self, input_size: int, zoom: int):
        self.input_size, self.zoom = input_size, zoom

    def queries(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (M, side, side) -> the part that the network sees of each (M, S, S), and the corners (M, 2) int64 of
        the crops, in pixels, on the device; negative where it sees all.
        """
        corners = self._corners(masks != 0)
        parts = [
            mask[:: self.zoom, :: self.zoom] if corner is None else self._crop(mask, corner)
            for mask, corner in zip(masks, corners, strict=True)
        ]
        whole = (-STRIDE, -STRIDE)
        return torch.stack(parts), torch.tensor([corner or whole for corner in corners], device=masks.device)

    def places(self, prob: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of a first look, (P, side, side) -> the pairs that get a second one, (N,) int64, and the
        corners of their crops, (N, 2) int64, in pixels, on the device.
        """
        corners = self._corners(prob > THRESHOLD)
        pairs = [p for p, corner in enumerate(corners) if corner is not None]
        kwargs = {"dtype": torch.int64, "device": prob.device}
        return torch.tensor(pairs, **kwargs), torch.tensor([corners[p] for p in pairs], **kwargs).view(-1, 2)

    def fill(self, prob: Tensor, pairs: Tensor, corners: Tensor, close: Tensor) -> None:
        """Replace the first look's answers by those of the second one, (N, S, S), in place."""
        for p, corner, of_pair in zip(pairs.tolist(), corners.tolist(), close, strict=True):
            prob[p] = 0
            self._crop(prob[p], corner).copy_(of_pair)

    def _corners(self, masks: Tensor) -> list[tuple[int, int] | None]:
        """Of the crop around each of some masks (N, side, side) bool."""
        rows, cols = torch.stack((masks.any(2), masks.any(1))).cpu().numpy()  # the only wait for the device
        return [crop_corner(*lines, self.input_size, STRIDE) for lines in zip(rows, cols, strict=True)]

    def _crop(self, image: Tensor, corner: tuple[int, int]) -> Tensor:
        """(side, side) -> a view of the crop, (S, S)."""
        return image[tuple(slice(first, first + self.input_size) for first in corner)]


def resize_prob(prob: Tensor, side: int) -> Tensor:
    """(P, S, S) -> (P, side, side), bilinear."""
    if prob.shape[-1] == side:
        return prob
    return F.interpolate(prob[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
