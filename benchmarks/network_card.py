"""The tables of model/pretrained/README.md: how good a network is on the test takes of `train_network.sh`, by kind of
takes, object's size, angle between the cameras' views, and rotation of the target's camera.

    python benchmarks/network_card.py --folder runs/xsegtx_tiny --out card --more data/mine/processed

Predictions go to --out, and what is there is not predicted again. It takes about an hour of a core.
"""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.errors import run_script, say_errors

say_errors(__name__)

import cv2
import numpy as np
from PIL import Image

from benchmarks.measure import PROCESSED, run_script_apart
from common.arguments import SETTINGS, Parser, at_least
from formats.masks import decode_mask, encode_mask
from formats.processed import frame_path
from formats.takes import FRAME_STEP, find_split_path, kind_of, read_split
from inference.predictor import CKPT_HELP, SHIPPED
from model.device import PRECISIONS
from synthetic.tabletop import EGO, ObjectSizes, Tabletop
from synthetic.take import TakeId, TakeOptions, build_tabletop

SIZES = {"under 0.05 %": 5e-4, "to 0.15 %": 1.5e-3, "to 0.5 %": 5e-3, "to 2 %": 0.02, "to 10 %": 0.1, "more": 1}
ANGLES = {"0 to 30": 30, "30 to 60": 60, "60 to 90": 90, "90 to 180": 180}  # degrees
ROTATIONS = (0, 30, 60, 90, 180)  # degrees
TURNED = "models", "patterned"  # whose targets are
Cases = list[dict[str, str]]


def cases_of(data: Path, out: Path, network: Sequence[object], setting: str, all_frames: bool) -> Cases:
    """A line for each scored frame of a split's pairs."""
    results, scores = out / f"{setting}_test_results.json", out / setting
    where = ("--setting", setting, "--split", "test", "--data_path", data)
    if not results.exists():
        run_script_apart("eval_segswap.py", *where, *network, "--out_path", out, "--num_workers", 0)
    more = ["--all_frames"] * all_frames
    run_script_apart("evaluation/evaluate.py", *where, "--pred_file", results, "--out", scores, *more)
    with (scores / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(cases: Cases) -> list[float]:
    """In percent: IoU and right object of visible objects; how many of the visible and of the hidden are said to be."""
    shown, hidden = ([case for case in cases if (case["visible"] == "1") == visible] for visible in (True, False))
    rows = (
        [float(case["iou"]) for case in shown],
        [float(case["right_object"]) for case in shown if case["right_object"]],
        [float(case["confidence"]) > 0.5 for case in shown],
        [float(case["confidence"]) <= 0.5 for case in hidden],
    )
    return [100 * float(np.mean(row)) if row else np.nan for row in rows]


def print_table(title: str, rows: dict[str, Sequence[Cases]]) -> None:
    """Rows of cases of both settings."""
    print(
        f"\n| {title} | objects | IoU | right object | visible, said so | hidden, said so |\n|---|---|---|---|---|---|"
    )
    for name, both in rows.items():
        columns = zip(*map(figures, both), strict=True)
        text = " | ".join("/".join("-" if np.isnan(x) else f"{x:.1f}" for x in column) for column in columns)
        print(f"| {name} | {'/'.join(str(len(cases)) for cases in both)} | {text} |", flush=True)


def grouped(both: Sequence[Cases], value: Callable[[dict], float], limits: dict[str, float]) -> dict[str, list[Cases]]:
    """Visible cases by the first limit that their value does not reach."""
    groups: dict[str, list[Cases]] = {name: [[] for _ in both] for name in limits}
    for number, cases in enumerate(both):
        for case in cases:
            if case["visible"] == "1":
                at = value(case)
                groups[next(name for name, limit in limits.items() if at <= limit)][number].append(case)
    return {name: group for name, group in groups.items() if any(group)}


def angle_of(folder: Path) -> Callable[[dict[str, str]], float]:
    """What tells the angle between two cameras' views of an object, in degrees, of a case of rendered takes."""
    tabletops: dict[str, Tabletop] = {}
    names = {uid: take["take_name"] for uid, take in annotations(folder).items()}

    def angle(case: dict[str, str]) -> float:
        uid = case["take_uid"]
        if uid not in tabletops:
            record = json.loads((folder / "takes" / names[uid] / "relations.json").read_text())["options"]
            record["object_size"] = ObjectSizes(**record["object_size"])
            record |= {key: folder.parent / "household" / key for key in ("models", "photos") if record.get(key)}
            split, index = names[uid].rsplit("_", 2)[1:]
            tabletops[uid] = build_tabletop(TakeId(split, int(index)), TakeOptions(**record))
        tabletop = tabletops[uid]
        exo = case["target_camera"] if case["query_camera"] == EGO else case["query_camera"]
        second = int(case["frame"]) / FRAME_STEP
        cameras = tabletop.ego_camera(second), tabletop.exo_cameras[tabletop.cameras.index(exo) - 1]
        number = next(k for k, item in enumerate(tabletop.items) if item.name == case["object_name"])
        one, other = (camera.position - tabletop.places[number] for camera in cameras)
        return float(np.degrees(np.arccos(one @ other / np.linalg.norm(one) / np.linalg.norm(other))))

    return angle


def annotations(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "annotations" / "relations_test.json").read_text())["annotations"]


def turned(data: Path, out: Path, kind: str, degrees: int, takes: int) -> Path:
    """Test takes with all that the cameras of a kind show turned about the middle of the picture, which grows."""
    if (out / "split.json").exists():
        return out
    uids = read_split(find_split_path(data), "test")[:takes]
    for uid in uids:
        record = json.loads((data / uid / "annotation.json").read_text())
        for camera in (path for path in (data / uid).iterdir() if path.is_dir()):
            (out / uid / camera.name).mkdir(parents=True, exist_ok=True)
            for picture in camera.iterdir():
                image = np.asarray(Image.open(picture))
                if kind_of(camera.name) == kind:
                    image = turn_picture(image, degrees, cv2.INTER_LINEAR)
                Image.fromarray(image).save(frame_path(out / uid / camera.name, int(picture.stem)), quality=95)
        for tracks in record["masks"].values():
            for camera, masks in tracks.items():
                if kind_of(camera) == kind:
                    for frame, rle in masks.items():
                        mask = turn_picture(decode_mask(rle), degrees, cv2.INTER_NEAREST)
                        masks[frame] = encode_mask(mask)
        (out / uid / "annotation.json").write_text(json.dumps(record))
    (out / "split.json").write_text(
        json.dumps({"train": [], "val": [], "test": uids})
    )  # last: it says that all is there
    return out


def turn_picture(image: np.ndarray, degrees: int, method: int) -> np.ndarray:
    height, width = image.shape[:2]
    cos, sin = abs(np.cos(np.deg2rad(degrees))), abs(np.sin(np.deg2rad(degrees)))
    size = round(width * cos + height * sin), round(height * cos + width * sin)
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1)
    matrix[:, 2] += ((size[0] - width) / 2, (size[1] - height) / 2)
    return cv2.warpAffine(image, matrix, size, flags=method)


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="of train_network.sh, with its takes")
    parser.add_argument("--ckpt_path", type=Path, default=SHIPPED, help=CKPT_HELP)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of prediction")
    parser.add_argument("--out", type=Path, required=True, help="folder for predictions and scores")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="further folders of processed takes")
    parser.add_argument("--turned_takes", type=at_least(0), default=6, help="whose targets are turned, of each kind")
    args = parser.parse_args()
    network = ("--ckpt_path", args.ckpt_path, "--precision", args.precision)
    folders = sorted(path.parent for path in args.folder.glob(f"*/{PROCESSED}"))
    kinds = {folder.name: folder / PROCESSED for folder in folders if not folder.name.endswith("_more")}
    kinds |= {data.parent.name: data for data in args.more}
    cases = {
        name: [cases_of(data, args.out / name, network, s, data in args.more) for s in SETTINGS]
        for name, data in kinds.items()
    }
    print_table("takes", cases)
    for name, both in cases.items():
        sizes = grouped(both, lambda case: int(case["truth_pixels"]) / int(case["image_pixels"]), SIZES)
        print_table(f"{name}: object in the target", sizes)
    for folder in folders:
        if folder.name in kinds and (folder / "takes").exists():
            print_table(
                f"{folder.name}: degrees between the views", grouped(cases[folder.name], angle_of(folder), ANGLES)
            )
    for name in (name for name in TURNED if args.turned_takes and name in kinds):
        rows: dict[str, list[Cases]] = {}
        for degrees in ROTATIONS:
            for setting, (_, target) in SETTINGS.items():
                data = turned(kinds[name], args.out / f"{name}_{target}_{degrees}", target, degrees, args.turned_takes)
                rows.setdefault(str(degrees), []).append(cases_of(data, data / "out", network, setting, True))
        print_table(f"{name}: target turned by degrees", rows)


if __name__ == "__main__":
    run_script(main)
