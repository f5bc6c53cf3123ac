"""The one encoder: images and masks -> features of the frozen backbone, for training and prediction alike."""

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.backbone import FINE, STRIDE, Backbone, mask_to_image
from model.mask_features import MaskFeatures


class View(NamedTuple):
    """One view of B pairs, as the network reads it; h = w = input size / 16."""

    feat: Tensor  # (B, F, h, w) float32: features of the image
    fine: Tensor | None = None  # (B, F, 2 h, 2 w) float32: the same on a finer grid; only the similarity prior reads it
    mask: Tensor | None = None  # (B, H, W) of 0 and 1, any dtype: the object, in the query view; the same
    blocked: Tensor | None = None  # (B, h * w) bool, True = no token may attend to this token of the view


class Encoder:
    """Runs the frozen backbone on one device, `batch_size` images at a time (None: all at once).

    The backbone computes in `dtype`; features are float32. With `fine`, images are also encoded on a grid
    `FINE` times as fine.
    """

    def __init__(
        self,
        backbone: Backbone,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        fine: bool = False,
        batch_size: int | None = None,
    ):
        self.device, self.fine, self.batch_size = device, fine, batch_size
        self.backbone = fold_batch_norm(backbone).to(device, dtype)
        # Windows around the objects depend on the masks: on a GPU they would cost a synchronization and new kernels.
        self._mask_features = MaskFeatures(self.backbone) if device.type == "cpu" else None

    @torch.no_grad()
    def images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, S, 3) uint8 RGB on the device -> features (N, F, h, w) and fine features (N, F, 2 h, 2 w), or an empty
        (N, 0, h, w) without `fine`; unit vectors, float32.
        """
        feats, fines = [], []
        for part in images.split(self.batch_size or len(images)):
            part = self.backbone.normalize(part)
            feats.append(self.backbone(part))
            fines.append(fine_features(self.backbone, part) if self.fine else feats[-1][:, :0])
        return torch.cat(feats), torch.cat(fines)

    @torch.no_grad()
    def masks(self, masks: Tensor) -> Tensor:
        """(M, S, S) of 0 and 1, any dtype, on the device -> features of the mask images (M, F, h, w) float32."""
        if self._mask_features:
            return self._mask_features(masks)
        parts = masks.split(self.batch_size or len(masks))
        return torch.cat([self.backbone(mask_to_image(part)) for part in parts])


def fine_features(backbone: nn.Module, images: Tensor) -> Tensor:
    """Features on a grid twice as fine: of the images, enlarged. `images` as `Backbone.forward` has them, (B, 3, H, W)
    -> (B, F, H / 8, W / 8). A quarter of the batch at a time: no more memory than for the batch as it is.
    """
    large = F.interpolate(images, scale_factor=FINE, mode="bilinear", align_corners=False)
    return torch.cat([backbone(part) for part in large.split(max(1, len(images) // FINE**2))])


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
    side = backbone.input_size or 4 * STRIDE
    weight = next(backbone.parameters())
    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(weight.device)
    return bool((backbone(image) - folded(image)).abs().max() < 1e-3)
