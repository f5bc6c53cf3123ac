"""What evaluate.py writes and prints: metrics.json, breakdown.csv, cases.csv, and tables for the terminal."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.existence import existence
from evaluation.published import PUBLISHED, SPLIT, XSEGTX
from evaluation.score import Case, Scores
from evaluation.summary import EXTRA, METRICS, OFFICIAL, breakdowns, intervals, mean_over_groups, metrics
from formats.files import atomic_write, write_json

NAMES = {
    "iou": "IoU",
    "location_error": "location error",
    "contour_accuracy": "contour accuracy",
    "balanced_accuracy": "existence balanced accuracy",
    "location_error_corrected": "location error, empty masks centered",
    "mask_presence": "mask empty or not as the truth",
}
PRINTED_BREAKDOWNS = ("scenario", "object size", "visibility", "target camera")


def summarize(scores: Scores, split: str, source: str, resamples: int = 2000) -> dict[str, Any]:
    """Everything but the cases, as metrics.json has it. Values that do not exist are None."""
    cases = scores.cases
    values, spans, groups, exist = (
        metrics(cases),
        intervals(scores.takes, resamples),
        breakdowns(scores),
        existence(cases),
    )
    return _plain(
        {
            "setting": scores.setting,
            "split": split,
            "results": source,
            "takes": len(scores.takes),
            "frames_scored": len(cases),
            "frames_wanted": sum(take.wanted for take in scores.takes),
            "frames_visible": sum(case.visible for case in cases),
            "official": {name: values[name] for name in OFFICIAL},
            "extra": {name: values[name] for name in EXTRA},
            "interval_95": {name: list(spans[name]) for name in METRICS},
            "mean_over_takes": mean_over_groups(groups["take"]),
            "mean_over_objects": mean_over_groups(groups["object"]),
            "existence": {**exist._asdict(), "bins": [b._asdict() for b in exist.bins]},
            "breakdown": {
                kind: [{"label": g.label, "frames": g.n_frames, "visible": g.n_visible, **g.metrics} for g in members]
                for kind, members in groups.items()
            },
        }
    )


def write_outputs(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> None:
    """metrics.json, breakdown.csv (a line a group) and cases.csv (a line a scored frame), each atomically."""
    write_csv(
        folder / "breakdown.csv",
        ("by", "label", "frames", "visible", *METRICS),
        ((kind, *group.values()) for kind, groups in summary["breakdown"].items() for group in groups),
    )
    write_csv(folder / "cases.csv", Case._fields, cases)
    write_json(folder / "metrics.json", summary, indent=1)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Values that do not exist (None, nan) are left empty; floats keep all their digits."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def format_summary(summary: dict[str, Any]) -> str:
    """The tables that evaluate.py prints."""
    scored, wanted = summary["frames_scored"], summary["frames_wanted"]
    lines = [
        f"{summary['setting']}, {summary['split']}: {summary['takes']} takes, {scored:,} frames scored, "
        f"{summary['frames_visible']:,} of them with a visible target",
    ]
    if scored < wanted:
        lines.append(f"INCOMPLETE: predictions for {wanted - scored:,} of {wanted:,} frames are missing")
    published = PUBLISHED[summary["setting"]][XSEGTX]
    rows = [("", "value", "95 % interval", f"paper (v2 {SPLIT})")]
    for name in METRICS:
        value = {**summary["official"], **summary["extra"]}[name]
        low, high = summary["interval_95"][name]
        mark = "" if name in OFFICIAL else "* "
        span = f"{_number(low)} to {_number(high)}" if low is not None else "-"
        rows.append((mark + NAMES[name], _number(value), span, _number(published.get(name))))
    exist = summary["existence"]
    rows.append(("* existence, average precision", _number(exist["average_precision"]), "", ""))
    rows.append(("* existence, calibration error", _number(exist["calibration_error"]), "", ""))
    for unit in ("takes", "objects"):
        for name in ("iou", "contour_accuracy"):
            rows.append((f"* {NAMES[name]}, mean over {unit}", _number(summary[f"mean_over_{unit}"][name]), "", ""))
    lines += ["", *format_table(rows), "* not part of the benchmark; intervals: takes drawn with replacement"]
    for kind in PRINTED_BREAKDOWNS:
        if groups := summary["breakdown"][kind]:
            lines += ["", *format_table([_group_header(f"* by {kind}"), *map(_group_row, groups)])]
    return "\n".join(lines)


def _group_header(title: str) -> tuple[str, ...]:
    return (title, "frames", "visible", "IoU", "location", "contour", "balanced")


def _group_row(group: dict[str, Any]) -> tuple[str, ...]:
    return (group["label"], f"{group['frames']:,}", f"{group['visible']:,}", *(_number(group[n]) for n in OFFICIAL))


def format_table(rows: list[tuple[str, ...]]) -> list[str]:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in rows
    ]


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return int(value) if isinstance(value, bool) else value


def _plain(value: Any) -> Any:
    """JSON has no nan: None instead."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
