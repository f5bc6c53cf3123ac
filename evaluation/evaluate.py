"""Score results files as the Ego-Exo4D relation benchmark does, or compare them.

    python evaluation/evaluate.py --setting ego-exo
    python evaluation/evaluate.py --setting exo-ego --split test --pred_file results/exo-ego_test_results.json
    python evaluation/evaluate.py --setting ego-exo --pred_file a/results.json b/results.json
    python evaluation/evaluate.py --write_gt gt_val.json

One file: prints the benchmark's four numbers and more (marked *), writes metrics.json, breakdown.csv and cases.csv.
Several: compares each with the first on the frames that all have, paired differences with 95 % intervals, by scenario,
object size and camera; writes index.html with pictures of the cases that changed most, comparison.json and cases.csv.
Checks the predictions first and lists everything that is wrong with them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from evaluation.compare import common_cases, compare, largest_changes, short_names
from evaluation.inputs import (
    add_truth_options,
    data_split,
    default_results,
    left_out,
    open_truth,
    output_folder,
    score_file,
)
from evaluation.outputs import (
    claim_files,
    format_comparison,
    format_summary,
    split_title,
    write_cases,
    write_outputs,
)
from evaluation.pages import PAGE, comparison_sections, write_page
from evaluation.pictures import draw_gallery
from evaluation.score import Scores
from evaluation.summary import summarize
from evaluation.truth import GroundTruth
from formats.arguments import Parser, add_num_workers, add_setting, at_least
from formats.errors import UserError, run_script
from formats.files import write_json


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser, required=False)
    add_truth_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, nargs="+", help="results (default: results/{setting}_{split}_results.json)")
    add("--names", nargs="+", help="what to call several results files (default: names of the files or folders)")
    add("--out", type=Path, help="folder (default: results/{setting}_{split}_evaluation or ..._comparison)")
    add("--write_gt", type=Path, help="write the benchmark's ground-truth JSON here; without --setting only that")
    add("--resamples", type=at_least(1), default=2000, help="of takes, for the confidence intervals")
    add("--num", type=at_least(0), default=40, help="pictures of a comparison, half of them of rises")
    add("--height", type=at_least(60), default=260, help="of the pictures' panels, pixels")
    add_num_workers(parser)
    args = parser.parse_args(argv)
    if not args.setting and (args.pred_file or not args.write_gt):
        parser.error("--setting is missing: ego-exo or exo-ego; only --write_gt alone needs none")
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    if args.names and len(args.names) != len(args.pred_file or [None]):
        parser.error(f"{len(args.names)} --names for {len(args.pred_file or [None])} results files; give each its own")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    split = data_split(args.split, args.gt_file)
    truth = open_truth(
        args.data_path, split, args.splits_path, args.annotation_path, args.gt_file, args.all_frames, args.allow_missing
    )
    if args.write_gt:
        truth.write_official(args.write_gt)
        print(f"ground truth of {len(truth.uids)} takes written to {args.write_gt}")
    if not args.setting:
        return
    files = args.pred_file or [default_results(args.setting, split)]
    scores = [score_file(truth, path, args.setting, args.num_workers, args.allow_missing) for path in files]
    out = args.out or output_folder(files[0], "evaluation" if len(files) == 1 else "comparison")
    if len(files) == 1:
        report_one(truth, scores[0], {"split": split, "results": str(files[0])}, args.resamples, out)
    else:
        report_several(truth, scores, files, args.names or short_names(files), split, args, out)


def report_one(truth: GroundTruth, scores: Scores, source: dict, resamples: int, out: Path) -> None:
    summary = {**source, **summarize(scores, resamples)}
    write_outputs(out, summary, scores.cases)
    print("\n".join([format_summary(summary), *left_out(truth, scores), f"written to {out}"]))


def report_several(
    truth: GroundTruth,
    scores: list[Scores],
    files: list[Path],
    names: list[str],
    split: str | None,
    args: argparse.Namespace,
    out: Path,
) -> None:
    cases = common_cases(scores)
    if not cases[0]:
        raise UserError("these results files have no scored frame in common")
    comparison = compare(names, cases, scores[0], args.resamples)
    changed = [[of_file[i] for of_file in cases] for i in largest_changes(cases[0], cases[-1], args.num // 2)]
    pictures = [f"pictures/{number:04d}.jpg" for number in range(len(changed))]
    plots = [f"plots/iou_{number}.svg" for number in range(1, len(files))]
    claim_files(out, [PAGE, "comparison.json", "cases.csv", *plots, *pictures])
    draw_gallery(out, pictures, truth, args.setting, list(zip(names, files, strict=True)), changed, args.height)
    lead = f"{args.setting}, {split_title(split)}: {len(cases[0]):,} frames that all files have"
    sections = comparison_sections(out, comparison, cases, list(zip(changed, pictures, strict=True)))
    page = write_page(out, " against ".join(names), lead, sections)
    write_json(out / "comparison.json", comparison, indent=1)
    write_cases(out / "cases.csv", names, cases)
    print(f"{lead}\n\n{format_comparison(comparison)}\n\nreport: open {page}")


if __name__ == "__main__":
    run_script(main)
