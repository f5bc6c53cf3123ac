"""Searches of training pairs by the network as it is: a recipe's mining and its last step ask for them."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.distributed import Stopped, World
from formats.masks import fit_rle
from formats.pairs import PairSet
from recipes.base import NetworkRecipe
from recipes.frame import Frame, joined
from recipes.take_frames import FrameDataset, FramePlan, TakeFrame, frame_plans, frames_at_once


class Searched(NamedTuple):
    number: int  # the pair's number
    take_uid: str
    found: Any


def search_pairs(
    recipe: NetworkRecipe,
    pairs: PairSet,
    seed: Sequence[int],
    world: World,
    search: Callable[[Frame, list[np.ndarray]], list],
    size: int,
) -> list[Searched]:
    """What `search` finds for each pair of random frames with `size` pairs or a few more (0: all pairs), without pairs
    whose query mask is empty. It is given a frame and the true masks of its pairs, (H, W) uint8, and returns a list
    with an element for each pair. The processes share the frames, and all get all results. Raises Stopped after a
    signal.
    """
    recipe.network.eval()
    plans = random_frames(pairs, size, seed)
    own = FrameDataset(plans[world.rank :: world.size], pairs, partial(with_truths, recipe, pairs))
    frames, found = DataLoader(own, batch_size=None, collate_fn=tuple, **recipe.loading), []
    frames = iter(tqdm(frames, "search", unit="frame", leave=False, disable=None if world.is_main else True))
    while not world.signal and (group := frames_at_once(frames, recipe.pairs_at_once, lambda given: len(given[1]))):
        truths = [truth for _, of_frame in group for truth in of_frame]
        results = iter(search(joined([frame for frame, _ in group]), truths) if truths else [])
        for frame, _ in group:
            uid, number = frame.take_uid, frame.number
            found.append([Searched(pairs.number(uid, pair, number), uid, next(results)) for pair in frame.pairs])
    signals, parts = zip(*world.gather((world.signal, found)), strict=True)
    if any(signals):
        raise Stopped
    return list(chain.from_iterable(parts[i % world.size][i // world.size] for i in range(len(plans))))


def random_frames(pairs: PairSet, size: int, seed: Sequence[int]) -> list[FramePlan]:
    """Random frames with `size` pairs or a few more (0: all frames). Those of a take follow each other."""
    plans = frame_plans(pairs, np.arange(len(pairs)))
    order = np.random.default_rng(seed).permutation(len(plans))
    counts = np.cumsum([len(plans[i].pairs) for i in order])
    chosen = order[: np.searchsorted(counts, min(size, len(pairs)) or len(pairs)) + 1]
    return [plans[i] for i in np.sort(chosen)]


def with_truths(recipe: NetworkRecipe, pairs: PairSet, frame: TakeFrame) -> tuple[Any, list[np.ndarray]]:
    """In a loader process: the frame, prepared, without pairs whose query mask is empty; and their true masks."""
    shown = recipe.prepare(frame).with_objects()
    numbers = [pairs.number(frame.take_uid, pair, frame.number) for pair in shown.pairs]
    rles = [pairs.target_mask(number) for number in numbers]
    sizes = [frame.sizes[pair.target_camera] for pair in shown.pairs]
    truths = [fit_rle(x, size) if x else np.zeros(size, np.uint8) for x, size in zip(rles, sizes, strict=True)]
    return shown, truths
