"""Samples for training, which are pairs of views with their masks, and batches of them.

A training sample is a function of (seed, number) alone, so the stream is the same for any number of loader processes
and ranks, and a resumed run continues it from its step without saved random states. A `Reader` reads the two views:
train/letterboxed.py has the paper's, train/crops.py that of the strong recipe.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from formats.pairs import Pair, PairSet, PairTrack
from formats.processed import frame_path, read_frame

TARGET_SWAP = 0.1  # how often the target frame is one of another take: a synthetic negative
REDRAWS = 16  # unreadable samples in a row before a draw gives up
UNRELATED_TRIES = 32  # random pairs in search of an unrelated one: nearly always the first fits


class ViewKey(NamedTuple):
    """A frame of a camera, or with a name the mask of an object in it. Features are cached by it."""

    take_uid: str
    camera: str
    frame: int
    object_name: str | None = None


class Source(NamedTuple):
    """The origin of a sample. Take and frame of the two views differ in negatives that training made up."""

    object_name: str
    query: ViewKey
    target: ViewKey

    def __str__(self) -> str:
        views = [f"{view.take_uid}/{view.camera}/{view.frame}" for view in (self.query, self.target)]
        return f"{self.object_name!r} {' -> '.join(views)}"

    @property
    def query_mask(self) -> ViewKey:
        return self.query._replace(object_name=self.object_name)


class DrawnPairs(NamedTuple):
    """The views of a sample: of two pairs, which are one pair unless training made up a negative."""

    query: int  # the pair whose query view and mask are shown
    target: int  # the pair whose target view is shown; the object is not there if it is another one
    block: bool = False  # block the target tokens outside the object


@dataclass
class Batch:
    """B samples."""

    sources: list[Source]
    unreadable: list[str]  # samples left out, with the reason
    visible: Tensor  # (B,) bool, the object is visible in the target view

    def __len__(self) -> int:
        return len(self.sources)

    def to(self, device: torch.device) -> "Batch":
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: with_tensors_changed(value, change) for name, value in values.items()})


def with_tensors_changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or a list of NamedTuples, with every tensor changed; any other value as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        return [type(row)(*(with_tensors_changed(x, change) for x in row)) for row in value]
    return value


class Reader(Protocol):
    def read(self, pairs: PairSet, drawn: DrawnPairs, rng: np.random.Generator) -> dict[str, Any]:
        """One sample. Raises UserError or ValueError if a frame or a mask cannot be read."""

    def collate(self, samples: list[dict]) -> Batch:
        """A batch of samples that `TrainSamples` gives: with a "source", and the "unreadable" ones before them."""


def stacked_tensors(samples: Sequence[dict], *names: str) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in names}


def common_fields(samples: Sequence[dict]) -> dict[str, Any]:
    """The fields of every `Batch`."""
    return {
        "sources": [sample["source"] for sample in samples],
        "unreadable": [text for sample in samples for text in sample["unreadable"]],
        **stacked_tensors(samples, "visible"),
    }


def source_of(pairs: PairSet, drawn: DrawnPairs) -> Source:
    query, target = pairs[drawn.query], pairs[drawn.target]
    return Source(
        query.object_name,
        ViewKey(query.take_uid, query.query_camera, query.frame),
        ViewKey(target.take_uid, target.target_camera, target.frame),
    )


def read_view(pairs: PairSet, key: ViewKey) -> np.ndarray:
    """(H, W, 3) uint8 RGB. Raises UserError if it cannot be read."""
    return read_frame(frame_path(pairs.camera_folder(key.take_uid, key.camera), key.frame))


class TrainSamples(Dataset):
    """An endless stream; sample `n` is a function of (seed, n). In a share `block` of the samples, the target tokens
    outside the object are to be blocked.
    """

    def __init__(self, pairs: PairSet, reader: Reader, seed: int, block: float = 0.0):
        self.pairs, self.reader, self.seed, self.block = pairs, reader, seed, block

    def __getitem__(self, n: int) -> dict:
        unreadable = []
        for attempt in range(REDRAWS):
            rng = np.random.default_rng((self.seed, n, attempt))
            drawn = self.draw(rng)
            try:
                sample = self.reader.read(self.pairs, drawn, rng)
            except (UserError, ValueError) as error:
                unreadable.append(f"{source_of(self.pairs, drawn)}: {error}")
                continue
            return sample | {"unreadable": unreadable}
        raise UserError(f"{REDRAWS} samples in a row cannot be read; the last: {unreadable[-1]}")

    def draw(self, rng: np.random.Generator) -> DrawnPairs:
        i = int(rng.integers(len(self.pairs)))
        block = rng.random() < self.block
        j = unrelated_pair(self.pairs, i, rng) if rng.random() < TARGET_SWAP else None
        return DrawnPairs(i, i if j is None else j, block)


def unrelated_pair(pairs: PairSet, i: int, rng: np.random.Generator) -> int | None:
    """A random pair of another take and another object, of the same setting, whose target frame is a negative for pair
    `i`. None if there is none.
    """

    def fits(other: Pair | PairTrack) -> bool:
        is_another = other.take_uid != own.take_uid and other.object_name != own.object_name
        return is_another and other.setting == own.setting

    own = pairs[i]
    for j in rng.integers(len(pairs), size=UNRELATED_TRIES).tolist():  # a pass over all takes long
        if fits(pairs[j]):
            return j
    numbers = np.flatnonzero(np.repeat([*map(fits, pairs.tracks)], [len(track.numbers) for track in pairs.tracks]))
    return int(rng.choice(numbers)) if len(numbers) else None


def step_batches(steps: range, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[range]:
    """The numbers of a rank's samples at each step, for a DataLoader's `batch_sampler`: step s of B samples takes
    s * B ... s * B + B - 1, split over the ranks.
    """
    first, last = rank * batch_size // world_size, (rank + 1) * batch_size // world_size
    for step in steps:
        yield range(step * batch_size + first, step * batch_size + last)
