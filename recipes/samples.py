"""Samples for training, which are pairs of views with their masks, and batches of samples.

A sample depends on the seed and the sample's number alone. The stream of samples is therefore the same for any number
of loader processes and ranks, and a resumed run continues it without saved random states. `Recipe.read` reads the two
views of a sample.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from formats.pairs import Pair, PairSet, PairTrack

TARGET_SWAP = 0.1  # the share of samples whose target frame is from another take: synthetic negatives
REDRAWS = 16  # after so many unreadable samples in a row, an error is raised
UNRELATED_TRIES = 32  # random pairs that are tried to find an unrelated one; nearly always the first one fits


class ViewKey(NamedTuple):
    """The key of cached features: a frame of a camera or, with `object_name`, an object's mask in this frame."""

    take_uid: str
    camera: str
    frame: int
    object_name: str | None = None


class Source(NamedTuple):
    """The origin of a sample. The two views are of the same take and frame, except in synthetic negatives."""

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
    """The pairs from which the two views of a sample come: the same pair, except in synthetic negatives."""

    query: int  # the pair whose query view and mask are shown
    target: int  # the pair whose target view is shown; if it is another pair, the object is not in this view
    chance: float = 1.0  # a random number from 0 to 1, for a choice of the recipe
    cached: Container[ViewKey] = ()  # views whose features are cached, so that their images need not be read


@dataclass
class Batch:
    """B samples."""

    sources: list[Source]
    unreadable: list[str]  # samples that were left out, with the reasons
    visible: Tensor  # (B,) bool, the object is visible in the target view

    @classmethod
    def of(cls, samples: Sequence[dict[str, Any]], **given: Any) -> Any:
        """The batch of samples from `TrainSamples`: all fields except the `given` ones are stacked."""
        given["sources"] = [sample["source"] for sample in samples]
        given["unreadable"] = [text for sample in samples for text in sample["unreadable"]]
        names = [field.name for field in fields(cls) if field.name not in given]
        tensors: Any = {x: torch.from_numpy(np.stack([sample[x] for sample in samples])) for x in names}
        return cls(**given, **tensors)

    def __len__(self) -> int:
        return len(self.sources)

    def to(self, device: torch.device) -> "Batch":
        return self._changed(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        return self._changed(Tensor.pin_memory)

    def _changed(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        return replace(self, **{name: with_tensors_changed(value, change) for name, value in vars(self).items()})


def with_tensors_changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change a tensor, or every tensor in a list of NamedTuples; any other value is returned as it is."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list) and value and hasattr(value[0], "_fields"):
        return [type(row)(*(with_tensors_changed(x, change) for x in row)) for row in value]
    return value


def source_of(pairs: PairSet, drawn: DrawnPairs) -> Source:
    query, target = pairs[drawn.query], pairs[drawn.target]
    return Source(
        query.object_name,
        ViewKey(query.take_uid, query.query_camera, query.frame),
        ViewKey(target.take_uid, target.target_camera, target.frame),
    )


def read_view(pairs: PairSet, key: ViewKey) -> np.ndarray:
    """Read a frame as (H, W, 3) uint8 RGB. Raises UserError if it cannot be read."""
    return pairs.read_frame(key.take_uid, key.camera, key.frame)


class TrainSamples(Dataset):
    """An endless stream of samples of a `NetworkRecipe.read`; sample `n` depends on the seed and n alone. The index of
    sample n is n, or a tuple of n and the views that are cached (`with_cached`).
    """

    def __init__(self, pairs: PairSet, read: Callable[..., dict[str, Any]], seed: int):
        self.pairs, self.read, self.seed = pairs, read, seed

    def __getitem__(self, index: int | tuple[int, Container[ViewKey]]) -> dict:  # pyrefly: ignore
        unreadable, (n, cached) = [], index if isinstance(index, tuple) else (index, ())
        for attempt in range(REDRAWS):
            rng = np.random.default_rng((self.seed, n, attempt))
            drawn = self.draw(rng)._replace(cached=cached)
            try:
                return self.read(self.pairs, drawn, rng) | {"unreadable": unreadable}
            except (UserError, ValueError) as error:
                unreadable.append(f"{source_of(self.pairs, drawn)}: {error}")
        raise UserError(f"{REDRAWS} samples in a row cannot be read; the last: {unreadable[-1]}")

    def with_cached(self, numbers: Iterable[int], cache: Container[ViewKey]) -> list[tuple[int, list[ViewKey]]]:
        """The indices of these samples, with those of their views that are in the cache now. The process that has the
        cache says this to the loader processes, whose copies of the cache do not grow.
        """
        firsts = ((n, self.draw(np.random.default_rng((self.seed, n, 0)))) for n in numbers)
        return [(n, [view for view in source_of(self.pairs, drawn)[1:] if view in cache]) for n, drawn in firsts]

    def draw(self, rng: np.random.Generator) -> DrawnPairs:
        i = int(rng.integers(len(self.pairs)))
        chance = rng.random()
        j = unrelated_pair(self.pairs, i, rng) if rng.random() < TARGET_SWAP else None
        return DrawnPairs(i, i if j is None else j, chance)


def unrelated_pair(pairs: PairSet, i: int, rng: np.random.Generator) -> int | None:
    """A random pair of the same setting, but of another take and another object, whose target frame is a negative for
    pair `i`; None if there is no such pair.
    """

    def fits(other: Pair | PairTrack) -> bool:
        is_another = other.take_uid != own.take_uid and other.object_name != own.object_name
        return is_another and other.setting == own.setting

    own = pairs[i]
    for j in rng.integers(len(pairs), size=UNRELATED_TRIES).tolist():  # to go through all pairs takes long
        if fits(pairs[j]):
            return j
    numbers = np.flatnonzero(np.repeat([*map(fits, pairs.tracks)], [len(track.numbers) for track in pairs.tracks]))
    return int(rng.choice(numbers)) if len(numbers) else None


def step_batches(steps: range, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[range]:
    """Yield the numbers of a rank's samples for each step, as the `batch_sampler` of a DataLoader. Step s with B
    samples takes the numbers s * B to s * B + B - 1, which are split over the ranks.
    """
    first, last = rank * batch_size // world_size, (rank + 1) * batch_size // world_size
    for step in steps:
        yield range(step * batch_size + first, step * batch_size + last)
