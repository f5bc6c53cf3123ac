"""The files that the scripts write. Names in them come from files of others: a CSV cell never begins as a formula."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics import METRICS, MaskScores
from evaluation.score import Case
from formats.errors import UserError, printable
from formats.files import atomic_write, is_file_name, read_json, remove_leftovers, write_json

OUTPUT_FILES = ("metrics.json", "breakdown.csv", "cases.csv")
GROUP_COLUMNS = ("label", "frames", "visible", "missed", "invented", "frames_several_objects", "right_object_chance")
CASE_COLUMNS = ("take_uid", "object_name", "query_camera", "target_camera", "frame")  # Case.key
PREDICTED_COLUMNS = ("visible", "confidence", *MaskScores._fields)  # of a case in one results file


def claim_files(folder: Path, what: str, names: Sequence[str]) -> None:
    """Make room in `folder` for the files `names`: delete those of an earlier run, which `.{what}.json` in it lists.

    Raises UserError, and touches nothing, if a file that is not listed is in the way.
    """
    listing = folder / f".{what}.json"
    remove_leftovers(folder, listing.name)
    made = read_json(listing, "delete it") if listing.exists() else []
    if not isinstance(made, list) or not all(map(_is_ours, made)):
        raise UserError(f"{listing} is no list of files in its folder; delete it")
    ours = set(made)
    others = [name for name in names if name not in ours and (folder / name).exists()]
    if others:
        raise UserError(f"{folder / others[0]} is of another origin and stays; delete it or name another --out")
    for path in (folder / name for name in ours):
        path.unlink(missing_ok=True)
    for path in (folder / name for name in {*ours, *names}):
        remove_leftovers(path.parent, path.name)
    write_json(listing, list(names))  # before the files are there: a killed run leaves none that is not listed


def _is_ours(name: Any) -> bool:
    """Whether an item of a listing is a path below its folder, as this program writes them."""
    return isinstance(name, str) and all(map(is_file_name, name.split("/")))


def write_outputs(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> None:
    """metrics.json, breakdown.csv (a line per group) and cases.csv (a line per scored frame), each atomically."""
    header = (*GROUP_COLUMNS, *METRICS)
    rows = (
        (kind, *(group[name] for name in header)) for kind, groups in summary["breakdown"].items() for group in groups
    )
    write_csv(folder / "breakdown.csv", ("by", *header), rows)
    write_cases(folder / "cases.csv", [""], [cases])
    write_json(folder / "metrics.json", summary, indent=1)


def write_cases(path: Path, names: Sequence[str], cases: Sequence[Sequence[Case]]) -> None:
    """A line per case, with the scores of each results file beside each other. `names` are those of the files."""
    columns = [f"{column} of {name}" if name else column for name in names for column in PREDICTED_COLUMNS]
    no_mask = (None,) * len(MaskScores._fields)

    def scores(case: Case) -> Iterable[Any]:
        return (case.visible, case.existence, *(case.mask or no_mask))

    rows = ([*group[0].key, *(value for case in group for value in scores(case))] for group in zip(*cases, strict=True))
    write_csv(path, (*CASE_COLUMNS, *columns), rows)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Values that do not exist (None, nan) are left empty; floats keep all their digits."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_cell(name) for name in header])
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        text = printable(value)
        return "'" + text if text[:1] in ("=", "+", "-", "@") else text  # spreadsheets would run it as a formula
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return int(value) if isinstance(value, bool) else value
