"""How much faster evaluate.py scores than the official way, in one process:

    python benchmarks/evaluate.py

Both read the same files and score the same masks of full-size videos; tests/official_evaluation.py is the baseline.
Runs alternate; medians are printed, and that the values are equal.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root
from evaluation.score import score_results
from evaluation.truth import Annotated, GroundTruth
from formats.arguments import Parser, at_least
from formats.errors import run_script
from formats.geometry import Size
from formats.masks import encode_mask, eval_mask
from formats.processed import ProcessedTake
from formats.results import iter_results, results_path, write_results
from tests import official_evaluation

EGO, EXO = "aria01_214-1", "cam01"
SIZES: dict[str, Size] = {EGO: (1408, 1408), EXO: (2160, 3840)}


def blob(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A jagged outline; its area is that of a typical object, some 400 pixels at 480x270, give or take a factor."""
    angle = np.sort(rng.uniform(0, 2 * np.pi, 60))
    radius = size[1] * 0.025 * np.exp(rng.normal(0, 0.7)) * rng.uniform(0.6, 1.4, 60)
    center = rng.uniform(0.1, 0.9, 2) * size[::-1]
    outline = center + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    return cv2.fillPoly(np.zeros(size, np.uint8), [outline.astype(np.int32)], 1)


def make_files(folder: Path, setting: str, n_frames: int, n_takes: int) -> None:
    """`n_takes` processed takes and their ground truth and results, `n_frames` frames of one object each."""
    rng = np.random.default_rng(0)
    target = EXO if setting == "ego-exo" else EGO
    annotated, results, takes = {}, [], []
    for uid in (f"take-{number}" for number in range(n_takes)):
        frames = [30 * index for index in range(n_frames)]
        masks = {camera: {frame: encode_mask(blob(rng, size)) for frame in frames} for camera, size in SIZES.items()}
        take = ProcessedTake(uid, folder / uid, {"cup_0": masks}, frames)
        take.write_annotation()
        takes.append(take)
        annotated[uid] = Annotated({"cup_0": dict.fromkeys(SIZES, frames)})
        predicted = {}
        for frame in frames:
            mask = np.roll(eval_mask(masks[target][frame]), rng.integers(-6, 7, 2), (0, 1))
            predicted[str(frame)] = {"pred_mask": encode_mask(mask), "confidence": float(rng.random())}
        pair = f"{EGO}_{EXO}" if setting == "ego-exo" else f"{EXO}_{EGO}"
        results.append((uid, {"masks": {"cup_0": {pair: predicted}}, "subsample_idx": frames}))
    write_results(results_path(folder, setting, "val"), setting, results)
    GroundTruth(list(annotated), folder, annotated).write_official(folder / "gt.json")


def official_way(folder: Path, setting: str) -> list[float]:
    truth = json.loads((folder / "gt.json").read_text())["annotations"]
    results = json.loads(results_path(folder, setting, "val").read_text())[setting]["results"]
    values = official_evaluation.evaluate(truth, results, setting)
    return [*values["iou"], *values["contour_accuracy"], *values["location_error"]]


def our_way(folder: Path, setting: str) -> list[float]:
    truth = GroundTruth.from_official(folder / "gt.json", folder)
    cases = score_results(truth, iter_results(results_path(folder, setting, "val"), setting), setting).cases
    return [getattr(case.mask, name) for name in ("iou", "contour_accuracy", "location_error") for case in cases]


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--frames", type=at_least(1), default=100, help="in each of four takes")
    parser.add_argument("--repeats", type=at_least(1), default=3, help="runs of each, alternating")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    for setting in ("ego-exo", "exo-ego"):
        with tempfile.TemporaryDirectory() as folder:
            make_files(Path(folder), setting, args.frames, 4)
            seconds: dict = {official_way: [], our_way: []}
            values = {}
            for _ in range(args.repeats):
                for way, taken in seconds.items():
                    begin = time.perf_counter()
                    values[way] = way(Path(folder), setting)
                    taken.append(time.perf_counter() - begin)
        off = np.abs(np.subtract(values[official_way], values[our_way])).max()
        old, new = (float(np.median(taken)) / (4 * args.frames) * 1000 for taken in seconds.values())
        print(
            f"{setting}: official way {old:.2f} ms a mask, here {new:.3f} ms, {old / new:.0f} times faster; "
            f"largest difference of a value {off:.1e}"
        )


if __name__ == "__main__":
    run_script(main)
