"""The pages that open from disk in any browser: a list of sections, which web/page.html shows in their order."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from common.files import atomic_write
from evaluation.case_pictures import iou_text
from evaluation.metrics import OFFICIAL
from evaluation.score import Case
from evaluation.selection import CASE_ORDERS, apart, best_files
from evaluation.tables import (
    BREAKDOWN_TITLES,
    Rows,
    breakdown_table,
    change_table,
    difference_table,
    figures_table,
    interval_note,
    percent,
    won_table,
)

PAGE = "index.html"
VISIBLE, HIDDEN = "object visible", "object not visible"


def write_page(folder: Path, title: str, lead: str, warnings: Sequence[str], sections: Sequence[dict]) -> None:
    """Write the page, with style and script inside. Left out are sections with nothing but tables of a single row."""
    shown = [one for one in sections if one["cards"] or one["plots"] or any(len(rows) > 2 for rows in one["tables"])]
    loader = FileSystemLoader(Path(__file__).parent / "web")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.get_template("page.html")
    with atomic_write(folder / PAGE) as file:
        file.write(template.render(title=title, lead=lead, warnings=warnings, sections=shown))


def report_sections(summary: dict[str, Any], plots: dict[str, str], cards: list[dict], order: str) -> list[dict]:
    """The page of one results file; `order` is how its cases were chosen."""
    header, *figures = figures_table(summary)
    official, others = figures[: len(OFFICIAL)], figures[len(OFFICIAL) :]
    hidden = "" if order == "random" else ", and those where the object is not visible and the existence highest"
    cases = (
        f"Query, prediction and truth: cases {CASE_ORDERS[order]}{hidden}. Dashed: said not to be visible. A picture "
        "opens at full size."
    )
    missed = "Missed: visible, and said not to be. Invented: the reverse. A click on a column's head sorts by it."
    breakdown = summary["breakdown"]
    benchmark = f"What others publish: docs/evaluation.md. {interval_note(len(breakdown['take'])).capitalize()}."
    return [
        section("The benchmark's numbers", [header, *official], note=benchmark),
        section("Cases", note=cases, cards=cards),
        section("Beyond the benchmark", [header, *others], note="None of these is part of the official evaluation."),
        section("Plots", plots=plots),
        *(section(by_title(kind), breakdown_table(groups), note=missed) for kind, groups in breakdown.items()),
        provenance_section(summary["provenance"], [Path(summary["results"]).name]),
    ]


def comparison_sections(comparison: dict[str, Any], plots: dict[str, str], cards: list[dict]) -> list[dict]:
    """The page of several results files."""
    first, others = comparison["first"], comparison["comparisons"]
    tables = (difference_table(first, other) for other in others)
    furthest = (
        "The cases on which the files are furthest apart in IoU, or in existence where the object is not visible; each "
        "file is the best in as many as the others. Dashed: said not to be visible."
    )
    sections = [
        section("Differences", *tables, note=f"{interval_note(comparison['takes_compared']).capitalize()}."),
        section("Disagreements", note=furthest, cards=cards, wide=len(comparison["names"]) > 2),
        section("Takes won", won_table(comparison), note="By size of the true mask."),
        section("Plots", plots=plots),
    ]
    note = "The largest change of IoU first. Arrow up: better. In brackets: 95 % intervals, where there are any."
    for kind in others[0]["by"]:
        tables = (change_table(other["by"][kind], f"{other['second']} - {first}") for other in others)
        sections.append(section(by_title(kind), *tables, note=note))
    return [*sections, provenance_section(comparison["provenance"], comparison["names"])]


def section(title: str, *tables: Rows, **more: Any) -> dict[str, Any]:
    """A section as page.html shows it; `more`: note, plots (path -> caption), cards, whether these are wide."""
    kinds = sorted({kind for card in more.get("cards", ()) for kind in card["kinds"]})
    return {"title": title, "note": "", "tables": tables, "plots": {}, "cards": [], "kinds": kinds, **more}


def by_title(kind: str) -> str:
    return f"By {BREAKDOWN_TITLES.get(kind, kind)}"


def provenance_section(made: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """How the predictions, a column per results file, and the page were made."""
    predictions = made["predictions"]
    rows = [("predictions", *names)]
    rows += [(name, *(one[name] or "unknown" for one in predictions)) for name in predictions[0] if name != "results"]
    page = [("this page", ""), *((name, value or "unknown") for name, value in made["evaluation"].items())]
    return section("How this was made", rows, page)


def report_card(case: Case, picture: str, take_name: str) -> dict[str, Any]:
    """The card of a case; `picture` is its path."""
    kinds = [VISIBLE if case.visible else HIDDEN]
    if case.predicted_visible != case.visible:
        kinds.append("not visible, said to be" if case.predicted_visible else "visible, said to be not")
    if case.visible and case.mask.predicted_pixels == 0:
        kinds.append("visible, empty mask")
    if case.visible and case.mask.right_object == 0:
        kinds.append("visible, not the right object")
    values = {"IoU": "", "existence": case.existence, "object size": ""}
    if case.visible:
        values |= {"IoU": 100 * case.mask.iou, "object size": case.mask.truth_pixels}
    scores = f"{iou_text(case)}, existence {100 * case.existence:.0f} %"
    return card(case, picture, take_name, scores, values, kinds)


def change_card(cases: Sequence[Case], picture: str, names: Sequence[str], take_name: str) -> dict[str, Any]:
    """The same for a case in several results files."""
    first, last = cases[0], cases[-1]
    kinds = [VISIBLE if first.visible else HIDDEN, *(f"{names[number]} is best" for number in best_files(cases))]
    if len({case.predicted_visible for case in cases}) > 1:
        kinds.append("existence: files disagree")
    values = {"distance": apart(cases), "change from first to last file": "", "object size": ""}
    if first.visible:
        what, numbers = "IoU (%)", (case.mask.iou for case in cases)
        change = last.mask.iou - first.mask.iou
        values |= {"change from first to last file": change, "object size": first.mask.truth_pixels}
    else:
        what, numbers = "not visible; existence (%)", (case.existence for case in cases)
    scores = ", ".join(f"{name} {percent(number)}" for name, number in zip(names, numbers, strict=True))
    return card(first, picture, take_name, f"{what} {scores}", values, kinds)


def card(case: Case, picture: str, take_name: str, scores: str, values: dict, kinds: list[str]) -> dict[str, Any]:
    """`values` are what cards can be sorted by, "" always last; `kinds` what they can be limited to."""
    place = f"{take_name}, {case.query_camera} to {case.target_camera}, frame {case.frame}"
    return {
        "picture": picture,
        "title": case.object_name.strip(),
        "caption": f"{place}: {scores}",
        "iou": 100 * case.mask.iou if case.visible else "",
        "orders": values,
        "kinds": kinds,
    }
