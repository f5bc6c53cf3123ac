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
from benchmarks.measure import PROCESSED, in_turn, make_takes, print_times, process_takes
from common.arguments import Parser, add_setting, at_least
from common.errors import UserError, run_script
from evaluation.score import Reading, score_results
from evaluation.truth import GroundTruth, TakeTruth
from formats.geometry import eval_size
from formats.masks import encode_mask, resize_mask
from formats.results import camera_pair_key, iter_results, results_path, write_results

SPLIT = "test"
SCORES = tuple(official_evaluation.SCORES)
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
        make_takes(folder, SPLIT, args.takes, *OPTIONS)
        frames = write_files(folder, process_takes(folder), args.setting)
        ways = {"the official way": official_way, "this project": our_way}
        times, values = in_turn({name: partial(way, folder, args.setting) for name, way in ways.items()}, args.rounds)
    print_times(f"scoring, {args.setting}, one process, {frames} frames", times, "frame", frames)
    difference = np.abs(np.subtract(*(of_rounds[0] for of_rounds in values.values()))).max()
    print(f"  largest difference of a value: {difference:.1e}")
    if difference > 1e-9:
        raise UserError("the two ways give different values")


def write_files(folder: Path, processed: Path, setting: str) -> int:
    """Write the benchmark's ground truth and a results file -> number of frames with a prediction."""
    truth = GroundTruth.of_split(processed, SPLIT)
    truth.write_official(folder / "gt.json")
    results = {uid: moved_masks(truth.load(uid), setting) for uid in truth.uids}
    write_results(results_path(folder, setting, SPLIT), setting, results.items())
    return sum(
        len(frames) for take in results.values() for pairs in take["masks"].values() for frames in pairs.values()
    )


def moved_masks(truth: TakeTruth, setting: str) -> dict:
    """A take's results: the true masks, three pixels off, and empty ones where there is none."""
    take, masks = truth.take, {name: {} for name in truth.take.masks}
    for pair in take.camera_pairs(setting):
        size, known = eval_size(take.video_size(pair.target_camera)), take.masks[pair.object_name][pair.target_camera]
        masks[pair.object_name][camera_pair_key(*pair[1:])] = frames = {}
        for frame in truth.query_frames(pair):
            mask = resize_mask(known[frame], size) if frame in known else np.zeros(size, np.uint8)
            frames[frame] = {"pred_mask": encode_mask(np.roll(mask, (3, 3), (0, 1))), "confidence": 0.9}
    return {"masks": masks, "subsample_idx": take.subsample_idx}


def official_way(folder: Path, setting: str) -> list[list[float]]:
    truth = json.loads((folder / "gt.json").read_text())["annotations"]
    results = json.loads(results_path(folder, setting, SPLIT).read_text())[setting]["results"]
    values = official_evaluation.evaluate(truth, results, setting)
    return [values[name] for name in SCORES]


def our_way(folder: Path, setting: str) -> list[list[float]]:
    truth = GroundTruth.from_official(folder / "gt.json", folder / PROCESSED)
    scores = score_results(truth, iter_results(results_path(folder, setting, SPLIT), setting), Reading(setting))
    return [[getattr(case.mask, name) for case in scores.cases if case.visible] for name in SCORES]


if __name__ == "__main__":
    run_script(main)
