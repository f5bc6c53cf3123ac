"""Tables that are printed and shown on pages (rows of text with the header first; the first column has the labels), and
the table of all cases, cases.csv. `figures` is the content of metrics.json, or of comparison.json.
"""

import csv
import io
import itertools
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import counted
from common.files import atomic_write
from evaluation.metrics import METRICS, OFFICIAL, TABLE_METRICS, MaskScores
from evaluation.summary import SHORT_BREAKDOWNS
from formats.frame_files import frame_path
from formats.pairs import Pair, Pairs

Table = list[Sequence[str]]
BREAKDOWN_TITLES = {"object size": "by share of the target image that the object covers"}  # others: by {kind}
BREAKDOWN_COUNTS = ("frames", "visible", "missed", "invented")
PREDICTED_COLUMNS = ("visible", "confidence", *MaskScores._fields)  # columns of a case in one results file
MADE_WITH = ("checkpoint", "checkpoint_sha256", "backbone", "looks", "precision")
MADE_WITH += ("predictor", "predictor_sha256", "predictor_args")


def headline(figures: dict[str, Any]) -> str:
    head = f"{figures['setting']}, {'split ' + figures['split'] if figures['split'] else 'split unknown'}"
    takes, cases = counted(figures["takes"], "take"), counted(figures["frames_scored"], "case")
    return f"{head}: {takes}, {cases} scored, {figures['frames_visible']:,} of them with a visible target"


def interval_note(figures: dict[str, Any]) -> str:
    """A text that says how intervals or deviations are computed, or why there are no intervals."""
    if "seeds" in figures:
        return "deviation: the standard deviation of the files' scores; intervals: of the mean, takes and files drawn"
    if all(low is None for low, _ in figures["interval_95"].values()):
        return "no intervals: they come from drawing takes with replacement, which needs several takes"
    return "intervals: takes drawn with replacement"


def score_tables(figures: dict[str, Any]) -> list[Table]:
    """The scores of the first results file, and the differences of each other one from it; or the scores of all runs of
    one method.
    """
    lacks = lacking(figures["frames_scored"], figures["frames_visible"])
    if "seeds" in figures:
        return [seeds_table(figures, lacks)]
    others = figures.get("comparisons", [])
    return [score_table(figures, lacks), *(difference_table(figures["first"], other, lacks) for other in others)]


def lacking(frames: int, visible: int) -> str:
    """Which objects a group of cases lacks: "visible" or "hidden" ones; "" if it has both."""
    if not visible:
        return "visible"
    return "hidden" if visible == frames else ""


def undefined(name: str, lacks: str) -> bool:
    """Whether a metric needs the objects that the cases lack. The balanced accuracy needs both: the benchmark, and
    metrics.json, then average only the class that occurs, so that a constant answer can score 100.
    """
    return bool(lacks) and METRICS[name].over in ("", lacks)


def heading(name: str, lacks: str) -> str:
    return METRICS[name].heading + (f", no {lacks} object" if undefined(name, lacks) else "")


def score_table(figures: dict[str, Any], lacks: str) -> Table:
    """The scores of the first results file with intervals."""
    rows: Table = [("", figures.get("first", "value"), "95 % interval")]
    values = {**figures.get("official", {}), **figures["extra"]}
    for name, metric in METRICS.items():
        title, value = heading(name, lacks), None if undefined(name, lacks) else values[name]
        if name == "right_object":
            several, chance = figures["frames_several_objects"], metric.as_text(figures["right_object_chance"])
            title += f", in {several:,} cases with several objects, chance {chance}"
        interval = metric.interval_text(figures["interval_95"][name]) if value is not None else ""
        rows.append((title, metric.as_text(value), interval or "-"))
    return rows


def seeds_table(figures: dict[str, Any], lacks: str) -> Table:
    """The scores of several runs of one method, with mean and standard deviation."""
    rows: Table = [("", *figures["names"], "mean", "deviation", "95 % interval")]
    for name, runs in figures["seeds"].items():
        texts = [METRICS[name].as_text(value) for value in (*runs["values"], runs["mean"], runs["deviation"])]
        texts.append(METRICS[name].interval_text(figures["interval_95"][name]) or "-")
        rows.append((heading(name, lacks), *("-" * len(texts) if undefined(name, lacks) else texts)))
    return rows


def group_table(figures: dict[str, Any], kind: str) -> Table:
    """The counts and scores of each group of the breakdown `kind`: the first results file's, or the means of seeds."""
    whose = "mean" if "seeds" in figures else figures.get("first", "")
    rows: Table = [(whose, "cases", *BREAKDOWN_COUNTS[1:], *(METRICS[name].heading for name in TABLE_METRICS))]
    for group in figures["breakdown"][kind]:
        lacks = lacking(group["frames"], group["visible"])
        texts = ("-" if undefined(name, lacks) else METRICS[name].as_text(group[name]) for name in TABLE_METRICS)
        rows.append((group["label"], *(f"{group[name]:,}" for name in BREAKDOWN_COUNTS), *texts))
    return rows


def difference_table(first: str, other: dict[str, Any], lacks: str) -> Table:
    """The differences of a results file from the file `first`; `other` is a member of its "comparisons"."""
    rows: Table = [("", first, other["second"], "difference", "95 % interval", f"{other['second']} is")]
    for name, metric in METRICS.items():
        paired = other["metrics"][name]
        values = metric.as_text(paired["first"]), metric.as_text(paired["second"])
        change = metric.as_text(paired["difference"], "+"), metric.interval_text(paired["interval_95"], "+") or "-"
        cells = "-----" if undefined(name, lacks) else (*values, *change, better_or_worse(name, paired))
        rows.append((heading(name, lacks), *cells))
    return rows


def change_table(figures: dict[str, Any], kind: str, other: dict[str, Any]) -> Table:
    """The differences of a results file, a member of "comparisons", from the first one in each group of the breakdown
    `kind`, with intervals. Groups are sorted by the size of the change of IoU, the largest first. An arrow points up if
    the second file is better.
    """
    rows: Table = [(f"{other['second']} - {figures['first']}", *(METRICS[name].heading for name in TABLE_METRICS))]
    lacks_of = {x["label"]: lacking(x["frames"], x["visible"]) for x in figures["breakdown"][kind]}
    for label, group in sorted(other["by"][kind].items(), key=lambda item: -abs(item[1]["iou"]["difference"] or 0)):
        cells = [label]
        for name in TABLE_METRICS:
            metric, change = METRICS[name], group[name]["difference"]
            interval = metric.interval_text(group[name]["interval_95"], "+")
            arrow = {"better": " ▲", "worse": " ▼", "": ""}[metric.verdict(change)]
            text = metric.as_text(change, "+") + arrow + (f" [{interval}]" if interval else "")
            cells.append("-" if undefined(name, lacks_of[label]) else text)
        rows.append(cells)
    return rows


def better_or_worse(name: str, paired: dict[str, Any]) -> str:
    """Whether the second file is better or worse; "uncertain" if the interval contains 0, "-" without an interval."""
    (low, high), change = paired["interval_95"], METRICS[name].verdict(paired["difference"])
    if low is None or not change:
        return "-"
    return change if low > 0 or high < 0 else f"{change}, uncertain"


def protocol_table(figures: dict[str, Any]) -> Table:
    """The scores by each rule (evaluation/protocols.py). All rules except the benchmark's are marked with a star."""
    rows: Table = [("", *(METRICS[name].heading for name in OFFICIAL), "mean over")]
    for name, scores in figures["protocols"].items():
        star = "" if name == "official" and "official" in figures else "* "
        lacks = "hidden" if scores["existence_classes"] == 1 else ""
        cells = ("-" if undefined(metric, lacks) else METRICS[metric].as_text(scores[metric]) for metric in OFFICIAL)
        rows.append((star + name, *cells, counted(scores["count"], scores["averaged_over"].removesuffix("s"))))
    return rows


def paper_lines(both: Sequence[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """The official scores of both settings as rows of a paper's table: for each results file, or the mean of seeds, two
    rows in LaTeX, of scores and intervals, and then one of docs/published_results.csv. Files after the first have the
    intervals of their differences from the first, and a star at a score whose interval lacks 0.
    """
    latex, text = [], io.StringIO()
    warnings = "; ".join(dict.fromkeys(line for figures in both for line in figures["warnings"]))
    for name, *of_settings in zip(names, *map(official_cells, both), strict=True):
        scores, intervals = zip(*itertools.chain(*of_settings), strict=True)
        cells = re.sub(r"([_%&#])", r"\\\1", name), *(score.replace("*", "$^{*}$") for score in scores)
        latex += [" & ".join(row) + r" \\" for row in (cells, ("", *intervals)) if any(row)]
        about = name, "", "", "official", "", warnings
        csv.writer(text, lineterminator="\n").writerow([*about, *(score.strip("-*") for score in scores)])
    return [*latex, *text.getvalue().splitlines()]


def official_cells(figures: dict[str, Any]) -> list[list[tuple[str, str]]]:
    """For each results file, or the mean of seeds, each official score and its interval, as `paper_lines` has them."""
    lacks = lacking(figures["frames_scored"], figures["frames_visible"])
    files = [[(figures["official"][name], figures["interval_95"][name], "") for name in OFFICIAL]]
    for other in [] if "seeds" in figures else figures.get("comparisons", []):  # version 2.7 compared seeds, too
        paired = (other["metrics"][name] for name in OFFICIAL)
        files.append([(x["second"], x["interval_95"], "+") for x in paired])
    cells = []
    for of_file in files:
        cells.append([])
        for name, (score, (low, high), sign) in zip(OFFICIAL, of_file, strict=True):
            text, interval = METRICS[name].as_text(score), METRICS[name].interval_text((low, high), sign)
            star = "*" if sign and low is not None and (low > 0 or high < 0) else ""
            cells[-1].append(("-", "") if undefined(name, lacks) else (text + star, interval))
    return cells


def printed_lines(figures: dict[str, Any]) -> list[str]:
    """The lines that evaluate.py prints: scores or differences, breakdowns, the scores by other rules, warnings."""
    lines, scored = [headline(figures)], figures["frames_scored"]
    if scored < (wanted := figures["frames_wanted"]):
        lines.append(f"INCOMPLETE: predictions for {wanted - scored:,} of {wanted:,} cases are missing")
    for run in figures["provenance"]["predictions"]:
        lines += filter(None, [", ".join(f"{name} {run[name]}" for name in MADE_WITH if run.get(name))])
    for table in score_tables(figures):
        lines += ["", *format_table(table)]
    lines.append(f"* not part of the benchmark; {interval_note(figures)}")
    for kind in SHORT_BREAKDOWNS:
        table = group_table(figures, kind)
        if len(table) > 2:
            lines += ["", f"* {BREAKDOWN_TITLES.get(kind, f'by {kind}')}", *format_table(table)]
    if "protocols" in figures:
        lines += ["", *format_table(protocol_table(figures))]
        lines.append("* not the benchmark's rule; docs/evaluation.md says what each does")
    return lines + figures["warnings"]


def format_table(rows: Table) -> list[str]:
    """Lines with aligned columns for the terminal: the first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def write_cases(path: Path, names: Sequence[str], pairs: Pairs, cases: np.ndarray) -> None:
    """Write a CSV file: a line for each scored case, with the scores of all results files (`names`) side by side.

    Values that do not exist (None, nan) are left empty, floats have all digits, bools are 0 or 1.
    """
    columns = [f"{column} of {name}" if name else column for name in names for column in PREDICTED_COLUMNS]
    shown, hidden = cases[["visible", "existence", *MaskScores._fields]], (None,) * len(MaskScores._fields)
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*Pair._fields, *columns))
        for row in range(len(pairs)):
            of_files = [values if values[0] else (*values[:2], *hidden) for values in shown[:, row].tolist()]
            values = [*pairs.named(row), *(value for values in of_files for value in values)]
            writer.writerow(["" if x != x else int(x) if isinstance(x, bool) else x for x in values])


def list_cases(path: Path, pairs: Pairs) -> None:
    """Write a CSV file: a line for each case that a program must answer, with the paths of both pictures, and the query
    mask in COCO's run lengths, as JSON, in the size of the video.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*Pair._fields, "query_picture", "target_picture", "query_mask"))
        for row in range(len(pairs)):
            pair, folder = pairs.named(row), pairs.store.folders[pairs.take[row]].absolute()
            pictures = (frame_path(folder / camera, pair.frame) for camera in (pair.query_camera, pair.target_camera))
            writer.writerow((*pair, *pictures, json.dumps(pairs.query_mask(row))))
