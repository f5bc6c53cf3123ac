"""The files that scripts of the evaluation write: metrics.json, cases.csv and the folders that hold them."""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import atomic_write, temporary_folder
from common.provenance import provenance
from evaluation.metrics import MaskScores
from evaluation.score import Case, SplitScores
from evaluation.summary import summarize_scores, without_nan
from formats.results import read_run, results_path

RESULTS_DIR = Path(__file__).resolve().parents[1] / "results"  # where eval_segswap.py writes
MADE_WITH = ("checkpoint", "checkpoint_sha256", "predictor", "predictor_args", "precision")  # in a run's record
PROVENANCE_KEYS = (*MADE_WITH, "date", "command", "commit")  # in a run's record
CASE_COLUMNS = ("take_uid", "object_name", "query_camera", "target_camera", "frame")  # Case.key
PREDICTED_COLUMNS = ("visible", "confidence", *MaskScores._fields)  # columns of a case in one results file


def default_results_path(setting: str, split: str | None) -> Path:
    """The path to which eval_segswap.py writes the results by default."""
    if split is None:
        raise UserError("--gt_file does not say which split it holds; name the results with --pred_file")
    return results_path(RESULTS_DIR, setting, split)


def predictions_provenance(results: Path) -> dict[str, str | None]:
    """How a results file was made, from its run record; a value that the record does not have is None."""
    recorded = read_run(results).get("provenance", {})
    texts = {name: str(recorded[name]) if recorded.get(name) else None for name in PROVENANCE_KEYS}
    return {"results": str(results)} | texts


def provenance_of(files: Sequence[Path]) -> dict[str, Any]:
    """How the predictions and the evaluation were made, for metrics.json and comparison.json."""
    return {"predictions": [predictions_provenance(path) for path in files], "evaluation": provenance()}


def summarize_file(path: Path, split: str | None, scores: SplitScores) -> dict[str, Any]:
    """The content of metrics.json for a results file."""
    source = {"split": split, "results": str(path), "provenance": provenance_of([path])}
    return {**source, **summarize_scores(scores)}


@contextlib.contextmanager
def output_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder. If the block ends without an exception, its files move to `folder`, where they replace
    files of the same names. Other files in `folder` stay.
    """
    with temporary_folder(folder, "output", f"writes into {folder}") as temporary:
        yield temporary
        for path in sorted(filter(Path.is_file, temporary.rglob("*")), reverse=True):  # pictures move before the page
            target = folder / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)


def write_cases(folder: Path, names: Sequence[str], cases: Sequence[Sequence[Case]]) -> None:
    """Write cases.csv: a line for each case, with the scores of all results files (called `names`) side by side.

    Values that do not exist (None, nan) are left empty, floats have all digits, bools are 0 or 1.
    """
    columns = [f"{column} of {name}" if name else column for name in names for column in PREDICTED_COLUMNS]
    no_scores = (None,) * len(MaskScores._fields)
    with atomic_write(folder / "cases.csv") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*CASE_COLUMNS, *columns))
        for file_cases in zip(*cases, strict=True):
            values = [(case.visible, case.existence, *(case.scores or no_scores)) for case in file_cases]
            row = without_nan([*file_cases[0].key, *sum(values, ())])
            writer.writerow(int(value) if isinstance(value, bool) else value for value in row)
