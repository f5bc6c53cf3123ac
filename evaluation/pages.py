"""Pages that any browser opens from disk. A page is a list of sections, which web/page.html shows in their order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from common.files import atomic_write
from evaluation.case_pictures import iou_text
from evaluation.score import Case
from evaluation.selection import CASE_ORDERS, best_files, disagreement
from evaluation.tables import (
    BREAKDOWN_TITLES,
    Rows,
    breakdown_table,
    change_table,
    difference_table,
    figures_table,
    interval_note,
    percent,
)
from formats.results import verdict

PAGE = "index.html"
VISIBLE, HIDDEN = "object visible", "object hidden"


def write_page(folder: Path, title: str, lead: str, warnings: Sequence[str], sections: Sequence[dict]) -> None:
    """Write the page with its style and script. A section is left out if it has no cards and only one-row tables."""
    sections = [section for section in sections if section["cards"] or any(len(rows) > 2 for rows in section["tables"])]
    loader = FileSystemLoader(Path(__file__).parent / "web")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("page.html")
    with atomic_write(folder / PAGE) as file:
        file.write(template.render(title=title, lead=lead, warnings=warnings, sections=sections))


def report_sections(summary: dict[str, Any], cards: list[dict], order: str) -> list[dict]:
    """The sections of the page of one results file; `order` is the key of CASE_ORDERS by which cases were chosen."""
    breakdown = summary["breakdown"]
    figures = (
        "A star marks a score that is not part of the benchmark. docs/published_results.csv has published scores. "
        f"{interval_note(len(breakdown['take'])).capitalize()}."
    )
    hidden = "" if order == "random" else ", and the cases of hidden objects with the highest existence"
    cases = (
        f"Each picture shows the query, the prediction and the true mask: cases {CASE_ORDERS[order]}{hidden}. "
        "A dashed outline means that the object is predicted hidden. Click a picture to see it at full size."
    )
    missed = (
        "Missed: the object is visible and was predicted hidden. Invented: the object is hidden and was predicted "
        "visible. Click the head of a column to sort by it."
    )
    return [
        make_section("Scores", figures_table(summary), note=figures),
        make_section("Cases", note=cases, cards=cards),
        *(
            make_section(breakdown_title(kind), breakdown_table(groups), note=missed)
            for kind, groups in breakdown.items()
        ),
    ]


def comparison_sections(comparison: dict[str, Any], cards: list[dict]) -> list[dict]:
    """The sections of the page that compares several results files."""
    first, others = comparison["first"], comparison["comparisons"]
    tables = (difference_table(first, other) for other in others)
    furthest = (
        "These are the cases on which the files differ most: in IoU, or in existence if the object is hidden. Each "
        "file is the best one in the same number of cases. A dashed outline means that the object is predicted hidden."
    )
    sections = [
        make_section("Differences", *tables, note=f"{interval_note(comparison['takes_compared']).capitalize()}."),
        make_section("Disagreements", note=furthest, cards=cards, wide=len(comparison["names"]) > 2),
    ]
    note = "The largest change of IoU comes first. An arrow up means better. Brackets hold the 95 % interval, if any."
    for kind in others[0]["by"]:
        tables = (change_table(other["by"][kind], f"{other['second']} - {first}") for other in others)
        sections.append(make_section(breakdown_title(kind), *tables, note=note))
    return sections


def make_section(
    title: str, *tables: Rows, note: str, cards: Sequence[dict] = (), wide: bool = False
) -> dict[str, Any]:
    """A section for page.html. If `wide`, its cards are in one column."""
    kinds = sorted({kind for card in cards for kind in card["kinds"]})
    return {"title": title, "note": note, "tables": tables, "cards": cards, "kinds": kinds, "wide": wide}


def breakdown_title(kind: str) -> str:
    return f"By {BREAKDOWN_TITLES.get(kind, kind)}"


def report_card(case: Case, picture: str, take_name: str) -> dict[str, Any]:
    """The card of a case; `picture` is the path of the card's picture."""
    kinds = [VISIBLE if case.visible else HIDDEN]
    if case.predicted_visible != case.visible:
        kinds.append("hidden, predicted visible" if case.predicted_visible else "visible, predicted hidden")
    if case.scores and case.scores.predicted_pixels == 0:
        kinds.append("visible, empty mask")
    if case.scores and case.scores.right_object == 0:
        kinds.append("visible, wrong object")
    orders = {"IoU": "", "existence": case.existence, "object size": ""}
    if case.scores:
        orders |= {"IoU": 100 * case.scores.iou, "object size": case.scores.truth_pixels}
    scores = f"{iou_text(case)}, said {verdict(case.existence)}"
    return make_card(case, picture, take_name, scores, orders, kinds)


def comparison_card(cases: Sequence[Case], picture: str, names: Sequence[str], take_name: str) -> dict[str, Any]:
    """The card of a case in several results files."""
    first, last = cases[0], cases[-1]
    kinds = [VISIBLE if first.visible else HIDDEN, *(f"{names[number]} is best" for number in best_files(cases))]
    if len({case.predicted_visible for case in cases}) > 1:
        kinds.append("existence: files disagree")
    orders = {"distance": disagreement(cases), "change from first to last file": "", "object size": ""}
    if first.scores and last.scores:
        score, values = "IoU (%)", (case.scores.iou for case in cases if case.scores)
        change = last.scores.iou - first.scores.iou
        orders |= {"change from first to last file": change, "object size": first.scores.truth_pixels}
    else:
        score, values = "hidden; existence (%)", (case.existence for case in cases)
    scores = ", ".join(f"{name} {percent(value)}" for name, value in zip(names, values, strict=True))
    return make_card(first, picture, take_name, f"{score} {scores}", orders, kinds)


def make_card(
    case: Case, picture: str, take_name: str, scores: str, orders: dict[str, Any], kinds: list[str]
) -> dict[str, Any]:
    """A card of the gallery, which can be sorted by the values of `orders` ("" comes last) and chosen by `kinds`."""
    place = f"{take_name}, {case.query_camera} to {case.target_camera}, frame {case.frame}"
    text = {"title": case.object_name.strip(), "caption": f"{place}: {scores}", "take_uid": case.take_uid}
    return {"picture": picture, **text, "orders": orders, "kinds": kinds}
