"""Even shares of uneven work."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def split_by_work(work: Mapping[Key, float], shares: int) -> list[list[Key]]:
    """Deal `work` (key -> effort, any unit) out to `shares` lists of about the same sum.

    Largest first, each to the share that has least. A function of its arguments alone, so that processes that never
    talk to each other agree. Every share keeps the mapping's order.
    """
    if shares < 1:
        raise ValueError(f"cannot split work into {shares} shares")
    owner: dict[Key, int] = {}
    loads = [0.0] * shares
    for key in sorted(work, key=lambda key: -work[key]):
        share = min(range(shares), key=lambda i: (loads[i], i))
        owner[key] = share
        loads[share] += work[key]
    return [[key for key in work if owner[key] == share] for share in range(shares)]
