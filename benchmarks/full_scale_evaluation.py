"""Scoring at the size of the real test split: 295 takes, 5.5 objects each, 280,000 scored frames.

    python benchmarks/full_scale_evaluation.py

Writes takes without pictures, annotations and a results file (1.8 GB; kept in --folder for the next run), then measures
evaluate.py on a quarter, half and all of the takes, evaluate.py --describe, and the official way on some frames, whose
time it multiplies. Linux only.
"""

import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # repository root

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.evaluate import EGO, EXO, SIZES, blob
from benchmarks.full_scale_pairs import MEAN_FRAMES, MEAN_OBJECTS, TAKES, VISIBLE
from evaluation.truth import GroundTruth
from formats.arguments import Parser, add_num_workers, at_least
from formats.errors import run_script
from formats.files import write_json
from formats.masks import encode_lzstring, encode_mask, eval_mask
from formats.processed import ProcessedTake
from formats.results import camera_pair_key, iter_results, results_path, write_results
from tests import official_evaluation

SETTING, SPLIT = "ego-exo", "test"
POOL = 200  # different masks of each camera
VARIANTS = 4  # different predictions of each
SHARES = (0.25, 0.5, 1.0)  # of the takes, to see how the cost grows


class Pools(NamedTuple):
    """The masks that the takes draw from, as objects that the files' writer turns into text."""

    rle: dict[str, list[dict]]  # by camera
    drawn: dict[str, list[dict]]  # the same as an annotation file has them
    predicted: list[list[dict]]  # of each exo mask: the mask moved by some pixels


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    default = Path(tempfile.gettempdir()) / "full_scale_evaluation"
    parser.add_argument("--folder", type=Path, default=default, help="the files, kept for the next run")
    parser.add_argument("--takes", type=at_least(4), default=TAKES[SPLIT], help="of the split, when it is written")
    parser.add_argument("--official_takes", type=at_least(1), default=1, help="that the official way scores")
    add_num_workers(parser)
    args = parser.parse_args(argv)
    folder = args.folder
    if not (folder / "split.json").exists():
        write_split(folder, args.takes)
    uids = json.loads((folder / "split.json").read_text())[SPLIT]
    official = official_seconds_per_frame(folder, uids[: args.official_takes])
    print(f"the official way: {1000 * official:.1f} ms per frame")
    for share in SHARES:
        n_takes = round(share * len(uids))
        what = ["--setting", SETTING, "--pred_file", results_path(folder, SETTING, SPLIT)]
        wall, own, together = measure(folder, uids[:n_takes], args.num_workers, *what, "--out", folder / "scores")
        n_frames = json.loads((folder / "scores" / "metrics.json").read_text())["frames_scored"]
        print(
            f"{n_takes} takes, {n_frames:,} scored frames: {wall:.1f} s, {1e6 * wall / n_frames:.0f} microseconds "
            f"per frame, peak {own:.0f} MB, with its {args.num_workers} workers {together:.0f} MB; the official way "
            f"would take {official * n_frames / 60:.0f} minutes, {official * n_frames / wall:.0f} times as long"
        )
    wall, own, together = measure(folder, uids, args.num_workers, "--describe", "--out", folder / "data")
    print(f"--describe: {wall:.1f} s, peak {own:.0f} MB, with its workers {together:.0f} MB")


def write_split(folder: Path, n_takes: int) -> None:
    """Processed takes without pictures, the split's annotations, results, and last split.json."""
    pools = make_pools(np.random.default_rng(0))
    uids = [f"test-{number:04d}-0000-0000-000000000000" for number in range(n_takes)]
    for number, uid in enumerate(tqdm(uids, "takes", unit="take")):
        masks = {
            name: {camera: {f: pools.rle[camera][i] for f, i in at.items()} for camera, at in cameras.items()}
            for name, cameras in draw_take(number).items()
        }
        ProcessedTake(uid, folder / "processed" / uid, masks, [0]).write_annotation()
    annotations = (
        (uid, annotation(number, pools)) for number, uid in enumerate(tqdm(uids, "annotations", unit="take"))
    )
    write_json(folder / "annotations" / f"relations_{SPLIT}.json", {"annotations": annotations})
    results = ((uid, result(number, pools)) for number, uid in enumerate(tqdm(uids, "results", unit="take")))
    write_results(results_path(folder, SETTING, SPLIT), SETTING, results)
    write_json(folder / "split.json", {SPLIT: uids})


def make_pools(rng: np.random.Generator) -> Pools:
    rle = {camera: [encode_mask(blob(rng, size)) for _ in range(POOL)] for camera, size in SIZES.items()}
    drawn = {
        camera: [dict(zip(("height", "width"), one["size"], strict=True), encodedMask=encode_lzstring(one["counts"]))
                 for one in masks]
        for camera, masks in rle.items()
    }  # fmt: skip
    true = [eval_mask(one) for one in rle[EXO]]
    moved = [[np.roll(mask, rng.integers(-6, 7, 2), (0, 1)) for _ in range(VARIANTS)] for mask in true]
    return Pools(rle, drawn, [[encode_mask(mask) for mask in masks] for masks in moved])


def draw_take(number: int) -> dict[str, dict[str, dict[int, int]]]:
    """Object -> camera -> frame -> place in the pool; the same for the same number."""
    rng = np.random.default_rng(number)
    objects = {}
    for place in range(1 + rng.poisson(MEAN_OBJECTS - 1)):
        frames = 30 * np.arange(max(1, int(rng.gamma(2, MEAN_FRAMES / 2))))
        seen = {EGO: frames, EXO: frames[rng.random(len(frames)) < VISIBLE]}
        objects[f"object {place}_0"] = {
            camera: dict(zip(at.tolist(), rng.integers(0, POOL, len(at)).tolist(), strict=True))
            for camera, at in seen.items()
        }
    return objects


def annotation(number: int, pools: Pools) -> dict[str, Any]:
    """A take of the annotation file; all frames of an object were looked at."""
    tracks = {
        name: {
            camera: {
                "annotation": {f: pools.drawn[camera][i] for f, i in at.items()},
                "annotated_frames": list(cameras[EGO]),
            }
            for camera, at in cameras.items()
        }
        for name, cameras in draw_take(number).items()
    }
    return {"take_name": f"take_{number}", "scenario": f"scenario {number % 8}", "object_masks": tracks}


def result(number: int, pools: Pools) -> dict[str, Any]:
    """A take of the results file: the true masks moved by some pixels."""
    rng = np.random.default_rng(number)
    masks = {}
    for name, cameras in draw_take(number).items():
        frames = {}
        for frame in cameras[EGO]:
            variants = pools.predicted[cameras[EXO].get(frame, 0)]
            frames[frame] = {"pred_mask": variants[rng.integers(VARIANTS)], "confidence": float(rng.random())}
        masks[name] = {camera_pair_key(EGO, EXO): frames}
    return {"masks": masks, "subsample_idx": [0]}


def official_seconds_per_frame(folder: Path, uids: list[str]) -> float:
    """How long the official way takes per scored frame, reading of files not counted."""
    cv2.setNumThreads(1)
    truth = GroundTruth.from_processed(folder / "processed", uids, folder / "annotations" / f"relations_{SPLIT}.json")
    takes = {}
    for one in map(truth.load, uids):
        content = json.loads(json.dumps(one.take.content()))  # with texts for frames, as files have them
        takes[one.uid] = content | {"annotated_frames": one.annotated.frames}
    results = iter_results(results_path(folder, SETTING, SPLIT), SETTING)
    predictions = dict(itertools.islice(results, len(uids)))  # in the order of the split
    start = time.perf_counter()
    n_frames = len(official_evaluation.evaluate(takes, predictions, SETTING)["gt"])
    return (time.perf_counter() - start) / n_frames


def measure(folder: Path, uids: list[str], num_workers: int, *arguments: object) -> tuple[float, float, float]:
    """evaluate.py on some takes -> wall seconds, peak memory of its main process and of all its processes, in MB."""
    part = folder / "part.json"
    write_json(part, {SPLIT: uids})
    where = ["--data_path", folder / "processed", "--split", SPLIT, "--splits_path", part, "--num_workers", num_workers]
    command = [sys.executable, ROOT / "evaluation" / "evaluate.py", *where, *arguments]
    start, own, together = time.perf_counter(), 0.0, 0.0
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while process.poll() is None:
        sizes = list(resident(process.pid))
        own, together = max(own, *sizes[:1], 0), max(together, sum(sizes))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return time.perf_counter() - start, own, together


def resident(pid: int) -> Iterator[float]:
    """Resident memory in MB of a process, then of each of its descendants."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # it has just ended
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        yield next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from resident(int(child))


if __name__ == "__main__":
    run_script(main)
