"""Score a results file as the Ego-Exo4D relation benchmark does.

    python evaluation/evaluate.py --setting ego-exo
    python evaluation/evaluate.py --setting exo-ego --split test --pred_file results/exo-ego_test_results.json

Prints the benchmark's four numbers and more (marked *), and writes metrics.json, breakdown.csv and cases.csv. Checks
the predictions first and lists everything that is wrong with them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from evaluation.options import (
    add_setting_option,
    add_truth_options,
    add_workers_option,
    default_out,
    make_parser,
    open_truth,
    pred_file,
)
from evaluation.outputs import format_summary, summarize, write_outputs
from evaluation.run import check_truth, notes, score_file
from formats.errors import run_script


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_setting_option(parser)
    add_truth_options(parser)
    add = parser.add_argument
    add("--out", type=Path, help="folder for the files (default: results/{setting}_{split}_evaluation)")
    add("--write_gt", type=Path, help="also write the benchmark's ground-truth JSON here")
    add("--resamples", type=int, default=2000, help="of takes, for the confidence intervals (default: 2000)")
    add_workers_option(parser)
    args = parser.parse_args(argv)
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth = open_truth(args)
    check_truth(truth, args)
    scores = score_file(truth, pred_file(args), args)
    summary = summarize(scores, args.split, str(pred_file(args)), args.resamples)
    out = args.out or default_out(args, "evaluation")
    write_outputs(out, summary, scores.cases)
    if args.write_gt:
        truth.write_official(args.write_gt)
    print(format_summary(summary))
    print(notes(truth, scores))
    print(f"written to {out}")


if __name__ == "__main__":
    run_script(main)
