"""What training draws and validation repeats: pairs of views with their masks.

A training sample is a function of (seed, number) alone, so the stream is the same for any number of loader processes
and ranks, and a resumed run continues it from its step without saved random states.
"""

import contextlib
from collections.abc import Container
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from formats.errors import UserError
from formats.geometry import ZOOM, Corner, closer_corner, crop, letterbox, letterbox_axes
from formats.masks import RLE, letterbox_mask
from formats.pairs import PairSet
from formats.processed import frame_path, read_frame

TARGET_SWAP = 0.1  # how often the target frame is swapped for one of another take: a synthetic negative
BLOCK = 0.5  # how often the target tokens outside the object are blocked, in the paper's recipe
CLOSER = 0.25  # how often training looks closer at an object, where the network is to learn that
REDRAWS = 16  # unreadable samples in a row before a draw gives up
UNRELATED_TRIES = 32  # random pairs in search of an unrelated one: nearly always the first fits
SMALL_TRIES = 4  # ... of a small object: where few objects are, few samples are spent on them
View = tuple[str, str, int]  # take uid, camera, frame
ImageKey = tuple  # an input image of the backbone: (*view, corner), or (*view, object, corner) for a mask


class Source(NamedTuple):
    """Where a sample comes from. The two takes or frames differ in negatives that training made up. The corners are
    those of a closer look, None where the whole view is shown.
    """

    object_name: str
    query: View
    target: View
    query_corner: Corner | None = None
    target_corner: Corner | None = None

    def __str__(self) -> str:
        views = [f"{take}/{camera}/{frame}" for take, camera, frame in (self.query, self.target)]
        return f"{self.object_name!r} {' -> '.join(views)}"

    @property
    def image_keys(self) -> tuple[ImageKey, ImageKey, ImageKey]:
        """Keys of query image, target image, query mask."""
        query, target = (*self.query, self.query_corner), (*self.target, self.target_corner)
        return query, target, (*self.query, self.object_name, self.query_corner)


class Samples(Dataset):
    """Reads one sample. Images whose features are `cached` are left black."""

    def __init__(self, pairs: PairSet, side: int, cached: Container[ImageKey] = ()):
        self.pairs, self.side, self.cached = pairs, side, cached

    def source(self, i: int, j: int) -> Source:
        """Object and query view of pair `i`, target view of pair `j`."""
        query, target = self.pairs[i], self.pairs[j]
        return Source(
            query.object_name,
            (query.take_uid, query.query_camera, query.frame),
            (target.take_uid, target.target_camera, target.frame),
        )

    def read(self, source: Source, query_mask: RLE, target_mask: RLE | None, block: bool = False) -> dict:
        """One sample as arrays. Raises UserError or ValueError if a frame or a mask cannot be read."""
        _, _, rows, cols = letterbox_axes(tuple((target_mask or query_mask)["size"]), self.side)
        return {
            "query_image": self.image(source.query, source.query_corner),
            "target_image": self.image(source.target, source.target_corner),
            "query_mask": self.mask(query_mask, source.query_corner),
            "target_mask": self.mask(target_mask, source.target_corner),
            "positive": target_mask is not None,
            "whole": source.target_corner is None,
            "block": block,
            "inside": [rows.start, rows.stop, cols.start, cols.stop],
            "sources": source,
        }

    def image(self, view: View, corner: Corner | None = None) -> np.ndarray:
        if (*view, corner) in self.cached:
            return np.zeros((self.side, self.side, 3), np.uint8)
        take_uid, camera, frame = view
        pixels = read_frame(frame_path(self.pairs.data_dir / take_uid / camera, frame))
        if corner is None:
            return letterbox(pixels, self.side)
        return crop(letterbox(pixels, ZOOM * self.side), self.side, corner)

    def mask(self, rle: RLE | None, corner: Corner | None = None) -> np.ndarray:
        if rle is None:
            return np.zeros((self.side, self.side), np.uint8)
        if corner is None:
            return letterbox_mask(rle, self.side)
        return crop(letterbox_mask(rle, ZOOM * self.side), self.side, corner)


class ValidationSamples(Samples):
    """A fixed selection of pairs, as they are: no swaps, no blocked tokens."""

    def __init__(self, pairs: PairSet, size: int, side: int, cached: Container[ImageKey] = ()):
        """`size` pairs (0 = all), the same in every run on the same data."""
        super().__init__(pairs, side, cached)
        size = min(size, len(pairs)) or len(pairs)
        self.numbers = np.sort(np.random.default_rng(0).permutation(len(pairs))[:size])

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, n: int) -> dict:
        i = int(self.numbers[n])
        source = self.source(i, i)
        try:
            return self.read(source, self.pairs.query_mask(i), self.pairs.target_mask(i))
        except (UserError, ValueError) as error:
            return {"unreadable": [f"{source}: {error}"]}


class Draw(NamedTuple):
    """What a training sample shows: views of two pairs, which are one pair unless training made up a negative."""

    query: int  # the pair whose query view and mask are shown
    target: int  # the pair whose target view is shown
    own_mask: bool  # with that pair's target mask, if it has one; False: the object is not there
    block: bool  # block the target tokens outside the object
    closer: bool = False  # look closer at the object


class TrainSamples(Samples):
    """An endless stream; sample `n` is a function of (seed, n)."""

    def __init__(
        self,
        pairs: PairSet,
        side: int,
        seed: int,
        cached: Container[ImageKey] = (),
        block: float = BLOCK,
        closer: float = 0.0,
    ):
        super().__init__(pairs, side, cached)
        self.seed, self.block, self.closer = seed, block, closer

    def __getitem__(self, n: int) -> dict:
        unreadable = []
        for attempt in range(REDRAWS):
            rng = np.random.default_rng((self.seed, n, attempt))
            draw = self.draw(rng)
            source = self.source(draw.query, draw.target)
            try:
                query_mask = self.pairs.query_mask(draw.query)
                target_mask = self.pairs.target_mask(draw.target) if draw.own_mask else None
                if draw.closer:
                    corners = (self.corner(mask) for mask in (query_mask, target_mask))
                    source = Source(*source[:3], *corners)
                sample = self.read(source, query_mask, target_mask, draw.block)
            except (UserError, ValueError) as error:
                unreadable.append(f"{source}: {error}")
                continue
            return sample | {"unreadable": unreadable}
        raise UserError(f"{REDRAWS} samples in a row cannot be read; the last: {unreadable[-1]}")

    def draw(self, rng: np.random.Generator) -> Draw:
        i = int(rng.integers(len(self.pairs)))
        block = rng.random() < self.block
        j = unrelated_pair(self.pairs, i, rng) if rng.random() < TARGET_SWAP else None
        if rng.random() < self.closer and (small := self.small_pair(rng)) is not None:
            return Draw(small, small, True, block, closer=True)
        return Draw(i, i, True, block) if j is None else Draw(i, j, False, block)

    def small_pair(self, rng: np.random.Generator) -> int | None:
        """A random pair for a closer look: its object is visible, and small enough. None if there is hardly any.

        It takes the place of whatever was drawn, so whole views show small objects as often as others.
        """
        for i in rng.integers(len(self.pairs), size=SMALL_TRIES).tolist():
            with contextlib.suppress(ValueError):  # of an unreadable mask
                if (mask := self.pairs.target_mask(i)) and self.corner(mask):
                    return i
        return None

    def corner(self, rle: RLE) -> Corner | None:
        """Of the closer look at a mask; None if the object is too large for that."""
        mask = letterbox_mask(rle, ZOOM * self.side)
        return closer_corner(mask.any(1), mask.any(0), self.side)


def unrelated_pair(pairs: PairSet, i: int, rng: np.random.Generator) -> int | None:
    """A random pair of another take and another object, whose target frame is a negative for pair `i`.

    None if there is none.
    """
    own = pairs[i]
    for j in rng.integers(len(pairs), size=UNRELATED_TRIES).tolist():  # a pass over all takes long
        other = pairs[j]
        if other.take_uid != own.take_uid and other.object_name != own.object_name:
            return j
    fits = [track.take_uid != own.take_uid and track.object_name != own.object_name for track in pairs.tracks]
    numbers = np.flatnonzero(np.repeat(fits, [len(track.numbers) for track in pairs.tracks]))
    return int(rng.choice(numbers)) if len(numbers) else None
