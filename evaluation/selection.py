"""Which cases to look at."""

import random
from collections.abc import Iterable

from evaluation.score import Case

ORDERS = ("spread", "best", "worst", "random")


def matching(
    cases: Iterable[Case],
    object_name: str | None = None,
    camera: str | None = None,
    frame: int | None = None,
) -> list[Case]:
    """Cases of an object (with or without surrounding spaces), a query or target camera, a frame."""
    return [
        case
        for case in cases
        if (object_name is None or object_name.strip() == case.object_name.strip())
        and camera in (None, case.query_camera, case.target_camera)
        and frame in (None, case.frame)
    ]


def choose(cases: list[Case], order: str, number: int, seed: int = 0) -> list[Case]:
    """`number` cases: the best or worst by IoU, spread evenly from best to worst, or random (these may be not visible).

    Frames of a track look alike, so each track has its turn before one has a second.
    """
    if order == "random":
        ranked = random.Random(seed).sample(cases, len(cases))
    else:
        ranked = sorted((case for case in cases if case.visible), key=lambda case: case.iou, reverse=order != "worst")
    if order == "spread" and len(ranked) > number > 1:
        return [ranked[round(place * (len(ranked) - 1) / (number - 1))] for place in range(number)]
    turn: dict[tuple, int] = {}
    turns = []
    for case in ranked:
        turns.append(turn.get(case.key[:4], 0))
        turn[case.key[:4]] = turns[-1] + 1
    return [ranked[place] for place in sorted(range(len(ranked)), key=lambda place: (turns[place], place))[:number]]
