"""Write a report on a results file: a folder that opens in any browser, without a server or a network.

    python evaluation/report.py --setting ego-exo

The benchmark's numbers, a gallery of cases from best to worst, where the model fails, and plots.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

from common.arguments import Parser, add_num_workers, add_setting, at_least
from evaluation.case_pictures import choose, draw_gallery
from evaluation.options import add_reading_options, add_truth_options, open_truth
from evaluation.outputs import beside, default_results, output_folder, summarize_file, write_outputs
from evaluation.pages import PAGE, report_card, report_sections, write_page
from evaluation.plots import draw_plots
from evaluation.score import left_out, score_file
from evaluation.summary import take_names
from evaluation.tables import headline, split_title


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
    truth = open_truth(args)
    results = args.pred_file or default_results(args.setting, truth.split)
    out = args.out or beside(results, "report")
    scores = score_file(truth, results, args.setting, args.num_workers, args.accept, args.allow_missing)
    summary = summarize_file(results, truth.split, scores)

    hidden = sorted((case for case in scores.cases if not case.visible), key=lambda case: -case.existence)
    shown = choose(scores.cases, "spread", args.num) + hidden[: max(1, args.num // 5)]
    names = take_names(scores)
    with output_folder(out, "report") as folder:
        pictures = draw_gallery(folder, truth, args.setting, {"": results}, [shown])
        cards = [report_card(case, path, names[case.take_uid]) for case, path in zip(shown, pictures, strict=True)]
        sections = report_sections(summary, draw_plots(folder, ["mean"], [scores.cases]), cards)
        title = f"Object correspondence, {args.setting}, {split_title(truth.split)}"
        lead = f"{headline(summary)}; results of {results}"
        write_page(folder, title, lead, left_out(truth, scores), sections)
        write_outputs(folder, summary, scores.cases)
    print(f"report: open {out / PAGE}")


if __name__ == "__main__":
    run_script(main)
