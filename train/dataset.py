"""What training draws and validation repeats: pairs of views with their masks.

A training sample is a function of (seed, number) alone, so the stream is the same for any number of loader processes
and ranks, and a resumed run continues it from its step without saved random states.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from formats.errors import UserError
from formats.geometry import letterbox, letterbox_axes
from formats.masks import RLE, letterbox_mask
from formats.pairs import Pair, PairSet
from formats.processed import read_frame
from train.augment import augment_view
from train.negatives import HardNegatives, unrelated_pair

TARGET_SWAP = 0.1  # how often the target frame is swapped for one of another take: a synthetic negative
HARD_NEGATIVES = 0.1  # with --hard_negatives, how often a pair becomes a negative of the same take
BLOCK = 0.5  # how often the target tokens outside the object are blocked
REDRAWS = 16  # unreadable samples in a row before a draw gives up
ReadMask = Callable[[], RLE | None]
ImageKey = tuple  # an input image of the backbone: (take, camera, frame), or (take, camera, frame, object) for a mask


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

    def __init__(
        self,
        pairs: PairSet,
        side: int,
        seed: int,
        known: Callable[[ImageKey], bool] = never,
        hard_negatives: bool = False,
        augment: bool = False,
    ):
        super().__init__(pairs, side, known)
        self.seed, self.augment = seed, augment
        self.hard_negatives = HardNegatives(pairs) if hard_negatives else None

    def __getitem__(self, n: int) -> dict:
        unreadable = []
        for attempt in range(REDRAWS):
            rng = np.random.default_rng((self.seed, n, attempt))
            source, query_mask, target_mask, block = self.draw(rng)
            try:
                sample = self.read(source, query_mask(), target_mask(), block)
            except (UserError, ValueError) as error:
                unreadable.append(f"{source}: {error}")
                continue
            return (augmented(rng, sample) if self.augment else sample) | {"unreadable": unreadable}
        raise UserError(f"{REDRAWS} samples in a row cannot be read; the last: {unreadable[-1]}")

    def draw(self, rng: np.random.Generator) -> tuple[Source, ReadMask, ReadMask, bool]:
        """What sample to read: its source, functions that read its two masks, and whether to block tokens."""
        i = int(rng.integers(len(self.pairs)))
        block = rng.random() < BLOCK
        kind = rng.random()
        if kind < TARGET_SWAP:
            other = unrelated_pair(self.pairs, i, rng)
        elif self.hard_negatives and kind < TARGET_SWAP + HARD_NEGATIVES:
            i, other = self.hard_negatives.draw(i, rng) or (i, None)
        else:
            other = None
        source = _source(self.pairs[i])
        if other is not None:
            return source._replace(target=_source(other).target), partial(self.pairs.query_mask, i), _nothing, block
        return source, partial(self.pairs.query_mask, i), partial(self.pairs.target_mask, i), block


def augmented(rng: np.random.Generator, sample: dict) -> dict:
    """Both views of a sample changed at random and independently; a query whose object would be lost stays as it is."""
    query_image, query_mask = augment_view(rng, sample["query_image"], sample["query_mask"])
    target_image, target_mask = augment_view(rng, sample["target_image"], sample["target_mask"])
    positive = sample["positive"] and bool(target_mask.any() or not sample["target_mask"].any())
    if query_mask.any():
        sample |= {"query_image": query_image, "query_mask": query_mask}
    return sample | {"target_image": target_image, "target_mask": target_mask, "positive": positive}


def _source(pair: Pair) -> Source:
    take_uid, object_name, query_camera, target_camera, frame = pair
    return Source(object_name, (take_uid, query_camera, frame), (take_uid, target_camera, frame))


def _nothing() -> None:
    return None
