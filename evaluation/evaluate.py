"""Score a results file as the Ego-Exo4D relation benchmark does, or compare several results files.

    python evaluation/evaluate.py --setting ego-exo --split test
    python evaluation/evaluate.py --setting ego-exo --split test --protocol all --pred_file o.json.gz --resize_masks
    python evaluation/evaluate.py --setting ego-exo --split test --pred_file a/results.json b/results.json
    python evaluation/evaluate.py --split test --write_gt gt_test.json

One file: the script prints the benchmark's four numbers and further numbers (marked *), and writes metrics.json and
cases.csv. Several files: the script compares each file with the first file, on the frames that all files have. It
prints paired differences with 95 % intervals, also by scenario, object size and camera, and writes comparison.json,
cases.csv and index.html, which shows the cases on which the files disagree most. If predictions cannot be scored, the
script lists all of these predictions and writes nothing.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.errors import UserError, counted
from common.files import check_output, write_json
from evaluation.case_pictures import write_gallery
from evaluation.comparison import cases_at, common_cases, compare, short_names
from evaluation.options import add_truth_options, open_truth
from evaluation.outputs import (
    default_results_path,
    output_folder,
    provenance_of,
    summarize_file,
    write_cases,
)
from evaluation.pages import PAGE, comparison_card, comparison_sections, write_page
from evaluation.protocols import OFFICIAL_RULE, PROTOCOLS, under_protocols
from evaluation.score import ScoreOptions, SplitScores, score_file, warning_lines
from evaluation.selection import largest_disagreements
from evaluation.summary import take_names, without_nan
from evaluation.tables import (
    difference_table,
    format_protocols,
    format_summary,
    format_table,
    interval_note,
    split_title,
)
from evaluation.truth import GroundTruth
from formats.results import path_beside


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser, required=False)
    add_truth_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, nargs="+", help="results (default: results/{setting}_{split}_results.json)")
    rules = "also score by the rule of another group, besides the official rule (docs/evaluation.md)"
    add("--protocol", choices=[*PROTOCOLS, "all"], default=OFFICIAL_RULE, help=rules)
    add("--names", nargs="+", help="names of the results files (default: names of the files or of their folders)")
    add("--out", type=Path, help="output folder (default: results/{setting}_{split}_evaluation or _comparison)")
    text = "write the benchmark's ground-truth JSON to this file; without --setting, do only this"
    add("--write_gt", "--output_path", type=Path, help=text)
    add("--overwrite", action="store_true", help="replace a file --write_gt that exists")
    add("--num", type=at_least(0), default=40, help="number of disagreements that a comparison shows")
    add_num_workers(parser)
    args = parser.parse_args(argv)
    if not args.setting and (args.pred_file or not args.write_gt):
        parser.error("--setting is missing: ego-exo or exo-ego; only --write_gt needs none")
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    if args.names and not len(set(args.names)) == len(args.names) == len(args.pred_file or ()):
        parser.error("--names needs as many names, all different, as --pred_file has files")
    if args.protocol != OFFICIAL_RULE and len(args.pred_file or ()) > 1:
        parser.error("--protocol takes one results file; several are compared by the official rule")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth = open_truth(args)
    files = args.pred_file or ([default_results_path(args.setting, truth.split)] if args.setting else [])
    if args.write_gt:
        check_output(args.write_gt, args.overwrite, [*files, *truth.sources])
        truth.write_official(args.write_gt)
        print(f"ground truth of {counted(len(truth.uids), 'take')} written to {args.write_gt}")
    if not args.setting:
        return
    options = ScoreOptions(args.setting, args.accept, at_file_size=args.protocol in ("omama", "all"))
    scores = [score_file(truth, path, options, args.num_workers, args.allow_missing) for path in files]
    if len(files) == 1:
        evaluate_file(truth, files[0], scores[0], args.protocol, args.out or path_beside(files[0], "evaluation"))
    else:
        file_by_name = dict(zip(args.names or short_names(files), files, strict=True))
        compare_files(truth, file_by_name, scores, args.num, args.out or path_beside(files[0], "comparison"))


def evaluate_file(truth: GroundTruth, path: Path, scores: SplitScores, protocol: str, out: Path) -> None:
    """Print the scores of a results file and write them to the folder `out`."""
    summary = summarize_file(path, truth.split, scores)
    lines = [format_summary(summary)]
    if protocol != OFFICIAL_RULE:
        summary["protocols"] = without_nan(under_protocols(protocol, scores.cases))
        lines += ["", format_protocols(summary["protocols"], truth.all_frames)]
    with output_folder(out) as folder:
        write_cases(folder, [""], [scores.cases])
        write_json(folder / "metrics.json", summary, indent=1)
    print("\n".join([*lines, *warning_lines(truth, scores), f"written to {out}"]))


def compare_files(
    truth: GroundTruth, files: dict[str, Path], scores: list[SplitScores], picture_count: int, out: Path
) -> None:
    """Compare results files (paths by name) on the frames that all of them have; print the differences and write them
    to the folder `out`. The page shows the `picture_count` cases on which the files disagree most.
    """
    names, setting = list(files), scores[0].setting
    cases = common_cases(scores)
    if not cases[0]:
        raise UserError("these results files have no scored frame in common")
    comparison = {"setting": setting, "split": truth.split, "provenance": provenance_of(list(files.values()))}
    comparison |= compare(names, cases, scores[0])
    drawn = cases_at(cases, largest_disagreements(cases, picture_count))
    takes = take_names(scores[0])
    lead = f"{setting}, {split_title(truth.split)}: {counted(len(cases[0]), 'frame')} that all files have"
    warnings = list(dict.fromkeys(line for file_scores in scores for line in warning_lines(truth, file_scores)))

    with output_folder(out) as folder:
        pictures = write_gallery(folder, truth, setting, files, drawn)
        cards = [
            comparison_card(file_cases, picture, names, takes[file_cases[0].take_uid])
            for picture, *file_cases in zip(pictures, *drawn, strict=True)
        ]
        write_page(folder, " against ".join(names), lead, warnings, comparison_sections(comparison, cards))
        write_json(folder / "comparison.json", comparison, indent=1)
        write_cases(folder, names, cases)
    print("\n".join([lead, *warnings]))
    for other in comparison["comparisons"]:
        print("\n".join(["", *format_table(difference_table(names[0], other))]))
    print(interval_note(comparison["takes_compared"]))
    print(f"\nreport: open {out / PAGE}")


if __name__ == "__main__":
    run_script(main)
