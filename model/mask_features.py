"""Backbone features of masks, computed only where they differ from the features of an empty mask.

A mask image is zero almost everywhere. Away from the object, its features equal the features of an empty mask, which
are computed once. Each residual block runs only on a window: the cells that the object has changed so far, grown by the
block's receptive field, plus a margin. The convolutions pad the window with zeros. At the image's border this padding
is right; elsewhere it makes only the margin wrong, and the margin is discarded. The result is exact up to rounding.

This module is for the published ResNet-50. Other backbones compute the whole mask image, because their cells see the
whole image, or because the backbone is fast anyway.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import Backbone, mask_to_image

FULL_SHARE = 0.8  # a window of more than this fraction of the image is not cut out; the whole image is computed


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
        left, top, width, height = cv2.boundingRect((mask != 0).byte().numpy())
        # Windows are [[top, left], [bottom, right]] in cells, without bottom and right.
        box = valid = np.array([[top, left], [top + height, left + width]])  # the cells that differ from an empty mask
        empty = self._empty_activations((mask.shape[0], mask.shape[1]))
        x = mask_to_image(mask[None]).to(empty[0].dtype)
        full = held = np.array([(0, 0), mask.shape])  # x holds `held`, and is right in `valid`
        for (module, stride, reach), background in zip(self.blocks, empty[:-1], strict=True):
            full, (first, end) = full // stride, box
            box = np.clip([first // stride - reach, -(-end // stride) + reach], 0, full[1])
            window = np.clip([box[0] - reach, box[1] + reach], 0, full[1])
            if (window[1] - window[0]).prod() > FULL_SHARE * full[1].prod():
                window = box = full
            x = module(_on_background(background, x, held, window * stride, valid))
            held, valid = window, box
        return _on_background(empty[-1], F.normalize(x.float(), dim=1), held, full, valid)

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


def _on_background(background: Tensor, x: Tensor, held: np.ndarray, wanted: np.ndarray, valid: np.ndarray) -> Tensor:
    """The window `wanted` of the background (1, C, H, W), overwritten by the part `valid` of x, which holds `held`."""

    def index(window: np.ndarray, first: np.ndarray) -> tuple:
        """The index of a window in a tensor (..., H, W) whose first cell is `first`."""
        (top, left), (bottom, right) = (window - first).tolist()
        return ..., slice(top, bottom), slice(left, right)

    if np.array_equal(valid, wanted):
        return x[index(wanted, held[0])]
    out = background[index(wanted, np.zeros_like(held[0]))].clone()
    out[index(valid, wanted[0])] = x[index(valid, held[0])]
    return out
