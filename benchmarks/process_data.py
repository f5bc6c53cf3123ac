"""Wall time of process_data.py on two cores, against plain versions that go through the videos one after the other:

    python benchmarks/process_data.py

Two takes of an ego and a 4K exo video each: clips that are encoded at the first run, in minutes, and stay in --folder,
as those of decode_video.py do. The plain versions decode every frame in one process, with as many threads as the
library takes by itself, and write the same files: with PyAV, with OpenCV and, if it is installed
(`pip install decord`), with decord's get_batch as the reference does. Runs alternate; medians are printed, and it is
checked that all write the same annotations and frames that look the same.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import cv2
import numpy as np
from lzstring import LZString

from benchmarks.clips import EGO, EXO, FOLDER, GROUP, READERS, STEP, clip_path
from formats.arguments import Parser, at_least
from formats.errors import UserError, run_script
from formats.masks import encode_lzstring, encode_mask
from formats.takes import is_ego, video_path

ROOT = Path(__file__).resolve().parents[1]
CAMERAS = {"aria01_214-1": ("ego_gop250", EGO), "cam01": ("h264_gop250", EXO)}
TAKES = ("take_0", "take_1")
OBJECTS = 5


def make_takes(root: Path, clips: Path, times: int) -> None:
    """Write the takes, their annotations and split.json; the videos are links to the clips."""
    rng = np.random.default_rng(0)
    annotations = {}
    for name in TAKES:
        for camera, (clip, _) in CAMERAS.items():
            path = video_path(root / "takes", name, camera)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(clip_path(clips, clip, times).resolve())
        objects = {
            f"thing_{i}": {
                camera: {"annotation": {str(f): _mask(rng, size) for f in range(0, times * GROUP, STEP)}}
                for camera, (_, size) in CAMERAS.items()
            }
            for i in range(OBJECTS)
        }
        annotations[f"uid-{name}"] = {"take_name": name, "scenario": "", "object_masks": objects}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "relations_train.json").write_text(json.dumps({"annotations": annotations}))
    (root / "split.json").write_text(json.dumps({"train": list(annotations)}))


def _mask(rng: np.random.Generator, size: tuple[int, int]) -> dict:
    height, width = size
    outline = rng.uniform(0.4, 0.6, 2) * (width, height) + rng.normal(0, width * 0.03, (40, 2))
    hull = cv2.convexHull(outline.astype(np.int32))
    counts = encode_mask(cv2.fillPoly(np.zeros(size, np.uint8), [hull], 1))["counts"]
    return {"height": height, "width": width, "encodedMask": encode_lzstring(counts)}


def plain(library: str, root: Path, out: Path) -> None:
    """All takes, one video after the other, in this process."""
    for uid, take in json.loads((root / "annotations" / "relations_train.json").read_text())["annotations"].items():
        cameras = {camera for tracks in take["object_masks"].values() for camera in tracks}
        for camera in sorted(cameras):
            (out / uid / camera).mkdir(parents=True)
            factor = 2 if is_ego(camera) else 4
            images = READERS[library](str(video_path(root / "takes", take["take_name"], camera)), threads=0)
            for number, image in enumerate(images):
                height, width = image.shape[:2]
                small = cv2.resize(image, (width // factor, height // factor))
                cv2.imwrite(str(out / uid / camera / f"{number * STEP}.jpg"), small)
        masks = {
            name: {
                camera: {f: _decode(mask) for f, mask in track["annotation"].items()}
                for camera, track in tracks.items()
            }
            for name, tracks in take["object_masks"].items()
        }
        grid = sorted(int(path.stem) for path in (out / uid).glob("aria*/*.jpg"))
        (out / uid / "annotation.json").write_text(json.dumps({"masks": masks, "subsample_idx": grid}))


def _decode(mask: dict) -> dict:
    counts = LZString().decompressFromEncodedURIComponent(mask["encodedMask"])
    return {"size": [mask["height"], mask["width"]], "counts": counts}


def run(method: str, root: Path, out: Path) -> tuple[float, float]:
    """Seconds of wall time and of CPU time of a run in a process of its own."""
    shutil.rmtree(out, ignore_errors=True)
    if method == "this project":
        command = [ROOT / "data/process_data.py", "--takepath", root / "takes", "--outputpath", out, "--num_workers", 2]
    else:
        command = [__file__, "--plain", method, root, out]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(list(map(str, [sys.executable, *command])), check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def check_equal(ours: Path, theirs: Path) -> None:
    """Raise UserError if the two outputs differ by more than decoders' roundings."""
    names = {path.relative_to(theirs) for path in theirs.glob("*/*/*.jpg")}
    if names != {path.relative_to(ours) for path in ours.glob("*/*/*.jpg")}:
        raise UserError(f"{ours} and {theirs} hold different frames")
    for path in theirs.glob("*/annotation.json"):
        if json.loads(path.read_text()) != json.loads((ours / path.relative_to(theirs)).read_text()):
            raise UserError(f"{path} differs")
    for name in names:
        difference = np.abs(cv2.imread(str(ours / name)).astype(int) - cv2.imread(str(theirs / name))).mean()
        if difference > 3:  # older libraries convert colors otherwise, by 2 to 3 grey levels
            raise UserError(f"frame {name} differs by {difference:.1f} grey levels on average")


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=FOLDER, help="clips, kept between runs, and the takes made of them")
    add("--times", type=at_least(1), default=3, help=f"length of the clips, in groups of {GROUP} frames")
    add("--rounds", type=at_least(1), default=3, help="runs of each method")
    add("--plain", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.plain:
        plain(args.plain[0], *map(Path, args.plain[1:]))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    root = args.folder / "takes_to_process"
    root.mkdir(parents=True, exist_ok=True)
    make_takes(root, args.folder, args.times)
    methods = ["this project", *READERS]
    times: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    for number in range(args.rounds):
        for method in methods[number % len(methods) :] + methods[: number % len(methods)]:
            times[method].append(run(method, root, root / "out" / method))
    for method in methods[1:]:
        check_equal(root / "out" / methods[0], root / "out" / method)
    best = median(wall for wall, _ in times["this project"])
    length = args.times * GROUP
    print(f"{len(TAKES)} takes of {len(CAMERAS)} videos of {length} frames, two cores, medians of {args.rounds} runs")
    for method, runs in times.items():
        wall, cpu = (median(run[i] for run in runs) for i in (0, 1))
        share = f"this project takes {best / wall:.2f} of the wall time"
        print(f"  {method:22}{wall:7.1f} s wall {cpu:7.1f} s CPU    {share}")


if __name__ == "__main__":
    run_script(main)
