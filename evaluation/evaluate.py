"""Score a results file as the Ego-Exo4D relation benchmark does, or compare several results files.

    python evaluation/evaluate.py --setting ego-exo --split test --report
    python evaluation/evaluate.py --setting ego-exo --split test --sheet worst.jpg --order worst --num 20
    python evaluation/evaluate.py --setting ego-exo --split test --protocol all --pred_file o.json.gz --resize_masks
    python evaluation/evaluate.py --setting ego-exo --split test --pred_file a/results.json b/results.json
    python evaluation/evaluate.py --split test --write_gt gt_test.json

One file: the script prints the benchmark's four numbers and further numbers (marked *), and writes metrics.json,
cases.csv and index.html, which any browser opens. With --report, index.html also shows pictures of cases.

Several files: it compares each with the first, on the frames that all have. It prints paired differences with 95 %
intervals, and writes comparison.json, cases.csv and index.html, which also have them by scenario, object size and
camera; index.html shows the cases on which the files disagree most.

If predictions cannot be scored, it lists them all and writes no scores.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import UserError, counted, run_script, say_errors

say_errors(__name__)

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.drawing import write_picture
from common.files import check_output, claimed, write_json
from evaluation.case_pictures import draw_sheet, write_gallery
from evaluation.comparison import cases_at, common_cases, compare, short_names
from evaluation.options import add_truth_options, open_truth
from evaluation.outputs import default_results_path, output_folder, provenance_of, summarize_file, write_cases
from evaluation.pages import PAGE, comparison_card, comparison_sections, report_card, report_sections, write_page
from evaluation.protocols import OFFICIAL_RULE, PROTOCOLS, under_protocols
from evaluation.score import ScoreOptions, SplitScores, score_file, warning_lines
from evaluation.selection import CASE_ORDERS, choose_cases, largest_disagreements
from evaluation.summary import take_names, without_nan
from evaluation.tables import (
    difference_table,
    format_protocols,
    format_summary,
    format_table,
    headline,
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
    add("--out", type=Path, help="output folder (default: {name}_evaluation or _comparison beside the first file)")
    text = "write the benchmark's ground-truth JSON to this file; without --setting, do only this"
    add("--write_gt", "--output_path", type=Path, help=text)
    add("--overwrite", action="store_true", help="replace a file of --write_gt or --sheet that exists")
    add_num_workers(parser)
    add = parser.add_argument_group("pictures").add_argument
    add("--report", action="store_true", help="show pictures of cases in index.html")
    add("--sheet", type=Path, help="also draw cases into one picture, a .jpg or .png file")
    add("--order", choices=CASE_ORDERS, default="spread", help="by IoU; spread: evenly from the best to the worst")
    text = "number of cases (default: 100 in a report, and 20 with hidden objects; 8 in a sheet; 40 in a comparison)"
    add("--num", type=at_least(0), help=text)
    args = parser.parse_args(argv)
    if not args.setting and (args.pred_file or args.report or args.sheet or not args.write_gt):
        parser.error("--setting is missing: ego-exo or exo-ego; only --write_gt needs none")
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    if args.names and not len(set(args.names)) == len(args.names) == len(args.pred_file or ()):
        parser.error("--names needs as many names, all different, as --pred_file has files")
    if (args.protocol != OFFICIAL_RULE or args.sheet) and len(args.pred_file or ()) > 1:
        parser.error("--protocol and --sheet take one results file; several are compared by the official rule")
    if args.sheet and args.sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        parser.error(f"--sheet {args.sheet} does not end in .jpg or .png")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth = open_truth(args)
    files = args.pred_file or ([default_results_path(args.setting, truth.split)] if args.setting else [])
    inputs = [*files, *(path_beside(path, "run.json") for path in files), *truth.sources]
    for named in filter(None, (args.write_gt, args.sheet)):
        check_output(named, args.overwrite, inputs)
    if args.write_gt:
        truth.write_official(args.write_gt)
        print(f"ground truth of {counted(len(truth.uids), 'take')} written to {args.write_gt}")
    if not args.setting:
        return
    if not args.out:
        args.out = path_beside(files[0], "comparison" if len(files) > 1 else "evaluation")
    for name in (PAGE, "cases.csv", "comparison.json" if len(files) > 1 else "metrics.json"):
        check_output(args.out / name, True, filter(Path.is_file, inputs))
    options = ScoreOptions(args.setting, args.accept, at_file_size=args.protocol in ("omama", "all"))
    scores = [score_file(truth, path, options, args.num_workers, args.allow_missing) for path in files]
    if len(files) == 1:
        evaluate_file(truth, files[0], scores[0], args)
    else:
        file_by_name = dict(zip(args.names or short_names(files), files, strict=True))
        compare_files(truth, file_by_name, scores, args)


def evaluate_file(truth: GroundTruth, path: Path, scores: SplitScores, args: argparse.Namespace) -> None:
    """Print the scores of a results file, and write them with the pictures that the options ask for."""
    summary, warnings = summarize_file(path, truth.split, scores), warning_lines(truth, scores)
    lines = [format_summary(summary)]
    if args.protocol != OFFICIAL_RULE:
        summary["protocols"] = without_nan(under_protocols(args.protocol, scores.cases))
        lines += ["", format_protocols(summary["protocols"], truth.all_frames)]
    lines += warnings
    shown, names, sheet = [], take_names(scores), None
    if args.report:
        shown = choose_cases(scores.cases, args.order, 100 if args.num is None else args.num, with_hidden=True)
    if args.sheet:  # drawn before anything is written, because a frame may be missing
        chosen = choose_cases(scores.cases, args.order, 8 if args.num is None else args.num)
        sheet = draw_sheet(truth, scores.setting, path, chosen)
        lines += [f"{counted(len(chosen), 'case')}: {args.sheet}"]

    with output_folder(args.out) as folder:
        pictures = write_gallery(folder, truth, scores.setting, {"": path}, [shown])
        cards = [report_card(case, file, names[case.take_uid]) for case, file in zip(shown, pictures, strict=True)]
        title = f"Object correspondence, {scores.setting}, {split_title(truth.split)}"
        lead = f"{headline(summary)}; results of {path.name}"
        write_page(folder, title, lead, warnings, report_sections(summary, cards, args.order))
        write_cases(folder, [""], [scores.cases])
        write_json(folder / "metrics.json", summary, indent=1)
    if sheet is not None:
        with claimed(args.sheet.parent, args.sheet.name, f"writes {args.sheet}"):
            write_picture(args.sheet, sheet)
    print("\n".join([*lines, f"report: open {args.out / PAGE}"]))


def compare_files(
    truth: GroundTruth, files: dict[str, Path], scores: list[SplitScores], args: argparse.Namespace
) -> None:
    """Compare results files (paths by name) on the frames that all of them have; print the differences and write them,
    with pictures of the cases on which the files disagree most.
    """
    names, setting = list(files), scores[0].setting
    cases = common_cases(scores)
    if not cases[0]:
        raise UserError("these results files have no scored frame in common")
    comparison: dict[str, Any] = {"setting": setting, "split": truth.split}
    comparison |= {"provenance": provenance_of(list(files.values())), **compare(names, cases, scores[0])}
    drawn = cases_at(cases, largest_disagreements(cases, 40 if args.num is None else args.num))
    takes = take_names(scores[0])
    lead = f"{setting}, {split_title(truth.split)}: {counted(len(cases[0]), 'frame')} that all files have"
    warnings = list(dict.fromkeys(line for file_scores in scores for line in warning_lines(truth, file_scores)))

    with output_folder(args.out) as folder:
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
    print(f"\nreport: open {args.out / PAGE}")


if __name__ == "__main__":
    run_script(main)
