"""The one encoder: images and masks -> features of the frozen backbone, for training and prediction alike."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.backbone import STRIDE, Backbone, mask_to_image
from model.mask_features import MaskFeatures


class View(NamedTuple):
    """One view of B pairs, as the network reads it; h = w = input size / 16.

    `fine`, `coverage` and `corner` are for the similarity prior and closer looks; a network without them reads none.
    They are about the image as the encoder got it, k times as large (`XSegTxConfig.zoom`).
    """

    feat: Tensor  # (B, F, h, w) float32: features of what it shows, the image or a crop of the enlarged one
    fine: Tensor | None = None  # (B, F, k h, k w) float32: features of the whole image, enlarged
    mask: Tensor | None = None  # (B, H, W) of 0 and 1, any dtype: the object, in the same crop; of targets in training
    blocked: Tensor | None = None  # (B, h * w) bool, True = no token may attend to this token of the view
    coverage: Tensor | None = None  # (B, k h, k w) float32: which part of each of these cells the query's object covers
    corner: Tensor | None = None  # (B, 2) int64: first row and column of `fine` that it shows, -1: all, reduced
    detail: Tensor | None = None  # (B, D, ...) float32: `Features.detail` of the whole image, for the pointer


class Features(NamedTuple):
    """Of N images, float32; both of the first are the same with a zoom of 1."""

    feat: Tensor  # (N, F, h, w): unit vectors, of the images reduced to the network's input
    fine: Tensor  # (N, F, k h, k w): of the images as they are
    detail: Tensor | None = None  # (N, D, ...): of an earlier layer of the backbone, as they are


class Encoder:
    """Runs the frozen backbone on one device, `batch_size` images at a time (None: all at once).

    The backbone computes in `dtype`; features are float32. Images are `zoom` times as large as the network's input, and
    are encoded both reduced to it and as they are; with `detail`, the latter to two layers. With `two_sizes`, those of
    near cameras (`formats.takes.Kind.near`) are also read at half their size, so that things look as in the others.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        zoom: int = 1,
        batch_size: int | None = None,
        detail: bool = False,
        two_sizes: bool = False,
    ):
        self.device, self.zoom, self.batch_size, self.detail = device, zoom, batch_size, detail
        self.two_sizes = two_sizes
        self.backbone = fold_batch_norm(backbone).to(device, dtype)
        # Windows around the objects depend on the masks: on a GPU they would cost a synchronization and new kernels.
        self._mask_features = MaskFeatures(self.backbone) if device.type == "cpu" else None

    @torch.no_grad()
    def images(self, images: Tensor, near: Sequence[bool] = ()) -> Features:
        """(N, zoom S, zoom S, 3) uint8 RGB on the device -> their features. `near`: which of them, if any, are of near
        cameras.
        """
        some = max(1, (self.batch_size or len(images)) // self.zoom**2)  # no more memory than for the reduced ones
        fine, *detail = self._encode(images, some, self.detail)
        if self.two_sizes and any(near):
            rows = torch.tensor([row for row, flag in enumerate(near) if flag]).to(images.device, non_blocking=True)
            half = F.avg_pool2d(images[rows].movedim(3, 1).float(), 2).movedim(1, 3)
            for maps, halves in zip((fine, *detail), self._encode(half, 4 * some, self.detail), strict=True):
                halves = F.interpolate(halves, maps.shape[2:], mode="bilinear", align_corners=False)
                maps[rows] = (maps[rows] + halves) / 2
        feat = fine if self.zoom == 1 else self._encode(images[:, :: self.zoom, :: self.zoom], self.batch_size)[0]
        return Features(feat, fine, *detail)

    def _encode(self, images: Tensor, batch_size: int | None, detail: bool = False) -> list[Tensor]:
        encode = self.backbone.levels if detail else lambda image: [self.backbone(image)]
        parts = [encode(self.backbone.normalize(part)) for part in images.split(batch_size or len(images))]
        return [torch.cat(part) for part in zip(*parts, strict=True)]

    @torch.no_grad()
    def masks(self, masks: Tensor) -> Tensor:
        """(M, S, S) of 0 and 1, any dtype, on the device -> features of the mask images (M, F, h, w) float32."""
        if self._mask_features:
            return self._mask_features(masks)
        parts = masks.split(self.batch_size or len(masks))
        return torch.cat([self.backbone(mask_to_image(part)) for part in parts])


def seen(feat: Tensor, fine: Tensor, corner: Tensor | None) -> Tensor:
    """Features of what each view shows, (B, F, h, w): `feat`, of the whole image, or the crop of `fine` at `corner`."""
    if corner is None or fine.shape == feat.shape:
        return feat
    closer = crop(fine, corner.clamp(min=0), feat.shape[2])
    return torch.where((corner[:, 0] >= 0)[:, None, None, None], closer, feat)


def crop(maps: Tensor, corner: Tensor, side: int, maps_of: Tensor | None = None) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side), each beginning at its `corner`, (B, 2) int64 row and column. `maps_of`: of
    which of the maps each is, by default of the one in its row.
    """
    rows, cols = (corner[:, axis, None] + torch.arange(side, device=maps.device) for axis in (0, 1))  # (B, side)
    maps_of = torch.arange(len(maps), device=maps.device) if maps_of is None else maps_of
    return maps.movedim(1, 3)[maps_of[:, None, None], rows[:, :, None], cols[:, None, :]].movedim(3, 1)


def fold_batch_norm(backbone: Backbone) -> Backbone:
    """A faster copy that computes the same (float32: 1e-6): batch norms folded into convolutions, channels last.

    Its state dict is not the published layout any more: keep the original for checkpoints.
    """
    folded = copy.deepcopy(backbone)
    for parent in list(folded.network.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in zip(children, children[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                # In float64: the folded weights are rounded once, at the end.
                setattr(parent, conv_name, fuse_conv_bn_eval(conv.double(), norm.double()).float())
                setattr(parent, norm_name, getattr(norm, "act", nn.Identity()))  # timm's norms may end in an activation
    if not _agree(backbone, folded):  # modules side by side that do not follow each other in the forward pass
        folded = copy.deepcopy(backbone)
    return folded.to(memory_format=torch.channels_last).requires_grad_(False)


def _agree(backbone: Backbone, folded: Backbone) -> bool:
    if not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        return True
    weight = next(backbone.parameters())
    image = torch.randn(1, 3, 4 * STRIDE, 4 * STRIDE, generator=torch.Generator().manual_seed(0)).to(weight.device)
    return bool((backbone(image) - folded(image)).abs().max() < 1e-3)
