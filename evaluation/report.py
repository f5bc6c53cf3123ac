"""Write a report on a results file: a folder that opens in any browser, without a server or a network.

    python evaluation/report.py --setting ego-exo

The benchmark's numbers, a gallery of cases from best to worst, where the model fails, and plots.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script  # isort: split

from common.arguments import Parser, add_num_workers, add_setting, at_least
from evaluation.case_pictures import choose, draw_gallery, load_predictions
from evaluation.inputs import (
    add_reading_options,
    add_truth_options,
    beside,
    data_split,
    default_results,
    open_truth,
    summarize_file,
)
from evaluation.outputs import OUTPUT_FILES, claimed_files, headline, split_title, write_outputs
from evaluation.pages import PAGE, report_card, report_sections, write_page
from evaluation.plots import REPORT_PLOTS, draw_report_plots
from evaluation.summary import take_names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser)
    add_truth_options(parser)
    add_reading_options(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, help="results (default: results/{setting}_{split}_results.json)")
    add("--num", type=at_least(1), default=100, help="cases in the gallery, and a fifth more where nothing is visible")
    add("--out", type=Path, help="folder (default: results/{setting}_{split}_report)")
    add_num_workers(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth, split = open_truth(args), data_split(args)
    results = args.pred_file or default_results(args.setting, split)
    scores, summary, warnings = summarize_file(args, truth, results)

    hidden = sorted((case for case in scores.cases if not case.visible), key=lambda case: -case.existence)
    shown = choose(scores.cases, "spread", args.num) + hidden[: max(1, args.num // 5)]
    pictures = [f"pictures/{number:04d}.jpg" for number in range(len(shown))]
    out = args.out or beside(results, "report")
    with claimed_files(out, "report", [PAGE, *OUTPUT_FILES, *REPORT_PLOTS, *pictures]):
        predictions = load_predictions(results, args.setting, shown)
        draw_gallery([out / picture for picture in pictures], truth, [predictions])

        names = take_names(scores)
        cards = [report_card(case, path, names[case.take_uid]) for case, path in zip(shown, pictures, strict=True)]
        plots = draw_report_plots(out, scores.cases)
        sections = report_sections(summary, plots, cards)
        title = f"Object correspondence, {args.setting}, {split_title(split)}"
        page = write_page(out, title, f"{headline(summary)}; results of {results}", warnings, sections)
        write_outputs(out, summary, scores.cases)
        print(f"report: open {page}")


if __name__ == "__main__":
    run_script(main)
