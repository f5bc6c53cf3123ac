"""From scored cases to the benchmark's four numbers, their confidence intervals and breakdowns.

Every number is a ratio of sums over cases. So a case, a take or a split is a row of sums, (len(SUMS),) floats, and the
numbers of any set of cases are those of its rows added up.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from evaluation.metrics import CONFIDENCE_THRESHOLD
from evaluation.score import Case, Scores, TakeScores

T = TypeVar("T")
SUMS = (
    "iou",
    "contour_accuracy",
    "location_error",
    "location_error_corrected",
    "mask_presence",  # the predicted mask is empty just when the true one is, at 480 pixels
    "visible",
    "visible_right",
    "hidden",
    "hidden_right",
)
OFFICIAL = ("iou", "location_error", "contour_accuracy", "balanced_accuracy")
EXTRA = ("location_error_corrected", "mask_presence")
METRICS = OFFICIAL + EXTRA
SIZE_EDGES = (100, 400, 1600, 6400)  # pixels of the true mask at a long side of 480
VISIBILITY_EDGES = (0.5, 0.9)  # share of the track's scored frames in which the object is visible


class Interval(NamedTuple):
    low: float
    high: float


def case_sums(cases: Sequence[Case]) -> np.ndarray:
    """(N, len(SUMS)): what each case adds to the sums."""
    rows = np.zeros((len(cases), len(SUMS)))
    for row, case in zip(rows, cases, strict=True):
        right = (case.confidence > CONFIDENCE_THRESHOLD) == case.visible
        if case.visible:
            presence = (case.truth_pixels > 0) == (case.predicted_pixels > 0)
            masks = case.iou, case.contour_accuracy, case.location_error, case.location_error_corrected
            row[:7] = *masks, presence, 1, right
        else:
            row[7:] = 1, right
    return rows


def take_sums(takes: Sequence[Sequence[Case]]) -> np.ndarray:
    """(takes, len(SUMS)) from the cases of each take."""
    return np.stack([case_sums(cases).sum(0) for cases in takes])


def rates(rows: np.ndarray) -> dict[str, np.ndarray]:
    """(..., len(SUMS)) sums -> (...) values of each of METRICS; nan where nothing is there to average."""
    column = dict(zip(SUMS, np.moveaxis(rows, -1, 0), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        out = {name: column[name] / column["visible"] for name in SUMS[:5]}
        recall = np.stack([column["visible_right"] / column["visible"], column["hidden_right"] / column["hidden"]])
    known = ~np.isnan(recall)
    out["balanced_accuracy"] = np.where(
        known.any(0), np.nansum(recall, 0) / np.maximum(known.sum(0), 1), np.nan
    )  # a class that does not occur is left out of the mean
    return {name: out[name] for name in METRICS}


def metrics(cases: Sequence[Case]) -> dict[str, float]:
    """The values of METRICS over some cases."""
    return {name: float(value) for name, value in rates(case_sums(cases).sum(0)).items()}


def bootstrap_weights(n_takes: int, resamples: int, seed: int = 0) -> np.ndarray:
    """(resamples, n_takes): how often each take is drawn when n_takes are drawn with replacement."""
    return np.random.default_rng(seed).multinomial(n_takes, np.full(n_takes, 1 / n_takes), resamples)


def intervals(takes: Sequence[TakeScores], resamples: int = 2000, level: float = 0.95) -> dict[str, Interval]:
    """Percentile bootstrap over takes: frames of one take are alike, so takes and not frames are drawn."""
    if len(takes) < 2:
        return {name: Interval(math.nan, math.nan) for name in METRICS}
    rows = take_sums([take.cases for take in takes])
    drawn = rates(bootstrap_weights(len(takes), resamples) @ rows)
    return {name: percentile_interval(values, level) for name, values in drawn.items()}


def percentile_interval(values: np.ndarray, level: float = 0.95) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(math.nan, math.nan)
    return Interval(*(float(edge) for edge in np.quantile(values, [(1 - level) / 2, (1 + level) / 2])))


class Group(NamedTuple):
    """One line of a breakdown."""

    label: str
    n_frames: int
    n_visible: int
    metrics: dict[str, float]


def group_by(cases: Sequence[Case], label: Callable[[Case], str | None], order: Sequence[str] = ()) -> list[Group]:
    """Metrics of the cases of each label, labels sorted or in the given order; None leaves a case out."""
    return [
        Group(key, len(members), sum(case.visible for case in members), metrics(members))
        for key, members in in_order(split_by(cases, label), order).items()
    ]


def split_by(items: Iterable[T], label: Callable[[T], str | None]) -> dict[str, list[T]]:
    """The items of each label; None leaves an item out."""
    groups: dict[str, list[T]] = {}
    for item in items:
        if (key := label(item)) is not None:
            groups.setdefault(key, []).append(item)
    return groups


def in_order(groups: dict[str, list[T]], order: Sequence[str] = ()) -> dict[str, list[T]]:
    """Groups by their place in `order`, or else by name."""
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0]) if order else item[0]))


def breakdowns(scores: Scores) -> dict[str, list[Group]]:
    """Metrics by take, object, scenario (if known), camera, object size, and visibility of the track."""
    cases = scores.cases
    names = {take.take_uid: take.name or take.take_uid for take in scores.takes}
    scenarios = {take.take_uid: take.scenario or None for take in scores.takes}
    shares = track_visibility(cases)
    return {
        "take": group_by(cases, lambda case: names[case.take_uid]),
        "object": group_by(cases, lambda case: f"{names[case.take_uid]} / {case.object_name}"),
        "scenario": group_by(cases, lambda case: scenarios[case.take_uid]),
        "target camera": group_by(cases, lambda case: case.target_camera),
        "object size": group_by(cases, lambda case: size_label(case.truth_pixels), SIZE_LABELS),
        "visibility": group_by(cases, lambda case: visibility_label(shares[case.key[:4]]), VISIBILITY_LABELS),
    }


def track_visibility(cases: Iterable[Case]) -> dict[tuple, float]:
    """Share of the scored frames in which the object is visible, by (take, object, query camera, target camera)."""
    seen: dict[tuple, list[bool]] = {}
    for case in cases:
        seen.setdefault(case.key[:4], []).append(case.visible)
    return {key: sum(visible) / len(visible) for key, visible in seen.items()}


SIZE_LABELS = (
    "vanished at 480 px",
    f"under {SIZE_EDGES[0]} px",
    *(f"{low} to {high} px" for low, high in zip(SIZE_EDGES, SIZE_EDGES[1:], strict=False)),
    f"from {SIZE_EDGES[-1]} px",
)
VISIBILITY_LABELS = ("in under half of the frames", "in 50 to 90 % of the frames", "in at least 90 %", "in all frames")


def size_label(pixels: float) -> str | None:
    """The label of a mask's size; None if there is no mask."""
    if math.isnan(pixels):
        return None
    return SIZE_LABELS[0 if pixels == 0 else 1 + sum(pixels >= edge for edge in SIZE_EDGES)]


def visibility_label(share: float) -> str:
    return VISIBILITY_LABELS[sum(share >= edge for edge in VISIBILITY_EDGES) + (share == 1)]


def mean_over_groups(groups: list[Group]) -> dict[str, float]:
    """Each group counts the same, unlike in the official mean; groups without a value are left out."""
    out = {}
    for name in METRICS:
        values = [group.metrics[name] for group in groups if not math.isnan(group.metrics[name])]
        out[name] = float(np.mean(values)) if values else math.nan
    return out
