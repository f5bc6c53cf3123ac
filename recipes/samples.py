"""Training samples, which are pairs of views with their masks, and batches of samples. `RecipeTraining.read` reads the
views.

The stream of samples has no end. A sample depends on the seed and the sample's number alone, so the stream is the same
for any number of loader processes and ranks, and a resumed run continues it without saved random states.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from common.errors import UserError
from common.own_code import call_own
from formats.pairs import Pairs

TARGET_SWAP = 0.1  # the share of samples whose target frame is from another take: synthetic negatives
REDRAWS = 16  # after so many unreadable samples in a row, an error is raised
UNRELATED_TRIES = 32  # random pairs that are tried to find an unrelated one; nearly always the first one fits


class DrawnPairs(NamedTuple):
    """The pairs from which the two views of a sample come: the same pair, except in synthetic negatives."""

    query: int  # the pair whose query view and mask are shown
    target: int  # the pair whose target view is shown; if it is another pair, the object is not in this view
    chance: float = 1.0  # a random number from 0 to 1, for a choice of the paper's recipe


@dataclass
class Batch:
    """B samples."""

    unreadable: list[str]  # samples that were left out, with the reasons
    visible: Tensor  # (B,) bool, the object is visible in the target view

    @classmethod
    def of(cls, samples: Sequence[dict[str, Any]], **given: Any) -> Any:
        """The batch of samples from `TrainSamples`: all fields except the `given` ones are stacked."""
        given["unreadable"] = [text for sample in samples for text in sample["unreadable"]]
        names = [field.name for field in fields(cls) if field.name not in given]
        tensors: Any = {x: torch.from_numpy(np.stack([sample[x] for sample in samples])) for x in names}
        return cls(**given, **tensors)

    def __len__(self) -> int:
        return len(self.visible)

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


class TrainSamples(Dataset):
    """The stream of samples, read by `read` of a `RecipeTraining`."""

    def __init__(self, pairs: Pairs, read: Callable[..., dict[str, Any]], seed: int):
        self.pairs, self.read, self.seed = pairs, read, seed

    def __getitem__(self, n: int) -> dict:  # pyrefly: ignore
        return call_own(self.sample, n)

    def sample(self, n: int) -> dict:
        unreadable = []
        for attempt in range(REDRAWS):
            rng = np.random.default_rng((self.seed, n, attempt))
            drawn = self.draw(rng)
            try:
                return self.read(self.pairs, drawn, rng) | {"unreadable": unreadable}
            except (UserError, ValueError) as error:
                query, target = (self.pairs.named(row) for row in drawn[:2])
                what = f"{query.object_name!r} {query.take_uid}/{query.query_camera}/{query.frame}"
                what += f" -> {target.take_uid}/{target.target_camera}/{target.frame}"
                unreadable.append(f"{what}: {error}")
        raise UserError(f"{REDRAWS} samples in a row cannot be read; the last: {unreadable[-1]}")

    def draw(self, rng: np.random.Generator) -> DrawnPairs:
        i = int(rng.integers(len(self.pairs)))
        chance = rng.random()
        j = unrelated_pair(self.pairs, i, rng) if rng.random() < TARGET_SWAP else None
        return DrawnPairs(i, i if j is None else j, chance)


def unrelated_pair(pairs: Pairs, i: int, rng: np.random.Generator) -> int | None:
    """A random pair of the same setting, but of another take and another object, whose target frame is a negative for
    pair `i`; None if there is no such pair.
    """
    is_ego = pairs.store.is_ego

    def fits(rows: Any) -> Any:
        is_another = (pairs.take[rows] != pairs.take[i]) & (pairs.object[rows] != pairs.object[i])
        return is_another & (is_ego[pairs.query[rows]] == is_ego[pairs.query[i]])

    for j in rng.integers(len(pairs), size=UNRELATED_TRIES).tolist():  # to go through all pairs takes long
        if fits(j):
            return j
    rows = np.flatnonzero(fits(slice(None)))
    return int(rng.choice(rows)) if len(rows) else None


def sample_numbers_by_step(steps: range, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[range]:
    """For each step, yield the numbers of the samples that a rank reads, as the `batch_sampler` of a DataLoader does.
    Step s of B samples has the numbers s * B to s * B + B - 1, which the ranks share.
    """
    first, end = rank * batch_size // world_size, (rank + 1) * batch_size // world_size
    for step in steps:
        yield range(step * batch_size + first, step * batch_size + end)
