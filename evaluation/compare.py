"""Results files against each other on the same cases: paired differences with bootstrap intervals over takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.score import Case, Scores
from evaluation.summary import (
    METRICS,
    SIZE_LABELS,
    Interval,
    bootstrap_weights,
    in_order,
    percentile_interval,
    rates,
    size_label,
    split_by,
    take_sums,
)


class Difference(NamedTuple):
    """A metric of two results files on the same cases; `interval` is that of second - first."""

    first: float
    second: float
    interval: Interval

    @property
    def value(self) -> float:
        return self.second - self.first

    @property
    def certain(self) -> bool:
        """0 lies outside the interval."""
        return self.interval.low > 0 or self.interval.high < 0


class Comparison(NamedTuple):
    """Of one results file with the first."""

    name: str
    metrics: dict[str, Difference]
    by: dict[str, dict[str, dict[str, Difference]]]  # kind of group -> label -> metric


def common_cases(all_scores: Sequence[Scores]) -> list[list[Case]]:
    """The cases that every file has, in the order of the first; one list a file."""
    by_key = [{case.key: case for case in scores.cases} for scores in all_scores]
    keys = [key for key in by_key[0] if all(key in cases for cases in by_key[1:])]
    return [[cases[key] for key in keys] for cases in by_key]


def compare(
    names: Sequence[str], cases: Sequence[list[Case]], scores: Scores, resamples: int = 2000
) -> list[Comparison]:
    """Each of `cases[1:]` with `cases[0]`; all have the same keys. `scores` names the scenarios of the takes."""
    scenarios = {take.take_uid: take.scenario for take in scores.takes}
    visible = [i for i, case in enumerate(cases[0]) if case.visible]
    everywhere = range(len(cases[0]))
    groups = {
        "scenario": split_by(everywhere, lambda i: scenarios[cases[0][i].take_uid] or None),
        "object size": in_order(split_by(visible, lambda i: size_label(cases[0][i].truth_pixels)), SIZE_LABELS),
        "target camera": split_by(everywhere, lambda i: cases[0][i].target_camera),
    }
    return [
        Comparison(
            name,
            differences(cases[0], other, resamples),
            {
                kind: {
                    label: differences([cases[0][i] for i in at], [other[i] for i in at], resamples)
                    for label, at in of_kind.items()
                }
                for kind, of_kind in groups.items()
            },
        )
        for name, other in zip(names[1:], cases[1:], strict=True)
    ]


def differences(first: Sequence[Case], second: Sequence[Case], resamples: int = 2000) -> dict[str, Difference]:
    """The metrics of the same cases in two files. Both are resampled with the same takes, so that what makes a take
    hard or easy drops out of the difference."""
    rows = [take_sums(list(split_by(cases, lambda case: case.take_uid).values())) for cases in (first, second)]
    totals = [rates(row.sum(0)) for row in rows]
    if len(rows[0]) > 1:
        weights = bootstrap_weights(len(rows[0]), resamples)
        drawn = [rates(weights @ row) for row in rows]
        spans = {name: percentile_interval(drawn[1][name] - drawn[0][name]) for name in METRICS}
    else:
        spans = {name: percentile_interval(np.array([])) for name in METRICS}
    return {name: Difference(float(totals[0][name]), float(totals[1][name]), spans[name]) for name in METRICS}


def largest_changes(first: Sequence[Case], second: Sequence[Case], number: int) -> list[int]:
    """Where in the lists IoU changes most, `number` cases each way, the largest rise first, the largest fall last."""
    changes = [(b.iou - a.iou, i) for i, (a, b) in enumerate(zip(first, second, strict=True)) if a.visible]
    ranked = [i for _, i in sorted(changes, reverse=True)]
    return ranked if len(ranked) <= 2 * number else ranked[:number] + ranked[len(ranked) - number :]


def short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell results files apart: their stems, or else their folders, or else numbers."""
    for name in (lambda path: path.stem.removesuffix("_results"), lambda path: path.resolve().parent.name):
        names = [name(path) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{number}: {path}" for number, path in enumerate(paths, 1)]


def as_json(names: Sequence[str], comparisons: Sequence[Comparison], n_cases: int) -> dict[str, Any]:
    """What comparison.json holds; intervals of a single take are None."""

    def plain(found: dict[str, Difference]) -> dict[str, Any]:
        return {
            name: {
                "first": _value(d.first),
                "second": _value(d.second),
                "difference": _value(d.value),
                "interval_95": [_value(edge) for edge in d.interval],
            }
            for name, d in found.items()
        }

    return {
        "first": names[0],
        "frames_compared": n_cases,
        "comparisons": [
            {
                "second": c.name,
                "metrics": plain(c.metrics),
                "by": {kind: {label: plain(d) for label, d in of.items()} for kind, of in c.by.items()},
            }
            for c in comparisons
        ],
    }


def _value(value: float) -> float | None:
    return None if np.isnan(value) else value
