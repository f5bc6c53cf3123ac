"""Score a results file as the Ego-Exo4D relation benchmark does, or compare several results files.

    python evaluation/evaluate.py --setting ego-exo --split test --report
    python evaluation/evaluate.py --setting ego-exo --split test --sheet worst.jpg --order worst --num 20
    python evaluation/evaluate.py --setting ego-exo --split test --protocol all --pred_file o.json.gz --resize_masks
    python evaluation/evaluate.py --setting ego-exo --split test --pred_file a/results.json b/results.json
    python evaluation/evaluate.py --setting ego-exo --split test --pred_file seed_*/results.json --seeds
    python evaluation/evaluate.py --split test --write_gt gt_test.json
    python evaluation/evaluate.py --setting ego-exo --split test --list_cases cases.csv
    python evaluation/evaluate.py --row results/*_test_evaluation/metrics.json --names "My method"

One file: the script prints the benchmark's four numbers and further numbers (marked *), and writes metrics.json,
cases.csv and index.html, which any browser opens. With --report, index.html also shows pictures of cases.

Several files: it compares each with the first, on the cases that all have. It prints paired differences with 95 %
intervals, and writes comparison.json, cases.csv and index.html, which also have them by scenario, object size and
camera; index.html shows the cases on which the files disagree most. With --seeds, they are runs of one method, and it
prints their scores with mean and deviation, and breakdowns of the mean.

--row prints what was written for both settings, metrics.json or comparison.json, as rows for a paper: the official
scores with their intervals in LaTeX, and as docs/published_results.csv has them.

If predictions cannot be scored, it lists them all and writes no scores.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import UserError, counted, printable, run_script, say_errors

say_errors(__name__)

import numpy as np

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.constants import SETTINGS
from common.drawing import write_picture
from common.files import check_output, check_outputs, output_folder, read_record, write_json
from common.progress import progress
from common.provenance import provenance
from evaluation.case_pictures import MOST_ON_SHEET, draw_case, draw_sheet, panel_styles, row_of_panels
from evaluation.pages import CASE_ORDERS, DISAGREEMENT, PAGE, choose_rows, make_card, write_page
from evaluation.protocols import PROTOCOLS
from evaluation.score import FileScores, ScoreOptions, score_file
from evaluation.summary import SHORT_BREAKDOWNS, compare, labels_of, spread_of, summarize, without_nan
from evaluation.tables import list_cases, paper_lines, printed_lines, write_cases
from evaluation.truth import GroundTruth, add_truth_options, open_truth
from formats.pairs import BOTH, Pairs
from formats.results import RESULTS_DIR, results_path, same_run_path

WRITTEN = "metrics.json", "comparison.json", "cases.csv", "pictures"  # beside the page


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser, required=False)
    add_truth_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, nargs="+", help="results (default: results/{setting}_{split}_results.json)")
    add("--seeds", action="store_true", help="print mean and deviation of several files, the runs of one method")
    rules = "also score by the rule of another group, besides the official rule (docs/evaluation.md)"
    add("--protocol", choices=[*PROTOCOLS, "all"], default="official", help=rules)
    add("--names", nargs="+", help="names of the results files (default: names of the files or of their folders)")
    add("--out", type=Path, help="output folder (default: {name}_evaluation or _comparison beside the first file)")
    text = "write the benchmark's ground-truth JSON to this file; without --setting, do only this"
    add("--write_gt", "--output_path", type=Path, help=text)
    text = "write a CSV file with the pictures and the query mask of each case, which a program must answer"
    add("--list_cases", type=Path, help=text)
    add("--overwrite", action="store_true", help="replace a file that exists, except in the folder --out")
    text = "print rows for a paper's table from metrics.json, or comparison.json, of both settings, and do only this"
    add("--row", type=Path, nargs=2, metavar=("JSON", "JSON"), help=text)
    add_num_workers(parser)
    add = parser.add_argument_group("pictures").add_argument
    add("--report", action="store_true", help="show pictures of cases in index.html")
    add("--sheet", type=Path, help="also draw cases into one picture, a .jpg or .png file")
    add("--order", choices=CASE_ORDERS, default="spread", help="by IoU; spread: evenly from the best to the worst")
    text = "number of cases (default: 100 in a report, and 20 with hidden objects; 8 in a sheet; 40 in a comparison)"
    add("--num", type=at_least(0), help=text)
    args = parser.parse_args(argv)
    if args.row:
        return args
    if not args.setting and (args.pred_file or args.report or args.sheet or args.list_cases or not args.write_gt):
        parser.error("--setting is missing: ego-exo or exo-ego; only --write_gt needs none")
    if args.write_gt and args.all_frames:
        parser.error("--write_gt needs the annotated frames that --all_frames does without; drop one of them")
    if args.names and not len(set(args.names)) == len(args.names) == len(args.pred_file or ()):
        parser.error("--names needs as many names, all different, as --pred_file has files")
    if len(args.pred_file or ()) > 1:
        if args.protocol != "official" or args.sheet:
            parser.error("--protocol and --sheet take one results file; several are compared by the official rule")
        args.report, args.order = True, DISAGREEMENT
    elif args.seeds:
        parser.error("--seeds needs several results files of one method; name them with --pred_file")
    if args.sheet and args.sheet.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        parser.error(f"--sheet {args.sheet} does not end in .jpg or .png")
    if args.sheet and (args.num or 0) > MOST_ON_SHEET:
        parser.error(f"--num {args.num} is too much for --sheet, which shows at most {MOST_ON_SHEET} cases")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.row:
        print_rows(args.row, args.names)
        return
    truth = open_truth(args, args.setting or BOTH)
    files = args.pred_file or []
    if args.setting and not files and not args.list_cases:
        if truth.split is None:
            raise UserError("--gt_file does not say which split it holds; name the results with --pred_file")
        files = [results_path(RESULTS_DIR, args.setting, truth.split)]
    if files and not args.out:
        args.out = same_run_path(files[0], "evaluation" if len(files) == 1 else "comparison")
    named = [path for path in (args.write_gt, args.list_cases, args.sheet) if path]
    for path in named:
        check_output(path, args.overwrite)
    in_folder = [args.out / name for name in (PAGE, *WRITTEN)] if files else []
    if files:
        check_output(args.out / PAGE, True)
    check_outputs([*named, *in_folder], truth.read_with(files))
    if args.write_gt:
        truth.write_official(args.write_gt)
        print(f"ground truth of {counted(len(truth.infos), 'take')} written to {args.write_gt}")
    if args.list_cases:
        list_cases(args.list_cases, truth.pairs)
        print(f"{counted(len(truth.pairs), 'case')} listed in {args.list_cases}")
    if files:
        at_file_size, draws = args.protocol in ("omama", "all"), bool(args.report or args.sheet)
        options = ScoreOptions(args.setting, args.accept, at_file_size, args.allow_missing, keep_masks=draws)
        scores = [score_file(truth, path, options, args.num_workers) for path in files]
        evaluate(truth, files, scores, args)


def print_rows(paths: Sequence[Path], names: Sequence[str] | None) -> None:
    """Print the figures of both settings, in two files, as `paper_lines`. Raises UserError if they do not fit."""
    remedy = "write it with --setting, without --all_frames"
    form = {"setting": str, "official": dict, "interval_95": dict, "frames_visible": int, "warnings": [str]}
    both = sorted((read_record(path, form, remedy) for path in paths), key=lambda x: x["setting"])
    names_of = [["mean"] if "seeds" in x else x.get("names", [Path(x["results"]).absolute().parent.name]) for x in both]
    names = names or names_of[0]
    if [x["setting"] for x in both] != [*SETTINGS] or not len(names) == len(names_of[0]) == len(names_of[1]):
        raise UserError(
            "--row takes one file of ego-exo and one of exo-ego, of as many results files as --names has names"
        )
    print(*map(printable, paper_lines(both, names)), sep="\n")


def evaluate(truth: GroundTruth, files: list[Path], scores: list[FileScores], args: argparse.Namespace) -> None:
    """Print and write the figures of a results file, or the differences of several on the cases that all of them have,
    with the pictures that the options ask for.
    """
    several = len(files) > 1
    names = (args.names or short_names(files)) if several else [""]
    rows = np.flatnonzero(~np.isnan([of_file.cases["existence"] for of_file in scores]).any(0))
    if several and not len(rows):
        raise UserError("these results files have no scored case in common")
    pairs, cases = truth.pairs[rows], np.stack([of_file.cases[rows] for of_file in scores])
    figures = figures_of(truth, args, names, pairs, cases)
    figures["warnings"] = list(dict.fromkeys(line for of_file in scores for line in of_file.warnings))
    made = [of_file.made for of_file in scores]
    figures |= {"results": made[0]["results"], "provenance": {"predictions": made, "evaluation": provenance()}}

    def draw(row: int) -> list[np.ndarray]:
        return draw_case(pairs, row, names, cases[:, row], [of_file.masks[rows[row]] for of_file in scores])

    def card_of(number: int, row: int) -> dict[str, Any]:
        return make_card(number, names, truth.take_names[pairs.take[row]], pairs.named(row), cases[:, row])

    chosen, cards, sheet = [], [], None
    if args.report:
        number = args.num if args.num is not None else 40 if several else 100
        chosen = choose_rows(pairs, cases, args.order, number, with_hidden=True)
    if args.sheet:
        on_sheet = choose_rows(pairs, cases, args.order, 8 if args.num is None else args.num)
        captions = ["{title}, {caption}".format(**card_of(0, row)) for row in on_sheet]
        sheet = draw_sheet(map(row_of_panels, map(draw, on_sheet)), captions)
    with output_folder(args.out) as folder:
        for number, row in enumerate(progress(chosen, "pictures", len(chosen), "picture")):
            panels, card = draw(row), card_of(number, row)
            write_picture(folder / card["picture"], row_of_panels(panels))
            cards.append(card | {"panels": panel_styles(panels)})
        if sheet is not None:
            write_picture(args.sheet, sheet)
        write_json(folder / ("comparison.json" if several else "metrics.json"), figures, indent=1)
        write_page(folder, figures, cards, args.order)
        write_cases(folder / "cases.csv", names, pairs, cases)
    print(*map(printable, [*printed_lines(figures), f"report: open {args.out / PAGE}"]), sep="\n")


def figures_of(
    truth: GroundTruth, args: argparse.Namespace, names: Sequence[str], pairs: Pairs, cases: np.ndarray
) -> dict[str, Any]:
    """The figures of the cases (files, N) of `pairs`: the scores of the first results file, by the rules that are asked
    for, and the differences of the others from it; with --seeds, the means of all files.
    """
    labels = labels_of(truth, pairs, cases[0])
    figures: dict[str, Any] = {"setting": args.setting, "split": truth.split}
    figures |= {"takes": len(truth.infos), "frames_wanted": len(truth.pairs)}
    if len(names) > 1:
        labels = {kind: labels[kind] for kind in SHORT_BREAKDOWNS}
        figures |= compare(names, np.array(pairs.store.takes)[pairs.take], labels, cases)
        figures |= {"seeds": spread_of(cases), "comparisons": []} if args.seeds else {}
    figures |= summarize(pairs.take, labels, cases if args.seeds else cases[:1])
    if truth.all_frames:
        figures["extra"] = figures.pop("official") | figures["extra"]
    if args.protocol != "official":
        rules = PROTOCOLS if args.protocol == "all" else ("official", args.protocol)
        figures["protocols"] = {rule: PROTOCOLS[rule](pairs, cases[0]) for rule in rules}
    return without_nan(figures)


def short_names(paths: Sequence[Path]) -> list[str]:
    """Distinct names of results files: their stems if distinct, else their folders if distinct, else numbers."""
    stems = [path.stem.removesuffix("_results") for path in paths]
    folders = [path.resolve().parent.name for path in paths]
    numbers = [f"{number}: {path.name}" for number, path in enumerate(paths, 1)]
    return next(names for names in (stems, folders, numbers) if len(set(names)) == len(names))


if __name__ == "__main__":
    run_script(main)
