"""The pages that open from disk in any browser: of one results file, and of several compared.

What they show, and in which order, is in web/report.html and web/comparison.html; this module draws the plots and puts
into words and coordinates what the galleries and the tracks over time show.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from evaluation.compare import apart, best_file, is_certain, largest_first, take_means
from evaluation.metrics import COLUMNS, METRICS, OFFICIAL
from evaluation.outputs import BREAKDOWN_TITLES, beside_right_object, interval, verdict, won_cells
from evaluation.pictures import iou_text
from evaluation.plots import (
    calibration,
    compared_iou_by_size,
    iou_by_size,
    iou_histogram,
    paired_iou,
    precision_recall,
    save_plot,
    take_differences,
)
from evaluation.published import SPLIT, XSEGTX, leaderboard, paper_values
from evaluation.score import Case
from formats.files import atomic_write

PAGE = "index.html"
DATA_PAGE = "data.html"  # the data set, in a report
PLOTS = {  # of a report: path -> caption
    "plots/iou_by_size.svg": "IoU by the size of the true mask in the target image",
    "plots/iou.svg": "distribution of IoU",
    "plots/calibration.svg": "existence: how often the object is visible at each confidence",
    "plots/precision_recall.svg": "existence: precision and recall",
}
ORDERS = {  # of a gallery: a card's value, "up" or "down" -> what the reader is told
    "iou down": "best first",
    "iou up": "worst first",
    "confidence down": "most confident first",
    "confidence up": "least confident first",
    "size down": "largest object first",
    "size up": "smallest object first",
}
CHANGE_ORDERS = {
    "apart down": "furthest apart first",
    "change up": "largest fall from first to last file first",
    "change down": "largest rise from first to last file first",
    "size down": "largest object first",
    "size up": "smallest object first",
}
CHANGE_KINDS = {
    "existence": "existence: files disagree",
    "object": "right object: files disagree",
    "visible": "object visible",
    "hidden": "object not visible",
}
KINDS = {
    "visible": "object visible",
    "hidden": "object not visible",
    "missed": "visible, said to be not",
    "invented": "not visible, said to be",
    "empty": "visible, empty mask",
    "wrong": "visible, not the right object",
}


def write_page(folder: Path, template: str, name: str = PAGE, **values: Any) -> Path:
    """Fill a template of web/, with style and script inside, and write it to the folder. Returns its path."""
    loader = FileSystemLoader(Path(__file__).parent / "web")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.globals |= {
        "METRICS": METRICS,
        "OFFICIAL": OFFICIAL,
        "COLUMNS": COLUMNS,
        "OFFICIAL_HEADINGS": [METRICS[name].heading for name in OFFICIAL],
        "COLUMN_HEADINGS": [METRICS[name].heading for name in COLUMNS],
        "BREAKDOWN_TITLES": BREAKDOWN_TITLES,
        "PUBLISHED_SPLIT": SPLIT,
        "XSEGTX": XSEGTX,
        "leaderboard": leaderboard,
        "paper_values": paper_values,
        "ORDERS": ORDERS,
        "CHANGE_ORDERS": CHANGE_ORDERS,
        "KINDS": KINDS,
        "beside_right_object": beside_right_object,
        "interval": interval,
        "DATA_PAGE": DATA_PAGE,
        "change_kinds": change_kinds,
        "is_certain": is_certain,
        "verdict": verdict,
        "won_cells": won_cells,
        "largest_first": largest_first,
    }
    with atomic_write(folder / name) as file:
        file.write(pages.get_template(template).render(values))
    return folder / name


def draw_plots(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> list[tuple[str, str]]:
    """Write a report's PLOTS, only the calibration if no object is visible; returns path and caption of each."""
    found, share_visible = summary["existence"], summary["frames_visible"] / len(cases)
    save_plot(folder / "plots/calibration.svg", calibration, found["bins"])
    if share_visible:
        save_plot(folder / "plots/iou_by_size.svg", iou_by_size, cases)
        save_plot(folder / "plots/iou.svg", iou_histogram, cases)
        save_plot(folder / "plots/precision_recall.svg", precision_recall, found, share_visible)
    return [(path, caption) for path, caption in PLOTS.items() if (folder / path).exists()]


def draw_paired_plots(
    folder: Path, plots: Sequence[str], names: Sequence[str], cases: Sequence[Sequence[Case]]
) -> list[tuple[str, str]]:
    """Write a comparison's `plots`, those of `comparison_plots`; returns path and caption of each."""
    if not any(case.visible for case in cases[0]):
        return []
    by_size, *others = plots
    save_plot(folder / by_size, compared_iou_by_size, cases, names)
    figures = [(by_size, "mean IoU by the size of the true mask in the target image")]
    means = take_means(cases)
    for number, (in_takes, in_cases) in enumerate(zip(others[::2], others[1::2], strict=True), 1):
        both = names[0], names[number]
        save_plot(folder / in_takes, take_differences, means[:, number] - means[:, 0], both)
        save_plot(folder / in_cases, paired_iou, cases[0], cases[number], both, size=(4.5, 4.5))
        figures.append((in_takes, f"each take: mean IoU of {both[1]} minus that of {both[0]}"))
        figures.append((in_cases, f"each case in {both[0]} and in {both[1]}"))
    return figures


def comparison_plots(number: int) -> list[str]:
    """The paths of a comparison's plots: one of all `number` files, then two for each but the first."""
    return ["plots/iou_by_size.svg", *(f"plots/{what}_{i}.svg" for i in range(1, number) for what in ("takes", "iou"))]


def report_card(case: Case, picture: str, take_name: str) -> dict[str, Any]:
    """A card of the gallery: its picture's path, words, and by what it is found and sorted ("" always comes last)."""
    kinds = ["visible" if case.visible else "hidden"]
    if case.said_visible != case.visible:
        kinds.append("invented" if case.said_visible else "missed")
    if case.visible and case.mask.predicted_pixels == 0:
        kinds.append("empty")
    if case.visible and case.mask.right_object == 0:
        kinds.append("wrong")
    values = {"confidence": case.confidence, "iou": "", "size": ""}
    if case.visible:
        values |= {"iou": round(100 * case.mask.iou, 4), "size": case.mask.truth_pixels}
    return {
        "picture": picture,
        "title": case.object_name.strip(),
        "caption": f"{_place(case, take_name)}: {iou_text(case)}, confidence {100 * case.confidence:.0f} %",
        "kinds": kinds,
        "values": values,
    }


def change_card(cases: Sequence[Case], picture: str, names: Sequence[str], take_name: str) -> dict[str, Any]:
    """The same for a case in several results files."""
    first, last = cases[0], cases[-1]
    kinds = ["visible" if first.visible else "hidden", f"best-{best_file(cases)}"]
    if len({case.said_visible for case in cases}) > 1:
        kinds.append("existence")
    values = {"iou": "", "change": "", "apart": apart(cases), "size": ""}
    if first.visible:
        if len({case.mask.right_object for case in cases if not math.isnan(case.mask.right_object)}) > 1:
            kinds.append("object")
        what, numbers = "IoU (%)", (case.mask.iou for case in cases)
        change = last.mask.iou - first.mask.iou
        values |= {"iou": 100 * first.mask.iou, "change": change, "size": first.mask.truth_pixels}
    else:
        what, numbers = "not visible; confidence (%)", (case.confidence for case in cases)
    scores = (f"{name} {METRICS['iou'].show(number)}" for name, number in zip(names, numbers, strict=True))
    return {
        "picture": picture,
        "title": first.object_name.strip(),
        "caption": f"{_place(first, take_name)}: {what} {', '.join(scores)}",
        "kinds": kinds,
        "values": values,
    }


def change_kinds(names: Sequence[str]) -> dict[str, str]:
    """What a comparison's gallery can be limited to."""
    return {f"best-{number}": f"{name} is best" for number, name in enumerate(names)} | CHANGE_KINDS


def _place(case: Case, take_name: str) -> str:
    return f"{take_name}, {case.query_camera} to {case.target_camera}, frame {case.frame}"


def track_lines(cases: Iterable[Case], names: dict[str, str], shown: Iterable[Case]) -> list[dict[str, Any]]:
    """IoU and confidence over time of the tracks of the cases `shown`, as points of a drawing 1200 x 260 units large.

    Frames run from x 50 to 1170, 0 to 100 % from y 230 up to 10. IoU is in pieces, one per time of visibility. `names`
    are those of the takes.
    """
    tracks: dict[tuple, list[Case]] = {case.track: [] for case in shown}
    for case in cases:
        if case.track in tracks:
            tracks[case.track].append(case)
    lines = []
    for (take, name, query, target), members in tracks.items():
        members.sort(key=lambda case: case.frame)
        first, span = members[0].frame, max(members[-1].frame - members[0].frame, 1)
        x = [round(50 + 1120 * (case.frame - first) / span, 1) for case in members]
        pieces: list[list[str]] = [[]]
        for place, case in zip(x, members, strict=True):
            if case.visible:
                pieces[-1].append(f"{place},{230 - 220 * case.mask.iou:.1f}")
            else:
                pieces.append([])
        confidence = (f"{place},{230 - 220 * case.confidence:.1f}" for place, case in zip(x, members, strict=True))
        step = -(-len(members) // 12)  # about a dozen frame numbers fit below
        lines.append(
            {
                "label": f"{names[take]} / {name} / {query} to {target}",
                "ticks": [(x[i], members[i].frame) for i in range(0, len(members), step)],
                "confidence": " ".join(confidence),
                "iou": [" ".join(piece) for piece in pieces if piece],
            }
        )
    return lines
