"""The form in which checkpoints keep mined places: those at which a search of training pairs is wrong."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from recipes.base import Searched


def as_mined(searched: Sequence[Searched]) -> dict[str, Tensor]:
    """The wrong places of the pairs that were `searched`, as a checkpoint stores them. For each of N places: the pair's
    number, "pairs" (N,) int32, and the fields of the `Spot`, "spots" (N, 3) float32, in the order of the pairs.
    """
    of_pairs = sorted(searched, key=attrgetter("row"))
    rows = np.array([of_pair.row for of_pair in of_pairs for _ in of_pair.found], np.int32)
    spots = np.concatenate([np.empty((0, 3), np.float32), *(of_pair.found for of_pair in of_pairs)])
    found = {"pairs": torch.from_numpy(rows), "spots": torch.from_numpy(spots)}
    return found | {"searched": torch.tensor(len(of_pairs))}


def mined_by_pair(mined: dict[str, Any], count: int) -> dict[int, np.ndarray]:
    """The wrong places of each of `count` pairs that has some. Raises UserError if `as_mined` has not written them."""
    rows, spots = (np.asarray(mined.get(name)) for name in ("pairs", "spots"))
    fits = (rows.dtype, spots.dtype, spots.shape) == (np.int32, np.float32, (*rows.shape, 3)) and rows.ndim == 1
    if not fits or (np.diff(rows, prepend=0, append=count - 1) < 0).any() or not np.isfinite(spots).all():
        what = f"the checkpoint's mined places are no int32 numbers of {count} pairs and float32 spots (N, 3)"
        raise UserError(f"{what}; take an earlier file, or start anew with --init_weights")
    numbers, firsts = np.unique(rows, return_index=True)
    return dict(zip(numbers.tolist(), np.split(spots, firsts[1:]), strict=False))
