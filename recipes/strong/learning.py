"""What a training learns from searches of its own pairs: the places at which the search goes wrong, which later samples
show to the network again (mining), and which of several looks is right (the fit of the choice, in the last step).
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.distributed import Stopped, World
from formats.masks import fit_rle, iou
from formats.pairs import PairSet
from formats.results import THRESHOLD
from recipes.base import NetworkRecipe
from recipes.frame import Frame, FrameDataset, FramePlan, TakeFrame, frame_plans
from recipes.strong.choice import Marked, choice_figures, fit, looks_of_pairs, shift_existence
from recipes.strong.crops import spot_of

MINED_LOOKS = 5  # places at which a pair is searched for its object, to find wrong ones
HELD_OUT = 5  # every fifth take is held out from the fit of the choice, and tells how good it is
LEAST_PAIRS, LEAST_HIDDEN = 300, 30  # the choice is not fitted to fewer pairs, or fewer pairs whose object is hidden


def mine_places(
    recipe: NetworkRecipe, pairs: PairSet, size: int, seed: int, world: World, loading: dict[str, Any]
) -> dict[str, Tensor]:
    """Search random frames with `size` pairs (0: all) for places that are not at the objects. Returns for each of the N
    places the pair's number, "pairs" (N,) int32, and the fields of the `Spot`, "spots" (N, 3) float32, in the order of
    the pairs, and how many pairs were "searched".
    """
    plans = random_frames(pairs, size, seed)
    found = search_frames(recipe, pairs, plans, wrong_places, world, loading)
    of_pairs = sorted(chain.from_iterable(found), key=itemgetter(0))
    numbers = np.array([number for number, spots in of_pairs for _ in spots], np.int32)
    spots = np.concatenate([np.empty((0, 3), np.float32), *(spots for _, spots in of_pairs)])
    found = {"pairs": torch.from_numpy(numbers), "spots": torch.from_numpy(spots)}
    return found | {"searched": torch.tensor(len(of_pairs))}


def wrong_places(
    recipe: Any, frame: Frame, numbers: Sequence[int], truths: Sequence[np.ndarray]
) -> list[tuple[int, np.ndarray]]:
    """The candidates that are not at the object: for each pair its number, and the fields of their `Spot`s, (n, 3)."""
    with recipe.computing():
        places = recipe.locate(frame, Marked.of(frame), MINED_LOOKS)
    wrong: list[list] = [[] for _ in numbers]
    true = [spot_of(truth) for truth in truths]
    for pair, place in zip(places.pair, places.spot, strict=True):
        if not ((spot := true[pair]) and spot.is_near(place)):
            wrong[pair].append(place)
    spots = [np.array(sorted(of_pair), np.float32).reshape(-1, 3) for of_pair in wrong]
    return list(zip(numbers, spots, strict=True))


def fit_choice(
    recipe: NetworkRecipe, pairs: PairSet, size: int, seed: int, world: World, loading: dict[str, Any]
) -> str:
    """Fit the choice among looks, and the existence, to what the search finds in random frames with `size` training
    pairs. A fifth of the takes is held out from the fit. If the fit makes these worse, or if there are too few pairs,
    the former choice stays, with a shift of its existence: training moves the logits that it reads. Returns a line.
    """
    plans = random_frames(pairs, size, seed)
    found = search_frames(recipe, pairs, plans, looks_at, world, loading)
    uids = [plan.take_uid for plan, of_frame in zip(plans, found, strict=True) for _ in of_frame]
    takes = sorted(set(uids))
    if not takes:
        return "the choice among looks stays as it was, since no training pair can be read"
    number_of = {uid: number for number, uid in enumerate(takes)}
    held_out = torch.tensor([number_of[uid] % HELD_OUT == 0 for uid in uids])
    looks = looks_of_pairs([*chain.from_iterable(found)])
    count, hidden = len(held_out), int((~looks.visible).sum())
    choice, former = recipe.network.choice.cpu(), copy.deepcopy(recipe.network.choice)
    if count < LEAST_PAIRS or min(hidden, count - hidden) < LEAST_HIDDEN or len(takes) < HELD_OUT:
        needed = f"{LEAST_PAIRS} pairs of {HELD_OUT} takes, {LEAST_HIDDEN} of them hidden"
        text = f"since a fit needs {needed}, and there are {count} pairs of {len(takes)}, {hidden} hidden"
    else:
        before = choice_figures(choice, looks[held_out])
        fit(choice, looks[~held_out], seed)
        after = choice_figures(choice, looks[held_out])
        text = f"on {int(held_out.sum())} pairs of takes held out, "
        text += f"IoU {before[0]:.4f} -> {after[0]:.4f}, existence {before[1]:.4f} -> {after[1]:.4f}"
        if np.nansum(after) >= np.nansum(before):  # without visible or hidden objects held out, one of them is NaN
            choice.to(recipe.device)
            return f"the choice among looks is fitted: {text}"
        choice.load_state_dict(former.state_dict())
        text = f"since a fit is worse: {text}"
    shift = shift_existence(choice, looks)
    choice.to(recipe.device)
    return f"the choice among looks stays as it was, but for a shift of existence by {shift:.2f}, {text}"


def looks_at(recipe: Any, frame: Frame, _numbers: Sequence[int], truths: Sequence[np.ndarray]) -> list[tuple]:
    """The looks at each pair of a frame: numbers (K, NUMBERS), IoUs (K,), and whether the object is visible."""
    with recipe.computing():
        places, of_looks, drawn = recipe.search(frame, recipe.looks)
        of_looks = of_looks.stacked().cpu()
    found = []
    for pair, truth in enumerate(truths):
        rows, truth = [row for row, of in enumerate(places.pair) if of == pair], truth.astype(bool)
        ious = [iou(recipe.prob_in_image(drawn[row], truth.shape) > THRESHOLD, truth) for row in rows]
        found.append((of_looks[rows], torch.tensor(ious), bool(truth.any())))
    return found


def random_frames(pairs: PairSet, size: int, seed: int) -> list[FramePlan]:
    """Random frames with `size` pairs or a few more (0: all frames). Those of a take follow each other."""
    plans = frame_plans(pairs, np.arange(len(pairs)))
    order = np.random.default_rng(seed).permutation(len(plans))
    counts = np.cumsum([len(plans[i].pairs) for i in order])
    chosen = order[: np.searchsorted(counts, min(size, len(pairs)) or len(pairs)) + 1]
    return [plans[i] for i in np.sort(chosen)]


def search_frames(
    recipe: NetworkRecipe,
    pairs: PairSet,
    plans: Sequence[FramePlan],
    search: Callable[..., list],
    world: World,
    loading: dict[str, Any],
) -> list[list]:
    """What `search` finds in each frame. It is given the recipe, a frame, the numbers of the frame's pairs and their
    true masks, (H, W) uint8. The processes share the frames, and all get all results. `loading`: the result of
    `loader_options`. Raises Stopped after a signal.
    """
    recipe.network.eval()
    own = FrameDataset(plans[world.rank :: world.size], pairs, partial(with_truths, recipe, pairs))
    frames, found = DataLoader(own, batch_size=None, collate_fn=tuple, **loading), []
    for given in tqdm(frames, "search", unit="frame", leave=False, disable=None if world.is_main else True):
        if world.signal:
            break
        found.append(search(recipe, *given) if given[1] else [])  # the frame may have no pair
    signals, parts = zip(*world.gather((world.signal, found)), strict=True)
    if any(signals):
        raise Stopped
    return [parts[i % world.size][i // world.size] for i in range(len(plans))]


def with_truths(recipe: NetworkRecipe, pairs: PairSet, frame: TakeFrame) -> tuple[Frame, list[int], list[np.ndarray]]:
    """In a loader process: the frame, prepared, without pairs whose query mask is empty; the numbers of its pairs, and
    their true masks.
    """
    shown = recipe.prepare(frame).with_objects()
    numbers = [pairs.number(frame.take_uid, pair, frame.number) for pair in shown.pairs]
    rles = [pairs.target_mask(number) for number in numbers]
    sizes = [frame.sizes[pair.target_camera] for pair in shown.pairs]
    truths = [fit_rle(x, size) if x else np.zeros(size, np.uint8) for x, size in zip(rles, sizes, strict=True)]
    return shown, numbers, truths
