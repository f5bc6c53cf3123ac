"""Write a report on a results file: a folder that opens in any browser, without a server or a network.

    python evaluation/report.py --setting ego-exo

The benchmark's numbers beside the published ones, where the model fails, plots, a gallery from best to worst, and a
page on the data set.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from evaluation.data_page import DATA_PLOTS, write_description
from evaluation.describe import describe
from evaluation.inputs import (
    accepted_forms,
    add_reading_options,
    add_truth_options,
    beside,
    data_split,
    default_results,
    left_out,
    open_truth,
    provenance_of,
    score_file,
)
from evaluation.outputs import OUTPUT_FILES, claim_files, headline, split_title, write_outputs
from evaluation.pages import DATA_PAGE, PAGE, PLOTS, draw_plots, report_card, track_lines, write_page
from evaluation.pictures import choose, draw_gallery, load_predictions
from evaluation.published import published_rank
from evaluation.summary import summarize, take_names
from formats.arguments import Parser, add_num_workers, add_setting, at_least
from formats.errors import run_script


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
    split = data_split(args.split, args.gt_file)
    how = args.annotation_path, args.gt_file, args.all_frames, args.allow_missing, args.lenient
    truth = open_truth(args.data_path, split, args.splits_path, *how)
    results = args.pred_file or default_results(args.setting, split)
    scores = score_file(truth, results, args.setting, args.num_workers, args.allow_missing, accepted_forms(args))
    source = {"split": split, "results": str(results), "provenance": provenance_of([results])}
    summary = {**source, **summarize(scores)}
    warnings = left_out(truth, scores)
    summary["published_rank"] = published_rank(summary, official=not warnings)

    hidden = sorted((case for case in scores.cases if not case.visible), key=lambda case: -case.confidence)
    shown = choose(scores.cases, "spread", args.num) + hidden[: max(1, args.num // 5)]
    pictures = [f"pictures/{number:04d}.jpg" for number in range(len(shown))]
    out = args.out or beside(results, "report")
    claim_files(out, "report", [PAGE, DATA_PAGE, *OUTPUT_FILES, *PLOTS, *DATA_PLOTS, *pictures])
    predictions = load_predictions(results, args.setting, shown)
    draw_gallery([out / picture for picture in pictures], truth, [[prediction] for prediction in predictions])
    write_description(out, {"split": split, **describe(truth, args.num_workers)}, DATA_PAGE)
    names = take_names(scores)
    page = write_page(
        out,
        "report.html",
        title=f"Object correspondence, {args.setting}, {split_title(split)}",
        lead=f"{headline(summary)}; results of {results}",
        warnings=warnings,
        summary=summary,
        figures=draw_plots(out, summary, scores.cases),
        track_lines=track_lines(scores.cases, names, shown),
        cards=[report_card(case, path, names[case.take_uid]) for case, path in zip(shown, pictures, strict=True)],
    )
    write_outputs(out, summary, scores.cases)
    print(f"report: open {page}")


if __name__ == "__main__":
    run_script(main)
