"""The network weights and inputs with which the golden numbers in tests/golden were computed.

Each tensor follows from its state-dict name and shape alone, so two implementations that agree on names and shapes
get the same weights without a checkpoint file. The gains make the outputs depend visibly on the inputs.
"""

import functools
import math
import zlib

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from model.backbone import Backbone, mask_to_image, normalize_image
from model.backbones import resnet50_backbone
from model.xsegtx import XSegTx

CONSTANTS = {"bn3.bias": -3.0, "cls_branch.conv.bias": 1.0}
CASES = {  # name: (samples, the negative samples, the samples whose target tokens are blocked outside the mask)
    "batch3": ([1, 2, 3], [2], [3]),
    "batch1": ([5], [], [5]),
}


def golden_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    for ending, value in CONSTANTS.items():
        if name.endswith(ending):
            return np.full(shape, value, np.float32)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith("running_mean"):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) >= 2:
        gain = _gain(name)
        return (gain * rng.standard_normal(shape) * (2.0 / math.prod(shape[1:])) ** 0.5).astype(np.float32)
    if name.endswith("weight"):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    return (0.05 * rng.standard_normal(shape)).astype(np.float32)


def _gain(name: str) -> float:
    if name == "0.weight":  # the stem; other names also end in 0.weight
        return 4.0
    if name.endswith("feat_proj.weight"):
        return 100.0
    return 2.0 if "cross_encoder_layer.cross_encoder_layer.self_attn" in name else 1.0


def fill(module: nn.Module) -> None:
    """Give every parameter and buffer of `module` its golden value."""
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    module.load_state_dict({name: torch.from_numpy(golden_tensor(name, shape)) for name, shape in shapes.items()})


def golden_image(k: int) -> np.ndarray:
    """(480, 480, 3) uint8."""
    coarse = np.random.default_rng(k).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return cv2.resize(coarse, (480, 480), interpolation=cv2.INTER_NEAREST)


def golden_mask(k: int) -> np.ndarray:
    """(480, 480) uint8 ellipse."""
    rng = np.random.default_rng(1000 + k)
    cx, cy = rng.uniform(120, 360, 2)
    a, b = rng.uniform(30, 110, 2)
    y, x = np.mgrid[:480, :480]
    return (((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1).astype(np.uint8)


@functools.cache
def golden_batch(case: str) -> dict[str, Tensor]:
    """Images (B, 480, 480, 3) and masks (B, 480, 480) uint8, `visible` (B,) and `target_blocked` (B, 900) bool."""
    samples, negatives, blocked = CASES[case]
    target_mask = [golden_mask(2 * s + 1) * (s not in negatives) for s in samples]
    tokens = [cv2.resize(mask, (30, 30), interpolation=cv2.INTER_NEAREST).reshape(-1) == 0 for mask in target_mask]
    batch = {
        "query_image": [golden_image(2 * s) for s in samples],
        "target_image": [golden_image(2 * s + 1) for s in samples],
        "query_mask": [golden_mask(2 * s) for s in samples],
        "target_mask": target_mask,
        "target_blocked": [t & (s in blocked) for t, s in zip(tokens, samples, strict=True)],
        "visible": [s not in negatives for s in samples],
    }
    return {name: torch.from_numpy(np.stack(values)) for name, values in batch.items()}


@functools.cache
def golden_networks() -> tuple[Backbone, XSegTx]:
    """Both networks with golden weights, the transformer in eval mode. Tests share them and must not change them."""
    backbone, model = resnet50_backbone(), XSegTx()
    fill(backbone.network)
    fill(model)
    return backbone, model.eval()


def golden_inputs(case: str, blocked: bool = True) -> tuple[Tensor | None, ...]:
    """The arguments of `XSegTx.forward` for a case of CASES; `blocked`: with its blocked target tokens."""
    return *golden_features(case), None, golden_batch(case)["target_blocked"] if blocked else None


@functools.cache
def golden_features(case: str) -> tuple[Tensor, Tensor, Tensor]:
    """Features of query image, target image and query mask, (B, 1024, 30, 30) each, for a case of CASES."""
    batch, (backbone, _) = golden_batch(case), golden_networks()
    inputs = (normalize_image(batch["query_image"]), normalize_image(batch["target_image"]))
    return tuple(backbone(images.contiguous()) for images in (*inputs, mask_to_image(batch["query_mask"])))
