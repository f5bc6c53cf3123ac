"""Results files against each other on the same cases: paired differences with bootstrap intervals over takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import METRICS
from evaluation.score import Case, SplitScores
from evaluation.summary import (
    case_sums,
    labelers,
    metric_values,
    percentile_interval,
    places_by_label,
    resampled_rates,
    right_object_basis,
    without_nan,
)

COMPARED = ("scenario", "object size", "query camera", "target camera")  # breakdowns; see summary.labelers


def common_cases(all_scores: Sequence[SplitScores]) -> list[list[Case]]:
    """The cases that every file has, in the order of the first; one list per file."""
    by_key = [{case.key: case for case in scores.cases} for scores in all_scores]
    keys = [key for key in by_key[0] if all(key in cases for cases in by_key[1:])]
    return [[cases[key] for key in keys] for cases in by_key]


def compare(names: Sequence[str], cases: Sequence[list[Case]], scores: SplitScores) -> dict[str, Any]:
    """Each of `cases[1:]` with `cases[0]`, as comparison.json has it; all have the same keys.

    `scores`, of the first file, tells the names and scenarios of the takes.
    """
    first, label_of = cases[0], labelers(scores)
    comparisons = []
    for name, second in zip(names[1:], cases[1:], strict=True):
        by = {}
        for kind in COMPARED:
            groups = places_by_label(first, label_of[kind])
            by[kind] = {label: paired_differences(*cases_at((first, second), at)) for label, at in groups.items()}
        comparisons.append({"second": name, "metrics": paired_differences(first, second), "by": by})
    return {
        "names": list(names),
        "first": names[0],
        "takes_compared": len({case.take_uid for case in first}),
        "frames_compared": len(first),
        **right_object_basis(case_sums(first).sum(0)),
        "comparisons": comparisons,
    }


def cases_at(cases: Sequence[Sequence[Case]], places: Sequence[int]) -> list[list[Case]]:
    """The cases at some places of the lists, of each file."""
    return [[file_cases[place] for place in places] for file_cases in cases]


def paired_differences(first: Sequence[Case], second: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The metrics of the same cases in two files, second - first with its interval; None where there is no value.

    The same takes are drawn for both: whether a take is hard or easy does not matter for the difference.
    """
    takes = places_by_label(first, lambda case: case.take_uid).values()
    take_sums = [np.stack([sums[places].sum(0) for places in takes]) for sums in (case_sums(first), case_sums(second))]
    before, after = (metric_values(sums.sum(0)) for sums in take_sums)
    drawn_before, drawn_after = map(resampled_rates, take_sums)
    return without_nan(
        {
            name: {
                "first": before[name],
                "second": after[name],
                "difference": after[name] - before[name],
                "interval_95": percentile_interval(drawn_after[name] - drawn_before[name]),
            }
            for name in METRICS
        }
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell results files apart: their stems, or else their folders, or else numbers."""
    stems = [path.stem.removesuffix("_results") for path in paths]
    folders = [path.resolve().parent.name for path in paths]
    for names in (stems, folders):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path.name}" for number, path in enumerate(paths, 1)]
