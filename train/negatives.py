"""Negatives that training makes up: pairs whose target frame does not show the object."""

from collections.abc import Iterator

import numpy as np

from formats.pairs import Pair, PairSet


def unrelated_pair(pairs: PairSet, i: int, rng: np.random.Generator, tries: int = 32) -> Pair | None:
    """A random pair of another take and another object, whose target frame is a negative for pair `i`.

    None if there is none. At full size an unlucky draw must not cost a pass over millions of pairs.
    """
    take_uid, object_name = pairs[i][:2]
    for j in rng.integers(len(pairs), size=tries):  # nearly always the first one fits
        other = pairs[int(j)]
        if other.take_uid != take_uid and other.object_name != object_name:
            return other
    return pairs.unrelated(i, rng)


class HardNegatives:
    """Negatives of the same take: the scene is right, the object is not in view.

    Either the object's query with a target frame in which it was looked for and not seen, or another object that is
    seen in the same query frame and not in the target frame.
    """

    def __init__(self, pairs: PairSet):
        self.pairs = pairs
        self._negative = ~pairs.positive
        self._take: dict[str, tuple[int, int]] = {}  # first pair and end, the pairs of a take being in a row
        end = 0
        for track in pairs.tracks:
            start, end = end, end + len(track.frames)
            self._take[track.take_uid] = (self._take.get(track.take_uid, (start, end))[0], end)

    def draw(self, i: int, rng: np.random.Generator) -> tuple[int, Pair] | None:
        """(number of the pair whose query to take, pair whose target frame to take), None if the take has none."""
        found = list(self._candidates(i))
        return found[int(rng.integers(len(found)))] if found else None

    def _candidates(self, i: int) -> Iterator[tuple[int, Pair]]:
        pair = self.pairs[i]
        start, end = self._take[pair.take_uid]
        for j in (start + np.flatnonzero(self._negative[start:end])).tolist():
            other = self.pairs[j]
            if other[2:4] != pair[2:4] or j == i:
                continue
            if other.object_name == pair.object_name:
                yield i, other
            elif other.frame == pair.frame:
                yield j, other
