"""The pages that open from disk in any browser: of one results file, and of several compared.

web/page.html lays out what this module says: sections of tables, plots, tracks over time, and a gallery of pictures.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from evaluation.compare import is_certain
from evaluation.metrics import METRICS, OFFICIAL
from evaluation.outputs import BREAKDOWN_TITLES, interval, starred
from evaluation.plots import calibration, iou_by_size, iou_histogram, paired_iou, precision_recall, save_plot
from evaluation.published import PUBLISHED, SPLIT
from evaluation.score import Case
from formats.files import atomic_write

PAGE = "index.html"
OFFICIAL_HEADER = tuple(METRICS[name].heading for name in OFFICIAL)
REPORT_ORDERS = {
    "iou down": "best first",
    "iou up": "worst first",
    "confidence down": "most confident first",
    "confidence up": "least confident first",
    "size down": "largest object first",
    "size up": "smallest object first",
}
REPORT_KINDS = {
    "visible": "object visible",
    "hidden": "object not visible",
    "missed": "visible, said to be not",
    "invented": "not visible, said to be",
    "empty": "visible, empty mask",
}
CHANGE_ORDERS = {
    "magnitude down": "largest change first",
    "change up": "largest fall first",
    "change down": "largest rise first",
    "size down": "largest object first",
}
PLOTS = ("iou_by_size", "iou", "calibration", "precision_recall")


class Cell(NamedTuple):
    """What a table shows, what its column is sorted by ("" stays below), small print, and "better" or "worse"."""

    text: str
    value: float | str = ""
    small: str = ""
    tone: str = ""


class Table(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False  # by a click on a column's head
    bold: Collection[int] = ()  # rows
    caption: str = ""


class Card(NamedTuple):
    """One picture of a gallery, and what it can be found and sorted by; the value "" stays below."""

    picture: str  # path from the page
    title: str
    caption: str
    kinds: Sequence[str]
    values: dict[str, float | str]


class Gallery(NamedTuple):
    cards: Sequence[Card]
    orders: dict[str, str]  # "value up" or "value down" -> label; the first holds at the beginning
    kinds: dict[str, str]  # kind -> label


class Section(NamedTuple):
    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    plots: Sequence[tuple[str, str]] = ()  # path from the page, caption
    tracks: Sequence[dict[str, Any]] = ()
    gallery: Gallery | None = None

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower())


def write_page(folder: Path, title: str, lead: str, sections: Sequence[Section], warnings: Sequence[str] = ()) -> Path:
    """Write index.html with style and script inside; the warnings stand in a box on top. Returns its path."""
    loader = FileSystemLoader(Path(__file__).parent / "web")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    text = pages.get_template("page.html").render(title=title, lead=lead, sections=sections, warnings=warnings)
    with atomic_write(folder / PAGE) as file:
        file.write(text)
    return folder / PAGE


def report_sections(
    folder: Path, summary: dict[str, Any], cases: Sequence[Case], pictures: Sequence[tuple[Case, str]], names: dict
) -> list[Section]:
    """The page of one results file. Its plots are written to `folder`, where `pictures` are; `names` are of takes."""
    return [
        metrics_section(summary),
        extra_section(summary),
        Section("Plots", plots=draw_plots(folder, summary, cases)),
        Section(
            "Over time",
            "Blue: IoU (%), with gaps where the object is not visible in the target view. Orange: confidence (%). "
            "By frame.",
            tracks=track_lines(cases, names, [case for case, _ in pictures]),
        ),
        *breakdown_sections(summary["breakdown"]),
        Section(
            "Cases",
            "Query, prediction and truth, spread evenly from the best to the worst case, and the most confident ones "
            "where the object is not visible. A picture opens at full size.",
            gallery=Gallery([report_card(*one, names) for one in pictures], REPORT_ORDERS, REPORT_KINDS),
        ),
    ]


def metrics_section(summary: dict[str, Any]) -> Section:
    """This run's row with its intervals, above the published ones."""
    spans = summary["interval_95"]
    ours = [metric_cell(name, summary["official"][name], spans[name]) for name in OFFICIAL]
    rows = [[Cell("this run"), *ours]]
    for name, values in PUBLISHED[summary["setting"]].items():
        rows.append([Cell(name), *metric_cells(values)])
    note = f"Published numbers are those of the paper, on the v2 {SPLIT} split; compare only results of that split."
    if spans["iou"][0] is not None:
        note += " In brackets: 95 % of resamples of the takes."
    return Section("The benchmark's numbers", note, [Table(("", *OFFICIAL_HEADER), rows, bold=[0])])


def extra_section(summary: dict[str, Any]) -> Section:
    found = summary["existence"]
    rows = [
        *((METRICS[name].heading, metric_cell(name, value)) for name, value in summary["extra"].items()),
        ("existence, average precision (%)", metric_cell("balanced_accuracy", found["average_precision"])),
        ("existence, calibration error (%)", metric_cell("balanced_accuracy", found["calibration_error"])),
        ("IoU (%), mean over takes", metric_cell("iou", summary["mean_over_takes"]["iou"])),
        ("IoU (%), mean over objects", metric_cell("iou", summary["mean_over_objects"]["iou"])),
    ]
    table = Table(("", "this run"), [(Cell(name), cell) for name, cell in rows])
    return Section("Beyond the benchmark", "None of these is part of the official evaluation.", [table])


def draw_plots(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> list[tuple[str, str]]:
    """Write the plots; returns path and caption of each. Where nothing is visible, nothing has an IoU."""
    found, share_visible = summary["existence"], summary["frames_visible"] / len(cases)
    figures = [
        ("calibration", "existence: how often the object is visible at each confidence", calibration, found["bins"])
    ]
    if share_visible:
        figures = [
            ("iou_by_size", "IoU by the object's size in the target image", iou_by_size, cases),
            ("iou", "distribution of IoU", iou_histogram, cases),
            *figures,
            ("precision_recall", "existence: precision and recall", precision_recall, found, share_visible),
        ]
    for name, _, draw, *values in figures:
        save_plot(folder / f"plots/{name}.svg", draw, *values)
    return [(f"plots/{name}.svg", caption) for name, caption, *_ in figures]


def breakdown_sections(breakdown: dict[str, list[dict]]) -> list[Section]:
    """One sortable table for each breakdown that tells groups apart."""
    sections = []
    for kind, groups in breakdown.items():
        if len(groups) > 1:
            rows = [[text_cell(g["label"]), *count_cells(g, "frames", "visible"), *metric_cells(g)] for g in groups]
            table = Table(("", "frames", "visible", *OFFICIAL_HEADER), rows, sortable=True)
            sections.append(Section(f"By {BREAKDOWN_TITLES[kind]}", tables=[table]))
    return sections


def report_card(case: Case, picture: str, names: dict[str, str]) -> Card:
    kinds = ["visible" if case.visible else "hidden"]
    if case.said_visible != case.visible:
        kinds.append("invented" if case.said_visible else "missed")
    if case.visible and case.mask.predicted_pixels == 0:
        kinds.append("empty")
    score = f"IoU {METRICS['iou'].show(case.mask.iou)} %" if case.visible else "not visible"
    caption = (
        f"{names[case.take_uid]}, {case.query_camera} to {case.target_camera}, frame {case.frame}: "
        f"{score}, confidence {100 * case.confidence:.0f} %"
    )
    values = {"confidence": case.confidence, "iou": "", "size": ""}
    if case.visible:
        values |= {"iou": round(100 * case.mask.iou, 4), "size": case.mask.truth_pixels}
    return Card(picture, case.object_name.strip(), caption, kinds, values)


def track_lines(cases: Iterable[Case], names: dict[str, str], shown: Iterable[Case]) -> list[dict[str, Any]]:
    """IoU and confidence over time of the tracks of the cases `shown`, as points of a drawing 1200 x 260 units large.

    Frames run from x 50 to 1190, 0 to 100 % from y 230 up to 10. IoU is in pieces, one for each time of visibility.
    """
    tracks: dict[tuple, list[Case]] = {case.track: [] for case in shown}
    for case in cases:
        if case.track in tracks:
            tracks[case.track].append(case)
    lines = []
    for (take, name, query, target), members in tracks.items():
        members.sort(key=lambda case: case.frame)
        first, span = members[0].frame, max(members[-1].frame - members[0].frame, 1)
        x = [round(50 + 1140 * (case.frame - first) / span, 1) for case in members]
        pieces: list[list[str]] = [[]]
        for place, case in zip(x, members, strict=True):
            if case.visible:
                pieces[-1].append(f"{place},{230 - 220 * case.mask.iou:.1f}")
            else:
                pieces.append([])
        points = (f"{place},{230 - 220 * case.confidence:.1f}" for place, case in zip(x, members, strict=True))
        step = -(-len(members) // 12)  # about a dozen frames fit below
        lines.append(
            {
                "label": f"{names[take]} / {name} / {query} to {target}",
                "ticks": [(x[i], members[i].frame) for i in range(0, len(members), step)],
                "confidence": " ".join(points),
                "iou": [" ".join(piece) for piece in pieces if piece],
            }
        )
    return lines


def comparison_sections(
    folder: Path,
    comparison: dict[str, Any],
    cases: Sequence[Sequence[Case]],
    pictures: Sequence[tuple[Sequence[Case], str]],
) -> list[Section]:
    """The page of several results files; `cases` and those of each picture are one for each file."""
    first, others = comparison["first"], comparison["comparisons"]
    names = [first, *(other["second"] for other in others)]
    note = "In brackets: 95 % of paired resamples of the takes. Bold: 0 lies outside."
    sections = [Section("Differences", note, [difference_table(first, other) for other in others])]
    for kind in others[0]["by"]:
        tables = [group_table(first, other, kind) for other in others if len(other["by"][kind]) > 1]
        if tables:
            sections.append(Section(f"By {BREAKDOWN_TITLES[kind]}", tables=tables))
    figures = []
    if any(case.visible for case in cases[0]):
        for number, name in enumerate(names[1:], 1):
            path = f"plots/iou_{number}.svg"
            save_plot(folder / path, paired_iou, cases[0], cases[number], (first, name), size=(4.5, 4.5))
            figures.append((path, f"each case in {first} and in {name}"))
    sections.append(Section("IoU, case by case", plots=figures))
    cards = [change_card(group, path, names) for group, path in pictures]
    sections.append(Section("Cases that changed most", gallery=Gallery(cards, CHANGE_ORDERS, {})))
    return sections


def difference_table(first: str, other: dict[str, Any]) -> Table:
    """All metrics of two files and their difference."""
    rows, bold = [], []
    for name, found in other["metrics"].items():
        if is_certain(found):
            bold.append(len(rows))
        values = (metric_cell(name, found[key]) for key in ("first", "second"))
        rows.append([Cell(starred(name)), *values, difference_cell(name, found)])
    return Table(("", first, other["second"], "difference"), rows, bold=bold)


def group_table(first: str, other: dict[str, Any], kind: str) -> Table:
    """Differences of the official metrics by group, the largest change of IoU first."""
    groups = sorted(other["by"][kind].items(), key=lambda item: -abs(item[1]["iou"]["difference"] or 0))
    rows = [[text_cell(label), *(difference_cell(name, found[name]) for name in OFFICIAL)] for label, found in groups]
    return Table(("", *OFFICIAL_HEADER), rows, sortable=True, caption=f"{other['second']} - {first}")


def change_card(cases: Sequence[Case], picture: str, names: Sequence[str]) -> Card:
    case, change = cases[0], cases[-1].mask.iou - cases[0].mask.iou
    scores = ", ".join(f"{name} {METRICS['iou'].show(one.mask.iou)}" for name, one in zip(names, cases, strict=True))
    caption = f"{case.take_uid}, {case.query_camera} to {case.target_camera}, frame {case.frame}: IoU (%) {scores}"
    values = {
        "iou": 100 * case.mask.iou,
        "change": change,
        "magnitude": abs(change),
        "size": case.mask.truth_pixels,
    }
    return Card(picture, case.object_name.strip(), caption, ["visible"], values)


def text_cell(text: str) -> Cell:
    return Cell(text, text)


def count_cells(counts: dict[str, int], *names: str) -> list[Cell]:
    return [Cell(f"{counts[name]:,}", counts[name]) for name in names]


def metric_cells(values: dict[str, float | None]) -> list[Cell]:
    return [metric_cell(name, values[name]) for name in OFFICIAL]


def metric_cell(name: str, value: float | None, span: Sequence[float | None] = (None, None)) -> Cell:
    """A number with its interval, or a dash."""
    small = interval(name, span, ", ")
    return Cell(METRICS[name].show(value), "" if value is None else value, f"[{small}]" if small else "")


def difference_cell(name: str, found: dict[str, Any]) -> Cell:
    """A difference with its interval, and an arrow that points up if the second file is better."""
    change, small = found["difference"], interval(name, found["interval_95"], ", ", "+")
    text, tone = METRICS[name].show(change, "+"), ""
    if change:
        tone = "better" if (change > 0) == METRICS[name].higher_is_better else "worse"
        text += " \u25b2" if tone == "better" else " \u25bc"
    return Cell(text, "" if change is None else change, f"[{small}]" if small else "", tone)
