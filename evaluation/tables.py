"""Tables of figures, made once: the scripts print them and the pages show them.

A table is a list of rows of text; the first is its header, the first column its labels.
"""

from collections.abc import Sequence
from typing import Any

from evaluation.compare import is_certain, largest_first
from evaluation.metrics import COLUMNS, METRICS, OFFICIAL
from formats.errors import printable

Rows = list[Sequence[str]]
PAPER = {  # this network as the benchmark's authors trained it, on their v2 test split; docs/results.md has the others
    "ego-exo": {"iou": 0.1899, "location_error": 0.070, "contour_accuracy": 0.386, "balanced_accuracy": 0.6631},
    "exo-ego": {"iou": 0.2714, "location_error": 0.104, "contour_accuracy": 0.358, "balanced_accuracy": 0.8201},
}
PAPER_TAKES = 295  # of that split
PRINTED_BREAKDOWNS = ("scenario", "object size", "visibility", "query camera", "target camera")
BREAKDOWN_TITLES = {  # where they differ from the name
    "object size": "size of the true mask in the target image (long side 480 px)",
    "visibility": "visibility in the target view",
}


def format_table(rows: Rows) -> list[str]:
    """Aligned columns for the terminal: the first to the left, the others to the right."""
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def format_summary(summary: dict[str, Any]) -> str:
    """What evaluate.py prints for one results file."""
    scored, wanted = summary["frames_scored"], summary["frames_wanted"]
    lines = [headline(summary)]
    if scored < wanted:
        lines.append(f"INCOMPLETE: predictions for {wanted - scored:,} of {wanted:,} frames are missing")
    made = summary["provenance"]["predictions"][0]
    recorded = (f"{name} {made[name] or 'unknown'}" for name in ("checkpoint", "checkpoint_sha256", "precision"))
    lines += [printable(", ".join(recorded)), "", *format_table(figures_table(summary))]
    lines.append("* not part of the benchmark; intervals: takes drawn with replacement")
    visible, hidden = summary["frames_visible"], scored - summary["frames_visible"]
    missed, invented = (sum(group[name] for group in summary["breakdown"]["take"]) for name in ("missed", "invented"))
    lines.append(f"* {missed:,} of {visible:,} visible objects missed, {invented:,} of {hidden:,} hidden ones invented")
    for kind in PRINTED_BREAKDOWNS:
        groups = summary["breakdown"][kind]
        if len(groups) > 1:
            lines += ["", f"* by {BREAKDOWN_TITLES.get(kind, kind)}", *format_table(breakdown_table(groups))]
    return "\n".join(lines)


def headline(summary: dict[str, Any]) -> str:
    """Setting, split and how much was scored, in one line."""
    takes, frames = counted(summary["takes"], "take"), counted(summary["frames_scored"], "frame")
    visible = f"{summary['frames_visible']:,} of them with a visible target"
    return f"{summary['setting']}, {split_title(summary['split'])}: {takes}, {frames} scored, {visible}"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def split_title(split: str | None) -> str:
    """For headlines. A ground-truth file does not say of which split it is."""
    return f"split {split}" if split else "split unknown"


def figures_table(summary: dict[str, Any]) -> Rows:
    """All figures of a results file: a row for each of METRICS, in their order, then existence and other means.

    The paper's figures stand beside them only if all takes of its test split were scored.
    """
    paper = PAPER[summary["setting"]] if (summary["split"], summary["takes"]) == ("test", PAPER_TAKES) else None
    rows: Rows = [("", "value", "95 % interval", *(["paper (v2 test)"] if paper else []))]
    values = {**summary["official"], **summary["extra"]}
    for name, metric in METRICS.items():
        title = metric.heading + (beside_right_object(summary) if name == "right_object" else "")
        span = interval(name, summary["interval_95"][name]) or "-"
        rows.append((title, metric.show(values[name]), span, *([metric.show(paper.get(name))] if paper else [])))
    others = {}
    for name in ("average_precision", "calibration_error"):
        others[f"* existence, {name.replace('_', ' ')} (%)"] = percent(summary["existence"][name])
    for unit in ("takes", "objects"):
        for name in ("iou", "contour_accuracy"):
            value = summary[f"mean_over_{unit}"][name]
            others[f"* {METRICS[name].heading}, mean over {unit}"] = METRICS[name].show(value)
    rows += [(title, text, *[""] * (len(rows[0]) - 2)) for title, text in others.items()]
    return rows


def breakdown_table(groups: Sequence[dict[str, Any]]) -> Rows:
    """A row per group of a breakdown."""
    rows: Rows = [("", "frames", "visible", *(METRICS[name].heading for name in COLUMNS))]
    for group in groups:
        values = (METRICS[name].show(group[name]) for name in COLUMNS)
        rows.append((group["label"], f"{group['frames']:,}", f"{group['visible']:,}", *values))
    return rows


def existence_errors_table(groups: Sequence[dict[str, Any]]) -> Rows:
    """The groups of a breakdown in which objects were missed or invented, the most missed first."""
    rows: Rows = [("", "frames", "visible", "missed", "not visible", "invented")]
    for group in sorted(groups, key=lambda group: (-group["missed"], -group["invented"])):
        if group["missed"] or group["invented"]:
            counts = (group["visible"], group["missed"], group["frames"] - group["visible"], group["invented"])
            rows.append((group["label"], f"{group['frames']:,}", *(f"{count:,}" for count in counts)))
    return rows


def format_protocols(protocols: dict[str, dict[str, Any]], all_frames: bool = False) -> str:
    """The same predictions under each rule; see evaluation/protocols.py. Only the benchmark's own stands unmarked."""
    rows: Rows = [("", *(METRICS[name].heading for name in OFFICIAL), "mean over")]
    for name, figures in protocols.items():
        star = "" if name == "official" and not all_frames else "* "
        values = (METRICS[metric].show(figures[metric]) for metric in OFFICIAL)
        rows.append((star + name, *values, f"{figures['count']:,} {figures['averaged_over']}"))
    return "\n".join([*format_table(rows), "* not the benchmark's rule; docs/protocols.md says what each does"])


def difference_table(first: str, other: dict[str, Any]) -> Rows:
    """How a results file differs from the one called `first`; `other` is an item of comparison.json's comparisons."""
    rows: Rows = [("", first, other["second"], "difference", "95 % interval", f"{other['second']} is")]
    for name, found in other["metrics"].items():
        metric, change = METRICS[name], found["difference"]
        values = [metric.show(found[key]) for key in ("first", "second")]
        span = interval(name, found["interval_95"], "+") or "-"
        rows.append((metric.heading, *values, metric.show(change, "+"), span, verdict(name, found)))
    return rows


def won_table(comparison: dict[str, Any]) -> Rows:
    """In which share of the takes each file has the highest IoU, and in how many; all sizes, then each size."""
    rows: Rows = [("* takes in which each has the highest IoU (%)", "takes", *comparison["names"], "tied")]
    for size, found in comparison["takes_won"].items():
        won = (f"{percent(share)} ({count})" for share, count in zip(found["share"], found["won"], strict=True))
        rows.append((size, f"{found['takes']:,}", *won, str(found["tied"])))
    return rows


def change_table(groups: dict[str, dict[str, Any]]) -> Rows:
    """The differences of each group of a comparison with intervals, the largest change of IoU first.

    An arrow points up where the second file is better.
    """
    rows: Rows = [("", *(METRICS[name].heading for name in COLUMNS))]
    for label, found in largest_first(groups):
        cells = [label]
        for name in COLUMNS:
            change, span = found[name]["difference"], interval(name, found[name]["interval_95"], "+")
            arrow = {"better": " ▲", "worse": " ▼", "": ""}[METRICS[name].verdict(change)]
            cells.append(METRICS[name].show(change, "+") + arrow + (f" [{span}]" if span else ""))
        rows.append(cells)
    return rows


def verdict(name: str, found: dict[str, Any]) -> str:
    """Whether the second file is better or worse, "uncertain" if its interval holds 0; "-" if there is no interval."""
    change = METRICS[name].verdict(found["difference"]) if found["interval_95"][0] is not None else ""
    return f"{change}{'' if is_certain(found) else ', uncertain'}" if change else "-"


def beside_right_object(summary: dict[str, Any]) -> str:
    """For the title of `right_object`: how many frames count, and what chance would give."""
    chance = percent(summary["right_object_chance"])
    return f", in {summary['frames_several_objects']:,} frames with several objects, chance {chance}"


def interval(name: str, edges: Sequence[float | None], sign: str = "") -> str:
    """Both edges as the metric is shown; empty if there is no interval."""
    return "" if edges[0] is None else " to ".join(METRICS[name].show(edge, sign) for edge in edges)


def percent(value: float | None) -> str:
    return METRICS["iou"].show(value)
