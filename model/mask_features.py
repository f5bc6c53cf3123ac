"""Backbone features of masks, computed only where they differ from the features of an empty mask.

A mask image is zero almost everywhere. Away from the object, its features equal the features of an empty mask, which
are computed once. Each residual block runs only on a window: the cells that the object has changed so far, grown by the
block's receptive field, plus a margin. The convolutions pad the window with zeros. At the image's border this padding
is right; elsewhere it makes only the margin wrong, and the margin is discarded. The result is exact up to rounding.

This module is for the published ResNet-50. Other backbones compute the whole mask image, because their cells see the
whole image, or because the backbone is fast anyway.
"""

from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import Backbone, mask_to_image

FULL_SHARE = 0.8  # a window of more than this fraction of the image is not cut out; the whole image is computed


class ChangedPart(NamedTuple):
    """The part of a layer's activations that differs from those of an empty mask.

    Windows are [[top, left], [bottom, right]] in the layer's cells, without bottom and right.
    """

    cells: Tensor  # (1, C, h, w)
    held: np.ndarray  # the window of these cells
    valid: np.ndarray  # the window in which they are right; around it, the layer is as for an empty mask

    def on(self, background: Tensor, window: np.ndarray) -> Tensor:
        """A window of the layer, whose activations for an empty mask are the background (1, C, H, W)."""
        changed = self.cells[index_of(self.valid, self.held[0])]
        if np.array_equal(self.valid, window):
            return changed
        whole = background[index_of(window, np.zeros(2, int))].clone()
        whole[index_of(self.valid, window[0])] = changed
        return whole


class MaskFeatures:
    """`MaskFeatures(backbone)(masks)` equals `backbone(mask_to_image(masks))`, but is faster if objects are small.

    For each size of image, this class keeps the activations of an empty mask: 100 MB for 480 x 480 in float32.
    """

    def __init__(self, backbone: Backbone):
        self.backbone = backbone
        children = list(backbone.network)
        # (module, stride, reach): an output cell depends on the input at its place, and at most `reach` cells away.
        self.blocks = [(nn.Sequential(*children[:4]), 4, 2)]
        self.blocks += [(module, module.stride, 1) for layer in children[4:] for module in layer]
        self._empty: dict[tuple[int, int], list[Tensor]] = {}

    @torch.no_grad()
    def __call__(self, masks: Tensor) -> Tensor:
        """masks (B, H, W) of 0 and 1, any dtype, H and W multiples of 16 -> (B, C, H/16, W/16) float32."""
        return torch.cat([self._features(mask) for mask in masks])

    def _features(self, mask: Tensor) -> Tensor:
        """One mask (H, W) -> (1, 1024, H/16, W/16). In a batch, large objects would slow down small ones."""
        empty, full = self._empty_activations((mask.shape[0], mask.shape[1])), np.array([(0, 0), mask.shape])
        left, top, width, height = cv2.boundingRect((mask != 0).byte().numpy())
        box = np.array([(top, left), (top + height, left + width)])
        part = ChangedPart(mask_to_image(mask[None]).to(empty[0].dtype), full, box)
        for (module, stride, reach), background in zip(self.blocks, empty[:-1], strict=True):
            full = full // stride
            first, end = part.valid
            changed = grown(np.array([first // stride, -(-end // stride)]), reach, full)
            window = grown(changed, reach, full)
            if area(window) > FULL_SHARE * area(full):
                changed = window = full
            part = ChangedPart(module(part.on(background, window * stride)), window, changed)
        return part._replace(cells=F.normalize(part.cells.float(), dim=1)).on(empty[-1], full)

    def _empty_activations(self, size: tuple[int, int]) -> list[Tensor]:
        """For an empty mask, the input of each block, and the features: (1, C, h, w) each."""
        if size not in self._empty:
            weight = self.backbone.network[0].weight
            x = mask_to_image(torch.zeros((1, *size), device=weight.device)).to(weight.dtype)
            activations = []
            for module, _, _ in self.blocks:
                activations.append(x)
                x = module(x)
            self._empty[size] = [*activations, F.normalize(x.float(), dim=1)]
        return self._empty[size]


def grown(window: np.ndarray, cells: int, full: np.ndarray) -> np.ndarray:
    """A window that is so many cells longer in each direction, but not longer than the `full` one."""
    return np.clip(window + [[-cells], [cells]], 0, full[1])


def area(window: np.ndarray) -> int:
    return (window[1] - window[0]).prod()


def index_of(window: np.ndarray, first: np.ndarray) -> tuple:
    """The index of a window in a tensor (..., H, W) whose first cell is `first`."""
    (top, left), (bottom, right) = (window - first).tolist()
    return ..., slice(top, bottom), slice(left, right)
