"""Sampling a letterboxed mask from its run lengths against decoding it (by pycocotools), padding and resizing it.

    python benchmarks/masks.py

Prints the median of the ratios of alternating measurements, for sizes of the benchmark and objects of several areas.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import numpy as np
from pycocotools import mask as coco

from formats.arguments import Parser
from formats.geometry import EVAL_SIDE, letterbox
from formats.masks import RLE, encode_mask, letterbox_mask

ROUNDS = 15


def wobbly_blob(size: tuple[int, int], share: float) -> RLE:
    """An object with an uneven outline that covers `share` of the image."""
    rows, cols = np.ogrid[: size[0], : size[1]]
    y, x = rows - size[0] / 2, cols - size[1] / 2
    angle = np.arctan2(y, x)
    radius = np.sqrt(share * size[0] * size[1] / np.pi) * (1 + 0.2 * np.sin(3 * angle) + 0.05 * np.sin(29 * angle))
    return encode_mask(y**2 + x**2 < radius**2)


def decode(rle: RLE) -> np.ndarray:
    return coco.decode({"size": rle["size"], "counts": rle["counts"].encode()})


def seconds(function: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def main() -> None:
    Parser(__doc__).parse_args()
    print(f"{'size':>10} {'object':>7} {'decode':>9} {'sample':>9} {'ratio':>6}")
    for size in ((2160, 3840), (1408, 1408)):
        for share in (0.0005, 0.003, 0.02, 0.1):
            rle = wobbly_blob(size, share)
            if not np.array_equal(letterbox_mask(rle, EVAL_SIDE), letterbox(decode(rle), EVAL_SIDE)):
                sys.exit(f"the two ways disagree for a mask of {size}")
            rounds = [
                (
                    seconds(lambda rle=rle: letterbox(decode(rle), EVAL_SIDE), 3),
                    seconds(lambda rle=rle: letterbox_mask(rle, EVAL_SIDE), 30),
                )
                for _ in range(ROUNDS)
            ]
            slow, fast = np.median(rounds, axis=0) * 1e3
            ratio = np.median([a / b for a, b in rounds])
            print(f"{size[1]:>5}x{size[0]} {share:>7.2%} {slow:>6.2f} ms {fast:>6.3f} ms {ratio:>6.1f}")


if __name__ == "__main__":
    main()
