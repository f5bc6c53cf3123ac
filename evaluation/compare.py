"""Results files against each other on the same cases: paired differences with bootstrap intervals over takes."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.metrics import METRICS
from evaluation.score import Case, SplitScores
from evaluation.summary import (
    LABEL_ORDERS,
    case_sums,
    labels,
    percentile_interval,
    places_by_label,
    rates,
    resampled_rates,
    several_objects,
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
    label = labels(scores)
    groups = {kind: places_by_label(cases[0], label[kind], LABEL_ORDERS.get(kind)) for kind in COMPARED}
    comparisons = []
    for name, other in zip(names[1:], cases[1:], strict=True):
        by = {kind: {} for kind in COMPARED}
        for kind in COMPARED:
            for key, places in groups[kind].items():
                by[kind][key] = paired_differences([cases[0][i] for i in places], [other[i] for i in places])
        comparisons.append({"second": name, "metrics": paired_differences(cases[0], other), "by": by})
    won = {"all sizes": takes_won(cases)}
    for size, places in groups["object size"].items():
        won[size] = takes_won([[of_file[i] for i in places] for of_file in cases])
    return {
        "names": list(names),
        "first": names[0],
        "frames_compared": len(cases[0]),
        **several_objects(case_sums(cases[0]).sum(0)),
        "takes_won": won,
        "comparisons": comparisons,
    }


def take_means(cases: Sequence[Sequence[Case]]) -> np.ndarray:
    """(takes, files): mean IoU of each take whose objects are visible, in the order in which takes first occur."""
    places = places_by_label(cases[0], lambda case: case.take_uid if case.visible else None).values()
    means = [[np.mean([of_file[i].mask.iou for i in at]) for of_file in cases] for at in places]
    return np.array(means).reshape(-1, len(cases))


def takes_won(cases: Sequence[Sequence[Case]]) -> dict[str, Any]:
    """In how many takes, and in which share of them, each file has a higher mean IoU than all others.

    Takes without a visible object are left out; those that several files share are `tied`.
    """
    means = take_means(cases)
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


def apart(group: Sequence[Case]) -> float:
    """How far the files are apart in a case: in IoU, or in existence where the object is not visible."""
    values = [case.mask.iou if case.visible else case.existence for case in group]
    return max(values) - min(values)


def best_files(group: Sequence[Case]) -> list[int]:
    """Which files are best in a case: of highest IoU, or of lowest existence where the object is not visible."""
    values = [case.mask.iou if case.visible else -case.existence for case in group]
    return [number for number, value in enumerate(values) if value == max(values)]


def disagreements(cases: Sequence[Sequence[Case]], number: int) -> list[int]:
    """Where in the lists the files disagree most, `number` cases, those that are furthest apart first.

    A fifth are cases of objects that are not visible and that only some files say to be. Each file is the best in as
    many as the others, if there are enough; each track has its turn before one has a second, as its frames look alike.
    """
    groups = list(zip(*cases, strict=True))

    def furthest_first(places: Iterable[int]) -> list[int]:
        return sorted(places, key=lambda i: -apart(groups[i]))

    def chosen(places: list[int], at_most: int) -> list[int]:
        by_track = in_turn(furthest_first(places), lambda i: groups[i][0].track)
        return furthest_first(in_turn(by_track, lambda i: best_files(groups[i])[0])[:at_most])

    visible, hidden = [], []
    for i, group in enumerate(groups):
        if group[0].visible and apart(group) > 0:
            visible.append(i)
        elif not group[0].visible and len({case.predicted_visible for case in group}) > 1:
            hidden.append(i)
    hidden = chosen(hidden, number // 5)
    return chosen(visible, number - len(hidden)) + hidden


def in_turn(ranked: Iterable[Any], key: Callable[[Any], Hashable]) -> list[Any]:
    """The first of each key before the second of any, and so on; in each turn by rank."""
    turns: Counter = Counter()
    numbered = []
    for item in ranked:
        numbered.append((turns[key(item)], item))
        turns[key(item)] += 1
    return [item for _, item in sorted(numbered, key=lambda pair: pair[0])]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell results files apart: their stems, or else their folders, or else numbers."""
    stems = [path.stem.removesuffix("_results") for path in paths]
    folders = [path.resolve().parent.name for path in paths]
    for names in (stems, folders):
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]
