"""Score a results file as the Ego-Exo4D relation benchmark does.

    python evaluation/evaluate.py --setting ego-exo --split test --report
    python evaluation/evaluate.py --setting ego-exo --split test --sheet worst.jpg --order worst --num 20
    python evaluation/evaluate.py --setting ego-exo --split test --protocol all --pred_file o.json.gz --resize_masks
    python evaluation/evaluate.py --split test --write_gt gt_test.json
    python evaluation/evaluate.py --setting ego-exo --split test --list_cases cases.csv

The script prints the benchmark's four numbers and further numbers (marked *), and writes metrics.json, cases.csv and
index.html, which any browser opens. With --report, index.html also shows pictures of cases. If predictions cannot be
scored, it lists them all and writes no scores.

compare.py compares several results files; paper_rows.py prints the scores of both settings as rows for a paper.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
from collections.abc import Sequence

import numpy as np

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.drawing import write_picture
from common.errors import UserError, counted, printable, run_script, warn_once
from common.files import check_output
from evaluation.case_pictures import MOST_ON_SHEET, draw_case, draw_sheet, row_of_panels
from evaluation.pages import CASE_ORDERS, PAGE, choose_rows, files_to_write, make_cards, write_evaluation
from evaluation.protocols import ALL_FRAMES, PROTOCOLS
from evaluation.score import ScoredFiles, ScoreOptions, score_files
from evaluation.summary import figures_of
from evaluation.tables import list_cases, printed_lines
from evaluation.truth import GroundTruth, add_truth_options, open_truth
from formats.pairs import BOTH
from formats.results import RESULTS_DIR, results_path, same_run_path

MOVED = {"--row": "paper_rows.py", "--seeds": "compare.py", "--names": "compare.py"}  # flags that 3.0 had here


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser, required=False)
    add_truth_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, nargs="+", help="results (default: results/{setting}_{split}_results.json)")
    rules = "also score by the rule of another group, besides the official rule (docs/evaluation.md)"
    add("--protocol", choices=[*PROTOCOLS, "all"], default="official", help=rules)
    add("--out", "--out_path", type=Path, help="output folder (default: {name}_evaluation beside the results)")
    text = "write the benchmark's ground-truth JSON to this file; without --setting, do only this"
    add("--write_gt", "--output_path", type=Path, help=text)
    text = "write a CSV file with the pictures and the query mask of each case, which a program must answer"
    add("--list_cases", type=Path, help=text)
    add("--overwrite", action="store_true", help="replace a file that exists, except in the folder --out")
    add_num_workers(parser)
    add = parser.add_argument_group("pictures").add_argument
    add("--report", action="store_true", help="show pictures of cases in index.html")
    add("--sheet", type=Path, help="also draw cases into one picture, a .jpg or .png file")
    add("--order", choices=CASE_ORDERS, default="spread", help="by IoU; spread: evenly from the best to the worst")
    text = "number of cases (default: 100 in a report, and 20 with hidden objects; 8 in a sheet)"
    add("--num", type=at_least(0), help=text)
    words = [word.partition("=")[0] for word in (sys.argv[1:] if argv is None else argv)]
    moved = [flag for flag in MOVED if flag in words]
    if moved:
        parser.error(f"{moved[0]} belongs to python evaluation/{MOVED[moved[0]]}")
    args = parser.parse_args(argv)
    if len(args.pred_file or ()) > 1:
        parser.error("several results files are compared by python evaluation/compare.py --pred_file A B")
    if not args.setting and (args.pred_file or args.report or args.sheet or args.list_cases or not args.write_gt):
        parser.error("--setting is missing: ego-exo or exo-ego; only --write_gt needs none")
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    if args.sheet and args.sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        parser.error(f"--sheet {args.sheet} does not end in .jpg or .png")
    if args.sheet and (args.num or 0) > MOST_ON_SHEET:
        parser.error(f"--num {args.num} is too much for --sheet, which shows at most {MOST_ON_SHEET} cases")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth = open_truth(args, args.setting or BOTH)
    files = args.pred_file or []
    if args.setting and not files and not args.list_cases:
        if truth.split is None:
            raise UserError("--gt_file does not say which split it holds; name the results with --pred_file")
        files = [results_path(RESULTS_DIR, args.setting, truth.split)]
    written = [path for path in (args.write_gt, args.list_cases, args.sheet) if path]
    for path in written:
        check_output(path, args.overwrite)
    if files:
        args.out = args.out or same_run_path(files[0], "evaluation")
        written += files_to_write(args.out, args.report and args.num != 0, is_comparison=False)
    truth.check_outputs(written, files)
    for path in files:
        evaluate(truth, path, args)
    if args.write_gt:
        truth.write_official(args.write_gt)
        print(f"ground truth of {counted(len(truth.infos), 'take')} written to {args.write_gt}")
    if args.list_cases:
        list_cases(args.list_cases, truth.pairs)
        print(f"{counted(len(truth.pairs), 'case')} listed in {args.list_cases}")


def evaluate(truth: GroundTruth, path: Path, args: argparse.Namespace) -> None:
    """Print and write the figures of a results file, with the pictures that the options ask for."""
    at_file_size, draws = args.protocol in ("omama", "all"), bool(args.report or args.sheet)
    options = ScoreOptions(args.setting, args.accept, at_file_size, args.allow_missing, keep_masks=draws)
    scored = score_files(truth, {"": path}, options, args.num_workers)
    pairs, cases = scored.pairs, scored.cases[0]
    rules = () if args.protocol == "official" else PROTOCOLS if args.protocol == "all" else ("official", args.protocol)
    if args.protocol in ALL_FRAMES and not args.all_frames:
        warn_once(f"the rule {args.protocol} counts every frame; add --all_frames")
    figures = figures_of(truth, args.setting, scored, rules={rule: PROTOCOLS[rule](pairs, cases) for rule in rules})
    cards = {}
    if args.report:
        number = 100 if args.num is None else args.num
        rows = choose_rows(pairs, cases, args.order, number, with_hidden=True)
        cards = make_cards(scored, rows, truth.take_names)
    sheet = sheet_of(scored, truth.take_names, args) if args.sheet else None
    write_evaluation(args.out, figures, scored, cards, CASE_ORDERS[args.order])
    if sheet is not None:
        write_picture(args.sheet, sheet)
    print(*map(printable, [*printed_lines(figures), f"report: open {args.out / PAGE}"]), sep="\n")


def sheet_of(scored: ScoredFiles, take_names: Sequence[str], args: argparse.Namespace) -> np.ndarray:
    """The picture of --sheet."""
    rows = choose_rows(scored.pairs, scored.cases[0], args.order, 8 if args.num is None else args.num)
    captions = ["{title}, {caption}".format(**card) for card in make_cards(scored, rows, take_names).values()]
    return draw_sheet((row_of_panels(draw_case(scored, row)) for row in rows), captions)


if __name__ == "__main__":
    run_script(main)
