"""The pages that open from disk in any browser: a list of sections, which web/page.html shows in their order."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader

from evaluation.case_pictures import iou_text
from evaluation.compare import apart, best_file
from evaluation.metrics import OFFICIAL
from evaluation.plots import Captioned
from evaluation.score import Case
from evaluation.tables import (
    BREAKDOWN_TITLES,
    Rows,
    breakdown_table,
    change_table,
    difference_table,
    existence_errors_table,
    figures_table,
    percent,
    won_table,
)
from formats.files import atomic_write

PAGE = "index.html"
PUBLISHED = "docs/results.md"
VISIBLE, HIDDEN = "object visible", "object not visible"


class Table(NamedTuple):
    rows: Rows
    caption: str = ""
    wraps: bool = False  # holds long texts


class Card(NamedTuple):
    """A picture of a gallery."""

    picture: str  # its path
    title: str
    caption: str
    iou: float | None  # in percent
    values: dict[str, float | str]  # what it can be sorted by; "" always comes last
    kinds: list[str]  # what the gallery can be limited to


class Gallery(NamedTuple):
    cards: list[Card]
    wide: bool = False

    @property
    def kinds(self) -> list[str]:
        return sorted({kind for card in self.cards for kind in card.kinds})


class Section(NamedTuple):
    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    plots: Captioned = ()
    gallery: Gallery | None = None


def write_page(folder: Path, title: str, lead: str, warnings: Sequence[str], sections: Sequence[Section]) -> Path:
    """Write the page, with style and script inside, and return its path."""
    loader = FileSystemLoader(Path(__file__).parent / "web")
    template = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(
        "page.html"
    )
    with atomic_write(folder / PAGE) as file:
        file.write(template.render(title=title, lead=lead, warnings=warnings, sections=sections))
    return folder / PAGE


def report_sections(summary: dict[str, Any], plots: Captioned, cards: list[Card]) -> list[Section]:
    """The page of one results file."""
    header, *figures = figures_table(summary)
    official, others = figures[: len(OFFICIAL)], figures[len(OFFICIAL) :]
    return [
        Section("The benchmark's numbers", f"What others publish: {PUBLISHED}.", [Table([header, *official])]),
        Section(
            "Cases",
            "Query, prediction and truth, spread evenly from the best to the worst case, and those where the object is "
            "not visible and the existence highest. Dashed: said not to be visible. A picture opens at full size.",
            gallery=Gallery(cards),
        ),
        Section(
            "Beyond the benchmark",
            "None of these is part of the official evaluation.",
            [Table([header[:3], *(row[:3] for row in others)])],
        ),
        Section(
            "Missed and invented objects",
            "Missed: visible in the target view, and said not to be. Invented: the reverse. The most missed first.",
            [Table(existence_errors_table(summary["breakdown"]["object"]))],
        ),
        Section("Plots", plots=plots),
        *(
            Section(f"By {BREAKDOWN_TITLES.get(kind, kind)}", tables=[Table(breakdown_table(groups))])
            for kind, groups in summary["breakdown"].items()
            if len(groups) > 1
        ),
        provenance_section(summary["provenance"]),
    ]


def comparison_sections(comparison: dict[str, Any], plots: Captioned, cards: list[Card]) -> list[Section]:
    """The page of several results files."""
    first, others = comparison["first"], comparison["comparisons"]
    names = comparison["names"]
    sections = [Section("Differences", tables=[Table(difference_table(first, other)) for other in others])]
    if cards:
        note = (
            "The cases on which the files are furthest apart, side by side; each file is the best in as many. A fifth "
            "are objects that are not visible and that only some files say to be. Dashed: said not to be visible."
        )
        sections.append(Section("Disagreements", note, gallery=Gallery(cards, wide=len(names) > 2)))
    sections.append(Section("Takes won", "By size of the true mask.", [Table(won_table(comparison))]))
    if plots:
        sections.append(Section("Plots", plots=plots))
    for kind, groups in others[0]["by"].items():
        if len(groups) > 1:
            tables = [Table(change_table(other["by"][kind]), f"{other['second']} - {first}") for other in others]
            note = "The largest change of IoU first. Arrow up: better."
            if others[0]["metrics"]["iou"]["interval_95"][0] is not None:
                note += " In brackets: 95 % of resamples of the takes."
            sections.append(Section(f"By {BREAKDOWN_TITLES.get(kind, kind)}", note, tables))
    return [*sections, provenance_section(comparison["provenance"])]


def provenance_section(made: dict[str, Any]) -> Section:
    """How the predictions, a column per results file, and the page were made."""
    predictions, page = made["predictions"], made["evaluation"]
    rows = [(name, *(one[name] or "unknown" for one in predictions)) for name in predictions[0] if name != "results"]
    return Section(
        "How this was made",
        tables=[
            Table([("predictions", *(one["results"] for one in predictions)), *rows], wraps=True),
            Table([("this page", ""), *((name, value or "unknown") for name, value in page.items())], wraps=True),
        ],
    )


def report_card(case: Case, picture: str, take_name: str) -> Card:
    """The card of a case; `picture` is its path."""
    kinds = [VISIBLE if case.visible else HIDDEN]
    if case.predicted_visible != case.visible:
        kinds.append("not visible, said to be" if case.predicted_visible else "visible, said to be not")
    if case.visible and case.mask.predicted_pixels == 0:
        kinds.append("visible, empty mask")
    if case.visible and case.mask.right_object == 0:
        kinds.append("visible, not the right object")
    iou = 100 * case.mask.iou if case.visible else None
    size = case.mask.truth_pixels if case.visible else ""
    values = {"IoU": "" if iou is None else iou, "existence": case.existence, "object size": size}
    caption = f"{_place(case, take_name)}: {iou_text(case)}, existence {100 * case.existence:.0f} %"
    return Card(picture, case.object_name.strip(), caption, iou, values, kinds)


def change_card(cases: Sequence[Case], picture: str, names: Sequence[str], take_name: str) -> Card:
    """The same for a case in several results files."""
    first, last = cases[0], cases[-1]
    kinds = [VISIBLE if first.visible else HIDDEN, f"{names[best_file(cases)]} is best"]
    if len({case.predicted_visible for case in cases}) > 1:
        kinds.append("existence: files disagree")
    iou, change, size = None, "", ""
    if first.visible:
        if len({case.mask.right_object for case in cases if not math.isnan(case.mask.right_object)}) > 1:
            kinds.append("right object: files disagree")
        what, numbers = "IoU (%)", (case.mask.iou for case in cases)
        iou, change, size = 100 * first.mask.iou, last.mask.iou - first.mask.iou, first.mask.truth_pixels
    else:
        what, numbers = "not visible; existence (%)", (case.existence for case in cases)
    values = {"distance": apart(cases), "change from first to last file": change, "object size": size}
    scores = ", ".join(f"{name} {percent(number)}" for name, number in zip(names, numbers, strict=True))
    caption = f"{_place(first, take_name)}: {what} {scores}"
    return Card(picture, first.object_name.strip(), caption, iou, values, kinds)


def _place(case: Case, take_name: str) -> str:
    return f"{take_name}, {case.query_camera} to {case.target_camera}, frame {case.frame}"
