"""How much of a GPU's arithmetic training uses: model FLOP utilization."""

import copy

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.backbone import STRIDE, Backbone
from model.features import View
from model.xsegtx import XSegTx

PEAKS = {  # TFLOP/s of dense matrix products in half precision, by a part of the GPU's name; the first that fits counts
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "A40": 150,
    "A10": 125,
    "L40S": 362,
    "L4": 121,
    "RTX 4090": 165,
    "RTX 3090": 71,
}


def full_speed(backbone: Backbone, network: XSegTx, cached: bool, device: torch.device) -> float | None:
    """Samples per second that training would reach at the peak of `device`; None where that is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((peak for part, peak in PEAKS.items() if part in name), None)
    return peak and 1e12 * peak / sample_flops(backbone, network, cached)


def sample_flops(backbone: Backbone, network: XSegTx, cached: bool) -> int:
    """Floating-point operations of a training sample, counted on shapes, without computing anything: a forward pass of
    the backbone, unless its features are `cached`, and three of the network, since a backward pass takes two.
    """
    backbone, network = (copy.deepcopy(module).cpu().eval() for module in (backbone, network))
    side = network.config.input_size
    large = side * network.config.zoom
    fake = FakeTensorMode(allow_non_fake_inputs=True).from_tensor
    images, enlarged = (fake(torch.zeros(3, 3, s, s)) for s in (side, large))  # query, target, mask
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # whose products are counted
        with FlopCounterMode(display=False) as frozen:
            feat = backbone(images)
            fine = backbone(enlarged[:2]) if large > side else feat
        with FlopCounterMode(display=False) as trained:
            coverage = fake(torch.zeros(1, large // STRIDE, large // STRIDE))
            query, target = (View(feat[[i]], fine[[i]], images[2:, 0], None, coverage) for i in range(2))
            network(query, target, feat[2:])
    return (0 if cached else frozen.get_total_flops()) + 3 * trained.get_total_flops()
