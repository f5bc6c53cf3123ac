"""Compare how this project trains with how the published implementation does, in turn.

    python benchmarks/train_step.py                         # 480-pixel input, CPU, or the GPU if there is one
    python benchmarks/train_step.py --precision bf16
    python benchmarks/train_step.py --input_size 192 --batch_size 8
    python benchmarks/train_step.py --count --precision bf16    # what a GPU would do, counted without one

1. It times the loader in one process. The published way decodes, pads and resizes whole masks; this project samples
   masks from their run lengths.
2. It times a training step on images that are read already.

The weights are random, since the time does not depend on them.

With --count, it compares nothing. For both recipes, it counts the operations, the FLOP and the bytes of a training step
and of pairs that are predicted together, and computes the table of hours in docs/training.md, in which each of eight
GPUs takes --batch_size samples of a step.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu

tune_cpu(__name__)

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.counting import print_counts
from benchmarks.measure import make_takes, print_times, process_takes, time_in_turn
from common.arguments import Parser, add_device, at_least
from common.distributed import World
from common.errors import run_script
from formats.masks import decode_mask
from formats.pairs import BOTH, Pairs, open_pairs
from model.backbone import mask_to_image
from model.backbones import resnet50_backbone
from model.device import PRECISIONS, resolve_device, tf32
from model.xsegtx import XSegTx, XSegTxConfig
from recipes.paper import LetterboxedBatch, Paper, collate_letterboxed, read_letterboxed
from recipes.samples import DrawnPairs
from recipes.stream import TrainSamples
from train.engine import Step

PLAIN, OURS = "the published way", "this project"
FRAMES = 61  # of takes in which operations are counted


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--input_size", type=at_least(48), default=480, help="pixels per side")
    add("--batch_size", type=at_least(1), default=4, help="samples in a step; with --count, of one GPU of eight")
    add("--rounds", type=at_least(1), default=5, help="measurements of each, after one to warm up")
    add("--loader_samples", type=at_least(1), default=32, help="samples that the loader reads in a round")
    add("--size", default="native", help="size of the rendered videos, one of make_takes.py's")
    add("--count", action="store_true", help="count operations, FLOP and bytes of both recipes, and time nothing")
    add_device(parser)
    add("--precision", choices=PRECISIONS, default="fp32", help="of this project; the published way is fp32")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.count:
        return count_on_takes(args)
    device = resolve_device(args.device)
    print(f"{device}, {torch.get_num_threads()} threads, {args.input_size} pixels, batches of {args.batch_size}")
    with tempfile.TemporaryDirectory() as folder:
        make_takes(Path(folder), "train", 2, "--size", args.size)
        pairs = open_pairs([process_takes(Path(folder))], "train", "ego-exo")
        readers = {PLAIN: read_plainly, OURS: read_letterboxed}
        loaders = {
            name: TrainSamples(pairs, partial(reader, side=args.input_size, block=0.5), 0)
            for name, reader in readers.items()
        }
        reads = {name: partial(read_batch, samples, args.loader_samples) for name, samples in loaders.items()}
        time_ways("loader", reads, args.rounds, "sample", args.loader_samples)
        batch: Any = read_batch(loaders[OURS], args.batch_size).to(device)
    steps = {PLAIN: make_step(args, batch, plain=True), OURS: make_step(args, batch)}
    time_ways("training step", steps, args.rounds, "step")


def count_on_takes(args: argparse.Namespace) -> None:
    real = ("--object_size", "real", "--num_objects", 6, "--num_frames", FRAMES, "--num_exo", 1, "--size", args.size)
    with tempfile.TemporaryDirectory() as folder:
        make_takes(Path(folder), "train", 2, *real)
        pairs = open_pairs([process_takes(Path(folder))], "train", BOTH)
        print_counts(pairs, args.batch_size, args.input_size, args.precision)


def time_ways(title: str, ways: Mapping[str, Callable[[], object]], rounds: int, unit: str, count: int = 1) -> None:
    """Print the seconds per unit of each way (`count` units in a round), after a round to warm up."""
    time_in_turn(ways, 1)
    print_times(title, time_in_turn(ways, rounds)[0], unit, count)


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


def read_batch(samples: TrainSamples, count: int) -> LetterboxedBatch:
    return collate_letterboxed([samples[n] for n in range(count)])


class PlainPaper(Paper):
    """Encodes in the published way: batch norms are not folded, images and masks are encoded one after the other."""

    def encode(self, batch: LetterboxedBatch) -> tuple[Tensor, Tensor, Tensor]:
        mask_feat = self.encoder.backbone(mask_to_image(batch.query_mask))
        return self.encoder.images(batch.query_image), self.encoder.images(batch.target_image), mask_feat


def make_step(args: argparse.Namespace, batch: LetterboxedBatch, plain: bool = False) -> Callable[[], None]:
    """A function that makes a training step, always on the same batch."""
    device, precision = batch.query_mask.device, "fp32" if plain else args.precision
    backbone, network = resnet50_backbone(), XSegTx(XSegTxConfig(input_size=args.input_size))
    recipe: Any = (PlainPaper if plain else Paper)(network, backbone, device, precision)
    step, optimizer = Step(recipe, World(), 1.0).train(), torch.optim.Adam(network.parameters(), lr=2e-4)
    if plain:
        recipe.encoder.backbone = backbone.to(device)

    def run() -> None:
        with tf32(precision == "tf32"):
            losses = step(batch)
            optimizer.zero_grad()
            losses["total"].backward()
            optimizer.step()
        losses["total"].item()  # waits for a GPU

    return run


if __name__ == "__main__":
    run_script(main)
