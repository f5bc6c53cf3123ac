"""Compare results files on the cases that all of them have.

    python evaluation/compare.py --setting ego-exo --split test --pred_file a/results.json b/results.json
    python evaluation/compare.py --setting ego-exo --split test --pred_file seed_*/results.json --seeds

The script compares each file with the first one. It prints paired differences with 95 % intervals, also by scenario,
object size and camera, and writes comparison.json, cases.csv and index.html, which shows the cases on which the files
disagree most. With --seeds, the files are runs of one method, and it prints their scores with mean and deviation, and
breakdowns of the mean.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import argparse
from collections.abc import Sequence

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.errors import UserError, printable, run_script
from common.files import read_json
from evaluation.figures import FIGURES_FILES
from evaluation.pages import (
    DISAGREEING,
    PAGE,
    choose_disagreements,
    files_to_write,
    make_cards,
    write_evaluation,
)
from evaluation.score import ScoreOptions, score_files
from evaluation.summary import figures_of
from evaluation.tables import printed_lines
from evaluation.truth import add_truth_options, open_truth
from formats.results import same_run_path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser)
    add_truth_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, nargs="+", required=True, help="two or more results files")
    add("--seeds", action="store_true", help="print mean and deviation of the files, the runs of one method")
    add("--names", nargs="+", help="names of the results files (default: names of the files or of their folders)")
    add("--out", "--out_path", type=Path, help="output folder (default: {name}_comparison beside the first file)")
    add("--num", type=at_least(0), default=40, help="number of cases with pictures in index.html")
    add_num_workers(parser)
    args = parser.parse_args(argv)
    if len(args.pred_file) < 2:
        there = "one is scored by python evaluation/evaluate.py"
        there = there if args.pred_file[0].exists() else f"there is no file {args.pred_file[0]}"  # a pattern, often
        parser.error(f"--pred_file needs two or more results files; {there}")
    if args.names and not len(set(args.names)) == len(args.names) == len(args.pred_file):
        parser.error("--names needs as many names, all different, as --pred_file has files")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth, out = open_truth(args, args.setting), args.out or same_run_path(args.pred_file[0], "comparison")
    truth.check_outputs(files_to_write(out, bool(args.num), is_comparison=True), args.pred_file)
    files = dict(zip(args.names or short_names(args.pred_file), args.pred_file, strict=True))
    refuse_another_comparison(out / FIGURES_FILES[1], [*files])
    options = ScoreOptions(args.setting, args.accept, allow_missing=args.allow_missing, keep_masks=True)
    scored = score_files(truth, files, options, args.num_workers)
    figures = figures_of(truth, args.setting, scored, args.seeds)
    rows = choose_disagreements(scored.pairs, scored.cases, args.num)
    cards = make_cards(scored, rows, truth.take_names)
    write_evaluation(out, figures, scored, cards, DISAGREEING)
    print(*map(printable, [*printed_lines(figures), f"report: open {out / PAGE}"]), sep="\n")


def refuse_another_comparison(path: Path, names: Sequence[str]) -> None:
    """Raises UserError if `path` holds a comparison of other files. By default, all with the same first file have one
    folder.
    """
    before = read_json(path, "delete it").get("names", []) if path.exists() else names
    if [*before] != [*names]:
        raise UserError(f"{path.parent} compares {', '.join(before)}; give another --out, or delete the folder")


def short_names(paths: Sequence[Path]) -> list[str]:
    """Distinct names of results files: their stems if distinct, else their folders if distinct, else numbers."""
    stems = [path.stem.removesuffix("_results") for path in paths]
    folders = [path.resolve().parent.name for path in paths]
    numbers = [f"{number}: {path.name}" for number, path in enumerate(paths, 1)]
    return next(names for names in (stems, folders, numbers) if len(set(names)) == len(names))


if __name__ == "__main__":
    run_script(main)
