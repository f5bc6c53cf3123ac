"""Whether two objects have the same colors: numbers that need no network, in crops that show both equally large."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.rows import Rows

COLOR_SIDE = 96  # colors are compared in crops of this side, in pixels
BINS, LOWEST, HIGHEST = 24, -48.0, 48.0  # of the histogram of a and b; colors beyond count as the nearest bin
NOISE = 2.0  # added to deviations, in units of Lab, so that flat things differ little
# sRGB, linear and in [0, 1], to XYZ divided by the white of D65; rows are X, Y, Z.
TO_XYZ = ((0.4339, 0.3762, 0.1899), (0.2126, 0.7152, 0.0722), (0.0178, 0.1095, 0.8727))


@dataclass
class Colors(Rows):
    """The colors of N objects in CIELAB."""

    histogram: Tensor  # (N, BINS * BINS) of a and b, smoothed; the sum is 1
    deviation: Tensor  # (N, 3), of L, a and b


def reduced(masks: Tensor, side: int) -> Tensor:
    """Masks (N, S, S) -> (N, side, side): the mean of each pixel's area."""
    edges = torch.arange(side + 1, dtype=torch.float64) * masks.shape[1] / side
    pixels = torch.arange(masks.shape[1])
    covered = (torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)).clamp(min=0)
    weights = (covered * side / masks.shape[1]).float().to(masks.device, non_blocking=True)
    return weights @ masks.float() @ weights.mT


def colors_of(images: Tensor, masks: Tensor) -> Colors:
    """The colors of the pixels of masks (N, S, S) of 0 and 1 in crops (N, S, S, 3) uint8 RGB. All numbers are 0 for a
    mask that covers no pixel.
    """
    lab, weight = lab_of(images.flatten(1, 2).float()), masks.flatten(1).float()
    share = (weight / weight.sum(1, keepdim=True).clamp(min=1))[..., None]
    mean = (lab * share).sum(1, keepdim=True)
    deviation = ((lab - mean).square() * share).sum(1).sqrt()
    bins = ((lab[..., 1:] - LOWEST) * (BINS / (HIGHEST - LOWEST))).long().clamp(0, BINS - 1)
    histogram = torch.zeros(len(lab), BINS * BINS, device=lab.device)
    histogram.scatter_add_(1, bins[..., 0] * BINS + bins[..., 1], share[..., 0])
    smooth = F.avg_pool2d(histogram.unflatten(1, (1, BINS, BINS)), 3, 1, 1, count_include_pad=False).flatten(1)
    return Colors(smooth / smooth.sum(1, keepdim=True).clamp(min=1e-6), deviation)


def lab_of(rgb: Tensor) -> Tensor:
    """sRGB (..., 3) from 0 to 255 -> CIELAB: L from 0 to 100, a and b around 0."""
    rgb = rgb / 255
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4, rgb / 12.92)
    xyz = linear @ torch.tensor(TO_XYZ).to(rgb.device, non_blocking=True).mT
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(-1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), -1)


def same_color(one: Colors, other: Colors) -> Tensor:
    """The part of their histograms that N pairs of objects share, (N,) from 0 to 1."""
    return torch.minimum(one.histogram, other.histogram).sum(1)


def same_contrast(one: Colors, other: Colors) -> Tensor:
    """Minus the sum over L, a and b of how far the logarithms of the deviations are apart: (N,), at most 0."""
    return -((one.deviation + NOISE).log() - (other.deviation + NOISE).log()).abs().sum(1)
