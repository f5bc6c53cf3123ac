"""Choose the cases to show: by their scores for one results file, by disagreement for several files."""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from evaluation.score import Case

CASE_ORDERS = {
    "spread": "spread evenly from the best to the worst",
    "best": "the best",
    "worst": "the worst",
    "random": "drawn at random",
}


def choose_cases(cases: list[Case], order: str, number: int, with_hidden: bool = False) -> list[Case]:
    """Choose `number` cases by `order`, a key of CASE_ORDERS. The objects are visible, unless the order is random.

    Frames of a track look alike, so every track gets a case before a track gets a second one. `with_hidden` adds a
    fifth more cases in which the object is not visible, with the highest existence first.
    """
    if order == "random":
        ranked = random.Random(0).sample(cases, len(cases))
    else:
        scored = [(case.scores.iou, case) for case in cases if case.scores]
        ranked = [case for _, case in sorted(scored, key=lambda pair: pair[0], reverse=order != "worst")]
    if order == "spread" and len(ranked) > number > 1:
        chosen = [ranked[round(place * (len(ranked) - 1) / (number - 1))] for place in range(number)]
    else:
        chosen = round_robin(ranked, lambda case: case.track)[:number]
    if with_hidden and order != "random":
        hidden = sorted((case for case in cases if not case.visible), key=lambda case: -case.existence)
        chosen += hidden[: min(number, max(1, number // 5))]
    return chosen


def disagreement(file_cases: Sequence[Case]) -> float:
    """The largest difference between the files in a case: of IoU, or of existence if the object is not visible."""
    values = [case.scores.iou if case.scores else case.existence for case in file_cases]
    return max(values) - min(values)


def best_files(file_cases: Sequence[Case]) -> list[int]:
    """The files that are best in a case: with the highest IoU, or the lowest existence if the object is not visible."""
    values = [case.scores.iou if case.scores else -case.existence for case in file_cases]
    return [number for number, value in enumerate(values) if value == max(values)]


def largest_disagreements(cases: Sequence[Sequence[Case]], number: int) -> list[int]:
    """The indices of the `number` cases on which the files disagree most, the largest disagreement first.

    If there are enough cases, each file is the best file in equally many cases. Frames of a track look alike, so every
    track gets a case before a track gets a second one.
    """
    groups = list(zip(*cases, strict=True))
    distances = list(map(disagreement, groups))
    furthest_first = sorted((i for i in range(len(groups)) if distances[i] > 0), key=lambda i: -distances[i])
    tracks_in_turn = round_robin(furthest_first, lambda i: groups[i][0].track)
    by_file = round_robin(tracks_in_turn, lambda i: best_files(groups[i])[0])
    return sorted(by_file[:number], key=lambda i: -distances[i])


def round_robin(ranked: Iterable[Any], key: Callable[[Any], Hashable]) -> list[Any]:
    """Reorder ranked items: the first item of each key, then the second item of each key, and so on, each by rank."""
    turns: Counter = Counter()
    numbered = []
    for item in ranked:
        numbered.append((turns[key(item)], item))
        turns[key(item)] += 1
    return [item for _, item in sorted(numbered, key=lambda pair: pair[0])]
