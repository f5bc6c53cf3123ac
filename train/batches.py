"""Batches of samples as tensors, and the loader that makes them."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from formats.parallel import loader_workers, start_loader_worker
from train.dataset import Samples, Source

PREFETCH = 4  # batches that each worker is ahead
BYTES_PER_PIXEL = 8  # of a sample: two images of three colors, two masks


@dataclass
class Batch:
    """B samples. Images and masks are square, S pixels a side."""

    query_image: Tensor  # (B, S, S, 3) uint8 RGB
    target_image: Tensor  # (B, S, S, 3) uint8 RGB
    query_mask: Tensor  # (B, S, S) uint8
    target_mask: Tensor  # (B, S, S) uint8, zeros for negatives
    positive: Tensor  # (B,) bool, the object is visible in the target view
    whole: Tensor  # (B,) bool, all of the target view is shown; a closer look tells nothing of existence
    block: Tensor  # (B,) bool, block the target tokens outside the object
    inside: Tensor  # (B, 4) int64, the target frame within the square: first row, end, first column, end
    sources: list[Source]
    unreadable: list[str]  # samples left out, with the reason

    def __len__(self) -> int:
        return len(self.sources)

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type is Tensor}

    def to(self, device: torch.device) -> "Batch":
        return replace(self, **{name: t.to(device, non_blocking=True) for name, t in self.tensors().items()})

    def pin_memory(self) -> "Batch":
        return replace(self, **{name: t.pin_memory() for name, t in self.tensors().items()})


def collate(samples: list[dict]) -> Batch:
    """Stack samples; those that only report why they cannot be read are left out."""
    unreadable = [text for sample in samples for text in sample.get("unreadable", ())]
    samples = [sample for sample in samples if "sources" in sample]
    names = [f.name for f in fields(Batch) if f.type is Tensor]
    arrays = {
        name: torch.from_numpy(np.stack([s[name] for s in samples])) if samples else torch.empty(0) for name in names
    }
    return Batch(**arrays, sources=[s["sources"] for s in samples], unreadable=unreadable)


class StepSampler(Sampler):
    """Sample numbers of each step's batch: step s of B samples takes s * B ... s * B + B - 1, split over the ranks.

    `count` ends a stream that has an end: the last batch is smaller, even empty on some ranks.
    """

    def __init__(self, steps: range, batch_size: int, rank: int = 0, ranks: int = 1, count: int | None = None):
        self.steps, self.batch_size, self.count = steps, batch_size, count
        self.share = range(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            numbers = [step * self.batch_size + k for k in self.share]
            yield numbers if self.count is None else [n for n in numbers if n < self.count]


def affordable_workers(workers: int, batch_size: int, side: int) -> int:
    """How many of `workers` /dev/shm has room for: training's batches stay in it while validation reads its own."""
    return loader_workers(workers, 2 * batch_size * side * side * BYTES_PER_PIXEL, PREFETCH)


def make_loader(samples: Samples, batches: StepSampler, workers: int, pin: bool) -> DataLoader:
    """The batches as `Batch`es, read ahead by `workers` processes; with 0, this process reads each when it is asked."""
    cv2.setNumThreads(0)  # OpenCV's threads do not survive the fork of a worker
    ahead = {"prefetch_factor": PREFETCH, "worker_init_fn": start_loader_worker} if workers else {}
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=pin, **ahead)
