"""Mined places: those at which a search of training pairs is wrong, as a checkpoint stores them."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from recipes.crops import Spot


def as_mined(searched: Sequence[tuple[int, str, list[Spot]]]) -> dict[str, Tensor]:
    """The spots that were found for the pairs. For each of N spots: the pair's number, "pairs" (N,) int32, and the
    fields, "spots" (N, 3) float32; in the order of the pairs, and for each pair of the fields.
    """
    found = [(row, spot) for row, _, spots in sorted(searched, key=itemgetter(0)) for spot in sorted(spots)]
    spots = torch.tensor([spot for _, spot in found], dtype=torch.float32).reshape(-1, 3)
    pairs = torch.tensor([row for row, _ in found], dtype=torch.int32)
    return {"pairs": pairs, "spots": spots, "searched": torch.tensor(len(searched))}


class Mined(NamedTuple):
    pairs: np.ndarray  # (N,) int32, ascending
    spots: np.ndarray  # (N, 3) float32

    @classmethod
    def checked(cls, mined: dict[str, Any], count: int) -> "Mined":
        """What `as_mined` gave for some of `count` pairs. Raises UserError if this is of another form."""
        rows, spots = (np.asarray(mined.get(name)) for name in cls._fields)
        fits = (rows.dtype, spots.dtype, spots.shape) == (np.int32, np.float32, (*rows.shape, 3)) and rows.ndim == 1
        if not fits or (np.diff(rows, prepend=0, append=count - 1) < 0).any() or not np.isfinite(spots).all():
            what = f"the checkpoint's mined places are no int32 numbers of {count} pairs and float32 spots (N, 3)"
            raise UserError(f"{what}; take an earlier file, or start anew with --init_weights")
        return cls(rows, spots)

    def of(self, pair: int) -> list[Spot]:
        first, end = np.searchsorted(self.pairs, (pair, pair + 1))
        return [Spot(*spot) for spot in self.spots[first:end].tolist()]
