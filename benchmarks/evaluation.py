"""The evaluation at the size of the real test split: 295 takes, 5.5 objects each, 280,000 scored frames.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --setting exo-ego --takes 40

1. The official way (tests/official_evaluation.py) and ours read and score the same frames, in turn in this process:
   prints the ratio, and that the values are equal.
2. evaluate.py scores a quarter, half and all of the takes: prints time and memory, and how long the official way would
   take.
3. evaluate.py --describe and create_pairs.py go through all of the takes.

The takes have no pictures. They, the annotations and the results (1.8 GB) are made at the first run and stay in
--folder.
"""

import argparse
import functools
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.measure import Cost, in_turn, print_times, run_script_apart, timed
from benchmarks.stand_in import EGO_SIZE, EXO_SIZE, annotation, make_pool, make_take
from common.arguments import SETTINGS, Parser, add_num_workers, at_least
from common.errors import UserError, run_script
from common.files import write_json
from evaluation.score import score_results
from evaluation.truth import GroundTruth
from formats.geometry import Size
from formats.masks import RLE, encode_mask, eval_mask
from formats.processed import ProcessedTake
from formats.results import camera_pair_key, iter_results, results_path, write_results
from formats.takes import is_ego
from tests import official_evaluation

SPLIT = "test"
TAKES, MEAN_OBJECTS, MEAN_FRAMES, VISIBLE = 295, 5.5, 173, 0.83  # of the real test split
AREAS = (0.0004, 0.02)  # a typical object has some 400 pixels at 480x270
POOL = 200  # different masks of each kind of camera
MOVED = 4  # different predictions for each mask
PARTS = (0.25, 0.5, 1.0)  # of the takes, to see how the cost grows


def parse_args() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    default = Path(tempfile.gettempdir()) / "benchmark_of_evaluation"
    add("--folder", type=Path, default=default, help="the files, kept for the next run")
    add("--setting", choices=SETTINGS, default="ego-exo", help="query view - target view")
    add("--takes", type=at_least(1), default=TAKES, help="size of the split")
    add("--frames", type=at_least(1), default=100, help="in each of the four takes that both ways score")
    add("--rounds", type=at_least(1), default=3, help="runs of each way, in turn")
    add_num_workers(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cv2.setNumThreads(1)
    official = compare_ways(args.setting, args.frames, args.rounds)
    folder = args.folder / f"{args.takes}_takes"
    takes = draw_takes(folder / "processed", args.takes)
    write_files(folder, args.setting, takes)
    results = results_path(folder, args.setting, SPLIT)
    for part in PARTS:
        uids = [take.uid for take in takes[: max(1, round(part * len(takes)))]]
        cost = evaluate(folder, uids, args.num_workers, "--setting", args.setting, "--pred_file", results)
        frames = json.loads((folder / "out" / "metrics.json").read_text())["frames_scored"]
        print_cost(f"evaluate.py, {len(uids)} takes, {frames:,} scored frames, {args.num_workers} workers", cost)
        minutes, ratio = official * frames / 60, official * frames / cost.wall
        print(f"  the official way would take {minutes:.1f} minutes; x{ratio:.2f}", flush=True)
    cost = evaluate(folder, [take.uid for take in takes], args.num_workers, "--describe")
    print_cost(f"evaluate.py --describe, {len(takes)} takes", cost)
    cost = run_script_apart("data/create_pairs.py", "--data_dir", folder / "processed")
    masks = sum(len(frames) for take in takes for cameras in take.masks.values() for frames in cameras.values())
    print_cost(f"create_pairs.py, both settings, {masks:,} masks", cost)


def print_cost(what: str, cost: Cost) -> None:
    print(f"{what}: {cost.wall:.1f} s, peak memory {cost.memory:.0f} MB", flush=True)


def compare_ways(setting: str, frames: int, rounds: int) -> float:
    """Print how both ways compare on four takes of one object -> seconds that the official way takes per frame."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pool = make_pool(min(POOL, 4 * frames), AREAS)
        takes = [make_take(folder / "processed", f"take-{n}", pool, objects=1, frames=frames) for n in range(4)]
        write_files(folder, setting, takes)
        annotations = folder / "annotations" / f"relations_{SPLIT}.json"
        uids = [take.uid for take in takes]
        GroundTruth.from_processed(folder / "processed", uids, annotations).write_official(folder / "gt.json")
        ways = {"the official way": official_way, "this project": our_way}
        runs = in_turn({name: functools.partial(timed, way, folder, setting) for name, way in ways.items()}, rounds)
    times = {name: [seconds / (4 * frames) for seconds, _ in of_way] for name, of_way in runs.items()}
    print_times(f"scoring, {setting}, one process", times, "frame")
    official, ours = (of_way[0][1] for of_way in runs.values())
    difference = np.abs(np.subtract(official, ours)).max()
    print(f"  largest difference of a value: {difference:.1e}")
    if difference > 1e-9:
        raise UserError("the two ways give different values")
    return float(np.median(times["the official way"]))


def official_way(folder: Path, setting: str) -> list[float]:
    truth = json.loads((folder / "gt.json").read_text())["annotations"]
    results = json.loads(results_path(folder, setting, SPLIT).read_text())[setting]["results"]
    values = official_evaluation.evaluate(truth, results, setting)
    return [*values["iou"], *values["contour_accuracy"], *values["location_error"]]


def our_way(folder: Path, setting: str) -> list[float]:
    truth = GroundTruth.from_official(folder / "gt.json", folder)
    cases = score_results(truth, iter_results(results_path(folder, setting, SPLIT), setting), setting).cases
    return [getattr(case.mask, name) for name in ("iou", "contour_accuracy", "location_error") for case in cases]


def evaluate(folder: Path, uids: list[str], num_workers: int, *arguments: object) -> Cost:
    """evaluate.py on some of the takes."""
    split = folder / "part.json"
    write_json(split, {SPLIT: uids})
    where = ("--data_path", folder / "processed", "--split", SPLIT, "--splits_path", split, "--out", folder / "out")
    return run_script_apart("evaluation/evaluate.py", *where, "--num_workers", num_workers, *arguments)


def draw_takes(data_dir: Path, count: int) -> list[ProcessedTake]:
    """The takes of the split, not written yet; always the same."""
    pool = make_pool(POOL, AREAS)
    takes = []
    for number in range(count):
        rng = np.random.default_rng(number)
        size = {"objects": 1 + rng.poisson(MEAN_OBJECTS - 1), "frames": max(1, int(rng.gamma(2, MEAN_FRAMES / 2)))}
        uid = f"test-{number:04d}-0000-0000-000000000000"
        takes.append(make_take(data_dir, uid, pool, **size, visible=VISIBLE))
    return takes


def write_files(folder: Path, setting: str, takes: list[ProcessedTake]) -> None:
    """Write what is not there yet: processed takes, annotations and split.json, and the results of the setting."""
    if not (folder / "split.json").exists():
        for take in tqdm(takes, "takes", unit="take"):
            take.write_annotation()
        annotations = ((take.uid, annotation(take)) for take in tqdm(takes, "annotations", unit="take"))
        write_json(folder / "annotations" / f"relations_{SPLIT}.json", {"annotations": annotations})
        write_json(folder / "split.json", {SPLIT: [take.uid for take in takes]})
    path = results_path(folder, setting, SPLIT)
    if not path.exists():
        results = ((take.uid, result(take, setting)) for take in tqdm(takes, "results", unit="take"))
        write_results(path, setting, results)


def result(take: ProcessedTake, setting: str) -> dict:
    """A take as the results file has it: the true masks moved by some pixels, an empty one where there is none."""
    rng = np.random.default_rng(len(take.subsample_idx))
    masks: dict[str, dict] = {name: {} for name in take.masks}
    for name, query, target in take.camera_pairs(setting):
        frames = {}
        for frame in take.masks[name][query]:
            true = take.masks[name][target].get(frame) or empty_mask(EGO_SIZE if is_ego(target) else EXO_SIZE)
            predictions = moved(*true["size"], true["counts"])
            frames[frame] = {"pred_mask": predictions[rng.integers(MOVED)], "confidence": float(rng.random())}
        masks[name][camera_pair_key(query, target)] = frames
    return {"masks": masks, "subsample_idx": take.subsample_idx}


@functools.cache
def empty_mask(size: Size) -> RLE:
    return encode_mask(np.zeros(size, np.uint8))


@functools.cache
def moved(height: int, width: int, counts: str) -> list[RLE]:
    """Predictions for a mask: itself, moved by some pixels."""
    rng = np.random.default_rng(len(counts))
    mask = eval_mask({"size": [height, width], "counts": counts})
    return [encode_mask(np.roll(mask, rng.integers(-6, 7, 2), (0, 1))) for _ in range(MOVED)]


if __name__ == "__main__":
    run_script(main)
