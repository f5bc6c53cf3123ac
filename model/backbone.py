"""What all frozen image backbones have in common; model/backbones.py makes one by its name."""

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.rows import Rows

STRIDE = 16  # pixels per feature cell
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass
class Levels(Rows):
    """Features of N images from two layers of a backbone."""

    feat: Tensor  # (N, F, h, w): the last layer
    early: Tensor  # (N, D, ...): an earlier one, of 8 pixels a cell in a convolutional network, else as the last one's


class Backbone(nn.Module):
    """Images -> unit vectors on a grid with one cell for each 16 x 16 pixels, whatever stride the network has.

    A backbone is never trained: it is always in eval mode and computes no gradients. A backbone computes in the dtype
    of its weights (`.to(...)`) and in the memory layout of the images; channels last is the faster layout.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        channels: int,
        stride: int = STRIDE,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        weights: Path | None = None,
        early_channels: int = 0,
        is_plain: bool = False,
    ):
        """network: (B, 3, H, W) -> (B, channels, H / stride, W / stride).
        mean, std: with which RGB in [0, 1] is normalized.
        weights: the file from which the weights were read, for backbones whose weights are not stored in checkpoints.
        early_channels: if not 0, the network has a method `levels` (images -> `Levels`), whose earlier layer has this
        number of channels.
        is_plain: all layers have the same stride, as in a plain vision transformer.
        """
        super().__init__()
        self.name, self.channels, self.stride, self.early_channels = name, channels, stride, early_channels
        self.network: Any = network  # without a type, because `levels` is a method of some networks only
        self.mean, self.std, self.weights, self.is_plain = mean, std, weights, is_plain
        self.requires_grad_(False)
        self.train(False)

    @functools.cached_property
    def digest(self) -> str:
        """The digest of all weights. A checkpoint without the weights holds this digest, to recognize them."""
        return digest_of(self.network)

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(False)

    def normalize(self, images: Tensor) -> Tensor:
        """RGB uint8 (..., H, W, 3) -> input of this network, float32 (..., 3, H, W), channels last in memory."""
        return normalize_image(images, self.mean, self.std)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) from `normalize` or `mask_to_image` -> (B, channels, H/16, W/16) float32, unit vectors
        over the channels (a zero vector stays zero).

        If the network's stride divides 16, features are averaged to 16 pixels a cell. Otherwise, as with stride 14, the
        images are resized first.
        """
        return self._finished(self.network(self._prepared(images)))

    @torch.no_grad()
    def levels(self, images: Tensor) -> Levels:
        """The result of `forward`, and the earlier layer as it is, float32."""
        levels = self.network.levels(self._prepared(images))
        return Levels(self._finished(levels.feat), levels.early.float())

    def mask_encoder(self) -> Callable[[Tensor], Tensor]:
        """A function of masks (M, H, W) of 0 and 1, any dtype, on the device -> `forward` of their images."""
        return lambda masks: self(mask_to_image(masks))

    def _prepared(self, images: Tensor) -> Tensor:
        if STRIDE % self.stride:
            size = [length * self.stride // STRIDE for length in images.shape[2:]]
            images = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        return images.to(next(self.network.parameters()).dtype)

    def _finished(self, features: Tensor) -> Tensor:
        features = features.float()
        if self.stride < STRIDE and STRIDE % self.stride == 0:
            features = F.avg_pool2d(features, STRIDE // self.stride)
        return F.normalize(features, dim=1)


def digest_of(module: nn.Module) -> str:
    """SHA-256 of all weights and buffers in their order, without their names, which may change in timm."""
    sha = hashlib.sha256()
    for tensor in module.state_dict().values():
        sha.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()


def normalize_image(image: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD):
    """RGB uint8 (..., H, W, 3) -> normalized float32 (..., 3, H, W), channels last in memory."""
    shift, scale = (_constant(tuple(values), image.device) for values in (mean, std))
    return image.float().div_(255).sub_(shift).div_(scale).movedim(-1, -3)


@functools.cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """The values as a tensor, which is cached because copying it to a GPU makes the CPU wait."""
    return torch.tensor(values, device=device)


def mask_to_image(mask: Tensor) -> Tensor:
    """Mask (..., H, W) of 0 and 1, any dtype -> float32 (..., 3, H, W), the same for every backbone.

    The result is not normalized, as in the published code: outside the object the values are 0, which to the network is
    the mean color and the padding of convolutions.
    """
    return mask.float().unsqueeze(-1).expand(*mask.shape, 3).contiguous().movedim(-1, -3)
