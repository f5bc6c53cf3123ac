"""Searches of training pairs by the network as it is: a recipe's mining and its last step ask for them."""

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.distributed import Stopped, World
from formats.pairs import Pairs
from recipes.base import NetworkRecipe, Searched
from recipes.frame import Frames, answered

SHARE, LEAST_PAIRS = 0.1, 20_000  # of the training pairs that are searched, unless another share is given


def search_pairs(
    recipe: NetworkRecipe, pairs: Pairs, seed: Sequence[int], world: World, search: Callable, share: float | None
) -> list[Searched]:
    """What `search` finds for each pair of `random_frames`, without pairs whose query mask is empty. It is given a
    `Frame` with true masks, and returns a list with an element for each pair. The processes share the frames, and all
    get all results. Raises Stopped after a signal.
    """
    recipe.network.eval()
    groups = random_frames(pairs, share, seed)
    own = Frames(pairs, groups[world.rank :: world.size], recipe.prepare, with_truths=True)
    frames, found = DataLoader(own, batch_size=None, **recipe.loading), {}
    bar = tqdm(frames, "search", unit="frame", leave=False, disable=None if world.is_main else True)
    for frame, results in answered(recipe, bar, search, world=world):
        found |= zip(frame.row, results, strict=True)
    signals, parts = zip(*world.gather((world.signal, found)), strict=True)
    if any(signals):
        raise Stopped
    found = dict(chain.from_iterable(part.items() for part in parts))
    takes, rows = pairs.store.takes, [row for group in groups for row in group.tolist() if row in found]
    return [Searched(row, takes[pairs.take[row]], found[row]) for row in rows]


def random_frames(pairs: Pairs, share: float | None, seed: Sequence[int]) -> list[np.ndarray]:
    """The rows of random frames with this share of all pairs (None: the default) or a few more. Those of a take follow
    each other.
    """
    size = share * len(pairs) if share is not None else min(len(pairs), max(LEAST_PAIRS, SHARE * len(pairs)))
    frames = pairs.groups("take", "frame")
    order = np.random.default_rng(seed).permutation(len(frames))
    counts = np.cumsum([len(frames[i]) for i in order])
    chosen = order[: np.searchsorted(counts, size) + 1]
    return [frames[i] for i in np.sort(chosen)]
