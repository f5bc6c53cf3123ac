"""What a training learns from searches of its own pairs: the places at which the search goes wrong, which later samples
show to the network again (mining), and which of several looks is right (the fit of the choice, in the last step).
"""

import copy
from functools import partial
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from formats.masks import iou
from formats.results import THRESHOLD
from recipes.base import Search
from recipes.frame import Frame
from recipes.strong.choice import Marked, choice_figures, fit, looks_of_pairs, shift_existence
from recipes.strong.crops import spot_of

MINED_LOOKS = 5  # places at which a pair is searched for its object, to find wrong ones
HELD_OUT = 5  # every fifth take is held out from the fit of the choice, and tells how good it is
LEAST_PAIRS, LEAST_HIDDEN = 300, 30  # the choice is not fitted to fewer pairs, or fewer pairs whose object is hidden


def mine_places(recipe: Any, search: Search, size: int) -> dict[str, Tensor]:
    """Search `size` pairs (0: all) for places that are not at the objects. Returns for each of the N places the pair's
    number, "pairs" (N,) int32, and the fields of the `Spot`, "spots" (N, 3) float32, in the order of the pairs, and how
    many pairs were "searched".
    """
    of_pairs = sorted(search(partial(wrong_places, recipe), size), key=attrgetter("number"))
    numbers = np.array([of_pair.number for of_pair in of_pairs for _ in of_pair.found], np.int32)
    spots = np.concatenate([np.empty((0, 3), np.float32), *(of_pair.found for of_pair in of_pairs)])
    found = {"pairs": torch.from_numpy(numbers), "spots": torch.from_numpy(spots)}
    return found | {"searched": torch.tensor(len(of_pairs))}


def wrong_places(recipe: Any, frame: Frame, truths: list[np.ndarray]) -> list[np.ndarray]:
    """The candidates of each pair that are not at the object, as the fields of `Spot`s, (n, 3)."""
    with recipe.computing():
        places = recipe.locate(frame, Marked.of(frame), MINED_LOOKS)
    wrong: list[list] = [[] for _ in truths]
    true = [spot_of(truth) for truth in truths]
    for pair, place in zip(places.pair, places.spot, strict=True):
        if not ((spot := true[pair]) and spot.is_near(place)):
            wrong[pair].append(place)
    return [np.array(sorted(of_pair), np.float32).reshape(-1, 3) for of_pair in wrong]


def fit_choice(recipe: Any, search: Search, size: int, seed: int) -> str:
    """Fit the choice among looks, and the existence, to what the search finds in `size` training pairs. A fifth of the
    takes is held out from the fit. If the fit makes these worse, or if there are too few pairs, the former choice
    stays, with a shift of its existence: training moves the logits that it reads. Returns a line.
    """
    of_pairs = search(partial(looks_at, recipe), size)
    takes = sorted({of_pair.take_uid for of_pair in of_pairs})
    if not takes:
        return "the choice among looks stays as it was, since no training pair can be read"
    number_of = {uid: number for number, uid in enumerate(takes)}
    held_out = torch.tensor([number_of[of_pair.take_uid] % HELD_OUT == 0 for of_pair in of_pairs])
    looks = looks_of_pairs([of_pair.found for of_pair in of_pairs])
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


def looks_at(recipe: Any, frame: Frame, truths: list[np.ndarray]) -> list[tuple]:
    """The looks at each pair of a frame: numbers (K, NUMBERS), IoUs (K,), and whether the object is visible."""
    with recipe.computing():
        places, of_looks, drawn = recipe.search(frame, recipe.looks)
        of_looks, found = of_looks.stacked().cpu(), []
    for pair, truth in enumerate(truths):
        rows = [row for row, of in enumerate(places.pair) if of == pair]
        rows.sort(key=lambda row: -places.similarity[row])
        ious = [iou(recipe.prob_in_image(drawn[row], truth.shape) > THRESHOLD, truth.astype(bool)) for row in rows]
        found.append((of_looks[rows], torch.tensor(ious), bool(truth.any())))
    return found
