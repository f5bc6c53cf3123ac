"""Results files against each other on the same cases: paired differences with bootstrap intervals over takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import METRICS
from evaluation.score import Case, SplitScores
from evaluation.summary import (
    case_sums,
    labels,
    percentile_interval,
    places_by_label,
    resampled_rates,
    several_objects,
    values,
    without_nan,
)

COMPARED = ("scenario", "object size", "query camera", "target camera")  # breakdowns; see summary.labels


def common_cases(all_scores: Sequence[SplitScores]) -> list[list[Case]]:
    """The cases that every file has, in the order of the first; one list per file."""
    by_key = [{case.key: case for case in scores.cases} for scores in all_scores]
    keys = [key for key in by_key[0] if all(key in cases for cases in by_key[1:])]
    return [[cases[key] for key in keys] for cases in by_key]


def compare(names: Sequence[str], cases: Sequence[list[Case]], scores: SplitScores) -> dict[str, Any]:
    """Each of `cases[1:]` with `cases[0]`, as comparison.json has it; all have the same keys.

    `scores`, of the first file, tells the names and scenarios of the takes.
    """
    label_of = labels(scores)
    groups = {kind: places_by_label(cases[0], label_of[kind]) for kind in COMPARED}
    comparisons = []
    for name, other in zip(names[1:], cases[1:], strict=True):
        by = {
            kind: {label: paired_differences(*at_places((cases[0], other), places)) for label, places in found.items()}
            for kind, found in groups.items()
        }
        comparisons.append({"second": name, "metrics": paired_differences(cases[0], other), "by": by})
    won = {size: takes_won(at_places(cases, places)) for size, places in groups["object size"].items()}
    return {
        "names": list(names),
        "first": names[0],
        "takes_compared": len({case.take_uid for case in cases[0]}),
        "frames_compared": len(cases[0]),
        **several_objects(case_sums(cases[0]).sum(0)),
        "takes_won": {"all sizes": takes_won(cases)} | won,
        "comparisons": comparisons,
    }


def at_places(cases: Sequence[Sequence[Case]], places: Sequence[int]) -> list[list[Case]]:
    """Some of the cases, of each file."""
    return [[of_file[place] for place in places] for of_file in cases]


def takes_won(cases: Sequence[Sequence[Case]]) -> dict[str, Any]:
    """In how many takes, and in which share of them, each file has a higher mean IoU than all others.

    Takes without a visible object are left out; those that several files share are `tied`.
    """
    places = places_by_label(cases[0], lambda case: case.take_uid if case.visible else None).values()
    means = [[np.mean([of_file[i].mask.iou for i in at]) for of_file in cases] for at in places]
    means = np.array(means).reshape(-1, len(cases))  # (takes, files)
    best = np.isclose(means, means.max(1, keepdims=True), rtol=0, atol=1e-12)
    won = best[best.sum(1) == 1].sum(0).tolist()
    share = [number / len(means) if len(means) else None for number in won]
    return {"takes": len(means), "tied": len(means) - sum(won), "won": won, "share": share}


def paired_differences(first: Sequence[Case], second: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """The metrics of the same cases in two files, second - first with its interval; None where there is no value.

    The same takes are drawn for both: whether a take is hard or easy does not matter for the difference.
    """
    takes = places_by_label(first, lambda case: case.take_uid).values()
    rows = [np.stack([sums[at].sum(0) for at in takes]) for sums in (case_sums(first), case_sums(second))]
    before, after = (values(row.sum(0)) for row in rows)
    drawn_before, drawn_after = map(resampled_rates, rows)
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
