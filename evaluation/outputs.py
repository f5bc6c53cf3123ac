"""What the scripts print and write: tables of figures, CSV files, metrics.json.

A table is a list of rows of text, its header first, a row's label in the first column; scripts print it and pages show
it.
"""

import contextlib
import csv
import gzip
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import MALFORMED, UserError, counted
from common.files import atomic_write, claimed, read_json, remove_leftovers, write_json
from common.provenance import provenance
from evaluation.metrics import COLUMNS, METRICS, OFFICIAL, MaskScores
from evaluation.score import Case, SplitScores
from evaluation.summary import summarize_scores
from formats.results import results_path

Rows = list[Sequence[str]]
RESULTS_DIR = Path(__file__).resolve().parents[1] / "results"  # where eval_segswap.py writes
RUN_RECORD = ("checkpoint", "checkpoint_sha256", "precision", "date", "command", "commit")  # of the predictions
PAPER = {  # this network as the benchmark's authors trained it, on their v2 test split; docs/results.md has the others
    "ego-exo": {"iou": 0.1899, "location_error": 0.070, "contour_accuracy": 0.386, "balanced_accuracy": 0.6631},
    "exo-ego": {"iou": 0.2714, "location_error": 0.104, "contour_accuracy": 0.358, "balanced_accuracy": 0.8201},
}
PAPER_TAKES = 295  # of that split
PRINTED_BREAKDOWNS = ("scenario", "object size", "visibility", "query camera", "target camera")
BREAKDOWN_TITLES = {  # where they differ from the name
    "object size": "share of the target image that the object covers",
    "visibility": "visibility in the target view",
}
OUTPUT_FILES = ("metrics.json", "breakdown.csv", "cases.csv")
GROUP_COLUMNS = ("label", "frames", "visible", "missed", "invented", "frames_several_objects", "right_object_chance")
CASE_COLUMNS = ("take_uid", "object_name", "query_camera", "target_camera", "frame")  # Case.key
NO_DIFFERENCE = {"first": None, "second": None, "difference": None, "interval_95": [None, None]}
PREDICTED_COLUMNS = ("visible", "confidence", *MaskScores._fields)  # of a case in one results file


def format_table(rows: Rows) -> list[str]:
    """Aligned columns for the terminal: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def format_summary(summary: dict[str, Any]) -> str:
    """What evaluate.py prints of a results file: the figures, their intervals, the breakdowns."""
    scored, wanted = summary["frames_scored"], summary["frames_wanted"]
    lines = [headline(summary)]
    if scored < wanted:
        lines.append(f"INCOMPLETE: predictions for {wanted - scored:,} of {wanted:,} frames are missing")
    made = summary["provenance"]["predictions"][0]
    recorded = (f"{name} {made[name] or 'unknown'}" for name in ("checkpoint", "checkpoint_sha256", "precision"))
    lines += [", ".join(recorded), "", *format_table(figures_table(summary))]
    lines.append("* not part of the benchmark; intervals: takes drawn with replacement")
    visible, hidden = summary["frames_visible"], scored - summary["frames_visible"]
    missed, invented = (sum(group[name] for group in summary["breakdown"]["take"]) for name in ("missed", "invented"))
    lines.append(f"* {missed:,} of {visible:,} visible objects missed, {invented:,} of {hidden:,} hidden ones invented")
    for kind in PRINTED_BREAKDOWNS:
        groups = summary["breakdown"][kind]
        if len(groups) > 1:
            lines += ["", f"* by {BREAKDOWN_TITLES.get(kind, kind)}", *format_table(breakdown_table(groups))]
    return "\n".join(lines)


def headline(summary: dict[str, Any]) -> str:
    takes, frames = counted(summary["takes"], "take"), counted(summary["frames_scored"], "frame")
    visible = f"{summary['frames_visible']:,} of them with a visible target"
    return f"{summary['setting']}, {split_title(summary['split'])}: {takes}, {frames} scored, {visible}"


def split_title(split: str | None) -> str:
    return f"split {split}" if split else "split unknown"


def as_shown(values: dict[str, Any], nothing: Any = None) -> dict[str, Any]:
    """Values by metric as they are printed: no balanced accuracy where the target is visible in all frames, or in none.

    The benchmark, and with it metrics.json, then counts the only kind that occurs: always saying the same scores 100.
    `nothing` is what a value is that does not exist.
    """
    one_kind = nothing in (values["missed_existence"], values["false_existence"])
    return {**values, "balanced_accuracy": nothing} if one_kind else values


def figures_table(summary: dict[str, Any]) -> Rows:
    """All figures of a results file: a row for each of METRICS, in their order, then other means.

    The paper's figures stand beside them only if all takes of its test split were scored.
    """
    paper = PAPER[summary["setting"]] if (summary["split"], summary["takes"]) == ("test", PAPER_TAKES) else None
    rows: Rows = [("", "value", "95 % interval", *(["paper (v2 test)"] if paper else []))]
    values = as_shown({**summary["official"], **summary["extra"]})
    for name, metric in METRICS.items():
        title = metric.heading
        if name == "right_object":
            frames, chance = summary["frames_several_objects"], percent(summary["right_object_chance"])
            title += f", in {frames:,} frames with several objects, chance {chance}"
        span = interval(name, summary["interval_95"][name]) if values[name] is not None else ""
        rows.append((title, metric.show(values[name]), span or "-", *([metric.show(paper.get(name))] if paper else [])))
    empty = [""] * (len(rows[0]) - 2)
    for unit in ("takes", "objects"):
        for name in ("iou", "contour_accuracy"):
            text = METRICS[name].show(summary[f"mean_over_{unit}"][name])
            rows.append((f"* {METRICS[name].heading}, mean over {unit}", text, *empty))
    return rows


def breakdown_table(groups: Sequence[dict[str, Any]]) -> Rows:
    rows: Rows = [("", "frames", "visible", *(METRICS[name].heading for name in COLUMNS))]
    for group in groups:
        shown = as_shown(group)
        values = (METRICS[name].show(shown[name]) for name in COLUMNS)
        rows.append((group["label"], f"{group['frames']:,}", f"{group['visible']:,}", *values))
    return rows


def existence_errors_table(groups: Sequence[dict[str, Any]]) -> Rows:
    """The groups of a breakdown in which objects were missed or invented, the most missed first."""
    rows: Rows = [("", "frames", "visible", "missed", "not visible", "invented")]
    for group in sorted(groups, key=lambda group: (-group["missed"], -group["invented"])):
        if group["missed"] or group["invented"]:
            counts = (group["visible"], group["missed"], group["frames"] - group["visible"], group["invented"])
            rows.append((group["label"], f"{group['frames']:,}", *(f"{count:,}" for count in counts)))
    return rows


def format_protocols(protocols: dict[str, dict[str, Any]], all_frames: bool = False) -> str:
    """The same predictions under each rule; see evaluation/protocols.py. Only the benchmark's own stands unmarked."""
    rows: Rows = [("", *(METRICS[name].heading for name in OFFICIAL), "mean over")]
    for name, figures in protocols.items():
        star = "" if name == "official" and not all_frames else "* "
        values = (METRICS[metric].show(figures[metric]) for metric in OFFICIAL)
        rows.append((star + name, *values, f"{figures['count']:,} {figures['averaged_over']}"))
    return "\n".join([*format_table(rows), "* not the benchmark's rule; docs/protocols.md says what each does"])


def difference_table(first: str, other: dict[str, Any]) -> Rows:
    """How a results file differs from the one called `first`; `other` is an item of comparison.json's comparisons."""
    rows: Rows = [("", first, other["second"], "difference", "95 % interval", f"{other['second']} is")]
    for name, found in as_shown(other["metrics"], NO_DIFFERENCE).items():
        metric, change = METRICS[name], found["difference"]
        cells = [metric.show(found["first"]), metric.show(found["second"]), metric.show(change, "+")]
        cells += [interval(name, found["interval_95"], "+") or "-", verdict(name, found)]
        rows.append((metric.heading, *cells))
    return rows


def won_table(comparison: dict[str, Any]) -> Rows:
    """In which share of the takes each file has the highest IoU, and in how many; all sizes, then each size."""
    rows: Rows = [("* takes in which each has the highest IoU (%)", "takes", *comparison["names"], "tied")]
    for size, found in comparison["takes_won"].items():
        won = (f"{percent(share)} ({count})" for share, count in zip(found["share"], found["won"], strict=True))
        rows.append((size, f"{found['takes']:,}", *won, str(found["tied"])))
    return rows


def change_table(groups: dict[str, dict[str, Any]], title: str = "") -> Rows:
    """The differences of each group of a comparison with intervals, the largest change of IoU, up or down, first.

    An arrow points up where the second file is better.
    """
    rows: Rows = [(title, *(METRICS[name].heading for name in COLUMNS))]
    for label, found in sorted(groups.items(), key=lambda item: -abs(item[1]["iou"]["difference"] or 0)):
        cells, found = [label], as_shown(found, NO_DIFFERENCE)
        for name in COLUMNS:
            change, span = found[name]["difference"], interval(name, found[name]["interval_95"], "+")
            arrow = {"better": " ▲", "worse": " ▼", "": ""}[METRICS[name].verdict(change)]
            cells.append(METRICS[name].show(change, "+") + arrow + (f" [{span}]" if span else ""))
        rows.append(cells)
    return rows


def verdict(name: str, found: dict[str, Any]) -> str:
    """Whether the second file is better or worse, "uncertain" if its interval holds 0; "-" if there is no interval."""
    (low, high), change = found["interval_95"], METRICS[name].verdict(found["difference"])
    if low is None or not change:
        return "-"
    return change if low > 0 or high < 0 else f"{change}, uncertain"


def interval(name: str, edges: Sequence[float | None], sign: str = "") -> str:
    """Both edges as the metric is shown; empty if there is no interval."""
    return "" if edges[0] is None else " to ".join(METRICS[name].show(edge, sign) for edge in edges)


def percent(value: float | None) -> str:
    return METRICS["iou"].show(value)


def default_results(setting: str, split: str | None) -> Path:
    """Where eval_segswap.py leaves the results by default."""
    if split is None:
        raise UserError("--gt_file does not say of which split it is; name the results with --pred_file")
    return results_path(RESULTS_DIR, setting, split)


def beside(results: Path, what: str) -> Path:
    """`results/ego-exo_val_results.json` or `.json.gz` -> `results/ego-exo_val_{what}`."""
    stem = Path(results.name.removesuffix(".gz")).stem
    return results.with_name(f"{stem.removesuffix('_results')}_{what}")


def made_by(results: Path) -> dict[str, str | None]:
    """How a results file was made, as the run record that eval_segswap.py leaves beside it says; None: it does not.

    The record vouches for the bytes that it was written for, gzipped or not, and for no others under their name.
    """
    try:
        record = read_json(beside(results, "run.json"), "delete it")
        digest = hashlib.sha256()
        with gzip.open(results) if results.suffix == ".gz" else results.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        recorded = dict(record["provenance"]) if record["results_sha256"] == digest.hexdigest() else {}
    except (UserError, *MALFORMED, OSError, EOFError):  # none there, none of ours, or a folder of masks
        recorded = {}
    return {"results": str(results)} | {name: recorded.get(name) and str(recorded[name]) for name in RUN_RECORD}


def provenance_of(files: Sequence[Path]) -> dict[str, Any]:
    """How the predictions and the evaluation were made, for metrics.json, comparison.json and the pages."""
    return {"predictions": [made_by(path) for path in files], "evaluation": provenance()}


def summarize_file(path: Path, split: str | None, scores: SplitScores) -> dict[str, Any]:
    """All of metrics.json."""
    source = {"split": split, "results": str(path), "provenance": provenance_of([path])}
    return {**source, **summarize_scores(scores)}


@contextlib.contextmanager
def output_folder(folder: Path, what: str, names: Sequence[str]) -> Iterator[None]:
    """Claim `folder` and make room for the files `names` in it: those that `.{what}.json` lists, of an earlier run, go.

    Raises UserError, and touches nothing, if a file that is not listed is in the way.
    """
    listing, place = folder / f".{what}.json", folder.absolute()
    with claimed(place.parent, place.name, f"writes into {folder}"):
        ours = read_json(listing, "delete it") if listing.exists() else []
        for name in names:
            if name not in ours and (folder / name).exists():
                raise UserError(f"{folder / name} is of another origin and stays; delete it or name another --out")
        for path in (folder / name for name in {listing.name, *ours, *names}):
            remove_leftovers(path.parent, path.name)
        for name in ours:
            (folder / name).unlink(missing_ok=True)
        write_json(listing, list(names))  # before the files are there: a killed run leaves none that is not listed
        yield


def write_outputs(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> None:
    """metrics.json, breakdown.csv (a line per group) and cases.csv (a line per scored frame), each atomically."""
    header = (*GROUP_COLUMNS, *METRICS)
    breakdown = summary["breakdown"].items()
    rows = [(kind, *(group[name] for name in header)) for kind, groups in breakdown for group in groups]
    write_csv(folder / "breakdown.csv", ("by", *header), rows)
    write_cases(folder / "cases.csv", [""], [cases])
    write_json(folder / "metrics.json", summary, indent=1)


def write_cases(path: Path, names: Sequence[str], cases: Sequence[Sequence[Case]]) -> None:
    """A line per case, with the scores of each results file beside each other. `names` are those of the files."""
    columns = [f"{column} of {name}" if name else column for name in names for column in PREDICTED_COLUMNS]
    no_mask = (None,) * len(MaskScores._fields)
    rows = []
    for group in zip(*cases, strict=True):
        scores = (value for case in group for value in (case.visible, case.existence, *(case.mask or no_mask)))
        rows.append((*group[0].key, *scores))
    write_csv(path, (*CASE_COLUMNS, *columns), rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Values that do not exist (None, nan) are left empty; floats keep all their digits."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    return int(value) if isinstance(value, bool) else value
