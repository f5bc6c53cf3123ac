"""How large an object may be in a target: the sizes at which the strong recipe seeks it."""

from collections.abc import Sequence

from formats.geometry import Size
from recipes.strong.crops import LARGEST, Spot

# For each kind of camera, how many times larger a camera shows things than an exo camera does, if sizes are measured in
# parts of the image's long side. Ego cameras have two values, because the magnification differs among takes.
MAGNIFICATIONS = {"ego": (3.0, 1.25), "exo": (1.0,)}
UNKNOWN = 1 / 3, 3**-0.5, 1.0, 3**0.5, 3.0  # the ratios for cameras of unknown kind


def expected_shares(spot: Spot, size: Size, ratios: Sequence[float]) -> dict[float, float]:
    """For each ratio, the share of a target's long side that an object may span. The object is at `spot` in a query of
    `size` (H, W); a ratio is the object's share in the target, divided by its share in the query. Ratios that give more
    than LARGEST are left out. If all ratios give more, only the smallest ratio is kept, with LARGEST.
    """
    shares = {ratio: ratio * spot.extent / max(size) for ratio in ratios}
    least = min(shares.values())
    return {ratio: min(share, LARGEST) for ratio, share in shares.items() if share <= max(LARGEST, least)}


def size_ratios(query_kind: str | None, target_kind: str | None) -> tuple[float, ...]:
    """The possible ratios of an object's share of the long side in the target and its share in the query. The kinds are
    keys of MAGNIFICATIONS, or None for a camera of unknown kind.
    """
    if query_kind is None or target_kind is None:
        return UNKNOWN
    of_query, of_target = MAGNIFICATIONS[query_kind], MAGNIFICATIONS[target_kind]
    return tuple(dict.fromkeys(larger / smaller for larger in of_target for smaller in of_query))
