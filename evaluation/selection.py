"""Which cases are shown: for one results file by their scores, for several files by how much the files disagree."""

import operator
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from common.errors import UserError
from evaluation.score import Case, SplitScores
from evaluation.summary import take_names

CASE_ORDERS = {
    "spread": "spread evenly from the best to the worst",
    "best": "the best",
    "worst": "the worst",
    "random": "drawn at random",
}


def matching_cases(
    scores: SplitScores, take: str | None, object_name: str | None, camera: str | None, frame: int | None
) -> list[Case]:
    """Cases of takes (whose uid or name begins with `take`), an object (with or without surrounding spaces), a query or
    target camera, a frame; None fits all. Raises UserError, which names some that exist, if there are none.
    """
    cases, names = scores.cases, take_names(scores)
    for flag, wanted, values_of, fits in (
        ("take", take, lambda case: {case.take_uid, names[case.take_uid]}, str.startswith),
        ("object", object_name and object_name.strip(), lambda case: {case.object_name.strip()}, operator.eq),
        ("camera", camera, lambda case: {case.query_camera, case.target_camera}, operator.eq),
        ("frame", frame, lambda case: {case.frame}, operator.eq),
    ):
        if wanted is not None:
            values = sorted(set().union(*map(values_of, cases)))[:10]
            cases = [case for case in cases if any(fits(value, wanted) for value in values_of(case))]
            if not cases:
                raise UserError(f"no prediction fits --{flag} {wanted!r}; there are {', '.join(map(repr, values))}")
    return cases


def choose_cases(cases: list[Case], order: str, number: int, with_hidden: bool = False) -> list[Case]:
    """`number` cases: the best or worst by IoU, spread evenly from best to worst, or random (these may be not visible).

    Frames of a track look alike, so each track has its turn before one has a second. `with_hidden`: and a fifth more
    where the object is not visible, with the highest existence first.
    """
    if order == "random":
        ranked = random.Random(0).sample(cases, len(cases))
    else:
        visible = (case for case in cases if case.visible)
        ranked = sorted(visible, key=lambda case: case.mask.iou, reverse=order != "worst")
    if order == "spread" and len(ranked) > number > 1:
        chosen = [ranked[round(place * (len(ranked) - 1) / (number - 1))] for place in range(number)]
    else:
        chosen = round_robin(ranked, lambda case: case.track)[:number]
    if with_hidden and order != "random":
        hidden = sorted((case for case in cases if not case.visible), key=lambda case: -case.existence)
        chosen += hidden[: max(1, number // 5)]
    return chosen


def disagreement(file_cases: Sequence[Case]) -> float:
    """How far the files are apart in a case: in IoU, or in existence where the object is not visible."""
    values = [case.mask.iou if case.visible else case.existence for case in file_cases]
    return max(values) - min(values)


def best_files(file_cases: Sequence[Case]) -> list[int]:
    """Which files are best in a case: of highest IoU, or of lowest existence where the object is not visible."""
    values = [case.mask.iou if case.visible else -case.existence for case in file_cases]
    return [number for number, value in enumerate(values) if value == max(values)]


def largest_disagreements(cases: Sequence[Sequence[Case]], number: int) -> list[int]:
    """The indices of the `number` cases on which the files disagree most, the furthest apart first.

    Each file is the best in as many as the others, if there are enough. Each track has its turn before one has a
    second, as its frames look alike.
    """
    groups = list(zip(*cases, strict=True))
    distances = list(map(disagreement, groups))
    furthest_first = sorted((i for i in range(len(groups)) if distances[i] > 0), key=lambda i: -distances[i])
    by_track = round_robin(furthest_first, lambda i: groups[i][0].track)
    by_file = round_robin(by_track, lambda i: best_files(groups[i])[0])
    return sorted(by_file[:number], key=lambda i: -distances[i])


def round_robin(ranked: Iterable[Any], key: Callable[[Any], Hashable]) -> list[Any]:
    """The items reordered: the first item of each key, then the second item of each key, and so on, each by rank."""
    turns: Counter = Counter()
    numbered = []
    for item in ranked:
        numbered.append((turns[key(item)], item))
        turns[key(item)] += 1
    return [item for _, item in sorted(numbered, key=lambda pair: pair[0])]
