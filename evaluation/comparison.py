"""Compare results files on the same cases: paired differences, with bootstrap intervals over takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import METRICS
from evaluation.score import Case, SplitScores
from evaluation.summary import (
    SHORT_BREAKDOWNS,
    bootstrap_metrics,
    case_sums,
    indices_by_label,
    label_functions,
    metrics_of_sums,
    percentile_interval,
    right_object_basis,
    without_nan,
)


def common_cases(all_scores: Sequence[SplitScores]) -> list[list[Case]]:
    """For each file, a list of the cases that all files have, in the order of the first file."""
    by_key = [{case.key: case for case in scores.cases} for scores in all_scores]
    keys = [key for key in by_key[0] if all(key in cases for cases in by_key[1:])]
    return [[cases[key] for key in keys] for cases in by_key]


def compare(names: Sequence[str], cases: Sequence[list[Case]], scores: SplitScores) -> dict[str, Any]:
    """Compare each of `cases[1:]` with `cases[0]`; returns the content of comparison.json. All have the same case keys.

    `scores`, of the first file, tells the names and scenarios of the takes.
    """
    first, label_of = cases[0], label_functions(scores)
    comparisons = []
    for name, second in zip(names[1:], cases[1:], strict=True):
        by = {}
        for kind in SHORT_BREAKDOWNS:
            groups = indices_by_label(first, label_of[kind])
            pairs = {label: cases_at((first, second), indices) for label, indices in groups.items()}
            by[kind] = {label: paired_differences(*pair) for label, pair in pairs.items()}
        comparisons.append({"second": name, "metrics": paired_differences(first, second), "by": by})
    return {
        "names": list(names),
        "first": names[0],
        "takes_compared": len({case.take_uid for case in first}),
        "frames_compared": len(first),
        **right_object_basis(case_sums(first).sum(0)),
        "comparisons": comparisons,
    }


def cases_at(cases: Sequence[Sequence[Case]], indices: Sequence[int]) -> list[list[Case]]:
    """Take the cases at `indices` of each file."""
    return [[file_cases[index] for index in indices] for file_cases in cases]


def paired_differences(first: Sequence[Case], second: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The metrics of the same cases in two files, and the difference second - first with its interval. A value that
    does not exist is None. Each resample draws the same takes for both files, so hard and easy takes affect both alike.
    """
    takes = indices_by_label(first, lambda case: case.take_uid).values()
    sums = np.stack([case_sums(first), case_sums(second)])
    take_sums = np.stack([sums[:, indices].sum(1) for indices in takes], 1)  # (2, takes, len(SUMS))
    first_metrics, second_metrics = map(metrics_of_sums, take_sums.sum(1))
    first_drawn, second_drawn = map(bootstrap_metrics, take_sums)
    return without_nan(
        {
            name: {
                "first": first_metrics[name],
                "second": second_metrics[name],
                "difference": second_metrics[name] - first_metrics[name],
                "interval_95": percentile_interval(second_drawn[name] - first_drawn[name]),
            }
            for name in METRICS
        }
    )


def short_names(paths: Sequence[Path]) -> list[str]:
    """Distinct names of results files: their stems if distinct, else their folders if distinct, else numbers."""
    stems = [path.stem.removesuffix("_results") for path in paths]
    folders = [path.resolve().parent.name for path in paths]
    for names in (stems, folders):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path.name}" for number, path in enumerate(paths, 1)]
