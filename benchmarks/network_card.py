"""Print the tables of model/pretrained/README.md, and how far existence can be trusted, from the test takes of
`train_network.sh`. evaluation/evaluate.py prints the scores of each set of takes by size of the object.

    python benchmarks/network_card.py --folder runs/xsegtx_tiny --out card

Predictions are written to --out; a rerun uses existing predictions. The script takes about an hour on one core.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.measure import PROCESSED, run_script_apart
from common.arguments import CKPT_HELP, Parser
from common.constants import SETTINGS, SHIPPED, THRESHOLD
from common.errors import run_script
from common.existence import word_for
from evaluation.score import ScoreOptions, score_file
from evaluation.summary import metrics_of_cases, rows_by_label
from evaluation.truth import truth_of_split
from formats.pairs import BOTH
from formats.results import results_path

SPLIT = "test"
TAKES = {  # folders of train_network.sh, and what they show
    "models": "modelled things, real sizes",
    "models_slivers": "the same takes, with slivers and dark things",
    "models_mixed": "modelled things, 0.5 to 30 %",
    "models_touching": "modelled things, 0.5 to 30 %, touching",
    "models_left_out": "modelled things, many left out",
    "models_odd": "modelled things, odd cameras",
    "patterned": "patterned solids, real sizes",
    "patterned_large": "patterned solids, 20 %",
    "patterned_larger": "patterned solids, 3 to 40 %",
}
THRESHOLDS = 0.3, 0.4, 0.5, 0.6, 0.7, 0.8  # of existence: an object above the threshold is predicted visible
FOUND = 0.5  # an object is found if its mask has a higher IoU
COLUMNS = "visible", "hidden", "IoU", "right object", "visible said", "found said visible", "hidden said"


def score_test_pairs(data: Path, out: Path, ckpt_path: Path) -> list[np.ndarray]:
    """Predict the test pairs, unless their results exist -> the cases of ego-exo and of exo-ego."""
    where = ("--setting", BOTH, "--split", SPLIT, "--data_path", data, "--out", out)
    run_script_apart("eval_segswap.py", *where, "--ckpt_path", ckpt_path, "--num_workers", 0)
    truths = [(setting, truth_of_split(data, SPLIT, setting)) for setting in SETTINGS]
    return [score_file(truth, results_path(out, x, SPLIT), ScoreOptions(x)).cases for x, truth in truths]


def figures_of(cases: np.ndarray) -> list[str]:
    """The COLUMNS, in percent but for the two counts: IoU and right object of the visible objects, and the shares of
    the visible objects, of the found ones and of the hidden ones whose existence is predicted rightly.
    """
    of, visible = metrics_of_cases(cases), int(cases["visible"].sum())
    found = cases["existence"][is_found(cases)] > THRESHOLD
    share = float(np.mean(found)) if len(found) else np.nan
    shares = of["iou"], of["right_object"], 1 - of["missed_existence"], share, 1 - of["false_existence"]
    counts = (str(count or "-") for count in (visible, len(cases) - visible))
    return [*counts, *("-" if np.isnan(x) else f"{100 * x:.1f}" for x in shares)]


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def print_existence(sets: Sequence[np.ndarray]) -> None:
    """Print what existence is worth in sets of cases: the mean of its balanced accuracy at several thresholds; and for
    each verdict and each tenth of existence, the count of objects, and the shares that are visible and found.
    """
    accuracy = [np.mean([accuracy_above(limit, cases) for cases in sets]) for limit in THRESHOLDS]
    heads = ("threshold", *map(str, THRESHOLDS))
    print_table(heads, [("balanced accuracy", *(f"{100 * x:.1f}" for x in accuracy))])
    scored = np.concatenate(sets)
    for title, name_of in ("it says", word_for), ("existence", tenth_of):
        groups = rows_by_label([name_of(existence) for existence in scored["existence"]])
        rows = []
        for name, of_group in groups.items():
            cases = scored[of_group]
            shares = cases["visible"].mean(), is_found(cases).mean()
            rows.append((name, str(len(cases)), *(f"{100 * x:.1f}" for x in shares)))
        print_table((title, "objects", "visible", "found"), rows)


def accuracy_above(limit: float, cases: np.ndarray) -> float:
    """The balanced accuracy if an object with an existence above `limit` is predicted visible."""
    moved = cases.copy()
    moved["existence"] += THRESHOLD - limit
    return metrics_of_cases(moved)["balanced_accuracy"]


def tenth_of(existence: float) -> str:
    tenth = min(int(10 * existence), 9)
    return f"{tenth / 10} to {(tenth + 1) / 10}"


def is_found(cases: np.ndarray) -> np.ndarray:
    return cases["visible"] & (cases["iou"] > FOUND)


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="folder of train_network.sh, with its takes")
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add("--out", type=Path, required=True, help="folder for predictions; give each network its own")
    args = parser.parse_args()
    folders = [name for name in TAKES if (args.folder / name / PROCESSED).exists()]
    cases = [score_test_pairs(args.folder / name / PROCESSED, args.out / name, args.ckpt_path) for name in folders]
    figures = (map("/".join, zip(*map(figures_of, both), strict=True)) for both in cases)
    print_table(("test takes", *COLUMNS), ((TAKES[name], *row) for name, row in zip(folders, figures, strict=True)))
    print_existence([of_setting for both in cases for of_setting in both if len(of_setting)])


if __name__ == "__main__":
    run_script(main)
