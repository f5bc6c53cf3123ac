"""Time how samples of a training are read, against the published way, or count what its steps are for a GPU.

    python benchmarks/train_step.py                             # 480-pixel input, one process
    python benchmarks/train_step.py --count --precision bf16    # what a GPU would do, counted without one
    python benchmarks/train_step.py --count --precision bf16 --backbone vit_large_patch16_dinov3    # what matching does

The published way decodes, pads and resizes whole masks; this project samples masks from their run lengths.

With --count, it times nothing. For both recipes, it counts the operations, the FLOP and the bytes of a training step
and of pairs that are predicted together, and computes the table of hours in docs/training.md, in which each of eight
GPUs takes --batch_size samples of a step.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import tempfile
from functools import partial
from typing import Any

import cv2
import numpy as np

from benchmarks.counting import print_counts, print_matching
from benchmarks.measure import make_takes, print_times, process_takes, time_in_turn
from common.arguments import Parser, at_least
from common.constants import SETTINGS
from common.errors import run_script
from formats.masks import decode_mask
from formats.pairs import BOTH, Pairs, open_pairs
from model.device import PRECISIONS
from recipes.paper import collate_letterboxed, read_letterboxed
from recipes.samples import DrawnPairs, TrainSamples

FRAMES = 61  # of takes in which operations are counted


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--input_size", type=at_least(48), default=480, help="pixels per side")
    add("--batch_size", type=at_least(1), default=4, help="samples in a step of one GPU of eight")
    add("--rounds", type=at_least(1), default=5, help="measurements of each, after one to warm up")
    add("--loader_samples", type=at_least(1), default=32, help="samples that the loader reads in a round")
    add("--size", default="native", help="size of the rendered videos, one of make_takes.py's")
    add("--count", action="store_true", help="count operations, FLOP and bytes of both recipes, and time nothing")
    add("--precision", choices=PRECISIONS, default="fp32", help="of the steps that are counted")
    add("--backbone", help="with --count: count matching with this backbone, for both settings, and no steps")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.count:
        return count_on_takes(args)
    with tempfile.TemporaryDirectory() as folder:
        make_takes(Path(folder), "train", 2, "--size", args.size)
        pairs, ways = open_pairs([process_takes(Path(folder))], "train", "ego-exo"), {}
        for name, reader in (("the published way", read_plainly), ("this project", read_letterboxed)):
            samples = TrainSamples(pairs, partial(reader, side=args.input_size, block=0.5), 0)
            ways[name] = partial(read_batch, samples, args.loader_samples)
        time_in_turn(ways, 1)  # to warm up
        print_times("loader", time_in_turn(ways, args.rounds)[0], "sample", args.loader_samples)


def count_on_takes(args: argparse.Namespace) -> None:
    real = ("--object_size", "real", "--num_objects", 6, "--num_frames", FRAMES, "--num_exo", 1, "--size", args.size)
    with tempfile.TemporaryDirectory() as folder:
        make_takes(Path(folder), "train", 2, *real)
        processed = process_takes(Path(folder))
        for setting in SETTINGS if args.backbone else ():
            print_matching(args.backbone, open_pairs([processed], "train", setting), setting, args.precision)
        if not args.backbone:
            print_counts(open_pairs([processed], "train", BOTH), args.batch_size, args.input_size, args.precision)


def read_plainly(pairs: Pairs, drawn: DrawnPairs, rng: np.random.Generator, side: int, block: float) -> dict[str, Any]:
    """What `read_letterboxed` reads, in the published way: masks are decoded in full, padded and resized."""
    rle = pairs.target_mask(drawn.target) if drawn.query == drawn.target else None
    query_mask = pad_and_resize(decode_mask(pairs.query_mask(drawn.query)), side)
    return {
        "visible": rle is not None,
        "query_image": pad_and_resize(pairs.query_image(drawn.query), side),
        "target_image": pad_and_resize(pairs.target_image(drawn.target), side),
        "query_mask": query_mask,
        "target_mask": np.zeros_like(query_mask) if rle is None else pad_and_resize(decode_mask(rle), side),
        "block": drawn.chance < block,
    }


def pad_and_resize(image: np.ndarray, side: int) -> np.ndarray:
    long = max(image.shape[:2])
    before = [(long - length) // 2 for length in image.shape[:2]]
    pad = [(b, long - length - b) for b, length in zip(before, image.shape[:2], strict=True)]
    square = np.pad(image, pad + [(0, 0)] * (image.ndim - 2))
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_NEAREST)


def read_batch(samples: TrainSamples, count: int) -> object:
    return collate_letterboxed([samples[n] for n in range(count)])


if __name__ == "__main__":
    run_script(main)
