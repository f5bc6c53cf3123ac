"""Rows that belong together, such as the tensors of N pictures, objects or pairs, are indexed and joined together."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self", bound="Rows")


@dataclass
class Rows:
    """N rows: each field has a row for each, in a tensor, a list, an array or other Rows, or is None.

    query[index] takes a slice, a tensor on the device, or a list of numbers (a list does not wait for the GPU).
    """

    def columns(self) -> list[Any]:
        return list(vars(self).values())

    def __len__(self) -> int:
        return len(self.columns()[0])

    def __getitem__(self: Self, index: Any) -> Self:
        numbers = torch.tensor(index) if isinstance(index, list) else index

        def rows_of(column: Any) -> Any:
            if isinstance(column, list) and isinstance(index, list):
                return [column[number] for number in index]
            if isinstance(column, Tensor) and isinstance(index, list):
                return column[numbers.to(column.device, non_blocking=True)]
            return None if column is None else column[index]

        return type(self)(*map(rows_of, self.columns()))


def cat(parts: Sequence[Any]) -> Any:
    """The rows of all parts, which are tensors or Rows of one class."""
    first = parts[0]
    if isinstance(first, Rows):
        return type(first)(*map(cat, zip(*(part.columns() for part in parts), strict=True)))
    return None if first is None else torch.cat(list(parts))


def rows_by_key(keys: Iterable[Hashable]) -> dict[Any, list[int]]:
    """The numbers of the rows of each key, in their order."""
    rows = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return rows


def rows_among(keys: Iterable[Hashable], of: Iterable[Hashable]) -> list[int]:
    """The position of each key among the keys `of`."""
    number_of = {key: number for number, key in enumerate(of)}
    return [number_of[key] for key in keys]
