"""Write a report on a results file: a folder that opens in any browser, without a server or a network.

    python evaluation/report.py --setting ego-exo

The benchmark's numbers beside the published ones, where the model fails, plots, and a gallery from best to worst.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from evaluation.options import (
    add_setting_option,
    add_truth_options,
    add_workers_option,
    default_out,
    make_parser,
    open_truth,
    pred_file,
)
from evaluation.outputs import summarize, write_outputs
from evaluation.pictures import Predicted, draw_case, predicted_masks, write_numbered_pictures
from evaluation.report_page import write_report
from evaluation.run import check_truth, notes, score_file
from evaluation.score import Case
from evaluation.selection import choose
from evaluation.truth import GroundTruth
from formats.errors import run_script


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_setting_option(parser)
    add_truth_options(parser)
    add = parser.add_argument
    add("--num", type=int, default=100, help="cases in the gallery, and a fifth more where nothing is visible")
    add("--height", type=int, default=260, help="of the pictures' panels, pixels (default: 260)")
    add("--resamples", type=int, default=2000, help="of takes, for the confidence intervals (default: 2000)")
    add("--out", type=Path, help="folder (default: results/{setting}_{split}_report)")
    add_workers_option(parser)
    args = parser.parse_args(argv)
    for name, least in (("num", 1), ("height", 60)):
        if getattr(args, name) < least:
            parser.error(f"--{name} {getattr(args, name)} must be at least {least}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth = open_truth(args)
    check_truth(truth, args)
    scores = score_file(truth, pred_file(args), args)
    summary = summarize(scores, args.split, str(pred_file(args)), args.resamples)
    out = args.out or default_out(args, "report")
    hidden = sorted((case for case in scores.cases if not case.visible), key=lambda case: -case.confidence)
    cases = choose(scores.cases, "spread", args.num) + hidden[: max(1, args.num // 5)]
    pictures = draw_pictures(truth, cases, out, args)
    page = write_report(out, scores, summary, pictures, notes(truth, scores))
    write_outputs(out, summary, scores.cases)
    print(f"report: open {page}")


def draw_pictures(
    truth: GroundTruth, cases: list[Case], folder: Path, args: argparse.Namespace
) -> list[tuple[Case, str]]:
    """A picture for each case in `folder`, with its path from there."""
    masks = predicted_masks(pred_file(args), args.setting, cases)
    takes = {uid: truth.load(uid) for uid in dict.fromkeys(case.take_uid for case in cases)}
    images = (
        draw_case(takes[case.take_uid], [Predicted(case, masks[case.key])], args.height)
        for case in tqdm(cases, unit="picture", desc="pictures")
    )
    return list(zip(cases, write_numbered_pictures(folder, images), strict=True))


if __name__ == "__main__":
    run_script(main)
