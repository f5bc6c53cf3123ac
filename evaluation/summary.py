"""Compute the benchmark's four numbers and further metrics from cases, and the differences between files, with
confidence intervals and breakdowns.

Every number is a ratio of sums over cases. A case, a take or a split is therefore a row of sums, (len(SUMS),) floats.
The numbers of a set of cases follow from the sum of its rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.constants import THRESHOLD
from common.existence import balanced_accuracy
from common.provenance import provenance
from evaluation.figures import Change, Comparison, Figures, Group, Interval, Spread, Summary
from evaluation.groups import LONG_BREAKDOWNS
from evaluation.metrics import MASK_METRICS, METRICS, SEVERAL
from evaluation.score import ScoredFiles
from evaluation.truth import GroundTruth
from formats.pairs import Pairs

RATIOS = {name: metric.over for name, metric in METRICS.items() if metric.over}
RATIOS["right_object_chance"] = SEVERAL  # right_object, if one of the objects in view were chosen at random
SUMS = (*RATIOS, *dict.fromkeys(RATIOS.values()))  # what is divided, and by what
SIZE_EDGES = (0.0005, 0.0015, 0.005, 0.02)  # areas of true masks, as fractions of the image
SIZE_LABELS = "vanished at 480 px", "under 0.05 %", "0.05 to 0.15 %", "0.15 to 0.5 %", "0.5 to 2 %", "from 2 %"
RESAMPLES = 2000  # how often takes are drawn for the intervals


def case_sums(cases: np.ndarray) -> np.ndarray:
    """Cases (...) -> (..., len(SUMS)): the row of sums of each case."""
    visible, predicted = cases["visible"], cases["existence"] > THRESHOLD
    several = visible & ~np.isnan(cases["right_object"])  # without another object, right_object is nan
    column = {name: np.where(visible, cases[name], 0) for name in MASK_METRICS}
    column |= {"right_object": np.where(several, cases["right_object"], 0), SEVERAL: several}
    column["right_object_chance"] = several / np.maximum(cases["objects_in_view"], 1)
    column |= {"visible": visible, "missed_existence": visible & ~predicted}
    column |= {"hidden": ~visible, "false_existence": ~visible & predicted}
    return np.stack([column[name] for name in SUMS], -1).astype(float)


def metrics_of_sums(rows: np.ndarray) -> dict[str, Any]:
    """Sums (..., len(SUMS)) -> values (...) of METRICS and of `right_object_chance` (floats for a single row; nan if
    the cases lack an object that the metric needs).
    """
    column = dict(zip(SUMS, np.moveaxis(rows, -1, 0), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        values = {name: column[name] / column[over] for name, over in RATIOS.items()}
    values["balanced_accuracy"] = balanced_accuracy(1 - values["missed_existence"], 1 - values["false_existence"])
    return values


def metrics_of_cases(cases: np.ndarray) -> dict[str, float]:
    """The values of METRICS over some cases."""
    return metrics_of_sums(case_sums(cases).sum(0))


def labels_of(truth: GroundTruth, pairs: Pairs, cases: np.ndarray) -> dict[str, list[str]]:
    """For each kind of breakdown, the label of each case; cases with the label "" are left out. A column of
    --groups takes the place of a breakdown with its name.
    """
    store, names, takes = pairs.store, truth.take_names, pairs.take.tolist()
    scenarios = [truth.infos[uid].scenario if uid in truth.infos else "" for uid in store.takes]
    area = cases["truth_pixels"] / np.maximum(cases["image_pixels"], 1)
    sizes = np.where(area == 0, 0, 1 + np.searchsorted(SIZE_EDGES, area, side="right"))
    return {
        "take": [names[take] for take in takes],
        "object": [f"{names[take]} / {store.objects[x]}" for take, x in zip(takes, pairs.object.tolist(), strict=True)],
        "scenario": [scenarios[take] for take in takes],
        "object size": [SIZE_LABELS[x] if seen else "" for x, seen in zip(sizes, cases["visible"], strict=True)],
        "query camera": [store.cameras[camera] for camera in pairs.query.tolist()],
        "target camera": [store.cameras[camera] for camera in pairs.target.tolist()],
    } | truth.groups.labels_of(pairs, names)


def rows_by_label(labels: Sequence[str]) -> dict[str, list[int]]:
    """The rows with each label, which are sorted; rows with the label "" are left out."""
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        rows.setdefault(label, []).append(row)
    ordered = dict.fromkeys((*SIZE_LABELS, *sorted(rows)))
    return {label: rows[label] for label in ordered if label and label in rows}


def sums_by_take(takes: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Sums (..., N, len(SUMS)) of cases whose takes are named by `takes` (N,) -> sums (..., takes, len(SUMS))."""
    names, numbers = np.unique(takes, return_inverse=True)
    rows = np.moveaxis(sums, -2, 0)
    totals = np.zeros((len(names), *rows.shape[1:]))
    np.add.at(totals, numbers, rows)
    return np.moveaxis(totals, 0, -2)


def bootstrap_metrics(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Sums (files, takes, len(SUMS)) -> for each of METRICS, RESAMPLES values, each from takes drawn with replacement,
    and from as many files. Takes are drawn and not frames, because frames of a take are alike.

    The drawn takes depend only on the number of takes. For a single take all values are nan.
    """
    n_files, n_takes = rows.shape[:2]
    if n_takes < 2:
        return dict.fromkeys(METRICS, np.full(RESAMPLES, np.nan))
    rng = np.random.default_rng(0)
    takes, files = (rng.multinomial(count, np.full(count, 1 / count), RESAMPLES) for count in (n_takes, n_files))
    return metrics_of_sums(sum(files[:, [number]] * (takes @ of_file) for number, of_file in enumerate(rows)) / n_files)


def percentile_interval(values: np.ndarray) -> Interval:
    """The interval that holds the middle 95 % of the values of draws; nan if it would rest on fewer than half of them,
    since the others lack an object that the metric needs.
    """
    known = values[~np.isnan(values)]
    return tuple(np.quantile(known, [0.025, 0.975]).tolist()) if 2 * len(known) >= len(values) else (math.nan, math.nan)


def figures_of(
    truth: GroundTruth, setting: str, scored: ScoredFiles, seeds: bool = False, rules: Mapping[str, Any] | None = None
) -> Figures:
    """The figures of results files: of one; of several, also their differences from the first one; with `seeds`, their
    means. `rules` are the scores by rules of other groups.
    """
    pairs, cases, names = scored.pairs, scored.cases, scored.names if len(scored.names) > 1 else ()
    takes, labels, comparisons = np.array(pairs.store.takes)[pairs.take], labels_of(truth, pairs, cases[0]), []
    if names:
        labels = {kind: of_kind for kind, of_kind in labels.items() if kind not in LONG_BREAKDOWNS}
        comparisons = [] if seeds else compare(names, takes, labels, cases)
    return Figures(
        setting=setting,
        split=truth.split,
        takes=len(truth.infos),
        frames_wanted=len(truth.pairs),
        results=scored.made[0]["results"],
        summary=summarize(pairs.take, labels, cases if seeds else cases[:1]),
        names=names,
        takes_scored=len(np.unique(takes)),
        comparisons=comparisons,
        seeds=spread_of(cases) if seeds else None,
        rules=rules or {},
        all_frames=truth.all_frames,
        warnings=scored.warnings,
        provenance={"predictions": scored.made, "evaluation": provenance()},
    )


def summarize(takes: np.ndarray, labels: Mapping[str, Sequence[str]], cases: np.ndarray) -> Summary:
    """The figures of the cases (files, N) of a results file, or the means of several. `takes` (N,) has the number of
    each case's take, and `labels` are what `labels_of` returns.
    """
    of_files = case_sums(cases)
    sums, drawn = of_files.mean(0), bootstrap_metrics(sums_by_take(takes, of_files))
    breakdown = {
        kind: [group_of(label, sums[rows]) for label, rows in rows_by_label(of_kind).items()]
        for kind, of_kind in labels.items()
    }
    intervals = {name: percentile_interval(drawn[name]) for name in METRICS}
    return Summary(group_of("", sums), intervals, breakdown)


def group_of(label: str, sums: np.ndarray) -> Group:
    """The counts and scores of a group of cases, from their sums (N, len(SUMS))."""
    total = sums.sum(0)
    counts = dict(zip(SUMS, map(round, total), strict=True))
    missed, invented = counts["missed_existence"], counts["false_existence"]
    return Group(label, len(sums), counts["visible"], counts[SEVERAL], missed, invented, metrics_of_sums(total))


def compare(
    names: Sequence[str], takes: np.ndarray, labels: Mapping[str, Sequence[str]], cases: np.ndarray
) -> list[Comparison]:
    """The differences of results files, called `names`, from the first one, by their cases (files, N) of the same
    pairs. `takes` and `labels` are as in `summarize`.
    """
    sums, groups = case_sums(cases), {kind: rows_by_label(of_kind) for kind, of_kind in labels.items()}
    comparisons = []
    for name, other in zip(names[1:], sums[1:], strict=True):
        both = np.stack([sums[0], other])
        by = {
            kind: {label: paired_differences(takes[rows], both[:, rows]) for label, rows in by_label.items()}
            for kind, by_label in groups.items()
        }
        comparisons.append(Comparison(name, paired_differences(takes, both), by))
    return comparisons


def spread_of(cases: np.ndarray) -> dict[str, Spread]:
    """The metrics of each results file, by their cases (files, N), with their mean and standard deviation."""
    values = metrics_of_sums(case_sums(cases).sum(1))
    return {name: Spread(values[name].tolist(), values[name].mean(), values[name].std(ddof=1)) for name in METRICS}


def paired_differences(takes: np.ndarray, sums: np.ndarray) -> dict[str, Change]:
    """The metrics of two files, and the difference second - first with its interval, from the sums (2, N, len(SUMS)) of
    the same cases. Each resample draws the same takes for both files, so hard and easy takes affect both alike.
    """
    take_sums = sums_by_take(takes, sums)
    first, second = map(metrics_of_sums, take_sums.sum(1))
    first_drawn, second_drawn = (bootstrap_metrics(rows[None]) for rows in take_sums)
    changes = {}
    for name in METRICS:
        interval = percentile_interval(second_drawn[name] - first_drawn[name])
        changes[name] = Change(first[name], second[name], second[name] - first[name], interval)
    return changes
