"""The last step of a training: the judges of a search are fitted to all of its looks at training pairs."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from common.constants import THRESHOLD
from common.existence import balanced_accuracy
from formats.masks import iou
from model.rows import Rows, cat, rows_by_key
from recipes.scene import Scene
from recipes.search.choice import Choice
from recipes.search.places import Numbers
from recipes.search.search import Search

HELD_OUT = 5  # every fifth take is held out from the fit, and tells how good it is
FIT_NEEDS, LEAST_HIDDEN = 300, 30  # the choice is not fitted to fewer pairs, or fewer pairs whose object is hidden
FIT_STEPS, BATCH, RATE = 1500, 256, 3e-3  # of AdamW; the rate falls to 0 along a cosine
LEAST_IOU = 0.01  # a look with a lower IoU shows nothing of the object


def all_looks(recipe: Search, scene: Scene) -> list[tuple[Tensor, Tensor, bool]]:
    """All looks of a search at each pair: the N fields of their `Numbers`, (N, K), their IoUs (K,), and whether the
    object is visible.
    """
    with recipe.computing():
        searched, answers = recipe.search(scene, recipe.looks, close=recipe.looks)
        numbers, found = torch.stack(searched.numbers.columns()).cpu(), []
    rows_of = rows_by_key(searched.places.pair)
    for pair, true_mask in enumerate(scene.true_masks):
        shown = [answers[row].in_image(true_mask.shape) > THRESHOLD for row in rows_of[pair]]
        ious = torch.tensor([iou(mask, true_mask.astype(bool)) for mask in shown])
        found.append((numbers[:, rows_of[pair]], ious, bool(true_mask.any())))
    return found


def fit_choice(recipe: Search, searched: Sequence[tuple[int, str, Any]], seed: int) -> tuple[str, dict[str, Tensor]]:
    """Fit the recipe's choice among looks, and the existence, to all looks at the pairs that were `searched`: the
    position, the take and the `all_looks` of each. A fifth of the takes is held out from the fit. If the fit makes
    these worse, or if there are too few pairs, the former choice stays. Returns a line, and the fitted tensors by their
    names in the network.
    """
    kept = "the choice among looks stays as it was"
    takes, visible = [uid for _, uid, _ in searched], [visible for *_, (_, _, visible) in searched]
    if lack := lack_of_pairs(np.array(takes), np.array(visible, bool)):
        return f"{kept}: {lack}", {}
    looks, held_out = looks_of_pairs(searched)
    choice, close = recipe.network.choice, recipe.close_looks
    fitted = copy.deepcopy(choice).cpu()
    before = choice_figures(fitted, looks[held_out], close)
    fit(fitted, looks[~held_out], seed)
    after = choice_figures(fitted, looks[held_out], close)
    text = f"on {int(held_out.sum())} pairs of takes held out, "
    text += f"IoU {before[0]:.4f} -> {after[0]:.4f}, existence {before[1]:.4f} -> {after[1]:.4f}"
    if np.nansum(after) < np.nansum(before):  # without visible or hidden objects held out, one of them is NaN
        return f"{kept}, since a fit is worse: {text}", {}
    changed = {f"choice.{name}": x for name, x in fitted.state_dict().items()}
    return f"the choice among looks is fitted: {text}", changed


def lack_of_pairs(take: np.ndarray, visible: np.ndarray) -> str:
    """Why pairs are too few for a fit, or nothing, from the take of each and whether its object is visible."""
    takes, count, hidden = len(np.unique(take)), len(visible), int((~visible).sum())
    if count >= FIT_NEEDS and min(hidden, count - hidden) >= LEAST_HIDDEN and takes >= HELD_OUT:
        return ""
    needed = f"{FIT_NEEDS} pairs of {HELD_OUT} takes, {LEAST_HIDDEN} each of visible and hidden objects"
    return f"a fit needs {needed}, and there are {count} pairs of {takes}, {hidden} hidden"


@dataclass
class LooksOfPairs(Rows):
    """The looks at P pairs, at most K looks each."""

    held: Tensor  # (P, K) bool; a pair may have fewer than K looks
    numbers: Numbers  # (P, K) each
    iou: Tensor  # (P, K)
    visible: Tensor  # (P,) bool


def looks_of_pairs(searched: Sequence[tuple[int, str, Any]]) -> tuple[LooksOfPairs, Tensor]:
    """The looks at the pairs that were searched, and which pairs are of takes that are held out."""
    number_of = {uid: number for number, uid in enumerate(sorted({uid for _, uid, _ in searched}))}
    held_out = torch.tensor([number_of[uid] % HELD_OUT == 0 for _, uid, _ in searched])
    columns, ious, visible = zip(*(found for *_, found in searched), strict=True)
    held = padded([torch.ones(len(iou), dtype=torch.bool) for iou in ious])
    numbers = Numbers(*map(padded, zip(*columns, strict=True)))
    return LooksOfPairs(held, numbers, padded(ious), torch.tensor(visible)), held_out


def padded(rows: Sequence[Tensor]) -> Tensor:
    return pad_sequence(list(rows), batch_first=True)


def with_absences(looks: LooksOfPairs) -> LooksOfPairs:
    """The looks, and those of each visible object once more as if it had left: as a hidden object, without the looks
    that show some of it. What is left are the likeliest wrong places of the same picture.
    """
    held = looks.held & (looks.iou < LEAST_IOU)
    rows = looks.visible & held.any(1)
    absent = replace(looks, held=held, iou=torch.zeros_like(looks.iou), visible=~looks.visible)
    return cat([looks, absent[rows]])


def fit(choice: Choice, looks: LooksOfPairs, seed: int) -> None:
    """Fit the choice in place. The loss is minus the expected IoU of visible objects, if the softmax of the glances
    draws a place, minus the same with the scores, plus the cross-entropy of existence, in which visible and hidden
    objects weigh the same.
    """
    torch.manual_seed(seed)
    looks = with_absences(looks)
    choice.load_state_dict(type(choice)().state_dict())  # a second fit gives the same result as the first
    for judge in (choice.glance, choice.score, choice.existence):
        judge.normalize(looks.numbers[looks.held])
    visible = looks.visible.float()
    share = visible.mean()
    weight = torch.where(looks.visible, 0.5 / share, 0.5 / (1 - share))
    choice.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(choice.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FIT_STEPS)
    for _ in range(FIT_STEPS):
        rows = torch.randint(len(visible), (BATCH,))
        numbers, held, ious = looks.numbers[rows], looks.held[rows], looks.iou[rows]
        shares = [judge(numbers).masked_fill(~held, -1e9).softmax(1) for judge in (choice.glance, choice.score)]
        expected = sum((share_of * ious).sum(1) for share_of in shares)
        logit = (shares[1].detach() * choice.existence(numbers)).sum(1)
        existence = F.binary_cross_entropy_with_logits(logit, visible[rows], weight[rows])
        # Both losses have parameters of their own, so weights of the losses would change next to nothing.
        loss = existence - (expected * visible[rows]).sum() / visible[rows].sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    choice.eval().requires_grad_(False)


@torch.no_grad()
def choice_figures(choice: Choice, looks: LooksOfPairs, close: int) -> tuple[float, float]:
    """The IoU of the chosen looks at visible objects, and the balanced accuracy of existence, if `close` places of a
    pair are looked at closely.
    """
    glances = choice.glance(looks.numbers).masked_fill(~looks.held, -1e9)
    near = glances.topk(min(close, glances.shape[1])).indices  # those that are looked at closely
    best = near.gather(1, choice.score(looks.numbers).masked_fill(~looks.held, -1e9).gather(1, near).argmax(1, True))
    predicted, visible = choice.existence(looks.numbers).gather(1, best)[:, 0] > 0, looks.visible
    recalls = predicted[visible].float().mean(), (~predicted[~visible]).float().mean()
    return float(looks.iou.gather(1, best)[visible].mean()), float(balanced_accuracy(*recalls))
