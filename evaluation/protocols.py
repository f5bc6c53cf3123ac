"""The rules by which this field averages its scores, each over the same scored cases; docs/protocols.md defines them.

Only `official` is the benchmark's. The others are the rules of published systems' own scorers: they make a figure
comparable with theirs. A score that a rule does not define is nan.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from evaluation.metrics import OFFICIAL
from evaluation.score import Case
from evaluation.summary import metrics

VISIBLE_AREA = 0.001  # of the image: LM-EEC says "visible" if a mask is larger
OFFICIAL_RULE = "official"


class Figures(NamedTuple):
    """The scores by one rule, as fractions; nan if the rule does not define a score."""

    iou: float
    location_error: float
    contour_accuracy: float
    balanced_accuracy: float
    averaged_over: str  # "masks", "takes" or "frame pairs": the scores are means over `count` of them
    count: int


def official(cases: Sequence[Case]) -> Figures:
    """The benchmark's: means over all frames in which the target has a mask."""
    values = metrics(cases)
    return Figures(*(values[name] for name in OFFICIAL), "masks", sum(case.visible for case in cases))


def omama(cases: Sequence[Case]) -> Figures:
    """O-MaMa's: the truth takes the prediction's size, and distances are fractions of that image's diagonal."""
    masks = [case.scores_at_file_size or case.mask for case in cases if case.visible]
    return Figures(
        _mean(mask.iou for mask in masks),
        _mean(mask.location_error_own_diagonal for mask in masks),
        _mean(mask.contour_accuracy for mask in masks),
        metrics(cases)["balanced_accuracy"],
        "masks",
        len(masks),
    )


def pooled_per_take(cases: Sequence[Case]) -> Figures:
    """ObjectRelator's IoU: intersections and unions are summed over all masks of a take; mean over takes."""
    takes = _groups((case for case in cases if case.visible), lambda case: case.take_uid)
    pooled = []
    for group in takes:
        shared = sum(case.mask.shared_pixels for case in group)
        union = sum(case.mask.truth_pixels + case.mask.predicted_pixels for case in group) - shared
        pooled.append(shared / (union + 1e-10))
    return Figures(_mean(pooled), math.nan, math.nan, math.nan, "takes", len(takes))


def per_pair(cases: Sequence[Case]) -> Figures:
    """V2-SAM's "frame level": mean over the objects of a pair of query and target frame, then over the pairs."""
    pairs = _groups(
        (case for case in cases if case.visible),
        lambda case: (case.take_uid, case.query_camera, case.target_camera, case.frame),
    )
    return Figures(
        _mean(_mean(case.mask.iou for case in pair) for pair in pairs),
        _mean(_mean(case.mask.location_error for case in pair) for pair in pairs),
        _mean(_mean(case.mask.contour_accuracy for case in pair) for pair in pairs),
        math.nan,
        "frame pairs",
        len(pairs),
    )


def lmeec_visibility(cases: Sequence[Case]) -> Figures:
    """LM-EEC's: a mask of over 0.1 % of the image says "visible"; an object that vanished at 480 pixels is hidden."""
    seen = [case for case in cases if case.visible and case.mask.truth_pixels]
    truth = np.array([case.visible and case.mask.truth_pixels > 0 for case in cases], bool)
    said = np.array([case.predicted_area > VISIBLE_AREA for case in cases], bool)
    recalls = [(said[truth == label] == label).mean() for label in np.unique(truth)]
    return Figures(
        _mean(case.mask.iou for case in seen),
        _mean(case.mask.location_error for case in seen),
        _mean(case.mask.contour_accuracy for case in seen),
        _mean(recalls),
        "masks",
        len(seen),
    )


PROTOCOLS: dict[str, Callable[[Sequence[Case]], Figures]] = {
    OFFICIAL_RULE: official,
    "omama": omama,
    "pooled_per_take": pooled_per_take,
    "per_pair": per_pair,
    "lmeec_visibility": lmeec_visibility,
}


def under_protocols(protocol: str, cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The figures of the official rule and of `protocol`, a name in PROTOCOLS or "all", by name of the rule."""
    names = PROTOCOLS if protocol == "all" else dict.fromkeys((OFFICIAL_RULE, protocol))
    return {name: PROTOCOLS[name](cases)._asdict() for name in names}


def _groups(cases: Iterable[Case], key: Callable[[Case], Hashable]) -> list[list[Case]]:
    groups: dict[Hashable, list[Case]] = {}
    for case in cases:
        groups.setdefault(key(case), []).append(case)
    return list(groups.values())


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return float(np.mean(values)) if values else math.nan
