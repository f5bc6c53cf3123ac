"""The endless stream of training samples. A sample depends on the seed and the sample's number alone. The stream is
therefore the same for any number of loader processes and ranks, and a resumed run continues it without saved random
states. `Recipe.read` reads the two views of a sample.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from common.errors import UserError
from formats.pairs import Pairs
from recipes.samples import DrawnPairs

TARGET_SWAP = 0.1  # the share of samples whose target frame is from another take: synthetic negatives
REDRAWS = 16  # after so many unreadable samples in a row, an error is raised
UNRELATED_TRIES = 32  # random pairs that are tried to find an unrelated one; nearly always the first one fits


class TrainSamples(Dataset):
    """An endless stream of samples of a `NetworkRecipe.read`; sample `n` depends on the seed and n alone."""

    def __init__(self, pairs: Pairs, read: Callable[..., dict[str, Any]], seed: int):
        self.pairs, self.read, self.seed = pairs, read, seed

    def __getitem__(self, n: int) -> dict:  # pyrefly: ignore
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
    """Yield the numbers of a rank's samples for each step, as the `batch_sampler` of a DataLoader. Step s with B
    samples takes the numbers s * B to s * B + B - 1, which are split over the ranks.
    """
    first, end = rank * batch_size // world_size, (rank + 1) * batch_size // world_size
    for step in steps:
        yield range(step * batch_size + first, step * batch_size + end)
