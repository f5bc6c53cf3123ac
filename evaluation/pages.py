"""The page of an evaluation, which any browser opens from disk: the scored frames that it shows, their cards, sections.

A scored frame is a sequence of cases, one for each results file.
"""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from common.existence import verdict
from common.files import atomic_write
from evaluation.metrics import METRICS
from evaluation.score import Case
from evaluation.tables import BREAKDOWN_TITLES, breakdown_tables, headline, interval_note, score_tables

Frame = Sequence[Case]
PAGE = "index.html"
DISAGREEMENT = "disagreement"  # the order of the frames of several files
WITH_HIDDEN = ", and the cases of hidden objects with the highest existence"
CASE_ORDERS = {  # of the frames of one file, and which cases the page then shows
    "spread": f"spread evenly from the best to the worst{WITH_HIDDEN}",
    "best": f"the best{WITH_HIDDEN}",
    "worst": f"the worst{WITH_HIDDEN}",
    "random": "drawn at random",
}
DISAGREEING = "on which the files differ most, in IoU, or in existence if the object is hidden; "
DISAGREEING += "each file is the best one in the same number of them"
STARS = "A star marks a score that is not part of the benchmark. docs/published_results.csv has published scores."
SHOWN = "Each picture shows the query, the {} and the true mask: cases {}. A dashed outline means that the object is "
SHOWN += "predicted hidden. Click a picture to see it at full size."
SCORED_GROUPS = "Missed: the object is visible and was predicted hidden. Invented: the object is hidden and was "
SCORED_GROUPS += "predicted visible. Click the head of a column to sort by it."
COMPARED_GROUPS = "The largest change of IoU comes first. An arrow up means better. Brackets hold the 95 % interval, "
COMPARED_GROUPS += "if any."


def choose_frames(frames: Sequence[Frame], order: str, number: int, with_hidden: bool = False) -> list[Frame]:
    """Choose `number` frames. The `order` DISAGREEMENT takes those in which the files differ most, and as many that
    each file wins, if there are enough; a key of CASE_ORDERS ranks them by the first file's IoU. Unless this is random,
    objects are visible; `with_hidden` then adds a fifth more frames in which they are not, of the highest existence.

    Frames of a track look alike, so every track gets a frame before a track gets a second one.
    """
    if order == DISAGREEMENT:
        furthest = sorted(filter(disagreement, frames), key=disagreement, reverse=True)
        by_track = round_robin(furthest, lambda frame: frame[0].track)
        by_file = round_robin(by_track, lambda frame: best_files(frame)[0])
        return sorted(by_file[:number], key=disagreement, reverse=True)
    if order == "random":
        ranked = random.Random(0).sample(frames, len(frames))
    else:
        scored = [(case.scores.iou, frame) for frame in frames for case in frame[:1] if case.scores]
        ranked = [frame for _, frame in sorted(scored, key=lambda pair: pair[0], reverse=order != "worst")]
    if order == "spread" and len(ranked) > number > 1:
        chosen = [ranked[round(place * (len(ranked) - 1) / (number - 1))] for place in range(number)]
    else:
        chosen = round_robin(ranked, lambda frame: frame[0].track)[:number]
    if with_hidden and order != "random":
        hidden = sorted((frame for frame in frames if not frame[0].visible), key=lambda frame: -frame[0].existence)
        chosen += hidden[: min(number, max(1, number // 5))]
    return chosen


def disagreement(frame: Frame) -> float:
    """The largest difference between the files in a frame: of IoU, or of existence if the object is not visible."""
    values = [case.scores.iou if case.scores else case.existence for case in frame]
    return max(values) - min(values)


def best_files(frame: Frame) -> list[int]:
    """The files that are best in a frame: of the highest IoU, or the lowest existence if the object is not visible."""
    values = [case.scores.iou if case.scores else -case.existence for case in frame]
    return [number for number, value in enumerate(values) if value == max(values)]


def round_robin(ranked: Iterable[Any], key: Callable[[Any], Hashable]) -> list[Any]:
    """Reorder ranked items: the first item of each key, then the second item of each key, and so on, each by rank."""
    turns: Counter = Counter()
    numbered = []
    for item in ranked:
        numbered.append((turns[key(item)], item))
        turns[key(item)] += 1
    return [item for _, item in sorted(numbered, key=lambda pair: pair[0])]


def make_card(frame: Frame, number: int, names: Sequence[str], takes: Mapping[str, str]) -> dict[str, Any]:
    """The card of a frame for page.html, with the path of its picture. `names` are those of the files, `takes` by uid
    those of the takes. Cards can be sorted by the values of "orders" ("" comes last) and chosen by "kinds".
    """
    case, last = frame[0], frame[-1]
    kinds, scores = ["object visible" if case.visible else "object hidden"], case.scores
    if len(frame) > 1:
        kinds += [f"{names[number]} is best" for number in best_files(frame)]
        if len({case.predicted_visible for case in frame}) > 1:
            kinds.append("existence: files disagree")
        change = last.scores.iou - scores.iou if scores and last.scores else ""
        orders: dict[str, Any] = {"distance": disagreement(frame), "change from first to last file": change}
        values = [METRICS["iou"].as_text(case.scores.iou if case.scores else case.existence) for case in frame]
        score_text = "IoU (%) " if scores else "hidden; existence (%) "
        score_text += ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
    else:
        if case.predicted_visible != case.visible:
            kinds.append("hidden, predicted visible" if case.predicted_visible else "visible, predicted hidden")
        if scores and scores.predicted_pixels == 0:
            kinds.append("visible, empty mask")
        if scores and scores.right_object == 0:
            kinds.append("visible, wrong object")
        orders = {"IoU": 100 * scores.iou if scores else "", "existence": case.existence}
        score_text = f"{case.iou_text}, said {verdict(case.existence)}"
    orders["object size"] = scores.truth_pixels if scores else ""
    place = f"{takes[case.take_uid]}, {case.query_camera} to {case.target_camera}, frame {case.frame}"
    text = {"title": case.object_name.strip(), "caption": f"{place}: {score_text}", "take_uid": case.take_uid}
    return {"picture": f"pictures/{number:04d}.jpg", **text, "orders": orders, "kinds": kinds}


def write_page(folder: Path, figures: dict[str, Any], warnings: Sequence[str], cards: list[dict], order: str) -> None:
    """Write the page with its style and script. `figures` is the content of metrics.json or comparison.json; `order` is
    the order of `choose_frames`. A section is left out if it has no cards and only one-row tables.
    """
    sections = make_sections(figures, cards, order)
    sections = [section for section in sections if section["cards"] or any(len(rows) > 2 for rows in section["tables"])]
    lead = headline(figures)
    if order == DISAGREEMENT:
        title = " against ".join(figures["names"])
    else:
        title = f"Object correspondence, {lead.partition(':')[0]}"
        lead += f"; results of {Path(figures['results']).name}"
    loader = FileSystemLoader(Path(__file__).parent / "web")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("page.html")
    with atomic_write(folder / PAGE) as file:
        file.write(page.render(title=title, lead=lead, warnings=warnings, sections=sections, wide="names" in figures))


def make_sections(figures: dict[str, Any], cards: list[dict], order: str) -> list[dict[str, Any]]:
    """The sections of the page: scores, cards, breakdowns."""
    if order == DISAGREEMENT:
        titles, kinds, predictions = ("Differences", "Disagreements"), figures["comparisons"][0]["by"], "predictions"
        chosen, groups = DISAGREEING, COMPARED_GROUPS
    else:
        titles, kinds, predictions = ("Scores", "Cases"), figures["breakdown"], "prediction"
        chosen, groups = CASE_ORDERS[order], SCORED_GROUPS
    scores, shown = f"{STARS} {interval_note(figures).capitalize()}.", SHOWN.format(predictions, chosen)
    sections = [(titles[0], scores, score_tables(figures), []), (titles[1], shown, [], cards)]
    for kind in kinds:
        title = BREAKDOWN_TITLES.get(kind, f"by {kind}").capitalize()
        sections.append((title, groups, breakdown_tables(figures, kind), []))
    return [dict(zip(("title", "note", "tables", "cards"), section, strict=True)) for section in sections]
