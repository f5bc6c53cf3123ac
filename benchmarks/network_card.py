"""Print the tables of model/pretrained/README.md and figures.md: the accuracy of a network on the test takes of
`train_network.sh`; for some of them also by angle between the views of the cameras, and by the reason why an object is
hidden; and how far its existence can be trusted. evaluation/evaluate.py prints the scores by size of the object.

    python benchmarks/network_card.py --folder runs/xsegtx_tiny --out card

Predictions are written to --out; a rerun uses existing predictions. The script takes about an hour on one core.
"""

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import numpy as np

from benchmarks.measure import PROCESSED, run_script_apart
from common.arguments import CKPT_HELP, Parser
from common.constants import SETTINGS, SHIPPED, THRESHOLD
from common.existence import verdict
from evaluation.score import ScoreOptions, score_file
from evaluation.summary import metrics_of_cases
from evaluation.truth import truth_of_split
from formats.pairs import Pair
from formats.results import results_path
from formats.takes import FRAME_STEP
from synthetic.options import ObjectSizes, TakeOptions
from synthetic.tabletop import EGO, Tabletop
from synthetic.take import TakeId, build_tabletop

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
DETAILED = "models", "models_mixed", "patterned"  # with tables by angle and reason
ANGLES = {"0 to 30": 30, "30 to 60": 60, "60 to 90": 90, "90 to 180": 180}  # degrees, and the largest angle of each
HIDDEN = "left out", "out of view", "behind something"
THRESHOLDS = 0.3, 0.4, 0.5, 0.6, 0.7, 0.8  # of existence: an object above the threshold is predicted visible
FOUND = 0.5  # an object is found if its mask has a higher IoU
COLUMNS = "visible", "hidden", "IoU", "right object", "visible said", "found said visible", "hidden said"


class Scored(NamedTuple):
    """Scored pairs, with names of takes in place of uids, and their cases."""

    pairs: list[Pair]
    cases: np.ndarray

    def chosen(self, rows: np.ndarray) -> "Scored":
        return Scored([pair for pair, chosen in zip(self.pairs, rows, strict=True) if chosen], self.cases[rows])


Cases = Sequence[Scored]  # of ego-exo and of exo-ego


def score_test_pairs(data: Path, out: Path, ckpt_path: Path, setting: str) -> Scored:
    """Predict the test pairs, unless their results exist -> their cases."""
    results = results_path(out, setting, SPLIT)
    if not results.exists():
        where = ("--setting", setting, "--split", SPLIT, "--data_path", data, "--out_path", out)
        run_script_apart("eval_segswap.py", *where, "--ckpt_path", ckpt_path, "--num_workers", 0)
    truth = truth_of_split(data, SPLIT, setting)
    pairs = map(truth.pairs.named, range(len(truth.pairs)))
    named = [pair._replace(take_uid=truth.infos[pair.take_uid].name) for pair in pairs]
    return Scored(named, score_file(truth, results, ScoreOptions(setting)).cases)


def figures_of(scored: Scored) -> list[str]:
    """The COLUMNS, in percent but for the two counts: IoU and right object of the visible objects, and the shares of
    the visible objects, of the found ones and of the hidden ones whose existence is predicted rightly.
    """
    cases = scored.cases
    of, visible = metrics_of_cases(cases), int(cases["visible"].sum())
    found = cases["existence"][is_found(cases)] > THRESHOLD
    share = float(np.mean(found)) if len(found) else np.nan
    shares = of["iou"], of["right_object"], 1 - of["missed_existence"], share, 1 - of["false_existence"]
    counts = (str(count or "-") for count in (visible, len(cases) - visible))
    return [*counts, *("-" if np.isnan(x) else f"{100 * x:.1f}" for x in shares)]


def print_table(title: str, rows: Mapping[str, Cases]) -> None:
    """Print the columns COLUMNS of both settings, but for those in which no row has a figure."""
    table = {name: list(map("/".join, zip(*map(figures_of, both), strict=True))) for name, both in rows.items()}
    shown = [k for k in range(len(COLUMNS)) if any(row[k] != "-/-" for row in table.values())]
    heads = [*title.split(" | "), *(COLUMNS[k] for k in shown)]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for name, row in table.items():
        print(f"| {' | '.join([name, *(row[k] for k in shown)])} |", flush=True)


def grouped(both: Cases, visible: bool, label_of: Callable[[Pair], str]) -> dict[str, Cases]:
    """Group the visible or the hidden cases by the labels of their pairs."""
    both = [scored.chosen(scored.cases["visible"] == visible) for scored in both]
    labels = [np.array([label_of(pair) for pair in scored.pairs], object) for scored in both]
    names = sorted({*np.concatenate(labels)})
    return {name: [of.chosen(own == name) for of, own in zip(both, labels, strict=True)] for name in names}


@functools.cache
def rebuilt_tabletop(folder: Path, name: str) -> Tabletop:
    """Make the world of a rendered take again."""
    options = json.loads((folder / "takes" / name / "relations.json").read_text())["options"]
    options["object_size"] = ObjectSizes(**options["object_size"])
    options |= {key: folder.parent / "household" / key for key in ("models", "photos") if options.get(key)}
    split, index = name.rsplit("_", 2)[1:]
    return build_tabletop(TakeId(split, int(index)), TakeOptions(**options))


def angle_of_views(folder: Path, pair: Pair) -> str:
    """The angle, one of ANGLES, between the directions from which two cameras see an object of a rendered take."""
    world = rebuilt_tabletop(folder, pair.take_uid)
    exo = pair.target_camera if pair.query_camera == EGO else pair.query_camera
    cameras = (world.camera(name, pair.frame / FRAME_STEP) for name in (EGO, exo))
    place = world.places[[item.name for item in world.items].index(pair.object_name)]
    one, other = (camera.position - place for camera in cameras)
    angle = np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other)))
    return next(name for name, limit in ANGLES.items() if angle <= limit)


def why_hidden(folder: Path, pair: Pair) -> str:
    """The reason (one of HIDDEN) why a camera of a rendered take does not see an object."""
    world, second = rebuilt_tabletop(folder, pair.take_uid), pair.frame / FRAME_STEP
    camera = world.cameras.index(pair.target_camera)
    number = [item.name for item in world.items].index(pair.object_name)
    if world.left_out[int(second), camera, number]:
        return HIDDEN[0]
    view = world.camera(pair.target_camera, second)
    [pixel], depth = view.project(world.object_solid(number, second).position[None])
    inside = (pixel > 0).all() and (pixel < view.size[::-1]).all() and depth > 0
    return HIDDEN[2] if inside else HIDDEN[1]


def accuracy_above(limit: float, cases: np.ndarray) -> float:
    """The balanced accuracy if an object with an existence above `limit` is predicted visible."""
    moved = cases.copy()
    moved["existence"] += THRESHOLD - limit
    return metrics_of_cases(moved)["balanced_accuracy"]


def print_existence(cases: Mapping[str, Cases]) -> None:
    """Print what existence is worth: its balanced accuracy at several thresholds, as a mean of all kinds of takes; and
    for each verdict and each tenth of existence, the count of objects, and the shares that are visible and found.
    """
    print(f"\n| threshold | {' | '.join(map(str, THRESHOLDS))} |\n|{'---|' * (1 + len(THRESHOLDS))}")
    sets = [scored.cases for both in cases.values() for scored in both if scored.pairs]
    accuracy = [np.mean([accuracy_above(limit, of_set) for of_set in sets]) for limit in THRESHOLDS]
    print(f"| balanced accuracy | {' | '.join(f'{100 * x:.1f}' for x in accuracy)} |")
    scored = np.concatenate(sets)
    for title, name_of in ("it says", verdict_of), ("existence", tenth_of):
        print(f"\n| {title} | objects | visible | found |\n|---|---|---|---|")
        names = np.array([name_of(existence) for existence in scored["existence"]])
        for name in sorted({*names}):
            chosen = scored[names == name]
            shares = chosen["visible"].mean(), is_found(chosen).mean()
            print(f"| {name} | {len(chosen)} | {' | '.join(f'{100 * x:.1f}' for x in shares)} |")


def verdict_of(existence: float) -> str:
    return verdict(existence).rpartition(" (")[0]


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
    add("--out", type=Path, required=True, help="folder for predictions; another one for each network")
    args = parser.parse_args()
    folders = {name: args.folder / name for name in TAKES if (args.folder / name / PROCESSED).exists()}
    cases = {
        name: [score_test_pairs(folder / PROCESSED, args.out / name, args.ckpt_path, setting) for setting in SETTINGS]
        for name, folder in folders.items()
    }
    print_table("test takes", {TAKES[name]: both for name, both in cases.items()})
    for title, visible, label_of in ("degrees", True, angle_of_views), ("why hidden", False, why_hidden):
        rows = {}
        for name in (name for name in DETAILED if name in folders):
            groups = grouped(cases[name], visible, functools.partial(label_of, folders[name]))
            rows |= {f"{TAKES[name]} | {label}": both for label, both in groups.items()}
        print_table(f"test takes | {title}", rows)
    print_existence(cases)


if __name__ == "__main__":
    run_script(main)
