"""What training draws and validation repeats: pairs of views with their masks, as uint8 batches.

A training sample is a function of (seed, number) alone, so the stream is the same for any number of loader processes
and ranks, and a resumed run continues it from its step without saved random states.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from data.errors import UserError
from data.geometry import letterbox, letterbox_axes
from data.masks import RLE, letterbox_mask
from data.pairs import Pair, PairSet
from data.processed import read_frame

TARGET_SWAP = 0.1  # how often the target frame is swapped for one of another take: a synthetic negative
BLOCK = 0.5  # how often the target tokens outside the object are blocked
REDRAWS = 16  # unreadable samples in a row before a draw gives up
ImageKey = (
    tuple  # names an input image of the backbone: (take, camera, frame) or, a mask, (take, camera, frame, object)
)


class Source(NamedTuple):
    """Where a sample comes from. The two takes or frames differ in negatives that training made up."""

    object_name: str
    query: tuple[str, str, int]  # take uid, camera, frame
    target: tuple[str, str, int]

    def __str__(self) -> str:
        views = [f"{take}/{camera}/{frame}" for take, camera, frame in (self.query, self.target)]
        return f"{self.object_name!r} {' -> '.join(views)}"

    @property
    def image_keys(self) -> tuple[ImageKey, ImageKey, ImageKey]:
        """Keys of query image, target image, query mask."""
        return self.query, self.target, (*self.query, self.object_name)


@dataclass
class Batch:
    """B samples. Images and masks are square, S pixels a side."""

    query_image: Tensor  # (B, S, S, 3) uint8 RGB
    target_image: Tensor  # (B, S, S, 3) uint8 RGB
    query_mask: Tensor  # (B, S, S) uint8
    target_mask: Tensor  # (B, S, S) uint8, zeros for negatives
    positive: Tensor  # (B,) bool, the object is visible in the target view
    block: Tensor  # (B,) bool, block the target tokens outside the object
    inside: Tensor  # (B, 4) int64, the target frame within the square: first row, end, first column, end
    sources: list[Source]
    unreadable: list[str]  # samples left out, with the reason

    def __len__(self) -> int:
        return len(self.sources)

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.type in (Tensor, "Tensor")}

    def to(self, device: torch.device) -> "Batch":
        return replace(self, **{name: t.to(device, non_blocking=True) for name, t in self.tensors().items()})

    def pin_memory(self) -> "Batch":
        return replace(self, **{name: t.pin_memory() for name, t in self.tensors().items()})


def never(_: ImageKey) -> bool:
    return False


class Samples(Dataset):
    """Reads one sample. `known(key)` says which images need not be read, because their features are at hand."""

    def __init__(self, pairs: PairSet, side: int, known: Callable[[ImageKey], bool] = never):
        self.pairs, self.side, self.known = pairs, side, known

    def image(self, view: tuple[str, str, int]) -> np.ndarray:
        if self.known(view):
            return np.zeros((self.side, self.side, 3), np.uint8)
        take_uid, camera, frame = view
        return letterbox(read_frame(self.pairs.data_dir / take_uid / camera / f"{frame}.jpg"), self.side)

    def mask(self, rle: RLE | None) -> np.ndarray:
        return np.zeros((self.side, self.side), np.uint8) if rle is None else letterbox_mask(rle, self.side)

    def read(self, source: Source, query_mask: RLE, target_mask: RLE | None, block: bool = False) -> dict:
        """One sample as arrays. Raises UserError or ValueError if a frame or a mask cannot be read."""
        return {
            "query_image": self.image(source.query),
            "target_image": self.image(source.target),
            "query_mask": self.mask(query_mask),
            "target_mask": self.mask(target_mask),
            "positive": target_mask is not None,
            "block": block,
            "inside": self.inside(target_mask or query_mask),
            "sources": source,
        }

    def inside(self, rle: RLE) -> list[int]:
        _, _, rows, cols = letterbox_axes(tuple(rle["size"]), self.side)
        return [rows.start, rows.stop, cols.start, cols.stop]


class ValidationSamples(Samples):
    """A fixed selection of pairs, as they are: no swaps, no blocked tokens."""

    def __init__(self, pairs: PairSet, size: int, side: int, known: Callable[[ImageKey], bool] = never):
        """`size` pairs (0 = all), the same in every run on the same data."""
        super().__init__(pairs, side, known)
        size = min(size, len(pairs)) or len(pairs)
        self.numbers = np.sort(np.random.default_rng(0).permutation(len(pairs))[:size])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, n: int) -> dict:
        i = int(self.numbers[n])
        source = _source(self.pairs[i])
        try:
            return self.read(source, self.pairs.query_mask(i), self.pairs.target_mask(i))
        except (UserError, ValueError) as error:
            return {"unreadable": [f"{source}: {error}"]}


class TrainSamples(Samples):
    """An endless stream; sample `n` is a function of (seed, n)."""

    def __init__(self, pairs: PairSet, side: int, seed: int, known: Callable[[ImageKey], bool] = never):
        super().__init__(pairs, side, known)
        self.seed = seed

    def __getitem__(self, n: int) -> dict:
        unreadable = []
        for attempt in range(REDRAWS):
            source, query_mask, target_mask, block = self.draw(np.random.default_rng((self.seed, n, attempt)))
            try:
                return self.read(source, query_mask(), target_mask(), block) | {"unreadable": unreadable}
            except (UserError, ValueError) as error:
                unreadable.append(f"{source}: {error}")
        raise UserError(f"{REDRAWS} samples in a row cannot be read; the last: {unreadable[-1]}")

    def draw(self, rng: np.random.Generator) -> tuple[Source, Callable, Callable, bool]:
        """What sample to read: its source, functions that give its two masks, and whether to block tokens."""
        i = int(rng.integers(len(self.pairs)))
        block = rng.random() < BLOCK
        source = _source(self.pairs[i])
        if rng.random() < TARGET_SWAP and (other := unrelated_pair(self.pairs, i, rng)) is not None:
            return source._replace(target=_source(other).target), lambda: self.pairs.query_mask(i), _nothing, block
        return source, lambda: self.pairs.query_mask(i), lambda: self.pairs.target_mask(i), block


def unrelated_pair(pairs: PairSet, i: int, rng: np.random.Generator, tries: int = 32) -> Pair | None:
    """A random pair of another take and another object: its target frame is a negative for pair `i`. None if all the
    pairs are of one take or one object."""
    take_uid, object_name = pairs[i][:2]
    for j in rng.integers(len(pairs), size=tries):  # nearly always the first one fits
        other = pairs[int(j)]
        if other.take_uid != take_uid and other.object_name != object_name:
            return other
    return pairs.unrelated(i, rng)


def _source(pair: Pair) -> Source:
    take_uid, object_name, query_camera, target_camera, frame = pair
    return Source(object_name, (take_uid, query_camera, frame), (take_uid, target_camera, frame))


def _nothing() -> None:
    return None


def collate(samples: list[dict]) -> Batch:
    """Stack samples; those that only report why they cannot be read are left out."""
    unreadable = [text for sample in samples for text in sample.get("unreadable", ())]
    samples = [sample for sample in samples if "sources" in sample]
    names = [f.name for f in fields(Batch) if f.name not in ("sources", "unreadable")]
    arrays = {
        name: torch.from_numpy(np.stack([s[name] for s in samples])) if samples else torch.empty(0) for name in names
    }
    return Batch(**arrays, sources=[s["sources"] for s in samples], unreadable=unreadable)


class StepSampler(Sampler):
    """Sample numbers of each step's batch: step s of B samples takes s * B ... s * B + B - 1, split over the ranks."""

    def __init__(self, steps: range, batch_size: int, rank: int = 0, ranks: int = 1):
        self.steps, self.batch_size = steps, batch_size
        self.share = range(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield [step * self.batch_size + k for k in self.share]


def make_loader(samples: Samples, batches: Sampler | list[list[int]], workers: int, pin: bool) -> DataLoader:
    """Batches of sample numbers -> `Batch`es, read ahead by `workers` processes (0 = by this one, when asked)."""
    ahead = {"prefetch_factor": 4, "worker_init_fn": _one_thread} if workers else {}
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=pin, **ahead)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(0)  # the processes are the parallelism
    torch.set_num_threads(1)
