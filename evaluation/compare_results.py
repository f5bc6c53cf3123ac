"""Compare results files of one setting on the same ground truth:

    python evaluation/compare_results.py --setting ego-exo run_a/ego-exo_val_results.json run_b/ego-exo_val_results.json

Each file is compared with the first: paired differences of all metrics with 95 % intervals, by scenario, object size
and camera, and pictures of the cases that changed most. Writes index.html, comparison.json and cases.csv.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from tqdm import tqdm

from evaluation.compare import Comparison, as_json, common_cases, compare, largest_changes, short_names
from evaluation.compare_report import write_comparison
from evaluation.options import (
    RESULTS_DIR,
    add_setting_option,
    add_truth_options,
    add_workers_option,
    make_parser,
    open_truth,
)
from evaluation.outputs import NAMES, format_table, write_csv
from evaluation.pictures import Predicted, draw_case, predicted_masks, write_numbered_pictures
from evaluation.run import check_truth, score_file
from evaluation.score import Case
from evaluation.summary import METRICS, OFFICIAL
from evaluation.truth import GroundTruth
from formats.errors import UserError, run_script
from formats.files import write_json


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_setting_option(parser, pred_file=False)
    add_truth_options(parser)
    add = parser.add_argument
    add("pred_files", type=Path, nargs="+", metavar="RESULTS", help="two or more results files")
    add("--names", nargs="+", help="what to call them (default: names of the files or folders)")
    add("--num", type=int, default=40, help="pictures of changed cases, half of them rises (default: 40; 0: none)")
    add("--height", type=int, default=260, help="of the pictures' panels, pixels (default: 260)")
    add("--resamples", type=int, default=2000, help="of takes, for the intervals (default: 2000)")
    add("--out", type=Path, help="folder (default: results/{setting}_{split}_comparison)")
    add_workers_option(parser)
    args = parser.parse_args(argv)
    if len(args.pred_files) < 2:
        parser.error("one results file has nothing to be compared with; name two or more")
    if args.names and len(args.names) != len(args.pred_files):
        parser.error(f"{len(args.names)} --names for {len(args.pred_files)} results files; give each its own")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    names = args.names or short_names(args.pred_files)
    truth = open_truth(args)
    check_truth(truth, args)
    scores = [score_file(truth, path, args) for path in args.pred_files]
    cases = common_cases(scores)
    if not cases[0]:
        raise UserError("these results files have no scored frame in common")
    comparisons = compare(names, cases, scores[0], args.resamples)
    out = args.out or RESULTS_DIR / f"{args.setting}_{args.split}_comparison"
    pictures = draw_changes(truth, names, cases, out, args)
    lead = f"{args.setting}, {args.split}: {len(cases[0]):,} frames that all files have"
    page = write_comparison(out, f"{' against '.join(names)}", lead, names, comparisons, cases, pictures)
    write_json(out / "comparison.json", as_json(names, comparisons, len(cases[0])), indent=1)
    header = (*Case._fields[:6], *(f"{field} of {name}" for name in names for field in Case._fields[6:]))
    rows = ((*group[0][:6], *(value for case in group for value in case[6:])) for group in zip(*cases, strict=True))
    write_csv(out / "cases.csv", header, rows)
    print("\n\n".join([lead, *(format_comparison(names[0], comparison) for comparison in comparisons)]))
    print(f"report: open {page}")


def draw_changes(
    truth: GroundTruth, names: list[str], cases: list[list[Case]], folder: Path, args: argparse.Namespace
) -> list[tuple[list[Case], str]]:
    """Pictures of the cases whose IoU differs most between the first and the last file, with all files' predictions."""
    chosen = [[of_file[i] for of_file in cases] for i in largest_changes(cases[0], cases[-1], args.num // 2)]
    masks = [
        predicted_masks(path, args.setting, [group[number] for group in chosen])
        for number, path in enumerate(args.pred_files)
    ]
    takes = {uid: truth.load(uid) for uid in dict.fromkeys(group[0].take_uid for group in chosen)}

    def draw(group: list[Case]):
        predictions = [
            Predicted(case, of_file[case.key], name) for case, of_file, name in zip(group, masks, names, strict=True)
        ]
        return draw_case(takes[group[0].take_uid], predictions, args.height)

    paths = write_numbered_pictures(folder, map(draw, tqdm(chosen, unit="picture", desc="pictures")))
    return list(zip(chosen, paths, strict=True))


def format_comparison(first: str, comparison: Comparison) -> str:
    """The table of one comparison for the terminal."""
    rows = [("", first, comparison.name, "difference", "95 % interval")]
    for name in METRICS:
        found = comparison.metrics[name]
        low, high = found.interval
        mark = "" if name in OFFICIAL else "* "
        span = f"{low:+.4f} to {high:+.4f}" if low == low else "-"
        rows.append((mark + NAMES[name], f"{found.first:.4f}", f"{found.second:.4f}", f"{found.value:+.4f}", span))
    return "\n".join(format_table(rows))


if __name__ == "__main__":
    run_script(main)
