"""Measure on a GPU what the documents only compute, in about five minutes, and print it as tables for an issue.

    python benchmarks/gpu.py                     # the GPU of this machine, in bf16 if it has that
    python benchmarks/gpu.py --precision fp32

Nobody has run this project on a GPU yet. *Computed* is what benchmarks/counting.py expects of an H100 from the number
of operations, so the two columns beside each other tell whether the hours in docs/training.md hold. A *wait* is an
operation at which the CPU stands still until the GPU has finished. Masks and existences are compared with those of this
machine's CPU in float32. Pictures are read beforehand: reading is measured by benchmarks/train_step.py.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import mean, median
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.counting import CPU, START, Counter, count, count_matching, first_scenes, make_training, training_step
from benchmarks.measure import make_takes, process_takes, processor_name
from common.arguments import Parser, add_device, at_least
from common.constants import THRESHOLD
from common.errors import run_script
from formats.masks import iou
from formats.pairs import BOTH, Pairs, open_pairs
from model.backbones import create_network, timm_backbone
from model.device import PRECISIONS, resolve_precision, use_device
from recipes.base import Answer
from recipes.matching import Matching
from recipes.samples import TrainSamples

RECIPES = "strong", "paper"
PREDICTED = ("predicted together", "pairs/s", "computed", "CPU ms a pair", "waits", "GB")
TRAINED = ("a step of a training", "ms", "computed", "CPU ms", "waits", "GB")


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_device(parser)
    add("--precision", choices=PRECISIONS, help="default: bf16 on a GPU that computes in it, else fp32")
    add("--backbone", default="vit_small_patch16_dinov3", help="of matching, with random weights")
    add("--input_size", type=at_least(48), default=480, help="pixels per side, of the paper's network")
    add("--batch_size", type=at_least(1), default=4, help="samples in a training step")
    add("--frames", type=at_least(1), default=61, help="frames of each of two takes")
    add("--size", default="native", help="size of the rendered videos, one of make_takes.py's")
    add("--rounds", type=at_least(1), default=5, help="measurements of each; a GPU warms up by two runs before")
    args = parser.parse_args()
    args.device = use_device(args.device)
    args.precision = resolve_precision(args.precision, args.device)
    return args


def main() -> None:
    args = parse_args()
    name = torch.cuda.get_device_name(args.device) if args.device.type == "cuda" else "no GPU"
    print(f"{name}, {args.precision}; {processor_name()}; PyTorch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as folder:
        real = ("--object_size", "real", "--num_objects", 6, "--num_frames", args.frames, "--num_exo", 1)
        make_takes(Path(folder), "train", 2, *real, "--size", args.size)
        pairs = open_pairs([process_takes(Path(folder))], "train", BOTH)
        print_table(PREDICTED, predictions(pairs, args))
        print_table(TRAINED, steps(pairs, args))
        print_agreement(pairs, args)


def print_table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> None:
    print(f"| {' | '.join(head)} |\n|{len(head) * '---|'}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def predictions(pairs: Pairs, args: argparse.Namespace) -> Iterator[Sequence[str]]:
    for name in (*RECIPES, args.backbone):
        if name == args.backbone:
            backbone = timm_backbone(name, create_network(name))
            recipe = Matching.of(backbone, args.device, args.precision)
            counter, *_ = count_matching(name, pairs, args.precision)
            scene = first_scenes(recipe, pairs)
        else:
            recipe = make_training(name, args.input_size, args.precision, args.device).recipe
            scene, on_cpu = first_scenes(recipe, pairs), make_training(name, args.input_size, args.precision).recipe
            counter = count(partial(on_cpu.predict, scene))
        measured, number = measure(partial(recipe.predict, scene), args), len(scene.row)
        rates = (f"{number / seconds:.0f}" for seconds in (measured.seconds, computed(counter)))
        yield f"{name}, {number} pairs", *rates, *measured.in_words(number)


def steps(pairs: Pairs, args: argparse.Namespace) -> Iterator[Sequence[str]]:
    for name in RECIPES:
        training, on_cpu = (
            make_training(name, args.input_size, args.precision, device) for device in (args.device, CPU)
        )
        samples = TrainSamples(pairs, training.read, 0)
        batch = training.collate([samples[number] for number in range(args.batch_size)])
        counter = count(training_step(on_cpu, batch))
        measured = measure(training_step(training, batch), args)
        times = (f"{1e3 * seconds:.1f}" for seconds in (measured.seconds, computed(counter)))
        yield f"{name}, {args.batch_size} samples", *times, *measured.in_words(1)


def print_agreement(pairs: Pairs, args: argparse.Namespace) -> None:
    """Print how much the answers of the shipped network differ from those of this machine's CPU in float32."""
    ours, plain = (
        make_training("strong", args.input_size, *at).recipe for at in ((args.precision, args.device), ("fp32", CPU))
    )
    scene = first_scenes(plain, pairs)
    answers = list(zip(scene.target, ours.predict(scene), plain.predict(scene), strict=True))
    ious = [iou(*(in_picture(answer, scene.pictures[target].shape) for answer in both)) for target, *both in answers]
    apart = [abs(own.existence - other.existence) for _, own, other in answers]
    print(f"{len(ious)} masks of the shipped network beside a CPU's: mean IoU {mean(ious):.4f}, least {min(ious):.4f}")
    print(f"existence differs by {mean(apart):.1e} on average, and by {max(apart):.1e} at most")


def in_picture(answer: Answer, shape: Sequence[int]) -> np.ndarray:
    return answer.in_image((shape[0], shape[1])) > THRESHOLD


def computed(counter: Counter) -> float:
    """The seconds that docs/training.md expects: to start the operations, or to compute them, whichever is longer."""
    return max(START * counter.operations, counter.busy)


class Measured(NamedTuple):
    seconds: float  # median
    cpu_seconds: float  # median of all threads of this process
    waits: int
    memory: int  # bytes, at most

    def in_words(self, count: int) -> tuple[str, str, str]:
        """The last three columns, for a run of `count` things."""
        return f"{1e3 * self.cpu_seconds / count:.1f}", str(self.waits), f"{self.memory / 1e9:.2f}"


def measure(run: Callable[[], object], args: argparse.Namespace) -> Measured:
    """Time some rounds of `run`. On a GPU, two more come first: one warms it up, and one counts the waits."""
    on_gpu, waits, times, memory = args.device.type == "cuda", 0, [], 0
    if on_gpu:
        run()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            run()
            torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)
        torch.cuda.reset_peak_memory_stats(args.device)
    for _ in range(args.rounds):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        run()
        if on_gpu:
            torch.cuda.synchronize(args.device)
        times.append((time.perf_counter() - begin, time.process_time() - begin_cpu))
    if on_gpu:
        memory = torch.cuda.max_memory_allocated(args.device)
    seconds, cpu_seconds = (median(x) for x in zip(*times, strict=True))
    return Measured(seconds, cpu_seconds, waits, memory)


if __name__ == "__main__":
    run_script(main)
