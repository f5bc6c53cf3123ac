"""Scoring against the official way (official_evaluation.py), on the same results of rendered takes, in turn.

    python benchmarks/evaluation.py
    python benchmarks/evaluation.py --setting exo-ego --takes 16

Both read the benchmark's ground truth and a results file and score every mask in one process: prints the ratio of the
times per frame, and that the values are equal. The predictions are the true masks, moved by some pixels.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import numpy as np

from benchmarks import official_evaluation
from benchmarks.measure import PROCESSED, in_turn, make_takes, print_times, process_takes, timed
from common.arguments import Parser, add_setting, at_least
from common.errors import UserError, run_script
from evaluation.score import Reading, score_results
from evaluation.truth import GroundTruth
from formats.geometry import eval_size
from formats.masks import encode_mask, resize_mask
from formats.processed import ProcessedTake
from formats.results import camera_pair_key, iter_results, results_path, write_results

SPLIT = "test"
OPTIONS = ("--size", "native", "--object_size", "real", "--num_objects", 6, "--num_frames", 241)  # as the real ones are


def main() -> None:
    parser = Parser(__doc__)
    add_setting(parser, required=False)
    parser.set_defaults(setting="ego-exo")
    parser.add_argument("--takes", type=at_least(1), default=4, help="rendered, of 9 annotated frames and 6 objects")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="runs of each way, in turn")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_takes(folder, "--num_train", 0, "--num_val", 0, "--num_test", args.takes, *OPTIONS)
        frames = write_files(folder, process_takes(folder), args.setting)
        ways = {"the official way": official_way, "this project": our_way}
        runs = in_turn({name: partial(timed, way, folder, args.setting) for name, way in ways.items()}, args.rounds)
    times = {name: [seconds / frames for seconds, _ in of_way] for name, of_way in runs.items()}
    print_times(f"scoring, {args.setting}, one process, {frames} frames", times, "frame")
    official, ours = (of_way[0][1] for of_way in runs.values())
    difference = np.abs(np.subtract(official, ours)).max()
    print(f"  largest difference of a value: {difference:.1e}")
    if difference > 1e-9:
        raise UserError("the two ways give different values")


def write_files(folder: Path, processed: Path, setting: str) -> int:
    """Write the benchmark's ground truth and a results file -> number of frames with a prediction."""
    truth = GroundTruth.of_split(processed, SPLIT)
    truth.write_official(folder / "gt.json")
    results = {uid: moved_masks(truth.load(uid).take, setting) for uid in truth.uids}
    write_results(results_path(folder, setting, SPLIT), setting, results.items())
    pairs = [frames for take in results.values() for pairs in take["masks"].values() for frames in pairs.values()]
    return sum(map(len, pairs))


def moved_masks(take: ProcessedTake, setting: str) -> dict:
    """A take's results: the true masks, three pixels off, and empty ones where there is none."""
    masks: dict = {name: {} for name in take.masks}
    for pair in take.camera_pairs(setting):
        size, frames = eval_size(take.video_size(pair.target_camera)), {}
        truth = take.masks[pair.object_name][pair.target_camera]
        for frame in take.masks[pair.object_name][pair.query_camera]:
            mask = resize_mask(truth[frame], size) if frame in truth else np.zeros(size, np.uint8)
            frames[frame] = {"pred_mask": encode_mask(np.roll(mask, (3, 3), (0, 1))), "confidence": 0.9}
        masks[pair.object_name][camera_pair_key(*pair[1:])] = frames
    return {"masks": masks, "subsample_idx": take.subsample_idx}


def official_way(folder: Path, setting: str) -> list[float]:
    truth = json.loads((folder / "gt.json").read_text())["annotations"]
    results = json.loads(results_path(folder, setting, SPLIT).read_text())[setting]["results"]
    values = official_evaluation.evaluate(truth, results, setting)
    return [*values["iou"], *values["contour_accuracy"], *values["location_error"]]


def our_way(folder: Path, setting: str) -> list[float]:
    truth = GroundTruth.from_official(folder / "gt.json", folder / PROCESSED)
    scores = score_results(truth, iter_results(results_path(folder, setting, SPLIT), setting), Reading(setting))
    masks = [case.mask for case in scores.cases if case.visible]
    return [getattr(mask, name) for name in ("iou", "contour_accuracy", "location_error") for mask in masks]


if __name__ == "__main__":
    run_script(main)
