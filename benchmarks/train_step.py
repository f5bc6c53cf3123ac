"""Training against the published implementation's way (tests/joined_attention.py), in turn on the same machine.

    python benchmarks/train_step.py                         # 480-pixel input, CPU, or the GPU if there is one
    python benchmarks/train_step.py --amp bf16 --compile
    python benchmarks/train_step.py --input_size 192 --batch_size 8

Ratios, each the median over rounds: samples/s of one loader process (masks decoded in full, padded and resized, against
sampled from their runs), of a training step on given images, and of a step with cached features, by the paper's and by
the strong recipe. The weights are random: the time does not depend on them.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import cv2
import numpy as np
import torch
from torch import Tensor

from benchmarks.stand_in import make_pool, make_take, write_with_pictures
from data.create_pairs import main as create_pairs
from formats.arguments import Parser, at_least
from formats.errors import run_script
from formats.files import write_json
from formats.masks import decode_mask
from formats.pairs import PairSet
from model.backbone import mask_to_image, normalize_image, random_backbone
from model.device import resolve_device
from model.xsegtx import XSegTx, XSegTxConfig
from tests.joined_attention import joined_forward
from train.batches import Batch, collate
from train.dataset import Samples, Source, TrainSamples
from train.engine import blocked_tokens
from train.features import AMP, FeatureExtractor
from train.losses import compute_losses


class PlainSamples(TrainSamples):
    """The same samples, from masks decoded in full and frames padded before they are resized."""

    def image(self, view: tuple, *_: object) -> np.ndarray:
        take_uid, camera, frame = view
        path = self.pairs.data_dir / take_uid / camera / f"{frame}.jpg"
        return pad_and_resize(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), self.side)

    def mask(self, rle, *_: object) -> np.ndarray:
        return super().mask(rle) if rle is None else pad_and_resize(decode_mask(rle), self.side)


def pad_and_resize(image: np.ndarray, side: int) -> np.ndarray:
    long = max(image.shape[:2])
    before = [(long - length) // 2 for length in image.shape[:2]]
    pad = [(b, long - length - b) for b, length in zip(before, image.shape[:2], strict=True)]
    square = np.pad(image, pad + [(0, 0)] * (image.ndim - 2))
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_NEAREST)


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--input_size", type=at_least(48), default=480, help="pixels per side")
    add("--batch_size", type=at_least(1), default=4, help="samples per step")
    add("--rounds", type=at_least(1), default=5, help="of which the median counts")
    add("--loader_samples", type=at_least(1), default=32, help="samples per round of the loader")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--amp", choices=AMP, default="off", help="precision of our step")
    add("--compile", action="store_true", help="our transformer")
    return parser.parse_args()


def make_pairs(folder: Path) -> PairSet:
    """Two takes in the real data's proportions: masks of 4K and of 1408x1408, frames of 960x540 and 704x704."""
    uids = ["take-0", "take-1"]
    for seed, uid in enumerate(uids):
        write_with_pictures(make_take(folder / "processed", uid, make_pool(40), objects=4, frames=6, seed=seed))
    write_json(folder / "split.json", {"train": uids})
    sys.argv = ["create_pairs.py", "--data_dir", str(folder / "processed")]
    create_pairs()
    return PairSet.open(folder / "processed", "train", "ego-exo")


class Step:
    """A training step of the given kind on a fixed batch."""

    def __init__(self, args: argparse.Namespace, device: torch.device, batch: Batch, kind: str):
        self.batch, self.kind = batch.to(device), kind
        config = XSegTxConfig(input_size=args.input_size, similarity_prior=kind == "strong")
        self.model = XSegTx(config).to(device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-4)
        self.backbone = random_backbone(0).to(device)
        amp = AMP[args.amp] if kind != "plain" else None
        cache_bytes = int(1e9) if kind in ("cached", "strong") else 0
        self.features = FeatureExtractor(random_backbone(0), device, amp, cache_bytes, kind == "strong")
        self.forward = torch.compile(self.model) if args.compile and kind != "plain" else self.model

    def plain_features(self) -> list[Tensor]:
        batch = self.batch
        images = normalize_image(batch.query_image), normalize_image(batch.target_image)
        return [self.backbone(image) for image in (*images, mask_to_image(batch.query_mask))]

    def __call__(self) -> None:
        blocked = blocked_tokens(self.batch) if self.kind != "strong" else None
        if self.kind == "plain":
            prediction = joined_forward(self.model, *self.plain_features(), target_blocked=blocked)
        else:
            inputs = self.features(self.batch)
            with self.features.autocast():
                prediction = self.forward(**inputs, target_blocked=blocked)
        batch = self.batch
        losses = compute_losses(prediction, batch.query_mask, batch.target_mask, batch.positive)
        self.optimizer.zero_grad()
        losses.total.backward()
        self.optimizer.step()
        if self.kind == "plain":  # its trainer prints the loss of every step
            losses.total.item()


def seconds(function: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def read(samples: Samples, count: int) -> list[Source]:
    return collate([samples[n] for n in range(count)]).sources


def report(name: str, count: int, rounds: list[dict[str, float]]) -> None:
    for kind in rounds[0]:
        rate = statistics.median(count / times[kind] for times in rounds)
        ratio = statistics.median(times["plain"] / times[kind] for times in rounds)
        print(f"{name:<14} {kind:<8} {rate:8.2f} samples/s  x{ratio:.2f}", flush=True)


def main() -> None:
    args = parse_args()
    device = resolve_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        pairs = make_pairs(Path(folder))
        loaders = {"plain": PlainSamples(pairs, args.input_size, 0), "ours": TrainSamples(pairs, args.input_size, 0)}
        batch = collate([loaders["ours"][n] for n in range(args.batch_size)])
        rounds = []
        for _ in range(args.rounds):
            times = {
                k: seconds(lambda s=s: read(s, args.loader_samples), torch.device("cpu")) for k, s in loaders.items()
            }
            rounds.append(times)
        report("loader", args.loader_samples, rounds)
    print(f"device {device}, {torch.get_num_threads()} threads, input {args.input_size}, batch {args.batch_size}")
    steps = {kind: Step(args, device, batch, kind) for kind in ("plain", "ours", "cached", "strong")}
    for step in steps.values():
        step()  # warm up, compile, fill the cache
    report(
        "training step",
        args.batch_size,
        [{kind: seconds(step, device) for kind, step in steps.items()} for _ in range(args.rounds)],
    )


if __name__ == "__main__":
    run_script(main)
