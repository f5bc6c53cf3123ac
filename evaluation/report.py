"""Make a report of a results file, which any browser opens, or a picture of some predictions.

    python evaluation/report.py --setting ego-exo --split test
    python evaluation/report.py --setting ego-exo --split test --order worst --num 20 --out results/worst.jpg

The report is a folder with the scores, a gallery of cases, and tables that show where the model fails; it needs no
server. If --out is a .jpg or .png file, only the gallery is drawn. --take, --object, --camera and --frame choose the
cases of the gallery; the scores are always of the whole split.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

from common.arguments import Parser, add_num_workers, add_setting, at_least
from common.drawing import write_picture
from common.errors import UserError, counted
from common.files import check_output, claimed, write_json
from evaluation.case_pictures import PANEL_HEIGHT, case_sheet, draw_cases, write_gallery
from evaluation.options import add_truth_options, open_truth
from evaluation.outputs import default_results_path, output_folder, summarize_file, write_cases
from evaluation.pages import PAGE, report_card, report_sections, write_page
from evaluation.score import Case, ScoreOptions, SplitScores, score_file, warning_lines
from evaluation.selection import CASE_ORDERS, choose_cases, matching_cases
from evaluation.summary import take_names
from evaluation.tables import headline, split_title
from evaluation.truth import GroundTruth
from formats.results import path_beside


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_setting(parser)
    add_truth_options(parser)
    add_num_workers(parser)
    add = parser.add_argument
    add("--pred_file", type=Path, help="results file (default: results/{setting}_{split}_results.json)")
    add("--out", type=Path, help="folder, or .jpg or .png file (default: results/{setting}_{split}_report)")
    add("--overwrite", action="store_true", help="replace a picture --out that exists")
    add = parser.add_argument_group("cases").add_argument
    add("--order", choices=CASE_ORDERS, default="spread", help="by IoU; spread: evenly from the best to the worst")
    number = "number of cases (default: 8 in a picture; 100 in a report, and a fifth more with hidden objects)"
    add("--num", type=at_least(1), help=number)
    add("--take", help="only takes whose uid or name begins with this")
    add("--object", help="only this object")
    add("--camera", help="only cases with this camera as query or target")
    add("--frame", type=int, help="only this frame")
    add("--height", type=at_least(60), default=PANEL_HEIGHT, help="height of the pictures in pixels")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    truth = open_truth(args)
    results = args.pred_file or default_results_path(args.setting, truth.split)
    out = args.out or path_beside(results, "report")
    is_folder = out.suffix.lower() not in (".jpg", ".jpeg", ".png")
    if not is_folder:
        check_output(out, args.overwrite, [results, *truth.sources])
    options = ScoreOptions(args.setting, args.accept)
    scores = score_file(truth, results, options, args.num_workers, args.allow_missing)
    cases = matching_cases(scores, args.take, args.object, args.camera, args.frame)
    if is_folder:
        cases = choose_cases(cases, args.order, args.num or 100, with_hidden=True)
        write_report(out, truth, results, scores, cases, args)
        print(f"report: open {out / PAGE}")
        return

    cases = choose_cases(cases, args.order, args.num or 8)
    if not cases:
        raise UserError("none of these objects is visible in the target; --order random shows them all the same")
    pictures = draw_cases(truth, args.setting, {"": results}, [cases], args.height)
    with claimed(out.parent, out.name, f"writes {out}"):
        write_picture(out, case_sheet(list(pictures)))
    print(f"{counted(len(cases), 'case')}: {out}")


def write_report(
    out: Path, truth: GroundTruth, results: Path, scores: SplitScores, cases: list[Case], args: argparse.Namespace
) -> None:
    """Write the folder of a report, with pictures of `cases`."""
    summary, names = summarize_file(results, truth.split, scores), take_names(scores)
    with output_folder(out) as folder:
        pictures = write_gallery(folder, truth, scores.setting, {"": results}, [cases], args.height)
        cards = [report_card(case, path, names[case.take_uid]) for case, path in zip(cases, pictures, strict=True)]
        title = f"Object correspondence, {scores.setting}, {split_title(truth.split)}"
        lead = f"{headline(summary)}; results of {results.name}"
        write_page(folder, title, lead, warning_lines(truth, scores), report_sections(summary, cards, args.order))
        write_cases(folder, [""], [scores.cases])
        write_json(folder / "metrics.json", summary, indent=1)


if __name__ == "__main__":
    run_script(main)
