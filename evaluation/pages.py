"""The page of an evaluation, which any browser opens from disk: the cases that it shows, their cards, its sections.

Cases are (files, N) arrays of type CASE: a row for each of N pairs in each results file.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader

from common.constants import THRESHOLD
from common.drawing import write_picture
from common.files import atomic_write, output_folder, write_json
from common.progress import progress
from evaluation.case_pictures import draw_case, panel_styles, row_of_panels
from evaluation.figures import FIGURES_FILES, Figures
from evaluation.metrics import METRICS
from evaluation.score import ScoredFiles
from evaluation.tables import BREAKDOWN_TITLES, breakdown_tables, headline, interval_note, score_tables, write_cases
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
GROUPS += "visible. Brackets hold the 95 % interval; if it lacks 0, an arrow shows what is better (up) or worse. Click "
GROUPS += "the head of a column to sort by it."


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


def make_card(scored: ScoredFiles, row: int, take: str, number: int) -> dict[str, Any]:
    """The card of a case for page.html, with the path of its picture, which has this number. `take` is the take's name.
    Cards can be sorted by the values of "orders" ("" comes last) and chosen by "kinds".
    """
    names, pair, cases = scored.names, scored.pairs.named(row), scored.cases[:, row]
    case, iou, existence, goodness = cases[0], cases["iou"], cases["existence"], goodness_of(cases)
    visible, predicted = bool(case["visible"]), existence > THRESHOLD
    kinds = {"hidden, predicted visible": predicted.any() and not visible}
    kinds["visible, predicted hidden"] = visible and not predicted.all()
    kinds["visible, empty mask"] = visible and (cases["predicted_pixels"] == 0).any()
    kinds["visible, wrong object"] = visible and (cases["right_object"] == 0).any()
    orders: dict[str, Any] = {}
    if len(names) > 1:
        kinds |= {f"{name} is best": value == max(goodness) for name, value in zip(names, goodness, strict=True)}
        change = iou[-1] - iou[0] if visible else ""
        orders |= {"distance": np.ptp(goodness), "change from first to last file": change}
    orders |= {"IoU": 100 * iou[0] if visible else "", "existence": existence[0]}
    orders["object size"] = case["truth_pixels"] if visible else ""
    place = f"{take}, {pair.query_camera} to {pair.target_camera}, frame {pair.frame}"
    ious = [f"IoU {METRICS['iou'].as_text(value)} %" if visible else "not there" for value in iou]
    said = (f"{name} {text}, existence {x:.0%}".strip() for name, text, x in zip(names, ious, existence, strict=True))
    caption = f"{place}: {'; '.join(said)}"
    text = {"title": pair.object_name.strip(), "caption": caption, "take_uid": pair.take_uid}
    shown = ["object visible" if visible else "object hidden", *(kind for kind, is_kind in kinds.items() if is_kind)]
    orders = {name: value if value == "" else value.item() for name, value in orders.items()}
    return {"picture": f"{PICTURES}/{number:04d}.jpg", **text, "orders": orders, "kinds": shown}


def written_files(out: Path) -> list[Path]:
    """All that `write_evaluation` may write into a folder."""
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


def write_page(path: Path, figures: Figures, cards: list[dict], shown: str) -> None:
    """Write the page with its style and script."""
    sections = make_sections(figures, cards, shown)
    names, lead = figures.names or [Path(figures.results).name], headline(figures)
    title, lead = f"Object correspondence, {lead.partition(':')[0]}", f"{lead}; results of {' and '.join(names)}"
    loader = FileSystemLoader(Path(__file__).parent / "web")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("page.html")
    with atomic_write(path) as file:
        file.write(page.render(title=title, lead=lead, figures=figures, sections=sections))


def make_sections(figures: Figures, cards: list[dict], shown: str) -> list[dict[str, Any]]:
    """The sections of the page: scores, cards, breakdowns into several groups."""
    note = f"{STARS} {interval_note(figures).capitalize()}."
    sections = [{"title": "Scores", "note": note, "tables": score_tables(figures)}]
    sections += [{"title": "Cases", "note": SHOWN.format(shown), "cards": cards}] if cards else []
    for kind, groups in figures.summary.breakdown.items():
        if len(groups) > 1:
            title = BREAKDOWN_TITLES.get(kind, f"by {kind}").capitalize()
            sections.append({"title": title, "note": GROUPS, "tables": breakdown_tables(figures, kind)})
    return sections
