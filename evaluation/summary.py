"""Compute the benchmark's four numbers and further metrics from scored cases, and the differences between files, with
confidence intervals and breakdowns.

Every number is a ratio of sums over cases. A case, a take or a split is therefore a row of sums, (len(SUMS),) floats.
The numbers of a set of cases follow from the sum of its rows.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from common.existence import balanced_accuracy
from evaluation.metrics import MASK_METRICS, METRICS, OFFICIAL
from evaluation.score import Case, SplitScores
from formats.results import THRESHOLD

SUMS = (*MASK_METRICS, "several_objects", "right_object_chance", "visible", "visible_right", "hidden", "hidden_right")
SIZE_EDGES = (0.0005, 0.0015, 0.005, 0.02)  # areas of true masks, as fractions of the image
SIZE_LABELS = "vanished at 480 px", "under 0.05 %", "0.05 to 0.15 %", "0.15 to 0.5 %", "0.5 to 2 %", "from 2 %"
SHORT_BREAKDOWNS = "scenario", "object size", "query camera", "target camera"  # keys of label_functions
RESAMPLES = 2000  # how often takes are drawn for the intervals


def summarize_scores(scores: SplitScores) -> dict[str, Any]:
    """The summary for metrics.json: all numbers, without the cases. Values that do not exist are None."""
    cases = scores.cases
    total = case_sums(cases).sum(0)
    figures = metrics_of_sums(total)
    return without_nan(
        {
            "setting": scores.setting,
            "takes": len(scores.takes),
            "frames_scored": len(cases),
            "frames_wanted": sum(take.num_to_score for take in scores.takes),
            "frames_visible": sum(case.visible for case in cases),
            "accepted": dict(scores.accepted),
            **right_object_basis(total),
            "official": {name: figures[name] for name in OFFICIAL},
            "extra": {name: figures[name] for name in METRICS if name not in OFFICIAL},
            "interval_95": bootstrap_intervals([take.cases for take in scores.takes if take.cases]),
            "breakdown": breakdowns(scores),
        }
    )


def without_nan(value: Any) -> Any:
    """Replace nan, which JSON does not have, by None, and tuples by lists."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def case_sums(cases: Sequence[Case]) -> np.ndarray:
    """(N, len(SUMS)): the row of sums of each case."""
    rows = np.zeros((len(cases), len(SUMS)))
    column = dict(zip(SUMS, rows.T, strict=True))  # writing to a column writes to `rows`
    visible = np.array([case.visible for case in cases], bool)
    right = (np.array([case.existence for case in cases]) > THRESHOLD) == visible
    column["visible"][:], column["visible_right"][:] = visible, visible & right
    column["hidden"][:], column["hidden_right"][:] = ~visible, ~visible & right
    masks = [case.scores for case in cases if case.scores]
    for name in MASK_METRICS:
        column[name][visible] = [getattr(mask, name) for mask in masks]
    several = ~np.isnan(column["right_object"][visible])  # without another object, right_object is nan
    column["several_objects"][visible] = several
    column["right_object_chance"][visible] = several / [mask.objects_in_view or 1 for mask in masks]
    return np.nan_to_num(rows)


def metrics_of_sums(rows: np.ndarray) -> dict[str, Any]:
    """Sums (..., len(SUMS)) -> values (...) of each of METRICS (floats for a single row; nan without cases)."""
    column = dict(zip(SUMS, np.moveaxis(rows, -1, 0), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {name: column[name] / column["visible"] for name in MASK_METRICS}
        values["right_object"] = column["right_object"] / column["several_objects"]
        recalls = column["visible_right"] / column["visible"], column["hidden_right"] / column["hidden"]
    values["missed_existence"], values["false_existence"] = (1 - recall for recall in recalls)
    values["balanced_accuracy"] = balanced_accuracy(*recalls)
    return {name: values[name] for name in METRICS}


def right_object_basis(total: np.ndarray) -> dict[str, Any]:
    """Sums (len(SUMS),) -> the number of frames that count for `right_object`, and the value that it would have if one
    of the objects in view were chosen at random.
    """
    count = dict(zip(SUMS, total.tolist(), strict=True))
    frames = count["several_objects"]
    chance = count["right_object_chance"] / frames if frames else math.nan
    return {"frames_several_objects": int(frames), "right_object_chance": chance}


def metrics_of_cases(cases: Sequence[Case]) -> dict[str, float]:
    """The values of METRICS over some cases."""
    return metrics_of_sums(case_sums(cases).sum(0))


def bootstrap_metrics(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Sums (takes, len(SUMS)) -> for each of METRICS, RESAMPLES values, each from takes drawn with replacement.

    The drawn takes depend only on the number of takes. For a single take all values are nan.
    """
    n_takes = len(rows)
    if n_takes < 2:
        return dict.fromkeys(METRICS, np.full(RESAMPLES, np.nan))
    draw_counts = np.random.default_rng(0).multinomial(n_takes, np.full(n_takes, 1 / n_takes), RESAMPLES)
    return metrics_of_sums(draw_counts @ rows)


def bootstrap_intervals(takes: Sequence[Sequence[Case]]) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals. Takes are drawn and not frames, because frames of a take are alike."""
    drawn = bootstrap_metrics(np.array([case_sums(cases).sum(0) for cases in takes]))
    return {name: percentile_interval(values) for name, values in drawn.items()}


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """The interval that holds the middle 95 % of the values; nan if there are no values."""
    values = values[~np.isnan(values)]
    return tuple(np.quantile(values, [0.025, 0.975]).tolist()) if len(values) else (math.nan, math.nan)


def common_frames(all_scores: Sequence[SplitScores]) -> list[tuple[Case, ...]]:
    """The scored frames that all results files have, in the order of the first file; each as its case in every file."""
    by_key = [{case.key: case for case in scores.cases} for scores in all_scores]
    return [tuple(cases[key] for cases in by_key) for key in by_key[0] if all(key in cases for cases in by_key)]


def compare(names: Sequence[str], frames: Sequence[Sequence[Case]], scores: SplitScores) -> dict[str, Any]:
    """Compare results files, called `names`, with the first one, by the `common_frames`; returns the content of
    comparison.json. `scores`, of the first file, tells the names and scenarios of the takes.
    """
    first, *others = map(list, zip(*frames, strict=True))
    label_of = label_functions(scores)
    groups = {kind: indices_by_label(first, label_of[kind]) for kind in SHORT_BREAKDOWNS}
    comparisons = []
    for name, second in zip(names[1:], others, strict=True):
        by = {
            kind: {
                label: paired_differences([first[i] for i in indices], [second[i] for i in indices])
                for label, indices in of_kind.items()
            }
            for kind, of_kind in groups.items()
        }
        comparisons.append({"second": name, "metrics": paired_differences(first, second), "by": by})
    return {
        "names": list(names),
        "first": names[0],
        "takes_compared": len({case.take_uid for case in first}),
        "frames_compared": len(first),
        **right_object_basis(case_sums(first).sum(0)),
        "comparisons": comparisons,
    }


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


def breakdowns(scores: SplitScores) -> dict[str, list[dict[str, Any]]]:
    """For each kind of label, the counts and metrics of the cases with the same label."""
    cases = scores.cases
    rows = case_sums(cases)
    groups: dict[str, list[dict[str, Any]]] = {}
    for kind, label_of in label_functions(scores).items():
        groups[kind] = []
        for label, indices in indices_by_label(cases, label_of).items():
            total = rows[indices].sum(0)
            count = dict(zip(SUMS, map(int, total), strict=True))
            group = {
                "label": label,
                "frames": len(indices),
                "visible": count["visible"],
                "missed": count["visible"] - count["visible_right"],
                "invented": count["hidden"] - count["hidden_right"],
            }
            groups[kind].append(group | right_object_basis(total) | metrics_of_sums(total))
    return groups


def label_functions(scores: SplitScores) -> dict[str, Callable[[Case], str | None]]:
    """For each kind of breakdown, the function that labels a case; a case with the label None is left out."""
    names = take_names(scores)
    scenarios = {take.take_uid: take.scenario or None for take in scores.takes}
    return {
        "take": lambda case: names[case.take_uid],
        "object": lambda case: f"{names[case.take_uid]} / {case.object_name}",
        "scenario": lambda case: scenarios[case.take_uid],
        "query camera": lambda case: case.query_camera,
        "target camera": lambda case: case.target_camera,
        "object size": lambda case: size_label(case.scores.truth_area) if case.scores else None,
    }


def take_names(scores: SplitScores) -> dict[str, str]:
    """The name of each take, or its uid if the name is unknown; by uid."""
    return {take.take_uid: take.name or take.take_uid for take in scores.takes}


def indices_by_label(cases: Sequence[Case], label_of: Callable[[Case], str | None]) -> dict[str, list[int]]:
    """The indices of the cases with each label. Labels are sorted; cases with the label None are left out."""
    indices: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        label = label_of(case)
        if label is not None:
            indices.setdefault(label, []).append(index)
    ordered = (*SIZE_LABELS, *sorted(indices.keys() - set(SIZE_LABELS)))
    return {label: indices[label] for label in ordered if label in indices}


def size_label(area: float) -> str:
    """The label of a mask that covers the fraction `area` of its image. The middle half of the masks of Ego-Exo4D
    covers 0.04 to 0.3 % (exo) or 0.15 to 1 % (ego).
    """
    return SIZE_LABELS[0 if area == 0 else 1 + sum(area >= edge for edge in SIZE_EDGES)]


def mean(values: Iterable[float]) -> float:
    """The mean; nan if there are no values."""
    values = list(values)
    return float(np.mean(values)) if values else math.nan
