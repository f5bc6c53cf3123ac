"""What a training learns from searches of its own pairs: the places at which the search goes wrong, which later samples
show to the network again (mining), and which of several looks is right (the fit of the choice, in the last step).
"""

import copy
from collections.abc import Callable
from itertools import chain
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
from recipes.frame import Frame, FrameDataset, FramePlan, frame_plans
from recipes.strong.choice import Marked, choice_figures, fit, looks_of_pairs, shift_existence
from recipes.strong.crops import spot_of

MINED_LOOKS = 5  # places at which a pair is searched for its object, to find wrong ones
HELD_OUT = 5  # every fifth take is held out from the fit of the choice, and tells how good it is
LEAST_PAIRS, LEAST_HIDDEN = 300, 30  # the choice is not fitted to fewer pairs, or fewer pairs whose object is hidden


def mine_places(recipe: NetworkRecipe, pairs: PairSet, seed: int, world: World) -> dict[str, Tensor]:
    """Search random frames with `mine_pairs` pairs (0: all) for places that are not at the objects. Returns for each of
    the N places the pair's number, "pairs" (N,) int32, and the fields of the `Spot`, "spots" (N, 3) float32, in the
    order of the pairs; and how many pairs were "searched".
    """
    plans = random_frames(pairs, recipe.training.mine_pairs, seed)
    found = sorted(chain.from_iterable(search_frames(recipe, pairs, plans, wrong_places, world)))
    numbers, *spots = torch.tensor(found, dtype=torch.float64).reshape(-1, 4).T
    searched = torch.tensor(sum(len(plan.pairs) for plan in plans))
    return {"pairs": numbers.int(), "spots": torch.stack(spots, 1).float(), "searched": searched}


def wrong_places(recipe: Any, frame: Frame, numbers: list[int], truths: list[np.ndarray]) -> list[tuple[float, ...]]:
    """The candidates in a frame that are not at their objects: the pair's number, and the fields of the `Spot`."""
    with recipe.computing():
        places = recipe.locate(frame, Marked.of(frame), MINED_LOOKS)
    true: list[Any] = [spot_of(truth) for truth in truths]
    found = zip(places.pair, places.spot, strict=True)
    return [(numbers[pair], *spot) for pair, spot in found if not (true[pair] and true[pair].is_near(spot))]


def fit_choice(recipe: NetworkRecipe, pairs: PairSet, seed: int, world: World) -> str:
    """Fit the choice among looks, and the existence, to what the search finds in random frames with `fit_pairs`
    training pairs. A fifth of the takes is held out from the fit. If the fit makes these worse, or if there are too few
    pairs, the former choice stays, with a shift of its existence: training moves the logits that it reads. Returns a
    line, which is empty if `fit_pairs` is 0.
    """
    if not recipe.training.fit_pairs:
        return ""
    plans = random_frames(pairs, recipe.training.fit_pairs, seed)
    found = search_frames(recipe, pairs, plans, looks_at, world)
    uids = [plan.folder.name for plan, of_frame in zip(plans, found, strict=True) for _ in of_frame]
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
    effect = f"{'more' if shift > 0 else 'fewer'} things are called visible (logit of existence {shift:+.2f})"
    return f"the choice among looks stays as it was, but {effect}, {text}"


def looks_at(recipe: Any, frame: Frame, _numbers: list[int], truths: list[np.ndarray]) -> list[tuple]:
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
    recipe: NetworkRecipe, pairs: PairSet, plans: list[FramePlan], search: Callable[..., list], world: World
) -> list[list]:
    """What `search` finds in each frame. It is given the recipe, a frame, the numbers of the frame's pairs and their
    true masks, (H, W) uint8. The processes share the frames, and all get all results. Raises Stopped after a signal.
    """
    recipe.network.eval()
    own, found = FrameDataset(plans[world.rank :: world.size], pairs, recipe.prepare), []
    frames = DataLoader(own, batch_size=None, **recipe.loading)
    for frame in tqdm(frames, "search", unit="frame", leave=False, disable=None if world.is_main else True):
        if world.signal:
            break
        frame = frame.with_objects()
        numbers = [pairs.number(frame.take_uid, pair, frame.number) for pair in frame.pairs]
        sizes = [frame.sizes[pair.target_camera] for pair in frame.pairs]
        rles = map(pairs.target_mask, numbers)
        truths = [fit_rle(x, size) if x else np.zeros(size, np.uint8) for x, size in zip(rles, sizes, strict=True)]
        found.append(search(recipe, frame, numbers, truths) if numbers else [])
    signals, parts = zip(*world.gather((world.signal, found)), strict=True)
    if any(signals):
        raise Stopped
    return [parts[i % world.size][i // world.size] for i in range(len(plans))]
