"""Options that the scripts of the evaluation share: which takes, which ground truth, which forms of results."""

import argparse
from pathlib import Path

from common.arguments import add_annotations, add_data_path, add_splits_path
from evaluation.score import MISSING_HINT, refuse
from evaluation.truth import GroundTruth


def add_split_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Options that say which processed takes are meant."""
    add_data_path(parser)
    add_splits_path(parser)
    parser.add_argument("--split", help=f"train, val or test (default: {default})")


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """Options of `open_truth`; `accept` collects the flags that accept another form than the official one."""
    add_split_options(parser, "val")
    add = parser.add_argument
    annotations = (
        "annotations, or their folder: only frames that somebody looked at count (default: "
        "annotations/relations_{split}.json beside --data_path)"
    )
    add_annotations(parser, annotations)
    other = parser.add_mutually_exclusive_group()
    replaces = "the benchmark's ground-truth JSON; replaces processed takes, split, annotations"
    other.add_argument("--gt_file", type=Path, help=replaces)
    every = (
        "score every frame with a query mask, even if nobody looked at the target view; needs no annotation file, but "
        "is not the official protocol"
    )
    other.add_argument("--all_frames", action="store_true", help=every)
    add("--allow_missing", action="store_true", help="score what is there; says how much that is")
    resize = "read masks of another size and resize them by nearest neighbor to the official one; says how many"
    lenient = (
        "read confidences that are a list of one number, and predictions without confidence (1 where the mask is not "
        "empty); says how many"
    )
    for flag, text in (("--resize_masks", resize), ("--lenient", lenient)):
        add(flag, dest="accept", action="append_const", const=flag, default=[], help=text)


def open_truth(args: argparse.Namespace, default_split: str = "val") -> GroundTruth:
    """The ground truth that the options of `add_truth_options` name.

    Raises UserError if there is none or, after naming the takes, if some lack it and `--allow_missing` is not given.
    """
    if args.gt_file:
        truth = GroundTruth.from_official(args.gt_file, args.data_path, args.split)
    else:
        where = (args.splits_path, args.annotation_path, args.all_frames)
        truth = GroundTruth.of_split(args.data_path, args.split or default_split, *where)
    if truth.missing and not args.allow_missing:
        refuse([f"take {uid}: {why}" for uid, why in truth.missing.items()], "the ground truth", MISSING_HINT)
    return truth
