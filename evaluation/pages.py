"""The pages that open from disk in any browser: of one results file, and of several compared.

What they show, and in which order, is in web/report.html and web/comparison.html; this module draws the plots and puts
into words and coordinates what the galleries and the tracks over time show.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from evaluation.compare import is_certain, largest_first
from evaluation.metrics import COLUMNS, METRICS, OFFICIAL
from evaluation.outputs import BREAKDOWN_TITLES, beside_right_object, interval
from evaluation.pictures import iou_text
from evaluation.plots import calibration, iou_by_size, iou_histogram, paired_iou, precision_recall, save_plot
from evaluation.published import PUBLISHED, SPLIT
from evaluation.score import Case
from formats.files import atomic_write

PAGE = "index.html"
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
    "magnitude down": "largest change first",
    "change up": "largest fall first",
    "change down": "largest rise first",
    "size down": "largest object first",
}
KINDS = {
    "visible": "object visible",
    "hidden": "object not visible",
    "missed": "visible, said to be not",
    "invented": "not visible, said to be",
    "empty": "visible, empty mask",
    "wrong": "visible, not the right object",
}


def write_page(folder: Path, template: str, **values: Any) -> Path:
    """Fill a template of web/, with style and script inside, and write it as index.html. Returns its path."""
    loader = FileSystemLoader(Path(__file__).parent / "web")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pages.globals |= {
        "METRICS": METRICS,
        "OFFICIAL": OFFICIAL,
        "COLUMNS": COLUMNS,
        "OFFICIAL_HEADINGS": [METRICS[name].heading for name in OFFICIAL],
        "COLUMN_HEADINGS": [METRICS[name].heading for name in COLUMNS],
        "BREAKDOWN_TITLES": BREAKDOWN_TITLES,
        "PUBLISHED": PUBLISHED,
        "PUBLISHED_SPLIT": SPLIT,
        "ORDERS": ORDERS,
        "CHANGE_ORDERS": CHANGE_ORDERS,
        "KINDS": KINDS,
        "beside_right_object": beside_right_object,
        "interval": interval,
        "is_certain": is_certain,
        "largest_first": largest_first,
    }
    with atomic_write(folder / PAGE) as file:
        file.write(pages.get_template(template).render(values))
    return folder / PAGE


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
    """Write a comparison's `plots`, IoU of each case in the first file and another one; returns path and caption."""
    if not any(case.visible for case in cases[0]):
        return []
    figures = []
    for path, name, other in zip(plots, names[1:], cases[1:], strict=True):
        save_plot(folder / path, paired_iou, cases[0], other, (names[0], name), size=(4.5, 4.5))
        figures.append((path, f"each case in {names[0]} and in {name}"))
    return figures


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
    first, last = cases[0].mask, cases[-1].mask
    scores = (f"{name} {METRICS['iou'].show(case.mask.iou)}" for name, case in zip(names, cases, strict=True))
    change = last.iou - first.iou
    return {
        "picture": picture,
        "title": cases[0].object_name.strip(),
        "caption": f"{_place(cases[0], take_name)}: IoU (%) {', '.join(scores)}",
        "kinds": ["visible"],
        "values": {"iou": 100 * first.iou, "change": change, "magnitude": abs(change), "size": first.truth_pixels},
    }


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
