"""Print the scores of both settings as rows for a paper, from what evaluate.py or compare.py wrote for each setting.

    python evaluation/paper_rows.py results/*_test_evaluation/metrics.json --names "My method"

Each results file, or the mean of --seeds, has two rows in LaTeX, of scores and intervals, and then one as in
docs/published_results.csv. Files after the first have the intervals of their differences from the first, and a star at
a score whose interval lacks 0.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import csv
import io
import itertools
import re
from collections.abc import Sequence

from common.arguments import Parser
from common.constants import SETTINGS
from common.errors import UserError, counted, printable, run_script
from evaluation.figures import Figures, is_undefined, read_figures
from evaluation.metrics import METRICS, OFFICIAL


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("figures", type=Path, nargs="+", metavar="JSON", help="metrics.json or comparison.json, one of each setting")
    add("--names", nargs="+", help="names of the results files (default: as compared, or the results' folder)")
    args = parser.parse_args(argv)
    missing = [path for path in args.figures if not path.exists()]  # also a pattern that no file fits
    if missing:
        raise UserError(f"no file {missing[0]}; evaluate.py writes metrics.json, compare.py comparison.json")
    if len(args.figures) != 2:
        remedy = "give one of each setting; compare.py puts several methods into one comparison.json"
        parser.error(f"{counted(len(args.figures), 'file')}: {remedy}")
    both = sorted(map(read_figures, args.figures), key=lambda figures: figures.setting)
    names_of = [row_names(figures) for figures in both]
    names = args.names or names_of[0]
    if [figures.setting for figures in both] != [*SETTINGS] or not len(names) == len(names_of[0]) == len(names_of[1]):
        given = ", ".join(f"{x.setting} of {len(y)}" for x, y in zip(both, names_of, strict=True))
        raise UserError(
            "give one file of ego-exo and one of exo-ego, of as many results files as --names has names; these are "
            f"{given}"
        )
    if not args.names and [*names_of[0]] != [*names_of[1]]:
        called = "; ".join(f"{x.setting}: {', '.join(y)}" for x, y in zip(both, names_of, strict=True))
        raise UserError(f"a row has both settings of one method, and these have other names ({called}); give --names")
    print(*map(printable, paper_lines(both, names)), sep="\n")


def row_names(figures: Figures) -> Sequence[str]:
    if figures.seeds is not None:
        return ["mean"]
    return figures.names or [Path(figures.results).absolute().parent.name]


def paper_lines(both: Sequence[Figures], names: Sequence[str]) -> list[str]:
    """The rows of both settings, the ones in LaTeX first."""
    latex, text = [], io.StringIO()
    warnings = "; ".join(dict.fromkeys(line for figures in both for line in figures.warnings))
    for name, *of_settings in zip(names, *map(official_cells, both), strict=True):
        scores, intervals = zip(*itertools.chain(*of_settings), strict=True)
        cells = re.sub(r"([_%&#])", r"\\\1", name), *(score.replace("*", "$^{*}$") for score in scores)
        latex += [" & ".join(row) + r" \\" for row in (cells, ("", *intervals)) if any(row)]
        about = name, "", "", "official", "", warnings
        csv.writer(text, lineterminator="\n").writerow([*about, *(score.strip("-*") for score in scores)])
    return [*latex, *text.getvalue().splitlines()]


def official_cells(figures: Figures) -> list[list[tuple[str, str]]]:
    """For each results file, or the mean of seeds, each official score with a star if it is surely another one than the
    first file's, and its interval.
    """
    summary = figures.summary
    files = [[(summary.total.scores[name], summary.intervals[name], "") for name in OFFICIAL]]
    for other in figures.comparisons:
        files.append([(other.metrics[name].second, other.metrics[name].interval_95, "+") for name in OFFICIAL])
    cells = []
    for of_file in files:
        cells.append([])
        for name, (score, (low, high), sign) in zip(OFFICIAL, of_file, strict=True):
            text, interval = METRICS[name].as_text(score), METRICS[name].interval_text((low, high), sign)
            star = "*" if sign and (low > 0 or high < 0) else ""
            cells[-1].append(("-", "") if is_undefined(name, summary.total.lacks) else (text + star, interval))
    return cells


if __name__ == "__main__":
    run_script(main)
