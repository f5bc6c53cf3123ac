"""The command-line options that evaluate.py, visualize.py and their kin share."""

import argparse
import os
from pathlib import Path

from evaluation.truth import GroundTruth
from formats.errors import UserError
from formats.processed import DEFAULT_DATA_DIR
from formats.results import results_path
from formats.takes import ANNOTATION_TEMPLATE, SETTINGS, annotation_path, find_split_path, read_split

RESULTS_DIR = Path(__file__).resolve().parents[1] / "results"  # where eval_segswap.py writes


def make_parser(doc: str, split: str = "val") -> argparse.ArgumentParser:
    """A parser with the options that say which ground truth is meant. `doc` is the script's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--data_path",
        type=Path,
        default=DEFAULT_DATA_DIR,
        help="processed takes (default: data/egoexo/processed)",
    )
    add("--split", default=split, help=f"which split: train, val, test (default: {split})")
    add("--splits_path", type=Path, help="split.json (default: the one beside --data_path, else data/split.json)")
    return parser


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """Options for the frames that count, which annotation.json does not tell."""
    add = parser.add_argument
    add(
        "--annotation_path",
        "--annotationpath",
        type=Path,
        help="annotations, for annotated_frames (default: annotations/relations_{split}.json beside --data_path)",
    )
    add("--gt_file", type=Path, help="the benchmark's ground-truth JSON; replaces processed takes, split, annotations")
    add(
        "--all_frames",
        action="store_true",
        help="score every frame with a query mask, also those that nobody looked at in the target view; needs no "
        "annotation file, but is not the official protocol",
    )
    add("--allow_missing", action="store_true", help="score what is there; says how much that is")


def add_setting_option(parser: argparse.ArgumentParser, pred_file: bool = True) -> None:
    parser.add_argument("--setting", choices=SETTINGS, required=True, help="query view - target view")
    if pred_file:
        parser.add_argument("--pred_file", type=Path, help="results (default: results/{setting}_{split}_results.json)")


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num_workers",
        type=_count,
        default=min(8, os.cpu_count() or 1),
        help="processes that score (0: this one; default: %(default)s)",
    )


def pred_file(args: argparse.Namespace) -> Path:
    return args.pred_file or results_path(RESULTS_DIR, args.setting, args.split)


def default_out(args: argparse.Namespace, what: str) -> Path:
    """`results/ego-exo_val_results.json` -> `results/ego-exo_val_{what}`."""
    path = pred_file(args)
    return path.with_name(f"{path.stem.removesuffix('_results')}_{what}")


def split_uids(args: argparse.Namespace) -> list[str]:
    return read_split(args.splits_path or find_split_path(args.data_path), args.split)


def open_truth(args: argparse.Namespace) -> GroundTruth:
    """The ground truth that the options name. Raises UserError if there is none."""
    if args.gt_file and args.all_frames:
        raise UserError("--gt_file says which frames count; drop --all_frames")
    if args.gt_file:
        return GroundTruth.from_official(args.gt_file, args.data_path)
    annotations = args.annotation_path or annotation_path(args.data_path.parent / ANNOTATION_TEMPLATE, args.split)
    truth = GroundTruth.from_processed(args.data_path, split_uids(args), None if args.all_frames else annotations)
    if not truth.uids:
        raise UserError(
            f"no take of split {args.split!r} is in {args.data_path}; "
            "run data/process_data.py first or name the folder with --data_path"
        )
    return truth


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative; 0 means no processes")
    return value
