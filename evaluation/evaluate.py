"""Score results files as the Ego-Exo4D relation benchmark does, or compare them.

    python evaluation/evaluate.py --setting ego-exo
    python evaluation/evaluate.py --setting exo-ego --split test --pred_file results/exo-ego_test_results.json
    python evaluation/evaluate.py --setting ego-exo --protocol all --pred_file others.json.gz --resize_masks --lenient
    python evaluation/evaluate.py --setting ego-exo --pred_file a/results.json b/results.json
    python evaluation/evaluate.py --write_gt gt_val.json

One file: prints the benchmark's four numbers and more (marked *), writes metrics.json, breakdown.csv and cases.csv.
Several: compares each with the first on the frames that all have, paired differences with 95 % intervals, by scenario,
object size and camera, and the takes that each wins; writes index.html with pictures of the cases on which the files
disagree most, comparison.json and cases.csv.
Checks the predictions first and lists everything that is wrong with them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script  # isort: split

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.errors import UserError, counted
from common.files import write_json
from evaluation.case_pictures import draw_gallery, load_predictions
from evaluation.compare import common_cases, compare, disagreements, short_names
from evaluation.inputs import (
    add_reading_options,
    add_truth_options,
    beside,
    data_split,
    default_results,
    left_out,
    open_truth,
    provenance_of,
    score_file,
    summarize_file,
)
from evaluation.outputs import (
    OUTPUT_FILES,
    claimed_files,
    difference_table,
    format_protocols,
    format_summary,
    format_table,
    split_title,
    won_table,
    write_cases,
    write_outputs,
)
from evaluation.pages import PAGE, change_card, comparison_sections, write_page
from evaluation.plots import comparison_plots, draw_comparison_plots
from evaluation.protocols import OFFICIAL_RULE, PROTOCOLS, under_protocols
from evaluation.summary import take_names, without_nan
from evaluation.truth import GroundTruth


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser, required=False)
    add_truth_options(parser)
    add_reading_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, nargs="+", help="results (default: results/{setting}_{split}_results.json)")
    rules = "also average by the rule of another scorer of the field, beside the official one (docs/protocols.md)"
    add("--protocol", choices=[*PROTOCOLS, "all"], default=OFFICIAL_RULE, help=rules)
    add("--names", nargs="+", help="what to call several results files (default: names of the files or folders)")
    add("--out", type=Path, help="folder (default: results/{setting}_{split}_evaluation or ..._comparison)")
    add("--write_gt", type=Path, help="write the benchmark's ground-truth JSON here; without --setting only that")
    add("--num", type=at_least(0), default=40, help="pictures of a comparison, of its largest disagreements")
    add_num_workers(parser)
    args = parser.parse_args(argv)
    nothing_to_do = not (args.setting or args.pred_file or args.write_gt)
    if nothing_to_do and args.out and args.out.suffix == ".json":
        args.write_gt = args.out  # as the original's process_annotations.py with --output_path
    if not args.setting and (args.pred_file or not args.write_gt):
        parser.error("--setting is missing: ego-exo or exo-ego; only --write_gt needs none")
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    if args.names and len(args.names) != len(args.pred_file or ()):
        parser.error("--names needs as many names as --pred_file has files")
    if args.protocol != OFFICIAL_RULE and len(args.pred_file or ()) > 1:
        parser.error("--protocol takes one results file; several are compared by the official rule")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth = open_truth(args)
    if args.write_gt:
        truth.write_official(args.write_gt)
        print(f"ground truth of {counted(len(truth.uids), 'take')} written to {args.write_gt}")
    if args.setting:
        files = args.pred_file or [default_results(args.setting, data_split(args))]
        if len(files) > 1:
            compare_files(args, truth, files)
        else:
            evaluate_file(args, truth, files[0])


def evaluate_file(args: argparse.Namespace, truth: GroundTruth, path: Path) -> None:
    scores, summary, warnings = summarize_file(args, truth, path)
    tables = [format_summary(summary)]
    if args.protocol != OFFICIAL_RULE:
        summary["protocols"] = without_nan(under_protocols(args.protocol, scores.cases))
        tables += ["", format_protocols(summary["protocols"], args.all_frames)]
    out = args.out or beside(path, "evaluation")
    with claimed_files(out, "evaluation", OUTPUT_FILES):
        write_outputs(out, summary, scores.cases)
        print("\n".join([*tables, *warnings, f"written to {out}"]))


def compare_files(args: argparse.Namespace, truth: GroundTruth, files: list[Path]) -> None:
    """Write and print how several results files compare on the frames that all of them have."""
    scores = [score_file(args, truth, path) for path in files]
    names = args.names or short_names(files)
    cases = common_cases(scores)
    if not cases[0]:
        raise UserError("these results files have no scored frame in common")
    comparison = {"setting": args.setting, "split": data_split(args), "provenance": provenance_of(files)}
    comparison |= compare(names, cases, scores[0])
    places = disagreements(cases, args.num)
    shown = [[of_file[place] for place in places] for of_file in cases]
    pictures = [f"pictures/{number:04d}.jpg" for number in range(len(places))]

    out = args.out or beside(files[0], "comparison")
    with claimed_files(out, "comparison", [PAGE, "comparison.json", "cases.csv", *comparison_plots(names), *pictures]):
        predictions = [
            load_predictions(path, args.setting, of_file, name)
            for path, of_file, name in zip(files, shown, names, strict=True)
        ]
        draw_gallery([out / picture for picture in pictures], truth, predictions)
        takes, cards = take_names(scores[0]), []
        for picture, *group in zip(pictures, *shown, strict=True):
            cards.append(change_card(group, picture, names, takes[group[0].take_uid]))
        sections = comparison_sections(comparison, draw_comparison_plots(out, names, cases), cards)
        lead = (
            f"{args.setting}, {split_title(comparison['split'])}: {counted(len(cases[0]), 'frame')} that all files have"
        )
        warnings = list(dict.fromkeys(line for one in scores for line in left_out(truth, one)))
        page = write_page(out, " against ".join(names), lead, warnings, sections)
        write_json(out / "comparison.json", comparison, indent=1)
        write_cases(out / "cases.csv", names, cases)
        tables = [difference_table(names[0], other) for other in comparison["comparisons"]] + [won_table(comparison)]
        print("\n".join([lead, *warnings, *(line for table in tables for line in ["", *format_table(table)])]))
        print(f"\nreport: open {page}")


if __name__ == "__main__":
    run_script(main)
