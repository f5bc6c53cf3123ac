"""Samples for training and validation, which are pairs of views with their masks, and batches of them.

A training sample is a function of (seed, number) alone, so the stream is the same for any number of loader processes
and ranks, and a resumed run continues it from its step without saved random states.
"""

import contextlib
from collections.abc import Container, Iterator
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from common.arguments import SETTINGS
from common.errors import UserError
from common.parallel import default_workers, loader_workers, start_loader_worker
from formats.geometry import Corner, crop_corner, letterbox, letterbox_axes
from formats.masks import RLE, letterbox_mask
from formats.pairs import PairSet
from formats.processed import frame_path, read_frame
from formats.takes import KINDS
from model.backbone import STRIDE
from model.similarity import cell_coverage

TARGET_SWAP = 0.1  # how often the target frame is swapped for one of another take: a synthetic negative
BLOCK = 0.5  # how often the target tokens outside the object are blocked, in the paper's recipe
CLOSER_LOOKS = 0.4  # how often training zooms in, with --closer_look
ELSEWHERE = 0.5  # how often it then looks at another object's place: crops must not always show what is asked for
WITHIN = 0.5  # of an object must be in a crop that shows it
REDRAWS = 16  # unreadable samples in a row before a draw gives up
UNRELATED_TRIES = 32  # random pairs in search of an unrelated one: nearly always the first fits
SMALL_TRIES = 4  # tries to find a small object to zoom in on; else keep the full view
MAX_WORKERS = 16  # by default; about 1,000 samples a second, more than one GPU trains on
PREFETCH = 4  # batches that each worker is ahead
WHOLE = (-1, -1)  # in a corner's place, where there is no crop
BYTES_PER_PIXEL = 8  # of a sample: two images of three colors, two masks


class ImageKey(NamedTuple):
    """Everything that decides the pixels of a view, or of a mask if it names an object.

    Features are cached by it, those of an image by its `whole`. `Samples.image` gets nothing else to work with: an
    augmentation adds its random numbers here.
    """

    take_uid: str
    camera: str
    frame: int
    near: bool = False  # the camera is nearer to things than the others, `formats.takes.Kind.near`
    corner: Corner | None = None  # of the crop that a closer look shows, in cells of the image; None: the whole view
    object_name: str | None = None

    @property
    def whole(self) -> "ImageKey":
        return self._replace(corner=None)


class Source(NamedTuple):
    """Where a sample comes from. Take and frame of the two views differ in negatives that training made up."""

    object_name: str
    query: ImageKey
    target: ImageKey

    def __str__(self) -> str:
        views = [f"{view.take_uid}/{view.camera}/{view.frame}" for view in (self.query, self.target)]
        return f"{self.object_name!r} {' -> '.join(views)}"

    @property
    def query_mask(self) -> ImageKey:
        return self.query._replace(object_name=self.object_name)


class SampleOptions(NamedTuple):
    """The part of a training's recipe that decides its samples."""

    block: float = BLOCK
    zoom: int = 1  # side of the images in units of the network's input
    closer_look: bool = False  # query views are cropped around small objects, and so are some target views


class Samples(Dataset):
    """Reads one sample. Images whose features are `cached` are left black."""

    def __init__(
        self, pairs: PairSet, side: int, cached: Container[ImageKey] = (), options: SampleOptions | None = None
    ):
        self.pairs, self.side, self.cached, self.options = pairs, side, cached, options or SampleOptions()
        self.image_side = side * self.options.zoom

    def source(self, i: int, j: int) -> Source:
        """Object and query view of pair `i`, target view of pair `j`."""
        query, target = self.pairs[i], self.pairs[j]
        near = KINDS[SETTINGS[query.setting][0]].near, KINDS[SETTINGS[target.setting][1]].near
        return Source(
            query.object_name,
            ImageKey(query.take_uid, query.query_camera, query.frame, near[0]),
            ImageKey(target.take_uid, target.target_camera, target.frame, near[1]),
        )

    def read(
        self,
        source: Source,
        query_rle: RLE,
        target_rle: RLE | None,
        block: bool = False,
        look_at: RLE | None = None,
    ) -> dict:
        """One sample as arrays; the target view is cropped around the object of the mask `look_at`, if there is one.
        Raises UserError or ValueError if a frame or a mask cannot be read.
        """
        query_mask, target_mask = self.mask(query_rle), self.mask(target_rle)
        if self.options.closer_look:
            source = source._replace(query=source.query._replace(corner=self.corner(query_mask)))
        if look_at is not None:
            source = source._replace(target=self.closer(source.target, target_mask, self.mask(look_at)))
        target_shown = self.shown(target_mask, source.target)
        _, _, rows, cols = letterbox_axes(tuple((target_rle or query_rle)["size"]), self.side)
        return {
            "query_image": self.image(source.query),
            "target_image": self.image(source.target),
            "query_mask": self.shown(query_mask, source.query),
            "target_mask": target_shown,
            "query_coverage": cell_coverage(torch.from_numpy(query_mask)[None])[0].numpy(),
            "query_corner": np.array(source.query.corner or WHOLE),
            "target_corner": np.array(source.target.corner or WHOLE),
            "visible": target_rle is not None and (source.target.corner is None or bool(target_shown.any())),
            "block": block,
            "frame_rows": [rows.start, rows.stop],
            "frame_cols": [cols.start, cols.stop],
            "sources": source,
        }

    def image(self, key: ImageKey) -> np.ndarray:
        """(image_side, image_side, 3) uint8 RGB: all of it, whatever `key.corner` is."""
        if key.whole in self.cached:
            return np.zeros((self.image_side, self.image_side, 3), np.uint8)
        path = frame_path(self.pairs.camera_folder(key.take_uid, key.camera), key.frame)
        return letterbox(read_frame(path), self.image_side)

    def mask(self, rle: RLE | None) -> np.ndarray:
        """(image_side, image_side) uint8 of 0 and 1; all 0 for None."""
        if rle is None:
            return np.zeros((self.image_side, self.image_side), np.uint8)
        return letterbox_mask(rle, self.image_side)

    def shown(self, image: np.ndarray, key: ImageKey) -> np.ndarray:
        """What the network is shown of an image or a mask: (S, S, ...)."""
        if key.corner is None:
            return image[:: self.options.zoom, :: self.options.zoom]
        return image[tuple(slice(first * STRIDE, first * STRIDE + self.side) for first in key.corner)]

    def closer(self, view: ImageKey, mask: np.ndarray, look_at: np.ndarray) -> ImageKey:
        """Crop around `look_at`. If it does not fit, or the crop cuts off half of our object, crop around our object.
        If that does not fit either, show the whole view.
        """
        there = view._replace(corner=self.corner(look_at))
        inside = 0 if there.corner is None else self.shown(mask, there).sum()
        if there.corner is None or 0 < inside < WITHIN * mask.sum():
            return view._replace(corner=self.corner(mask))
        return there

    def corner(self, mask: np.ndarray) -> Corner | None:
        """Of the crop around a mask, (image_side, image_side), in cells; None if the object is too large for one."""
        return crop_corner(mask.any(1), mask.any(0), self.side, STRIDE)


class ValidationSamples(Samples):
    """A fixed selection of pairs, as they are: no swaps, no blocked tokens."""

    def __init__(
        self,
        pairs: PairSet,
        size: int,
        side: int,
        cached: Container[ImageKey] = (),
        options: SampleOptions | None = None,
    ):
        """`size` pairs (0 = all), the same in every run on the same data."""
        super().__init__(pairs, side, cached, options)
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
    """The views of a training sample: of two pairs, which are one pair unless training made up a negative."""

    query: int  # the pair whose query view and mask are shown
    target: int  # the pair whose target view is shown
    is_negative: bool  # the target view comes from another take, so that the object is not there
    block: bool  # block the target tokens outside the object
    look_at: int | None = None  # crop the target view around the object of that pair


class TrainSamples(Samples):
    """An endless stream; sample `n` is a function of (seed, n)."""

    def __init__(
        self,
        pairs: PairSet,
        side: int,
        seed: int,
        cached: Container[ImageKey] = (),
        options: SampleOptions | None = None,
    ):
        super().__init__(pairs, side, cached, options)
        self.seed = seed
        self._tracks: dict[tuple[str, str], list[range]] = {}  # by take and target camera

    def __getitem__(self, n: int) -> dict:
        unreadable = []
        for attempt in range(REDRAWS):
            rng = np.random.default_rng((self.seed, n, attempt))
            draw = self.draw(rng)
            source = self.source(draw.query, draw.target)
            try:
                query_mask = self.pairs.query_mask(draw.query)
                target_mask = None if draw.is_negative else self.pairs.target_mask(draw.target)
                look_at = None if draw.look_at is None else self.pairs.target_mask(draw.look_at)
                sample = self.read(source, query_mask, target_mask, draw.block, look_at)
            except (UserError, ValueError) as error:
                unreadable.append(f"{source}: {error}")
                continue
            return sample | {"unreadable": unreadable}
        raise UserError(f"{REDRAWS} samples in a row cannot be read; the last: {unreadable[-1]}")

    def draw(self, rng: np.random.Generator) -> Draw:
        i = int(rng.integers(len(self.pairs)))
        block = rng.random() < self.options.block
        j = unrelated_pair(self.pairs, i, rng) if rng.random() < TARGET_SWAP else None
        zoom = rng.random() < CLOSER_LOOKS * self.options.closer_look
        if zoom and rng.random() < ELSEWHERE:
            return Draw(i, i, False, block, self.neighbor(i, rng))
        if zoom and (small := self.small_pair(rng)) is not None:
            return Draw(small, small, False, block, small)
        return Draw(i, i, False, block) if j is None else Draw(i, j, True, block)

    def neighbor(self, i: int, rng: np.random.Generator) -> int:
        """A random pair whose target is an object of the same take and camera, at any time."""
        if not self._tracks:
            for track in self.pairs.tracks:
                self._tracks.setdefault((track.take_uid, track.target_camera), []).append(track.numbers)
        own = self.pairs[i]
        tracks = [numbers for numbers in self._tracks[own.take_uid, own.target_camera] if numbers]
        numbers = tracks[rng.integers(len(tracks))]
        return numbers[rng.integers(len(numbers))]

    def small_pair(self, rng: np.random.Generator) -> int | None:
        """A random pair to zoom in on: its object is visible, and small enough. None if there is hardly any.

        It takes the place of whatever was drawn, so whole views show small objects as often as others.
        """
        for i in rng.integers(len(self.pairs), size=SMALL_TRIES).tolist():
            with contextlib.suppress(ValueError):  # of an unreadable mask
                if (rle := self.pairs.target_mask(i)) and self.corner(self.mask(rle)):
                    return i
        return None


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


@dataclass
class Batch:
    """B samples. Masks are square, S pixels a side, and show a part of their images where there is a corner."""

    query_image: Tensor  # (B, k S, k S, 3) uint8 RGB, k the zoom
    target_image: Tensor  # likewise
    query_mask: Tensor  # (B, S, S) uint8
    target_mask: Tensor  # (B, S, S) uint8, zeros where the object is not visible
    query_coverage: Tensor  # (B, k h, k w) float32, which part of each of its cells the object covers
    query_corner: Tensor  # (B, 2) int64, of the crop that the network sees, in cells of the image; -1: all, reduced
    target_corner: Tensor  # likewise
    visible: Tensor  # (B,) bool, the object is visible in the target view, or in the crop of it that is shown
    block: Tensor | None  # (B,) bool, block the target tokens outside the object; None: in no sample
    frame_rows: Tensor  # (B, 2) int64, rows of the square that the target frame covers: the first, the end
    frame_cols: Tensor  # (B, 2) int64, columns, likewise
    sources: list[Source]
    unreadable: list[str]  # samples left out, with the reason

    def __len__(self) -> int:
        return len(self.sources)

    def tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device) -> "Batch":
        return replace(self, **{name: t.to(device, non_blocking=True) for name, t in self.tensors().items()})

    def pin_memory(self) -> "Batch":
        return replace(self, **{name: t.pin_memory() for name, t in self.tensors().items()})


def collate(samples: list[dict]) -> Batch:
    """Stack samples; those that only report why they cannot be read are left out."""
    unreadable = [text for sample in samples for text in sample.get("unreadable", ())]
    samples = [sample for sample in samples if "sources" in sample]
    names = [f.name for f in fields(Batch) if f.name not in ("sources", "unreadable")]
    arrays = {
        name: torch.from_numpy(np.stack([s[name] for s in samples])) if samples else torch.empty(0) for name in names
    }
    if not arrays["block"].any():
        arrays["block"] = None  # attention without a mask has faster kernels
    return Batch(**arrays, sources=[s["sources"] for s in samples], unreadable=unreadable)


class StepSampler(Sampler):
    """Sample numbers of each step's batch: step s of B samples takes s * B ... s * B + B - 1, split over the ranks.

    `count` ends a stream that has an end: the last batch is smaller, even empty on some ranks.
    """

    def __init__(self, steps: range, batch_size: int, rank: int = 0, ranks: int = 1, count: int | None = None):
        self.steps, self.batch_size, self.count = steps, batch_size, count
        self.own = range(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)  # of each batch

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            numbers = [step * self.batch_size + k for k in self.own]
            yield numbers if self.count is None else [n for n in numbers if n < self.count]


def affordable_workers(workers: int | None, batch_size: int, image_side: int) -> int:
    """How many of `workers` /dev/shm has room for: training's batches stay in it while validation reads its own. None:
    this process's CPUs less one, on which it trains itself.
    """
    if workers is None:
        workers = max(1, min(default_workers() - 1, MAX_WORKERS))
    return loader_workers(workers, 2 * batch_size * image_side**2 * BYTES_PER_PIXEL, PREFETCH)


def batch_loader(samples: Samples, batches: StepSampler, workers: int, pin: bool) -> DataLoader:
    """The batches as `Batch`es, read ahead by `workers` processes, which stay for the next time that the batches are
    gone through; with 0, this process reads each when it is asked.
    """
    cv2.setNumThreads(0)  # OpenCV's threads do not survive the fork of a worker
    ahead = {"prefetch_factor": PREFETCH, "worker_init_fn": start_loader_worker, "persistent_workers": True}
    ahead = ahead if workers else {}
    return DataLoader(samples, batch_sampler=batches, collate_fn=collate, num_workers=workers, pin_memory=pin, **ahead)
