"""Mask features in windows around the object against the plain pass of the backbone, on the CPU.

    python benchmarks/mask_features.py

Prints the median of the ratios of alternating measurements and the share of the plain pass's operations, for batches
of five 480x480 masks whose objects cover several shares of the image.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
if __name__ == "__main__":  # before torch is imported: idle threads give way to other processes
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from formats.arguments import Parser
from model.backbone import calibrate_batch_norm, fold_batch_norm, mask_to_image, normalize_image, random_backbone
from model.mask_features import MaskFeatures

SIDE, BATCH, ROUNDS = 480, 5, 7
SHARES = (0.001, 0.005, 0.02, 0.05, 0.2)


def ellipses(share: float) -> Tensor:
    """(BATCH, SIDE, SIDE) bool: objects of other shapes and places that cover `share` of the image."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    radius = SIDE * (share / np.pi) ** 0.5
    masks = []
    for stretch in rng.uniform(0.7, 1.4, BATCH):
        a, b = radius * stretch, radius / stretch
        cx, cy = rng.uniform(a, SIDE - a), rng.uniform(b, SIDE - b)
        masks.append(((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1)
    return torch.from_numpy(np.stack(masks))


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def operations(function: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


@torch.inference_mode()
def main() -> None:
    Parser(__doc__).parse_args()
    images = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    backbone = random_backbone(0)
    calibrate_batch_norm(backbone, [normalize_image(torch.from_numpy(images))])
    backbone = fold_batch_norm(backbone)
    windowed = MaskFeatures(backbone)
    print(f"{torch.get_num_threads()} threads, float32, {BATCH} masks of {SIDE}x{SIDE} at a time")
    print(f"{'object':>7} {'plain':>8} {'windows':>8} {'ratio':>6} {'operations':>11} {'error':>8}")
    for share in SHARES:
        masks = ellipses(share)
        ways = [lambda masks=masks: backbone(mask_to_image(masks)), lambda masks=masks: windowed(masks)]
        error = (ways[0]() - ways[1]()).abs().max().item()
        work = operations(ways[1]) / operations(ways[0])
        rounds = [[seconds(way) for way in ways] for _ in range(ROUNDS)]
        plain, fast = np.median(rounds, axis=0)
        ratio = np.median([a / b for a, b in rounds])
        print(f"{share:>7.1%} {plain:>6.2f} s {fast:>6.2f} s {ratio:>6.1f} {work:>11.0%} {error:>8.0e}", flush=True)


if __name__ == "__main__":
    main()
