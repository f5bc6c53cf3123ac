"""The report of a results file: one folder with index.html, plots and pictures."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evaluation import html_page as html
from evaluation import plots
from evaluation.existence import existence
from evaluation.html_page import Card, Cell, Section, number_cell
from evaluation.metrics import CONFIDENCE_THRESHOLD
from evaluation.outputs import NAMES
from evaluation.published import PUBLISHED, SPLIT
from evaluation.score import Case, Scores
from evaluation.summary import OFFICIAL
from formats.files import atomic_write

ORDERS = {
    "iou down": "best first",
    "iou up": "worst first",
    "confidence down": "most confident first",
    "confidence up": "least confident first",
    "size down": "largest object first",
    "size up": "smallest object first",
}
KINDS = {
    "visible": "object visible",
    "hidden": "object not visible",
    "missed": "visible, said to be not",
    "alarm": "not visible, said to be",
    "empty": "visible, empty mask",
}
# As the paper prints them: IoU and balanced accuracy in per cent.
SCALE = {"iou": (100, 2), "balanced_accuracy": (100, 2)}
HEADER = ("IoU (%)", "location error", "contour accuracy", "balanced accuracy (%)")


def write_report(
    folder: Path, scores: Scores, summary: dict[str, Any], pictures: Sequence[tuple[Case, str]], warning: str
) -> Path:
    """Write the page and its plots; `pictures` are in `folder` already, named from there. Returns the page's path."""
    cases = scores.cases
    found = existence(cases)
    visible = summary["frames_visible"]
    figures = {
        "iou_by_size": (plots.iou_by_size(cases), "IoU by the object's size in the target view"),
        "iou": (plots.iou_histogram(cases), "distribution of IoU"),
        "calibration": (plots.calibration(found), "existence: how often the object is visible at each confidence"),
        "precision_recall": (plots.precision_recall(found, visible / len(cases)), "existence: precision and recall"),
    }
    if not visible:  # nothing has an IoU
        del figures["iou_by_size"], figures["iou"], figures["precision_recall"]
    for name, (draw, _) in figures.items():
        plots.save_plot(folder / "plots" / f"{name}.svg", draw)
    title = f"Object correspondence, {summary['setting']}, {summary['split']}"
    lead = (
        f"{summary['takes']} takes, {len(cases):,} frames scored, {visible:,} of them with a visible target; "
        f"results of {summary['results']}"
    )
    names = {take.take_uid: take.name or take.take_uid for take in scores.takes}
    sections = [
        Section("The benchmark's numbers", metrics_table(summary), PUBLISHED_NOTE),
        Section("Beyond the benchmark", extra_table(summary), "None of these is part of the official evaluation."),
        Section("Plots", html.plots([(f"plots/{name}.svg", caption) for name, (_, caption) in figures.items()])),
        Section("Over time", html.track_plot(tracks(cases, names, pictures)), TRACK_NOTE),
        *breakdown_sections(summary["breakdown"]),
        Section("Cases", html.gallery([card(c, path, names) for c, path in pictures], ORDERS, KINDS), GALLERY_NOTE),
    ]
    with atomic_write(folder / "index.html") as file:
        file.write(html.page(title, lead, sections, warning))
    return folder / "index.html"


PUBLISHED_NOTE = (
    f"Published numbers are those of the paper, on the v2 {SPLIT} split; compare only results of that split with them. "
    "In brackets: 95 % of resamples of the takes."
)
TRACK_NOTE = "Blue: IoU, with gaps where the object is not visible in the target view. Orange: confidence. By frame."
GALLERY_NOTE = (
    "Query, prediction and truth, spread evenly from the best to the worst case, and the most confident ones "
    "where the object is not visible. A picture opens at full size."
)


def metrics_table(summary: dict[str, Any]) -> str:
    """This run's row with its intervals, above the published ones."""
    spans = summary["interval_95"]
    ours = [_metric(name, summary["official"][name], spans[name]) for name in OFFICIAL]
    published = PUBLISHED[summary["setting"]].items()
    rows = [["this run", *ours], *([name, *(_metric(n, v[n]) for n in OFFICIAL)] for name, v in published)]
    return html.table(("", *HEADER), rows, bold=[0])


def extra_table(summary: dict[str, Any]) -> str:
    found = summary["existence"]
    rows = [
        (NAMES["location_error_corrected"], number_cell(summary["extra"]["location_error_corrected"])),
        (NAMES["mask_presence"] + " (%)", number_cell(summary["extra"]["mask_presence"], 2, 100)),
        ("existence, average precision", number_cell(found["average_precision"])),
        ("existence, calibration error", number_cell(found["calibration_error"])),
        ("IoU (%), mean over takes", number_cell(summary["mean_over_takes"]["iou"], 2, 100)),
        ("IoU (%), mean over objects", number_cell(summary["mean_over_objects"]["iou"], 2, 100)),
    ]
    return html.table(("", "this run"), rows)


def breakdown_sections(breakdown: dict[str, list[dict]]) -> list[Section]:
    """One sortable table for each breakdown that tells groups apart."""
    header = ("", "frames", "visible", *HEADER)
    return [
        Section(f"By {kind}", html.table(header, [_group_row(group) for group in groups], sortable=True))
        for kind, groups in breakdown.items()
        if len(groups) > 1
    ]


def card(case: Case, picture: str, names: dict[str, str]) -> Card:
    """A case in the gallery."""
    says = case.confidence > CONFIDENCE_THRESHOLD
    kinds = ["visible" if case.visible else "hidden"]
    if says != case.visible:
        kinds.append("alarm" if says else "missed")
    if case.predicted_pixels == 0 and case.visible:
        kinds.append("empty")
    score = f"IoU {case.iou:.3f}" if case.visible else "not visible"
    caption = (
        f"{names[case.take_uid]}, {case.query_camera} to {case.target_camera}, frame {case.frame}: "
        f"{score}, confidence {case.confidence:.2f}"
    )
    values = {"iou": case.iou, "confidence": case.confidence, "size": case.truth_pixels}
    return Card(picture, case.object_name.strip(), caption, kinds, values)


def tracks(cases: Sequence[Case], names: dict[str, str], pictures: Sequence[tuple[Case, str]]) -> dict[str, list]:
    """Frame, IoU and confidence of the tracks that the pictures show, in the order of their first picture."""
    points: dict[tuple, list] = {case.key[:4]: [] for case, _ in pictures}
    for case in cases:
        if case.key[:4] in points:
            iou = None if math.isnan(case.iou) else round(case.iou, 4)
            points[case.key[:4]].append((case.frame, iou, round(case.confidence, 4)))
    return {
        f"{names[take]} / {name} / {query} to {target}": sorted(values, key=lambda point: point[0])
        for (take, name, query, target), values in points.items()
    }


def _group_row(group: dict[str, Any]) -> list[Cell]:
    counts = (Cell(f"{group[name]:,}", group[name]) for name in ("frames", "visible"))
    return [Cell(group["label"], group["label"]), *counts, *(_metric(name, group[name]) for name in OFFICIAL)]


def _metric(name: str, value: float | None, span: Sequence[float | None] = (None, None)) -> Cell:
    scale, digits = SCALE.get(name, (1, 3))
    low, high = span
    small = "" if low is None else f"[{low * scale:.{digits}f}, {high * scale:.{digits}f}]"
    return number_cell(value, digits, scale, small)
