"""Options that scripts of the evaluation share: they choose takes, ground truth and the forms of results to accept."""

import argparse
from pathlib import Path

from common.arguments import add_annotations, add_data_path
from evaluation.score import MISSING_HINT, refuse
from evaluation.truth import GroundTruth


def add_split_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the options that choose processed takes."""
    add_data_path(parser)
    parser.add_argument("--split", help=f"train, val or test (default: {default})")


def add_truth_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `open_truth`. `accept` collects the flags that accept other forms of results."""
    add_split_options(parser, "val")
    add = parser.add_argument
    annotations = (
        "annotation file or its folder; only frames that an annotator looked at are scored (default: "
        "annotations/relations_{split}.json beside --data_path)"
    )
    add_annotations(parser, annotations)
    other = parser.add_mutually_exclusive_group()
    replaces = "the benchmark's ground-truth JSON, in place of processed takes, split and annotations"
    other.add_argument("--gt_file", type=Path, help=replaces)
    every = (
        "score every frame with a query mask, even if no annotator looked at the target view; this needs no annotation "
        "file, but is not the official protocol"
    )
    other.add_argument("--all_frames", action="store_true", help=every)
    add("--allow_missing", action="store_true", help="score although takes or predictions are missing, and name them")
    resize = "accept masks of another size, and resize them by nearest neighbor to the official size"
    lenient = (
        "accept a list of one number as confidence, and predictions without confidence (1 is used if the mask is not "
        "empty, else 0)"
    )
    for flag, text in (("--resize_masks", resize), ("--lenient", lenient)):
        add(flag, dest="accept", action="append_const", const=flag, default=[], help=text)


def open_truth(args: argparse.Namespace, default_split: str = "val") -> GroundTruth:
    """Open the ground truth that the options of `add_truth_options` choose.

    Raises UserError if there is no ground truth, or if it lacks takes (which are printed) without --allow_missing.
    """
    if args.gt_file:
        truth = GroundTruth.from_official(args.gt_file, args.data_path, args.split)
    else:
        where = (args.splits_path, args.annotation_path, args.all_frames)
        truth = GroundTruth.of_split(args.data_path, args.split or default_split, *where)
    if truth.missing and not args.allow_missing:
        refuse([f"take {uid}: {why}" for uid, why in truth.missing.items()], "the ground truth", MISSING_HINT)
    return truth
