"""The first tables of model/pretrained/README.md: how good a network is on the test takes of `train_network.sh`, by
kind of takes and by object's size, and how far its existence is to be believed.

    python benchmarks/network_card.py --folder runs/xsegtx_tiny --out card --more data/mine/processed

Predictions go to --out, and what is there is not predicted again. It takes about an hour of a core.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import numpy as np

from benchmarks.measure import PROCESSED, run_script_apart
from common.arguments import SETTINGS, Parser
from evaluation.score import Case, Reading, score_file
from evaluation.summary import metrics
from evaluation.truth import GroundTruth
from formats.results import THRESHOLD, results_path
from inference.predictor import CKPT_HELP, SHIPPED

SPLIT = "test"
SIZES = {
    "under 0.05 %": 5e-4,
    "to 0.15 %": 1.5e-3,
    "to 0.5 %": 5e-3,
    "to 2 %": 0.02,
    "to 10 %": 0.1,
    "to 30 %": 0.3,
    "more": 1,
}
THRESHOLDS = 0.3, 0.4, 0.5, 0.6, 0.7  # of existence
COLUMNS = "objects", "IoU", "right object", "visible, predicted so", "hidden, predicted so"
Both = Sequence[list[Case]]  # cases of both settings


def score(data: Path, out: Path, ckpt_path: Path, setting: str, all_frames: bool) -> list[Case]:
    """Predict a split's pairs, unless that is done -> its scored cases."""
    results = results_path(out, setting, SPLIT)
    if not results.exists():
        where = ("--setting", setting, "--split", SPLIT, "--data_path", data, "--out_path", out)
        run_script_apart("eval_segswap.py", *where, "--ckpt_path", ckpt_path, "--precision", "fp32", "--num_workers", 0)
    return score_file(GroundTruth.of_split(data, SPLIT, all_frames=all_frames), results, Reading(setting)).cases


def print_table(title: str, rows: dict[str, Both]) -> None:
    """In percent, of both settings: IoU and right object of visible objects, how many of the visible and of the hidden
    are predicted to be.
    """
    print(f"\n| {' | '.join((title, *COLUMNS))} |\n|{'---|' * (1 + len(COLUMNS))}")
    for name, both in rows.items():
        figures = [
            (of["iou"], of["right_object"], 1 - of["missed_existence"], 1 - of["false_existence"])
            for of in map(metrics, both)
        ]
        columns = (
            "/".join("-" if np.isnan(x) else f"{100 * x:.1f}" for x in column) for column in zip(*figures, strict=True)
        )
        print(f"| {name} | {'/'.join(str(len(cases)) for cases in both)} | {' | '.join(columns)} |", flush=True)


def by_size(both: Both) -> dict[str, Both]:
    """Visible cases by the first of SIZES that the object's share of the target does not exceed."""
    groups, low = {}, -1.0
    for name, high in SIZES.items():
        groups[name] = [
            [case for case in cases if case.visible and low < case.mask.truth_area <= high] for cases in both
        ]
        low = high
    return {name: group for name, group in groups.items() if any(group)}


def print_existence(cases: dict[str, Both]) -> None:
    """At some thresholds, the balanced accuracy of existence, a mean of all kinds of takes; and by tenths of what the
    network says, how many objects are visible.
    """
    print(f"\n| threshold | {' | '.join(map(str, THRESHOLDS))} |\n|{'---|' * (1 + len(THRESHOLDS))}")
    sets = [scored for both in cases.values() for scored in both if scored]
    accuracy = [
        np.mean(
            [
                metrics([case._replace(existence=case.existence + THRESHOLD - limit) for case in scored])[
                    "balanced_accuracy"
                ]
                for scored in sets
            ]
        )
        for limit in THRESHOLDS
    ]
    print(f"| balanced accuracy | {' | '.join(f'{100 * x:.1f}' for x in accuracy)} |")
    existence, visible = np.array([(case.existence, case.visible) for scored in sets for case in scored]).T
    tenth = np.minimum((10 * existence).astype(int), 9)
    print("\n| existence | objects | mean | visible |\n|---|---|---|---|")
    for k in range(10):
        if (chosen := tenth == k).any():
            mean, share = existence[chosen].mean(), visible[chosen].mean()
            print(f"| {k / 10} to {(k + 1) / 10} | {chosen.sum()} | {100 * mean:.1f} | {100 * share:.1f} |")


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="of train_network.sh, with its takes")
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add("--out", type=Path, required=True, help="folder for predictions")
    add("--more", type=Path, nargs="*", default=[], help="further folders of processed takes")
    args = parser.parse_args()
    own = sorted(args.folder.glob(f"*/{PROCESSED}"))
    cases = {
        data.parent.name: [
            score(data, args.out / data.parent.name, args.ckpt_path, setting, data in args.more) for setting in SETTINGS
        ]
        for data in (*own, *args.more)
    }
    print_table("takes", cases)
    for name, both in cases.items():
        print_table(f"{name}: object in the target", by_size(both))
    print_existence(cases)


if __name__ == "__main__":
    run_script(main)
