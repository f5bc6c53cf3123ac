"""The page of an evaluation, which any browser opens from disk: the cases that it shows, their cards, its sections.

Cases are (files, N) arrays of type CASE: a row for each of N pairs in each results file.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from common.constants import THRESHOLD
from common.drawing import write_picture
from common.errors import UserError, counted
from common.files import atomic_write, check_writable, output_folder, write_json
from common.progress import progress
from evaluation.case_pictures import draw_case, panel_styles, row_of_panels
from evaluation.figures import FIGURES_FILES, Figures
from evaluation.metrics import METRICS
from evaluation.score import ScoredFiles
from evaluation.tables import (
    BREAKDOWN_TITLES,
    breakdown_tables,
    headline,
    interval_note,
    made_with,
    score_tables,
    write_cases,
)
from formats.pairs import Pairs

PAGE, CASES, PICTURES = "index.html", "cases.csv", "pictures"
WITH_HIDDEN = ", and the cases of hidden objects with the highest existence"
CASE_ORDERS = {  # of the cases of one file, and which cases the page then shows
    "spread": f"spread evenly from the best to the worst{WITH_HIDDEN}",
    "best": f"the best{WITH_HIDDEN}",
    "worst": f"the worst{WITH_HIDDEN}",
    "random": "drawn at random",
}
DISAGREEING = "on which the files differ most, in IoU, or in existence if the object is hidden; "
DISAGREEING += "each file is the best one in the same number of them"
STARS = "A star marks a score that is not part of the benchmark. docs/published_results.csv has published scores."
SHOWN = "Each picture shows the query, what was predicted and the true mask: cases {}. A dashed outline means that the "
SHOWN += "object is predicted hidden. Click a picture to see it at full size."
GROUPS = "Missed: the object is visible and was predicted hidden. Invented: the object is hidden and was predicted "
GROUPS += "visible. Click the head of a column to sort by it."
CHANGES = "Brackets hold the 95 % interval; if it lacks 0, an arrow shows what is better (up) or worse."


def choose_rows(pairs: Pairs, cases: np.ndarray, order: str, number: int, with_hidden: bool = False) -> list[int]:
    """Choose the rows of `number` cases (N,) of a file, ranked by IoU. Unless the `order` is random, objects are
    visible; `with_hidden` then adds a fifth more in which they are not, of the highest existence.

    Frames of a track look alike, so every track gets a frame before a track gets a second one.
    """
    visible, track = cases["visible"], track_of(pairs)
    upward, downward = (np.argsort(sign * goodness_of(cases), kind="stable") for sign in (1, -1))
    if order == "random":
        ranked = random.Random(0).sample(range(len(pairs)), len(pairs))
    else:
        ranked = [row for row in (upward if order == "worst" else downward).tolist() if visible[row]]
    if order == "spread" and len(ranked) > number > 1:
        chosen = [ranked[round(place * (len(ranked) - 1) / (number - 1))] for place in range(number)]
    else:
        chosen = round_robin(ranked, track)[:number]
    if with_hidden and order != "random":
        hidden = [row for row in upward.tolist() if not visible[row]]  # of the highest existence first
        chosen += hidden[: min(number, max(1, number // 5))]
    return chosen


def choose_disagreements(pairs: Pairs, cases: np.ndarray, number: int) -> list[int]:
    """Choose the rows of `number` cases (files, N) in which the files differ most, and as many that each file wins, if
    there are enough.
    """
    goodness = goodness_of(cases)
    distance, best = np.ptp(goodness, 0), goodness.argmax(0)
    furthest = [row for row in np.argsort(-distance, kind="stable").tolist() if distance[row]]
    by_file = round_robin(round_robin(furthest, track_of(pairs)), best.__getitem__)
    return sorted(by_file[:number], key=lambda row: -distance[row])


def track_of(pairs: Pairs) -> Callable[[int], Hashable]:
    """A function from a row to its object in a pair of cameras."""
    columns = pairs.take, pairs.object, pairs.query, pairs.target
    return lambda row: tuple(column[row] for column in columns)


def goodness_of(cases: np.ndarray) -> np.ndarray:
    """How good the prediction of each case is: its IoU, or minus its existence if the object is not visible."""
    return np.where(cases["visible"], cases["iou"], -cases["existence"])


def round_robin(ranked: Iterable[int], key: Callable[[int], Hashable]) -> list[int]:
    """Reorder ranked rows: the first row of each key, then the second row of each key, and so on, each by rank."""
    turns: Counter = Counter()
    numbered = []
    for row in ranked:
        numbered.append((turns[key(row)], row))
        turns[key(row)] += 1
    return [row for _, row in sorted(numbered, key=lambda pair: pair[0])]


def make_cards(scored: ScoredFiles, rows: Sequence[int], take_names: Sequence[str]) -> dict[int, dict[str, Any]]:
    """By row, the cards of cases for page.html, with the paths of their pictures."""
    cards = {}
    for number, row in enumerate(rows):
        pair, cases, take = scored.pairs.named(row), scored.cases[:, row], take_names[scored.pairs.take[row]]
        said = []
        for name, case in zip(scored.names, cases, strict=True):
            found = f"IoU {METRICS['iou'].as_text(case['iou'])} %, " if case["visible"] else ""
            said.append(f"{name} {found}existence {case['existence']:.0%}".strip())
        place = f"{take}, {pair.query_camera} to {pair.target_camera}, frame {pair.frame}"
        place += "" if cases["visible"][0] else ", object hidden"
        cards[row] = {
            "picture": f"{PICTURES}/{number:04d}.jpg",
            "title": pair.object_name.strip(),
            "caption": f"{place}: {'; '.join(said)}",
            "take_uid": pair.take_uid,
            "orders": orders_of(cases),
            "kinds": kinds_of(scored.names, cases),
        }
    return cards


def orders_of(cases: np.ndarray) -> dict[str, Any]:
    """By what the page can sort a case, with its predictions (files,); "" comes last."""
    visible, iou, orders = cases["visible"][0], cases["iou"], {}
    if len(cases) > 1:
        orders["distance"] = np.ptp(goodness_of(cases)).item()
        orders["change from first to last file"] = (iou[-1] - iou[0]).item() if visible else ""
    orders["IoU"] = 100 * iou[0].item() if visible else ""
    orders["existence"] = cases["existence"][0].item()
    orders["object size"] = cases["truth_pixels"][0].item() if visible else ""
    return orders


def kinds_of(names: Sequence[str], cases: np.ndarray) -> list[str]:
    """By what the page can choose a case, with its predictions in the files `names`."""
    visible, predicted, goodness = cases["visible"][0], cases["existence"] > THRESHOLD, goodness_of(cases)
    kinds = {
        "object visible": visible,
        "object hidden": not visible,
        "hidden, predicted visible": not visible and predicted.any(),
        "visible, predicted hidden": visible and not predicted.all(),
        "visible, empty mask": visible and (cases["predicted_pixels"] == 0).any(),
        "visible, wrong object": visible and (cases["right_object"] == 0).any(),
    }
    if len(names) > 1:
        kinds |= {f"{name} is best": good == goodness.max() for name, good in zip(names, goodness, strict=True)}
    return [kind for kind, holds in kinds.items() if holds]


def pictures_shown(out: Path) -> list[Path]:
    """The pictures of cases on the page in a folder; none if there is no page."""
    page = (out / PAGE).read_text(errors="replace") if (out / PAGE).is_file() else ""
    return [out / name for name in re.findall(rf'href="({PICTURES}/\d+\.jpg)"', page)]


def files_to_write(out: Path, with_pictures: bool, is_comparison: bool) -> list[Path]:
    """All that `write_evaluation` may write into a folder. Raises UserError if this cannot be written to, or if the new
    page would take away pictures of cases without showing others, or the page of the other script.
    """
    check_writable(out)
    remedy, shown = "name another --out, or delete the folder", pictures_shown(out)
    if shown and not with_pictures:
        flag = "--num above 0" if is_comparison else "--report"
        raise UserError(f"{out / PAGE} shows {counted(len(shown), 'case')}, which would go; give {flag}, {remedy}")
    if (other := out / FIGURES_FILES[not is_comparison]).exists():
        script = "evaluate.py" if is_comparison else "compare.py"
        raise UserError(f"{other} and its page are of {script}; {remedy}")
    return [out / name for name in (PAGE, CASES, *FIGURES_FILES, PICTURES)]


def write_evaluation(out: Path, figures: Figures, scored: ScoredFiles, cards: Mapping[int, dict], shown: str) -> None:
    """Write the folder of an evaluation: the figures, the table of all cases, and the page with the pictures of the
    cases of `cards`, which are given by row. `shown` tells which cases these are.
    """
    with output_folder(out) as folder:
        for row, card in progress(cards.items(), "pictures", len(cards), "picture"):
            panels = draw_case(scored, row)
            write_picture(folder / card["picture"], row_of_panels(panels))
            card["panels"] = panel_styles(panels)
        write_json(folder / figures.file_name, figures.as_json(), indent=1)
        write_page(folder / PAGE, figures, [*cards.values()], shown)
        write_cases(folder / CASES, scored)
        for path in {*pictures_shown(out)} - {out / card["picture"] for card in cards.values()}:
            path.unlink(missing_ok=True)  # before the former page goes, which alone names them


def write_page(path: Path, figures: Figures, cards: list[dict], shown: str) -> None:
    """Write the page with its style and script."""
    sections = make_sections(figures, cards, shown)
    names, lead = figures.names or [Path(figures.results).name], headline(figures)
    title, lead = f"Object correspondence, {lead.partition(':')[0]}", f"{lead}; results of {' and '.join(names)}"
    loader = FileSystemLoader(Path(__file__).parent / "web")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["breakable"] = breakable
    page = environment.get_template("page.html")
    with atomic_write(path) as file:
        file.write(page.render(title=title, lead=lead, figures=figures, sections=sections))


def breakable(name: str) -> Markup:
    """A name in which a line may end behind each _ and /, and nowhere within a word."""
    return Markup("<wbr>").join(re.findall("[^_/]*[_/]+|[^_/]+", name))


def make_sections(figures: Figures, cards: list[dict], shown: str) -> list[dict[str, Any]]:
    """The sections of the page: scores, cards, breakdowns into several groups."""
    note = " ".join(
        [f"{STARS} {interval_note(figures).capitalize()}.", *map("Made with {}.".format, made_with(figures))]
    )
    sections = [{"title": "Scores", "note": note, "tables": score_tables(figures)}]
    sections += [{"title": "Cases", "note": SHOWN.format(shown), "cards": cards}] if cards else []
    groups_note = f"{GROUPS} {CHANGES}" if figures.comparisons else GROUPS
    for kind, groups in figures.summary.breakdown.items():
        if len(groups) > 1:
            title = BREAKDOWN_TITLES.get(kind, f"by {kind}").capitalize()
            sections.append({"title": title, "note": groups_note, "tables": breakdown_tables(figures, kind)})
    return sections
