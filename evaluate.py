"""Score a results file as the Ego-Exo4D relation benchmark does.

    python evaluate.py --setting ego-exo
    python evaluate.py --setting exo-ego --split test --pred_file results/exo-ego_test_results.json

Prints the benchmark's four numbers and more (marked *), and writes metrics.json, breakdown.csv and cases.csv. Checks
the predictions first and lists everything that is wrong with them.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from data.errors import UserError, run_script
from data.results import iter_results
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
from evaluation.score import Scores, score_results
from evaluation.truth import GroundTruth


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_setting_option(parser)
    add_truth_options(parser)
    add = parser.add_argument
    add("--allow_missing", action="store_true", help="score what is there; says how much that is")
    add("--out", type=Path, help="folder for the files (default: results/{setting}_{split}_evaluation)")
    add("--write_gt", type=Path, help="also write the benchmark's ground-truth JSON here")
    add("--resamples", type=int, default=2000, help="of takes, for the confidence intervals (default: 2000)")
    add_workers_option(parser)
    args = parser.parse_args(argv)
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    truth = open_truth(args)
    if truth.missing and not args.allow_missing:
        return refuse([f"take {uid}: {why}" for uid, why in truth.missing.items()], "the ground truth", args)
    if args.write_gt:
        truth.write_official(args.write_gt)
    scores = score(truth, args)
    problems = [p for p in scores.problems if not (p.missing and args.allow_missing)]
    if problems:
        return refuse(list(map(str, problems)), str(pred_file(args)), args)
    if not scores.cases:
        raise UserError(f"{pred_file(args)} has no prediction for any scored frame; is it of split {args.split!r}?")
    summary = summarize(scores, args.split, str(pred_file(args)), args.resamples)
    out = args.out or default_out(args, "evaluation")
    write_outputs(out, summary, scores.cases)
    print(format_summary(summary))
    notes(truth, scores)
    print(f"\nwritten to {out}")
    return 0


def score(truth: GroundTruth, args: argparse.Namespace) -> Scores:
    with tqdm(total=len(truth.uids), unit="take", desc=args.setting) as bar:
        return score_results(
            truth, iter_results(pred_file(args), args.setting), args.setting, args.num_workers, bar.update
        )


def refuse(problems: list[str], where: str, args: argparse.Namespace) -> int:
    """List the problems; nothing is scored or written."""
    print("\n".join(problems), file=sys.stderr)
    hint = "" if args.allow_missing else "; --allow_missing scores the rest if something is only missing"
    print(
        f"error: {len(problems)} problem{'s' * (len(problems) > 1)} in {where}, nothing written{hint}", file=sys.stderr
    )
    return 1


def notes(truth: GroundTruth, scores: Scores) -> None:
    for what, uids in (
        ("takes of the split without ground truth", list(truth.missing)),
        ("takes of the results that are not in the ground truth, not scored", scores.not_in_truth),
    ):
        if uids:
            print(f"{what}: {', '.join(uids)}")
    if lacking := [problem for problem in scores.problems if problem.missing]:
        print("\n".join(map(str, lacking)))


if __name__ == "__main__":
    run_script(main)
