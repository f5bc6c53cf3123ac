"""Files that scripts of the evaluation write: metrics.json, CSV files, folders that they come back to."""

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import atomic_write, temporary_folder, write_json
from common.provenance import provenance
from evaluation.metrics import METRICS, MaskScores
from evaluation.score import Case, SplitScores
from evaluation.summary import summarize_scores, without_nan
from evaluation.tables import BREAKDOWN_COUNTS
from formats.results import read_run, results_path

RESULTS_DIR = Path(__file__).resolve().parents[1] / "results"  # where eval_segswap.py writes
RUN_RECORD = ("checkpoint", "checkpoint_sha256", "precision", "date", "command", "commit")  # of the predictions
GROUP_COLUMNS = ("label", *BREAKDOWN_COUNTS, "frames_several_objects", "right_object_chance", *METRICS)
CASE_COLUMNS = ("take_uid", "object_name", "query_camera", "target_camera", "frame")  # Case.key
PREDICTED_COLUMNS = ("visible", "confidence", *MaskScores._fields)  # of a case in one results file


def default_results(setting: str, split: str | None) -> Path:
    """Where eval_segswap.py leaves the results by default."""
    if split is None:
        raise UserError("--gt_file does not say of which split it is; name the results with --pred_file")
    return results_path(RESULTS_DIR, setting, split)


def run_record(results: Path) -> dict[str, str | None]:
    """How a results file was made, by its run record; None where that says nothing."""
    recorded = read_run(results).get("provenance", {})
    return {"results": str(results)} | {name: recorded.get(name) and str(recorded[name]) for name in RUN_RECORD}


def provenance_of(files: Sequence[Path]) -> dict[str, Any]:
    """How the predictions and the evaluation were made, for metrics.json, comparison.json and the pages."""
    return {"predictions": [run_record(path) for path in files], "evaluation": provenance()}


def summarize_file(path: Path, split: str | None, scores: SplitScores) -> dict[str, Any]:
    """All of metrics.json."""
    source = {"split": split, "results": str(path), "provenance": provenance_of([path])}
    return {**source, **summarize_scores(scores)}


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder. If the block ends without an exception, its files move to `folder`, where they replace
    files of the same names. Other files in `folder` stay.
    """
    with temporary_folder(folder, "output", f"writes into {folder}") as new:
        yield new
        for path in sorted(filter(Path.is_file, new.rglob("*")), reverse=True):  # pictures before pages
            target = folder / path.relative_to(new)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def write_outputs(folder: Path, summary: dict[str, Any], cases: Sequence[Case]) -> None:
    """metrics.json, breakdown.csv (a line per group) and cases.csv (a line per scored frame), each atomically."""
    breakdown = summary["breakdown"].items()
    rows = [(kind, *(group[name] for name in GROUP_COLUMNS)) for kind, groups in breakdown for group in groups]
    write_csv(folder / "breakdown.csv", ("by", *GROUP_COLUMNS), rows)
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
    """Values that do not exist (None, nan) are left empty; floats keep all their digits, bools are 0 or 1."""
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow(int(value) if isinstance(value, bool) else value for value in without_nan(list(row)))
