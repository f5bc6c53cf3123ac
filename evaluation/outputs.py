"""What the scripts write and print: metrics.json, comparison.json, CSV tables, and tables for the terminal.

Names come from files of others. In print, what is not printable is escaped, and a CSV cell never begins as a formula.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.compare import is_certain
from evaluation.metrics import COLUMNS, METRICS, OFFICIAL, MaskScores
from evaluation.published import SPLIT, TAKES, paper_values
from evaluation.score import Case
from formats.errors import UserError, printable
from formats.files import atomic_write, read_json, remove_leftovers, write_json

PRINTED_BREAKDOWNS = ("scenario", "object size", "visibility", "query camera", "target camera")
BREAKDOWN_TITLES = {  # where they differ from the name
    "object size": "size of the true mask in the target image (long side 480 px)",
    "visibility": "visibility in the target view",
}
OUTPUT_FILES = ("metrics.json", "breakdown.csv", "cases.csv")
GROUP_COUNTS = ("frames", "visible", "missed", "invented", "frames_several_objects", "right_object_chance")
CASE_COLUMNS = Case._fields[:5]  # which case it is, its `key`
SAID = slice(len(CASE_COLUMNS), Case._fields.index("mask"))  # what truth and one results file say of it
SCORE_COLUMNS = (*Case._fields[SAID], *MaskScores._fields)


def claim_files(folder: Path, what: str, names: Sequence[str]) -> None:
    """Make room in `folder` for the files `names`: delete those of an earlier run, which `.{what}.json` in it lists.

    Raises UserError, and touches nothing, if a file that is not listed is in the way.
    """
    listing = folder / f".{what}.json"
    remove_leftovers(folder, listing.name)
    made = read_json(listing, "delete it") if listing.exists() else []
    ours = {name for name in made if isinstance(name, str) and ".." not in Path(name).parts and name[:1] != "/"}
    others = [name for name in names if name not in ours and (folder / name).exists()]
    if others:
        raise UserError(f"{folder / others[0]} is of another origin and stays; delete it or name another --out")
    for path in (folder / name for name in ours):
        path.unlink(missing_ok=True)
        remove_leftovers(path.parent, path.name)
    write_json(listing, list(names))  # before the files are there: a killed run leaves none that is not listed


def write_outputs(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> None:
    """metrics.json, breakdown.csv (a line per group) and cases.csv (a line per scored frame), each atomically."""
    for name in OUTPUT_FILES:
        remove_leftovers(folder, name)
    groups = [(kind, group) for kind, groups in summary["breakdown"].items() for group in groups]
    header = ("label", *GROUP_COUNTS, *METRICS)
    rows = ((kind, *(group[name] for name in header)) for kind, group in groups)
    write_csv(folder / "breakdown.csv", ("by", *header), rows)
    write_cases(folder / "cases.csv", [""], [cases])
    write_json(folder / "metrics.json", summary, indent=1)


def write_cases(path: Path, names: Sequence[str], cases: Sequence[Sequence[Case]]) -> None:
    """A line per case, with the scores of each results file beside each other. `names` are those of the files."""
    scores = [f"{column} of {name}" if name else column for name in names for column in SCORE_COLUMNS]
    no_mask = (None,) * len(MaskScores._fields)
    rows = (
        [*group[0].key, *(value for case in group for value in (*case[SAID], *(case.mask or no_mask)))]
        for group in zip(*cases, strict=True)
    )
    write_csv(path, (*CASE_COLUMNS, *scores), rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Values that do not exist (None, nan) are left empty; floats keep all their digits."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_cell(name) for name in header])
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        text = printable(value)
        return "'" + text if text[:1] in ("=", "+", "-", "@") else text  # spreadsheets would run it as a formula
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return int(value) if isinstance(value, bool) else value


def format_summary(summary: dict[str, Any]) -> str:
    """The tables that evaluate.py prints for one results file."""
    scored, wanted = summary["frames_scored"], summary["frames_wanted"]
    lines = [headline(summary)]
    if scored < wanted:
        lines.append(f"INCOMPLETE: predictions for {wanted - scored:,} of {wanted:,} frames are missing")
    made = summary["provenance"]["predictions"][0]
    recorded = (f"{name} {made[name] or 'unknown'}" for name in ("checkpoint", "checkpoint_sha256", "precision"))
    lines.append(printable(", ".join(recorded)))
    published = paper_values(summary["setting"])
    rows = [("", "value", "95 % interval", f"paper (v2 {SPLIT})")]
    for name, metric in METRICS.items():
        value = {**summary["official"], **summary["extra"]}[name]
        span = interval(name, summary["interval_95"][name])
        title = metric.heading + (beside_right_object(summary) if name == "right_object" else "")
        rows.append((title, metric.show(value), span or "-", metric.show(published.get(name))))
    for name in ("average_precision", "calibration_error"):
        text = f"* existence, {name.replace('_', ' ')} (%)"
        rows.append((text, METRICS["iou"].show(summary["existence"][name]), "", ""))
    for unit in ("takes", "objects"):
        for name in ("iou", "contour_accuracy"):
            value = METRICS[name].show(summary[f"mean_over_{unit}"][name])
            rows.append((f"* {METRICS[name].heading}, mean over {unit}", value, "", ""))
    visible, hidden = summary["frames_visible"], scored - summary["frames_visible"]
    missed, invented = (sum(group[name] for group in summary["breakdown"]["take"]) for name in ("missed", "invented"))
    lines += ["", *format_table(rows), "* not part of the benchmark; intervals: takes drawn with replacement"]
    lines.append(f"* {missed:,} of {visible:,} visible objects missed, {invented:,} of {hidden:,} hidden ones invented")
    lines += rank_lines(summary)
    return "\n".join([*lines, *breakdown_tables(summary["breakdown"])])


def format_protocols(protocols: dict[str, dict[str, Any]], all_frames: bool = False) -> str:
    """The same predictions under each rule; see evaluation/protocols.py. Only the benchmark's own stands unmarked."""
    rows = [("", *(METRICS[name].heading for name in OFFICIAL), "mean over")]
    for name, figures in protocols.items():
        star = "" if name == "official" and not all_frames else "* "
        values = (METRICS[metric].show(figures[metric]) for metric in OFFICIAL)
        rows.append((star + name, *values, f"{figures['count']:,} {figures['averaged_over']}"))
    return "\n".join([*format_table(rows), "* not the benchmark's rule; docs/protocols.md says what each does"])


def rank_lines(summary: dict[str, Any]) -> list[str]:
    """The line that says where this result would stand among the published ones; none for another split than theirs."""
    if summary["split"] != SPLIT:
        return []
    if rank := summary["published_rank"]:
        place = f"{rank['rank']} of {rank['of']}, this one included"
        return [f"* rank by IoU among the published results: {place}; their scorers differ, see docs/results.md"]
    return [f"* no rank among the published results: it takes all frames of their {TAKES} takes, scored officially"]


def breakdown_tables(breakdown: dict[str, list[dict]]) -> list[str]:
    """Those of PRINTED_BREAKDOWNS that tell groups apart."""
    lines = []
    header = ("", "frames", "visible", *(METRICS[name].heading for name in COLUMNS))
    for kind in PRINTED_BREAKDOWNS:
        if len(breakdown[kind]) > 1:
            rows = [header]
            for group in breakdown[kind]:
                values = (METRICS[name].show(group[name]) for name in COLUMNS)
                rows.append((group["label"], f"{group['frames']:,}", f"{group['visible']:,}", *values))
            lines += ["", f"* by {BREAKDOWN_TITLES.get(kind, kind)}", *format_table(rows)]
    return lines


def headline(summary: dict[str, Any]) -> str:
    """Setting, split and how much was scored, in one line."""
    return (
        f"{summary['setting']}, {split_title(summary['split'])}: {summary['takes']} takes, "
        f"{summary['frames_scored']:,} frames scored, {summary['frames_visible']:,} of them with a visible target"
    )


def split_title(split: str | None) -> str:
    """For headlines. A ground-truth file does not say of which split it is."""
    return f"split {split}" if split else "split unknown"


def format_comparison(comparison: dict[str, Any]) -> str:
    """The tables that evaluate.py prints for several results files."""
    first, names = comparison["first"], comparison["names"]
    tables = []
    for one in comparison["comparisons"]:
        rows = [("", first, one["second"], "difference", "95 % interval", f"{one['second']} is")]
        for name, found in one["metrics"].items():
            metric, change = METRICS[name], found["difference"]
            values = [metric.show(found[key]) for key in ("first", "second")]
            span = interval(name, found["interval_95"], "+") or "-"
            rows.append((metric.heading, *values, metric.show(change, "+"), span, verdict(name, found)))
        tables.append("\n".join(format_table(rows)))
    rows = [("* takes in which each has the highest IoU (%)", "takes", *names, "tied")]
    for size, found in comparison["takes_won"].items():
        rows.append((size, f"{found['takes']:,}", *won_cells(found), str(found["tied"])))
    tables.append("\n".join(format_table(rows)))
    return "\n\n".join(tables)


def verdict(name: str, found: dict[str, Any]) -> str:
    """What a difference says of the second file: better, worse, or that the takes do not tell."""
    said = METRICS[name].verdict(found["difference"])
    return f"{said}{'' if is_certain(found) else ', uncertain'}" if said else "-"


def won_cells(found: dict[str, Any]) -> list[str]:
    """The share of takes that each file wins, in percent, and their number."""
    shares = (METRICS["iou"].show(share) for share in found["share"])
    return [f"{share} ({number})" for share, number in zip(shares, found["won"], strict=True)]


def beside_right_object(summary: dict[str, Any]) -> str:
    """For the title of `right_object`: how many frames count, and what chance would give."""
    chance = METRICS["right_object"].show(summary["right_object_chance"])
    return f", in {summary['frames_several_objects']:,} frames with several objects, chance {chance}"


def interval(name: str, edges: Sequence[float | None], sign: str = "") -> str:
    """Both edges as the metric is shown; empty if there is no interval."""
    return "" if edges[0] is None else " to ".join(METRICS[name].show(edge, sign) for edge in edges)


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns: the first to the left, the others to the right."""
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines
