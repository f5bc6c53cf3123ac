"""Print the tables of model/pretrained/README.md: the accuracy of a network on the test takes of `train_network.sh`, by
kind of takes, size of the object, angle between the views of the cameras, and rotation of the target camera; its
existence of hidden objects, by the reason why they are hidden; and how far its existence can be trusted.

    python benchmarks/network_card.py --folder runs/xsegtx_tiny --out card --more data/mine/processed

Predictions are written to --out; a rerun uses existing predictions. The script takes about an hour on one core.
"""

import functools
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import cv2
import numpy as np
from PIL import Image

from benchmarks.measure import PROCESSED, run_script_apart
from common.arguments import CKPT_HELP, SETTINGS, SHIPPED, Parser, at_least
from common.files import write_json
from evaluation.score import Case, ScoreOptions, score_file
from evaluation.summary import metrics_of_cases, take_names
from evaluation.truth import GroundTruth
from formats.masks import decode_mask, encode_mask
from formats.processed import ProcessedTake, frames_in
from formats.results import THRESHOLD, results_path
from formats.takes import FRAME_STEP, camera_kind, find_split_path, read_split
from model.device import PRECISIONS
from synthetic.options import ObjectSizes, TakeOptions
from synthetic.tabletop import EGO, Tabletop
from synthetic.take import TakeId, build_tabletop

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
ANGLES = {"0 to 30": 30, "30 to 60": 60, "60 to 90": 90, "90 to 180": 180}  # degrees
HIDDEN = "left out", "out of view", "behind something"
THRESHOLDS = 0.3, 0.4, 0.5, 0.6, 0.7  # of existence: an object above the threshold is predicted visible
ROTATIONS = (0, 30, 60, 90, 180)  # degrees
TURNED = "models", "patterned"  # the kinds of takes that are also predicted with rotated targets
COLUMNS = "objects", "IoU", "right object", "visible, predicted so", "hidden, predicted so"
Both = Sequence[list[Case]]  # the cases of ego-exo and of exo-ego


def score(data: Path, out: Path, network: Sequence[object], setting: str, all_frames: bool) -> list[Case]:
    """Predict the test pairs, unless their results exist -> scored cases, with names of takes in place of uids."""
    results = results_path(out, setting, SPLIT)
    if not results.exists():
        where = ("--setting", setting, "--split", SPLIT, "--data_path", data, "--out_path", out)
        run_script_apart("eval_segswap.py", *where, *network, "--num_workers", 0)
    scores = score_file(GroundTruth.of_split(data, SPLIT, all_frames=all_frames), results, ScoreOptions(setting))
    names = take_names(scores)
    return [case._replace(take_uid=names[case.take_uid]) for case in scores.cases]


def print_table(title: str, rows: Mapping[str, Both]) -> None:
    """Print the columns COLUMNS of both settings, in percent: IoU and right object of the visible objects, the visible
    objects that are predicted visible, and the hidden objects that are predicted hidden.
    """
    print(f"\n| {' | '.join((title, *COLUMNS))} |\n|{'---|' * (1 + len(COLUMNS))}")
    for name, both in rows.items():
        figures = [
            (of["iou"], of["right_object"], 1 - of["missed_existence"], 1 - of["false_existence"])
            for of in map(metrics_of_cases, both)
        ]
        columns = (
            "/".join("-" if np.isnan(x) else f"{100 * x:.1f}" for x in column) for column in zip(*figures, strict=True)
        )
        print(f"| {name} | {'/'.join(str(len(cases)) for cases in both)} | {' | '.join(columns)} |", flush=True)


def grouped(both: Both, value: Callable[[Case], float], limits: Mapping[str, float]) -> dict[str, Both]:
    """Group the visible cases by the first of the ascending `limits` that their value does not exceed."""
    groups, low = {}, -1.0
    for name, high in limits.items():
        groups[name] = [[case for case in cases if case.visible and low < value(case) <= high] for cases in both]
        low = high
    return {name: group for name, group in groups.items() if any(group)}


@functools.cache
def tabletop(folder: Path, name: str) -> Tabletop:
    """Make the world of a rendered take again."""
    options = json.loads((folder / "takes" / name / "relations.json").read_text())["options"]
    options["object_size"] = ObjectSizes(**options["object_size"])
    options |= {key: folder.parent / "household" / key for key in ("models", "photos") if options.get(key)}
    split, index = name.rsplit("_", 2)[1:]
    return build_tabletop(TakeId(split, int(index)), TakeOptions(**options))


def angle(folder: Path, case: Case) -> float:
    """The angle in degrees between the directions from which two cameras see an object of a rendered take."""
    world = tabletop(folder, case.take_uid)
    exo = case.target_camera if case.query_camera == EGO else case.query_camera
    cameras = (world.camera(name, case.frame / FRAME_STEP) for name in (EGO, exo))
    place = world.places[[item.name for item in world.items].index(case.object_name)]
    one, other = (camera.position - place for camera in cameras)
    return float(np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other))))


def why_hidden(folder: Path, case: Case) -> str:
    """The reason (one of HIDDEN) why a camera of a rendered take does not see an object."""
    world, second = tabletop(folder, case.take_uid), case.frame / FRAME_STEP
    camera = world.cameras.index(case.target_camera)
    number = [item.name for item in world.items].index(case.object_name)
    if world.left_out[int(second), camera, number]:
        return HIDDEN[0]
    view = world.camera(case.target_camera, second)
    pixels, depth = view.project(np.stack([solid.position for solid in world.object_solids(number, second)]))
    inside = ((pixels > 0) & (pixels < view.size[::-1])).all(1) & (depth > 0)
    return HIDDEN[2] if inside.any() else HIDDEN[1]


def by_reason(folder: Path, both: Both) -> dict[str, Both]:
    """Group the hidden cases by the reason why they are hidden."""
    groups: dict[str, list[list[Case]]] = {reason: [[], []] for reason in HIDDEN}
    for place, cases in enumerate(both):
        for case in cases:
            if not case.visible:
                groups[why_hidden(folder, case)][place].append(case)
    return {reason: group for reason, group in groups.items() if any(group)}


def accuracy_above(limit: float, cases: list[Case]) -> float:
    """The balanced accuracy if an object with an existence above `limit` is predicted visible."""
    moved = [case._replace(existence=case.existence + THRESHOLD - limit) for case in cases]
    return metrics_of_cases(moved)["balanced_accuracy"]


def print_existence(cases: Mapping[str, Both]) -> None:
    """Print the balanced accuracy of existence at several thresholds, as a mean over all kinds of takes; and for each
    tenth of existence, the share of objects that are visible.
    """
    print(f"\n| threshold | {' | '.join(map(str, THRESHOLDS))} |\n|{'---|' * (1 + len(THRESHOLDS))}")
    sets = [scored for both in cases.values() for scored in both if scored]
    accuracy = [np.mean([accuracy_above(limit, scored) for scored in sets]) for limit in THRESHOLDS]
    print(f"| balanced accuracy | {' | '.join(f'{100 * x:.1f}' for x in accuracy)} |")
    existence, visible = np.array([(case.existence, case.visible) for scored in sets for case in scored]).T
    tenth = np.minimum((10 * existence).astype(int), 9)
    print("\n| existence | objects | mean | visible |\n|---|---|---|---|")
    for k in range(10):
        if (chosen := tenth == k).any():
            mean, share = existence[chosen].mean(), visible[chosen].mean()
            print(f"| {k / 10} to {(k + 1) / 10} | {chosen.sum()} | {100 * mean:.1f} | {100 * share:.1f} |")


def turned(data: Path, out: Path, kind: str, degrees: int, takes: int) -> Path:
    """Write test takes in which the pictures and masks of cameras of one kind are rotated, and enlarged to hold all."""
    if (out / "split.json").exists():
        return out
    uids = read_split(find_split_path(data), SPLIT)[:takes]
    for uid in uids:
        take = ProcessedTake.read(data, uid)
        by = {camera: degrees if camera_kind(camera) == kind else 0 for camera in take.cameras}
        masks = {
            name: {
                camera: {
                    frame: encode_mask(turn(decode_mask(rle), by[camera], cv2.INTER_NEAREST))
                    for frame, rle in rles.items()
                }
                for camera, rles in tracks.items()
            }
            for name, tracks in take.masks.items()
        }
        new = replace(take, folder=out / uid, masks=masks)
        for camera in take.cameras:
            (new.folder / camera).mkdir(parents=True, exist_ok=True)
            for frame, path in frames_in(take.folder / camera).items():
                picture = turn(np.asarray(Image.open(path)), by[camera], cv2.INTER_LINEAR)
                Image.fromarray(picture).save(new.frame_path(camera, frame), quality=95)
        new.write_annotation()
    write_json(out / "split.json", {SPLIT: uids})  # written last, as a sign that all takes are there
    return out


def turn(image: np.ndarray, degrees: int, method: int) -> np.ndarray:
    height, width = image.shape[:2]
    cos, sin = abs(np.cos(np.deg2rad(degrees))), abs(np.sin(np.deg2rad(degrees)))
    size = round(width * cos + height * sin), round(height * cos + width * sin)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    matrix[:, 2] += ((size[0] - width) / 2, (size[1] - height) / 2)
    return cv2.warpAffine(image, matrix, size, flags=method)


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="folder of train_network.sh, with its takes")
    add("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    add("--precision", choices=PRECISIONS, default="fp32", help="of prediction")
    add("--out", type=Path, required=True, help="folder for predictions")
    add("--more", type=Path, nargs="*", default=[], help="further folders of processed takes")
    add("--turned_takes", type=at_least(0), default=6, help="takes of each kind to rotate the targets of")
    args = parser.parse_args()
    network = ("--ckpt_path", args.ckpt_path, "--precision", args.precision)
    own = sorted(path for path in args.folder.glob(f"*/{PROCESSED}") if not path.parent.name.endswith("_more"))
    kinds = {path.parent.name: path for path in (*own, *args.more)}
    cases = {
        name: [score(data, args.out / name, network, setting, data in args.more) for setting in SETTINGS]
        for name, data in kinds.items()
    }
    print_table("takes", cases)
    for name, both in cases.items():
        sizes = grouped(both, lambda case: case.scores.truth_area if case.scores else 0.0, SIZES)
        print_table(f"{name}: object in the target", sizes)
    for data in own:
        name = data.parent.name
        angles = grouped(cases[name], functools.partial(angle, data.parent), ANGLES)
        print_table(f"{name}: degrees between the views", angles)
        print_table(f"{name}: why hidden", by_reason(data.parent, cases[name]))
    print_existence(cases)
    for name in (name for name in TURNED if args.turned_takes and name in kinds):
        rows: dict[str, list[list[Case]]] = {}
        for degrees in ROTATIONS:
            for setting, (_, target) in SETTINGS.items():
                data = turned(kinds[name], args.out / f"{name}_{target}_{degrees}", target, degrees, args.turned_takes)
                rows.setdefault(str(degrees), []).append(score(data, data / "out", network, setting, True))
        print_table(f"{name}: target turned by degrees", rows)


if __name__ == "__main__":
    run_script(main)
