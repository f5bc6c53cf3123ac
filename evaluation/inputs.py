"""From the command line of an evaluation to ground truth and results files, opened, checked, scored, summarized."""

import argparse
import gzip
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.arguments import add_data_path, add_splits_path
from common.errors import MALFORMED, UserError, counted, printable
from common.files import read_json
from common.provenance import provenance
from evaluation.score import ACCEPTED_TEXT, FLAGS, Scores, score_results
from evaluation.summary import summarize_scores
from evaluation.truth import GroundTruth
from formats.processed import is_processed
from formats.results import iter_results, results_path
from formats.takes import ANNOTATION_REMEDY, ANNOTATION_TEMPLATE, annotation_path, find_split_path, read_split

MISSING_HINT = "; --allow_missing scores the rest if something is only missing"
RESULTS_DIR = Path(__file__).resolve().parents[1] / "results"  # where eval_segswap.py writes
RUN_RECORD = ("checkpoint", "checkpoint_sha256", "precision", "date", "command", "commit")  # of the predictions


def add_split_options(parser: argparse.ArgumentParser, split: str | None = "val") -> None:
    """Options that say which processed takes are meant."""
    add_data_path(parser)
    add_splits_path(parser)
    parser.add_argument("--split", default=split, help="train, val or test" + (" (default: val)" if not split else ""))


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """Options for the ground truth of `open_truth`."""
    add_split_options(parser, None)
    add = parser.add_argument
    add_annotation_path(parser, "annotations/relations_{split}.json beside --data_path")
    replaces = "the benchmark's ground-truth JSON; replaces processed takes, split, annotations"
    add("--gt_file", type=Path, help=replaces)
    every = (
        "score every frame with a query mask, also those that nobody looked at in the target view; needs no "
        "annotation file, but is not the official protocol"
    )
    add("--all_frames", action="store_true", help=every)
    add("--allow_missing", action="store_true", help="score what is there; says how much that is")


def add_annotation_path(parser: argparse.ArgumentParser, default: str) -> None:
    text = f"annotations, or their folder: only frames that somebody looked at count (default: {default})"
    parser.add_argument("--annotation_path", type=Path, help=text)


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Options that accept results and ground truth of another form than the official one."""
    resize = "read masks of another size and resize them by nearest neighbor to the official one; says how many"
    parser.add_argument("--resize_masks", action="store_true", help=resize)
    lenient = (
        "read ground truth without subsample_idx, confidences that are a list of one number, and predictions "
        "without confidence (1 where the mask is not empty); says how many"
    )
    parser.add_argument("--lenient", action="store_true", help=lenient)


def accepted_flags(args: argparse.Namespace) -> list[str]:
    """Which of the flags that accept another form of results were given."""
    return [flag for flag in sorted(set(FLAGS.values())) if getattr(args, flag.removeprefix("--"))]


def data_split(args: argparse.Namespace) -> str | None:
    """The split as given, else val; a ground-truth file does not say of which split it is."""
    return args.split or (None if args.gt_file else "val")


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


def open_truth(args: argparse.Namespace) -> GroundTruth:
    """The ground truth that the options of `add_truth_options` and `--lenient` name.

    Raises UserError if there is none or, after naming the takes, if some lack it and `--allow_missing` is not given.
    """
    if args.gt_file and args.all_frames:
        raise UserError("--gt_file says which frames count; drop --all_frames")
    if args.gt_file:
        truth = GroundTruth.from_official(args.gt_file, args.data_path, args.lenient)
    else:
        split = data_split(args)
        if not args.data_path.is_dir():
            raise UserError(f"no folder {args.data_path}; name that of the processed takes with --data_path")
        uids = read_split(args.splits_path or find_split_path(args.data_path), split)
        annotations = annotation_path(args.annotation_path or args.data_path.parent / ANNOTATION_TEMPLATE, split)
        if not (args.all_frames or annotations.is_file()):
            raise UserError(f"no file {annotations}; score without it by --all_frames, or {ANNOTATION_REMEDY}")
        truth = GroundTruth.from_processed(args.data_path, uids, None if args.all_frames else annotations)
        if not any(is_processed(args.data_path, uid) for uid in uids):
            raise UserError(
                f"no take of split {split!r} is in {args.data_path}; "
                "run data/process_data.py first or name the folder with --data_path"
            )
    if truth.missing and not args.allow_missing:
        refuse([f"take {uid}: {why}" for uid, why in truth.missing.items()], "the ground truth", MISSING_HINT)
    return truth


def score_file(args: argparse.Namespace, truth: GroundTruth, path: Path) -> Scores:
    """Score a results file. Raises UserError, after listing every problem, if it is not fit to be scored."""
    results = iter_results(path, args.setting)
    scores = score_results(truth, results, args.setting, args.num_workers, accepted_flags(args))
    if not scores.cases and scores.not_in_truth and all(problem.missing for problem in scores.problems):
        raise UserError(f"{path} holds no take of the ground truth; is it of another split?")
    problems = [problem for problem in scores.problems if not (problem.missing and args.allow_missing)]
    if problems:
        flags = sorted({problem.flag for problem in problems if problem.flag})
        hint = f"; {' and '.join(flags)} would accept what is of another form" if flags else ""
        refuse([problem.text for problem in problems], str(path), hint + ("" if args.allow_missing else MISSING_HINT))
    if not scores.cases:
        raise UserError(f"{path} has no prediction for any scored frame; is it of another split?")
    return scores


def summarize_file(
    args: argparse.Namespace, truth: GroundTruth, path: Path
) -> tuple[Scores, dict[str, Any], list[str]]:
    """Score a results file -> its scores, its summary as metrics.json has it, and the lines of `left_out`."""
    scores = score_file(args, truth, path)
    source = {"split": data_split(args), "results": str(path), "provenance": provenance_of([path])}
    return scores, {**source, **summarize_scores(scores)}, left_out(truth, scores)


def refuse(problems: Sequence[str], where: str, hint: str = "") -> None:
    """List the problems and raise UserError."""
    print("\n".join(map(printable, problems)), file=sys.stderr)
    raise UserError(f"{counted(len(problems), 'problem')} in {where}, nothing written{hint}")


def left_out(truth: GroundTruth, scores: Scores) -> list[str]:
    """A line for each thing that was not scored, or not by the official protocol."""
    lines = truth.warnings()
    if scores.not_in_truth:
        lines.append(f"takes of the results without ground truth, not scored: {', '.join(scores.not_in_truth)}")
    if truth.accepted:
        lines.append(f"accepted: {counted(len(truth.accepted), 'take')} of the ground truth without subsample_idx")
    for kind, count in sorted(scores.accepted.items()):
        noun, text = ACCEPTED_TEXT[kind]
        lines.append(f"accepted: {counted(count, noun)} {text}")
    lines += [problem.text for problem in scores.problems if problem.missing]
    return list(map(printable, lines))
