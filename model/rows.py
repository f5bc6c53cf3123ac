"""Rows that belong together, such as the tensors of N pictures, objects or pairs, are indexed and joined together."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self", bound="Rows")


@dataclass
class Rows:
    """N rows. Each field has a row for each: a tensor, a list, an array, other Rows, or None if the field is not there.

    query[index] has the rows of a slice, or the rows whose numbers are in a tensor on the device or, without waiting
    for the device, in a list.
    """

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self: Self, index: Any) -> Self:
        numbers = torch.tensor(index) if isinstance(index, list) else None

        def chosen(x: Any) -> Any:
            if isinstance(x, Tensor) and numbers is not None:
                return x[numbers.to(x.device, non_blocking=True)]
            if isinstance(x, list) and numbers is not None:
                return [x[number] for number in index]
            return None if x is None else x[index]

        return type(self)(*map(chosen, vars(self).values()))


def cat(parts: Sequence[Any]) -> Any:
    """The rows of all parts, which are tensors, lists or Rows of one class."""
    first = parts[0]
    if len(parts) == 1 or first is None:
        return first
    if isinstance(first, Rows):
        return type(first)(*map(cat, zip(*(vars(part).values() for part in parts), strict=True)))
    return torch.cat(list(parts)) if isinstance(first, Tensor) else sum(parts, [])


def rows_by_key(keys: Iterable[Hashable]) -> dict[Any, list[int]]:
    """The numbers of the rows of each key, in their order."""
    rows = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows
