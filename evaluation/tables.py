"""Tables that are printed and shown on pages: rows of text with the header first; the first column has the labels."""

from collections.abc import Sequence
from typing import Any

from common.errors import counted
from evaluation.metrics import METRICS, OFFICIAL, TABLE_METRICS
from evaluation.outputs import MADE_WITH
from evaluation.summary import SHORT_BREAKDOWNS

Rows = list[Sequence[str]]
# A breakdown without an entry has its key as title.
BREAKDOWN_TITLES = {"object size": "share of the target image that the object covers"}
BREAKDOWN_COUNTS = ("frames", "visible", "missed", "invented")
NO_DIFFERENCE = {"first": None, "second": None, "difference": None, "interval_95": [None, None]}


def format_table(rows: Rows) -> list[str]:
    """Lines with aligned columns for the terminal: the first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def format_summary(summary: dict[str, Any]) -> str:
    """The text that evaluate.py prints about a results file: scores, intervals, breakdowns."""
    scored, wanted = summary["frames_scored"], summary["frames_wanted"]
    lines = [headline(summary)]
    if scored < wanted:
        lines.append(f"INCOMPLETE: predictions for {wanted - scored:,} of {wanted:,} frames are missing")
    run = summary["provenance"]["predictions"][0]
    recorded = [f"{name} {run[name]}" for name in MADE_WITH if run[name]]
    lines += [*filter(None, [", ".join(recorded)]), "", *format_table(figures_table(summary))]
    lines.append(f"* not part of the benchmark; {interval_note(len(summary['breakdown']['take']))}")
    for kind in SHORT_BREAKDOWNS:
        groups = summary["breakdown"][kind]
        if len(groups) > 1:
            lines += ["", f"* by {BREAKDOWN_TITLES.get(kind, kind)}", *format_table(breakdown_table(groups))]
    return "\n".join(lines)


def headline(summary: dict[str, Any]) -> str:
    takes, frames = counted(summary["takes"], "take"), counted(summary["frames_scored"], "frame")
    visible = f"{summary['frames_visible']:,} of them with a visible target"
    return f"{summary['setting']}, {split_title(summary['split'])}: {takes}, {frames} scored, {visible}"


def split_title(split: str | None) -> str:
    return f"split {split}" if split else "split unknown"


def printed_values(values: dict[str, Any], nothing: Any = None) -> dict[str, Any]:
    """The values of the metrics to print. If the target is visible in all frames, or in none, the balanced accuracy is
    replaced by `nothing`: the benchmark, and metrics.json, then average only the class that occurs, so that a constant
    answer can score 100. `nothing` stands for a value that does not exist.
    """
    one_class = nothing in (values["missed_existence"], values["false_existence"])
    return {**values, "balanced_accuracy": nothing} if one_class else values


def figures_table(summary: dict[str, Any]) -> Rows:
    """The scores of a results file: a row for each of METRICS, in their order."""
    rows: Rows = [("", "value", "95 % interval")]
    values = printed_values({**summary["official"], **summary["extra"]})
    for name, metric in METRICS.items():
        title = metric.heading
        if name == "right_object":
            frames, chance = summary["frames_several_objects"], percent(summary["right_object_chance"])
            title += f", in {frames:,} frames with several objects, chance {chance}"
        interval = interval_text(name, summary["interval_95"][name]) if values[name] is not None else ""
        rows.append((title, metric.as_text(values[name]), interval or "-"))
    return rows


def breakdown_table(groups: Sequence[dict[str, Any]]) -> Rows:
    rows: Rows = [("", *BREAKDOWN_COUNTS, *(METRICS[name].heading for name in TABLE_METRICS))]
    for group in groups:
        values = printed_values(group)
        counts = (f"{group[name]:,}" for name in BREAKDOWN_COUNTS)
        rows.append((group["label"], *counts, *(METRICS[name].as_text(values[name]) for name in TABLE_METRICS)))
    return rows


def format_protocols(protocols: dict[str, dict[str, Any]], all_frames: bool = False) -> str:
    """The scores by each rule (evaluation/protocols.py). All rules except the benchmark's are marked with a star."""
    rows: Rows = [("", *(METRICS[name].heading for name in OFFICIAL), "mean over")]
    for name, figures in protocols.items():
        star = "" if name == "official" and not all_frames else "* "
        has_both = figures["existence_classes"] == 2  # see printed_values
        values = figures if has_both else {**figures, "balanced_accuracy": None}
        cells = (METRICS[metric].as_text(values[metric]) for metric in OFFICIAL)
        rows.append((star + name, *cells, counted(figures["count"], figures["averaged_over"].removesuffix("s"))))
    return "\n".join([*format_table(rows), "* not the benchmark's rule; docs/evaluation.md says what each does"])


def difference_table(first: str, other: dict[str, Any]) -> Rows:
    """The differences of a results file from the file `first`; `other` is a member of its "comparisons"."""
    rows: Rows = [("", first, other["second"], "difference", "95 % interval", f"{other['second']} is")]
    for name, paired in printed_values(other["metrics"], NO_DIFFERENCE).items():
        metric = METRICS[name]
        cells = [metric.as_text(paired[name]) for name in ("first", "second")]
        cells.append(metric.as_text(paired["difference"], "+"))
        cells += [interval_text(name, paired["interval_95"], "+") or "-", verdict(name, paired)]
        rows.append((metric.heading, *cells))
    return rows


def change_table(groups: dict[str, dict[str, Any]], title: str = "") -> Rows:
    """The differences of each group of a comparison, with intervals; groups are sorted by the size of the change of
    IoU, the largest first. An arrow points up if the second file is better.
    """
    rows: Rows = [(title, *(METRICS[name].heading for name in TABLE_METRICS))]
    for label, group in sorted(groups.items(), key=lambda item: -abs(item[1]["iou"]["difference"] or 0)):
        cells, paired = [label], printed_values(group, NO_DIFFERENCE)
        for name in TABLE_METRICS:
            change, interval = paired[name]["difference"], interval_text(name, paired[name]["interval_95"], "+")
            arrow = {"better": " ▲", "worse": " ▼", "": ""}[METRICS[name].verdict(change)]
            cells.append(METRICS[name].as_text(change, "+") + arrow + (f" [{interval}]" if interval else ""))
        rows.append(cells)
    return rows


def verdict(name: str, paired: dict[str, Any]) -> str:
    """Whether the second file is better or worse; "uncertain" if the interval contains 0, "-" without an interval."""
    (low, high), change = paired["interval_95"], METRICS[name].verdict(paired["difference"])
    if low is None or not change:
        return "-"
    return change if low > 0 or high < 0 else f"{change}, uncertain"


def interval_text(name: str, edges: Sequence[float | None], sign: str = "") -> str:
    """Both edges of an interval, in the form of the metric; "" if there is no interval."""
    return "" if edges[0] is None else " to ".join(METRICS[name].as_text(edge, sign) for edge in edges)


def interval_note(takes: int) -> str:
    """A text that says how intervals are computed, or why there are no intervals."""
    if takes < 2:
        return "no intervals: they come from drawing takes with replacement, which needs several takes"
    return "intervals: takes drawn with replacement"


def percent(value: float | None) -> str:
    return METRICS["iou"].as_text(value)
