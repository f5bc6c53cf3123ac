"""Results files against each other on the same cases: paired differences with bootstrap intervals over takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import METRICS
from evaluation.score import Case, Scores
from evaluation.summary import (
    LABEL_ORDERS,
    case_sums,
    labels,
    percentile_interval,
    places_by_label,
    rates,
    resampled_rates,
    without_nan,
)

COMPARED = ("scenario", "object size", "query camera", "target camera")  # breakdowns; see summary.labels


def common_cases(all_scores: Sequence[Scores]) -> list[list[Case]]:
    """The cases that every file has, in the order of the first; one list per file."""
    by_key = [{case.key: case for case in scores.cases} for scores in all_scores]
    keys = [key for key in by_key[0] if all(key in cases for cases in by_key[1:])]
    return [[cases[key] for key in keys] for cases in by_key]


def compare(names: Sequence[str], cases: Sequence[list[Case]], scores: Scores) -> dict[str, Any]:
    """Each of `cases[1:]` with `cases[0]`, as comparison.json has it; all have the same keys.

    `scores`, of the first file, tells the names and scenarios of the takes.
    """
    label = labels(scores)
    groups = {kind: places_by_label(cases[0], label[kind], LABEL_ORDERS.get(kind)) for kind in COMPARED}
    comparisons = []
    for name, other in zip(names[1:], cases[1:], strict=True):
        by = {
            kind: {
                key: differences([cases[0][i] for i in places], [other[i] for i in places])
                for key, places in of_kind.items()
            }
            for kind, of_kind in groups.items()
        }
        comparisons.append({"second": name, "metrics": differences(cases[0], other), "by": by})
    return {"first": names[0], "frames_compared": len(cases[0]), "comparisons": comparisons}


def differences(first: Sequence[Case], second: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The metrics of the same cases in two files, second - first with its interval; None for what does not exist.

    The same takes are drawn for both, so that what makes a take hard or easy drops out of the difference.
    """
    takes = places_by_label(first, lambda case: case.take_uid).values()
    rows = [np.stack([sums[at].sum(0) for at in takes]) for sums in (case_sums(first), case_sums(second))]
    before, after = (rates(row.sum(0)) for row in rows)
    drawn_before, drawn_after = map(resampled_rates, rows)
    return without_nan(
        {
            name: {
                "first": float(before[name]),
                "second": float(after[name]),
                "difference": float(after[name] - before[name]),
                "interval_95": percentile_interval(drawn_after[name] - drawn_before[name]),
            }
            for name in METRICS
        }
    )


def is_certain(difference: dict[str, Any]) -> bool:
    """0 lies outside the interval."""
    low, high = difference["interval_95"]
    return low is not None and (low > 0 or high < 0)


def largest_first(groups: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Groups of a comparison by how far IoU moved, in either direction."""
    return sorted(groups.items(), key=lambda item: -abs(item[1]["iou"]["difference"] or 0))


def largest_changes(first: Sequence[Case], second: Sequence[Case], number: int) -> list[int]:
    """Where in the lists IoU changes most, `number` cases each way, the largest rise first, the largest fall last."""
    pairs = enumerate(zip(first, second, strict=True))
    changes = [(b.mask.iou - a.mask.iou, i) for i, (a, b) in pairs if a.visible]
    ranked = [i for _, i in sorted(changes, reverse=True)]
    return ranked if len(ranked) <= 2 * number else ranked[:number] + ranked[len(ranked) - number :]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell results files apart: their stems, or else their folders, or else numbers."""
    stems = [path.stem.removesuffix("_results") for path in paths]
    folders = [path.resolve().parent.name for path in paths]
    for names in (stems, folders):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]
