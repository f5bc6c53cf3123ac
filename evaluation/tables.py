"""Tables that are printed and shown on pages (rows of text with the header first; the first column has the labels), and
the table of all cases, cases.csv.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.errors import counted
from common.files import atomic_write
from evaluation.figures import Change, Comparison, Figures, Spread, is_undefined
from evaluation.groups import LONG_BREAKDOWNS
from evaluation.metrics import METRICS, OFFICIAL, TABLE_METRICS, MaskScores
from evaluation.score import ScoredFiles
from formats.frame_files import frame_path
from formats.pairs import Pair, Pairs

Table = list[Sequence[str]]
BREAKDOWN_TITLES = {"object size": "by share of the target image that the object covers"}  # others: by {kind}
BREAKDOWN_COUNTS = ("frames", "visible", "missed", "invented")
PREDICTED_COLUMNS = ("visible", "confidence", *MaskScores._fields)  # columns of a case in one results file
FEW_TAKES = 10  # with fewer, intervals from drawing takes cover the true score too seldom
MADE_WITH = ("checkpoint", "checkpoint_sha256", "recipe", "recipe_sha256", "backbone", "looks", "precision", "outline")
MADE_WITH += ("outline_sha256", "predictor", "predictor_sha256", "predictor_args")


def headline(figures: Figures) -> str:
    total, split = figures.summary.total, f"split {figures.split}" if figures.split else "split unknown"
    takes, cases = counted(figures.takes, "take"), counted(total.frames, "case")
    return f"{figures.setting}, {split}: {takes}, {cases} scored, {total.visible:,} of them with a visible target"


def made_with(figures: Figures) -> list[str]:
    """A line for each results file whose record says what made it."""
    lines = []
    for run in figures.provenance["predictions"]:
        made = {name: run[name][:12] if name.endswith("sha256") else run[name] for name in MADE_WITH if run.get(name)}
        lines += [", ".join(f"{name} {value}" for name, value in made.items())] if made else []
    return lines


def interval_note(figures: Figures) -> str:
    """A text that says how intervals or deviations are computed, or why there are no intervals."""
    if figures.seeds:
        return "deviation: the standard deviation of the files' scores; intervals: of the mean, takes and files drawn"
    if all(math.isnan(low) for low, _ in figures.summary.intervals.values()):
        return "no intervals: they come from drawing takes with replacement, which needs several takes"
    few = f"; {figures.takes} takes are few: such intervals are too narrow" if figures.takes < FEW_TAKES else ""
    scores = figures.summary.total.scores
    lacking = [
        METRICS[x].title for x, (low, _) in figures.summary.intervals.items() if low != low and scores[x] == scores[x]
    ]
    none = f"; none of {' and '.join(lacking)}: most draws lack such objects" if lacking else ""
    return f"intervals: takes drawn with replacement{few}{none}"


def score_tables(figures: Figures) -> list[Table]:
    """The scores of the first results file, and the differences of each other one from it; or the scores of all runs of
    one method.
    """
    if figures.seeds:
        return [seeds_table(figures, figures.seeds)]
    return [score_table(figures), *(difference_table(figures, other) for other in figures.comparisons)]


def heading(name: str, lacks: str) -> str:
    return METRICS[name].heading + (f", no {lacks} object" if is_undefined(name, lacks) else "")


def score_table(figures: Figures) -> Table:
    """The scores of the first results file with intervals."""
    total, intervals = figures.summary.total, figures.summary.intervals
    rows: Table = [("", figures.names[0] if figures.names else "value", "95 % interval")]
    for name, metric in METRICS.items():
        title, value = heading(name, total.lacks), total.text(name)
        if name == "right_object":
            chance = metric.as_text(total.scores["right_object_chance"])
            title += f", in {total.frames_several_objects:,} cases with several objects, chance {chance}"
        rows.append((title, value, metric.interval_text(intervals[name]) or "-"))
    return rows


def seeds_table(figures: Figures, seeds: Mapping[str, Spread]) -> Table:
    """The scores of several runs of one method, with mean and standard deviation."""
    rows: Table = [("", *figures.names, "mean", "deviation", "95 % interval")]
    lacks = figures.summary.total.lacks
    for name, runs in seeds.items():
        texts = [METRICS[name].as_text(value) for value in (*runs.values, runs.mean, runs.deviation)]
        texts.append(METRICS[name].interval_text(figures.summary.intervals[name]) or "-")
        rows.append((heading(name, lacks), *texts))
    return rows


def breakdown_tables(figures: Figures, kind: str) -> list[Table]:
    """The tables of the breakdown `kind`: first the scores of the first results file, or the means of seeds; then, for
    each other file, its differences from the first one.
    """
    changes = [change_table(figures, kind, other) for other in figures.comparisons]
    return [group_table(figures, kind), *changes]


def group_table(figures: Figures, kind: str) -> Table:
    """The counts and scores of each group of the breakdown `kind`: the first results file's, or the means of seeds."""
    whose = "mean" if figures.seeds else figures.names[0] if figures.names else ""
    rows: Table = [(whose, "cases", *BREAKDOWN_COUNTS[1:], *(METRICS[name].heading for name in TABLE_METRICS))]
    for group in figures.summary.breakdown[kind]:
        counts = (f"{getattr(group, name):,}" for name in BREAKDOWN_COUNTS)
        rows.append((group.label, *counts, *map(group.text, TABLE_METRICS)))
    return rows


def difference_table(figures: Figures, other: Comparison) -> Table:
    """The differences of a results file from the first one."""
    rows: Table = [("", figures.names[0], other.second, "difference", "95 % interval", f"{other.second} is")]
    lacks = figures.summary.total.lacks
    for name, metric in METRICS.items():
        paired = other.metrics[name]
        values = metric.as_text(paired.first), metric.as_text(paired.second)
        change = metric.as_text(paired.difference, "+"), metric.interval_text(paired.interval_95, "+") or "-"
        rows.append((heading(name, lacks), *values, *change, better_or_worse(name, paired)))
    return rows


def change_table(figures: Figures, kind: str, other: Comparison) -> Table:
    """The differences of a results file from the first one in each group of the breakdown `kind`, with intervals.
    Groups are sorted by the size of the change of IoU, the largest first. An arrow points up if the second file is
    surely better, down if it is surely worse.
    """
    rows: Table = [(f"{other.second} - {figures.names[0]}", *(METRICS[name].heading for name in TABLE_METRICS))]
    sizes = {label: np.nan_to_num(abs(changes["iou"].difference)) for label, changes in other.by[kind].items()}
    for label in sorted(sizes, key=sizes.__getitem__, reverse=True):
        cells, changes = [label], other.by[kind][label]
        for name in TABLE_METRICS:
            metric, change = METRICS[name], changes[name].difference
            interval = metric.interval_text(changes[name].interval_95, "+")
            arrow = {"better": " ▲", "worse": " ▼"}.get(better_or_worse(name, changes[name]), "")
            text = metric.as_text(change, "+") + arrow + (f" [{interval}]" if interval else "")
            cells.append(text)
        rows.append(cells)
    return rows


def better_or_worse(name: str, paired: Change) -> str:
    """Whether the second file is better or worse; "uncertain" if the interval contains 0, "-" without an interval."""
    (low, high), change = paired.interval_95, METRICS[name].verdict(paired.difference)
    if math.isnan(low) or not change:
        return "-"
    return change if low > 0 or high < 0 else f"{change}, uncertain"


def protocol_table(figures: Figures) -> Table:
    """The scores by each rule (evaluation/protocols.py). All rules except the benchmark's are marked with a star."""
    rows: Table = [("", *(METRICS[name].heading for name in OFFICIAL), "mean over")]
    for name, scores in (figures.rules or {}).items():
        star = "* " if name != "official" or figures.all_frames else ""
        lacks = "hidden" if scores["existence_classes"] == 1 else ""
        cells = ("-" if is_undefined(metric, lacks) else METRICS[metric].as_text(scores[metric]) for metric in OFFICIAL)
        rows.append((star + name, *cells, counted(scores["count"], scores["averaged_over"].removesuffix("s"))))
    return rows


def printed_lines(figures: Figures) -> list[str]:
    """The lines that a script prints: scores or differences, breakdowns, the scores by other rules, warnings."""
    lines, scored = [headline(figures)], figures.summary.total.frames
    if scored < (wanted := figures.frames_wanted):
        lines.append(f"INCOMPLETE: predictions for {wanted - scored:,} of {wanted:,} cases are missing")
    lines += made_with(figures)
    for table in score_tables(figures):
        lines += ["", *format_table(table)]
    lines.append(f"* not part of the benchmark; {interval_note(figures)}")
    for kind, groups in figures.summary.breakdown.items():
        if len(groups) > 1 and kind not in LONG_BREAKDOWNS:
            arrows = " (▲: surely better)" if figures.comparisons else ""
            lines += ["", f"* {BREAKDOWN_TITLES.get(kind, f'by {kind}')}{arrows}"]
            for table in breakdown_tables(figures, kind)[bool(figures.comparisons) :]:
                lines += format_table(table)
    if figures.rules:
        lines += ["", *format_table(protocol_table(figures))]
        lines.append("* not the benchmark's rule; docs/evaluation.md says what each does")
    return [*lines, *figures.warnings]


def format_table(rows: Table) -> list[str]:
    """Lines with aligned columns for the terminal: the first column is aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def write_cases(path: Path, scored: ScoredFiles) -> None:
    """Write a CSV file: a line for each scored case, with the scores of all results files side by side.

    Values that do not exist (None, nan) are left empty, floats have all digits, bools are 0 or 1.
    """
    names, pairs, cases = scored.names, scored.pairs, scored.cases
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
