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
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.backbone import Backbone, mask_to_image

FULL_SHARE = 0.8  # a window of more than this fraction of the image is not cut out; the whole image is computed


class Window(NamedTuple):
    """A rectangle of cells: rows [top, bottom), columns [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    def on_finer_grid(self, factor: int) -> "Window":
        """The same rectangle in cells whose sides are `factor` times smaller."""
        return Window(*(factor * x for x in self))

    def grown(self, cells: int, full: "Window") -> "Window":
        """The window with `cells` more cells on each side, but not beyond the window `full`, which begins at 0."""
        top, left = max(self.top - cells, 0), max(self.left - cells, 0)
        return Window(top, min(self.bottom + cells, full.bottom), left, min(self.right + cells, full.right))

    def on_coarser_grid(self, factor: int) -> "Window":
        """The smallest window that contains this one, in cells whose sides are `factor` times larger."""
        top, bottom, left, right = self
        return Window(top // factor, -(-bottom // factor), left // factor, -(-right // factor))

    def index_in(self, outer: "Window") -> tuple:
        """The index of this window in a tensor (..., H, W) that holds the window `outer`."""
        rows = slice(self.top - outer.top, self.bottom - outer.top)
        return ..., rows, slice(self.left - outer.left, self.right - outer.left)


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
        box = valid = Window(top, top + height, left, left + width)  # the cells that differ from an empty mask
        empty = self._empty_activations((mask.shape[0], mask.shape[1]))
        x = mask_to_image(mask[None]).to(empty[0].dtype)
        full = held = Window(0, mask.shape[0], 0, mask.shape[1])  # x holds `held`, and is right in `valid`
        for (module, stride, reach), background in zip(self.blocks, empty[:-1], strict=True):
            full, box = full.on_coarser_grid(stride), box.on_coarser_grid(stride)
            box = box.grown(reach, full)
            window = box.grown(reach, full)
            if (window.bottom - window.top) * (window.right - window.left) > FULL_SHARE * full.bottom * full.right:
                window = box = full
            x = module(_on_background(background, x, held, window.on_finer_grid(stride), valid))
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


def _on_background(background: Tensor, x: Tensor, held: Window, wanted: Window, valid: Window) -> Tensor:
    """The window `wanted` of the background (1, C, H, W), overwritten by the part `valid` of x, which holds `held`."""
    if valid == wanted:
        return x[wanted.index_in(held)]
    out = background[wanted.index_in(Window(0, background.shape[2], 0, background.shape[3]))].clone()
    out[valid.index_in(wanted)] = x[valid.index_in(held)]
    return out
