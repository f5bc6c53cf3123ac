"""Images and masks -> features of the frozen backbone: the encoder of training and prediction."""

import copy
import hashlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from model.backbone import STRIDE, Backbone, Levels, mask_to_image

KEPT_BYTES = 10**8  # of features that an `Encoder` keeps


class Encoder:
    """Runs the frozen backbone on one device. The backbone computes in `dtype`; features are float32."""

    def __init__(self, backbone: Backbone, device: torch.device, dtype: torch.dtype = torch.float32):
        self.backbone = fold_batch_norm(backbone).to(device, dtype)
        # (M, S, S) of 0 and 1, any dtype, on the device -> features of the mask images (M, F, h, w) float32
        self.masks = self.backbone.mask_encoder()
        self.joins = device.type != "cpu"
        self._kept: dict[tuple, Levels] = {}  # the last ones, by what they are of

    def images(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 RGB on the device -> unit vectors (N, F, H / 16, W / 16) float32."""
        return self.backbone(self.backbone.normalize(images))

    def levels(self, images: Tensor) -> Levels:
        """Images as in `images` -> the features of two layers. On a CPU, a prediction keeps them, as a picture with
        several objects is asked for again and again.
        """
        if images.device.type != "cpu" or not torch.is_inference_mode_enabled():
            return self.backbone.levels(self.backbone.normalize(images))
        key = images.shape, hashlib.sha256(images.contiguous().numpy().data).digest()
        found = self._kept.pop(key, None) or self.backbone.levels(self.backbone.normalize(images))
        self._kept[key] = found  # as the newest one
        while sum(x.feat.nbytes + x.early.nbytes for x in self._kept.values()) > KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        return found

    def levels_and_masks(self, images: Tensor, masks: Tensor) -> tuple[Levels, Tensor]:
        """`levels` of images, and `masks` of masks of the same size. A GPU computes both at once, as it would wait for
        the start of each operation; on a CPU, this would change the last bits.
        """
        if not self.joins:
            return self.levels(images), self.masks(masks)
        both = self.backbone.levels(torch.cat((self.backbone.normalize(images), mask_to_image(masks))))
        return both[: len(images)], both.feat[len(images) :]


def fold_batch_norm(backbone: Backbone) -> Backbone:
    """A faster copy that computes the same (in float32 up to 1e-6): batch norms are folded into convolutions, and
    memory is channels last. The copy's state dict has not the published layout, so keep the original for checkpoints.
    """
    folded = copy.deepcopy(backbone)
    for parent in list(folded.network.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in zip(children, children[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                # In float64, so that the weights are rounded only once, when they become float32.
                setattr(parent, conv_name, fuse_conv_bn_eval(conv.double(), norm.double()).float())
                setattr(parent, norm_name, getattr(norm, "act", nn.Identity()))  # timm's norms may end in an activation
    if not _features_agree(backbone, folded):  # two neighboring modules did not follow each other in the forward pass
        folded = copy.deepcopy(backbone)
    return folded.to(memory_format=torch.channels_last).requires_grad_(False)  # pyrefly: ignore


def _features_agree(backbone: Backbone, folded: Backbone) -> bool:
    if not any(isinstance(module, nn.BatchNorm2d) for module in backbone.modules()):
        return True
    weight = next(backbone.parameters())
    image = torch.randn(1, 3, 4 * STRIDE, 4 * STRIDE, generator=torch.Generator().manual_seed(0)).to(weight.device)
    return bool((backbone(image) - folded(image)).abs().max() < 1e-3)


def coverage_of(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (B, H, W) -> the part of each cell of a grid of `size` (h, w) that they cover, (B, h, w) float32."""
    return F.adaptive_avg_pool2d(masks.float()[:, None], (size[0], size[1]))[:, 0]
