"""process_data.py on two cores against plain programs that go through the videos one after the other:

    python benchmarks/process_data.py

Two takes of an ego and a 4K exo video each, which are encoded at the first run, in minutes, and stay in --folder. The
plain programs decode every frame in one process, with as many threads as the library takes by itself, and write the
same files: with PyAV, with OpenCV and, if it is installed (`pip install decord`), with decord's get_batch as the
reference does. Prints wall time, CPU time and peak memory, and checks that all write the same annotations and frames
that look the same.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import av
import cv2
import numpy as np
from lzstring import LZString

from benchmarks.clips import GROUP, clip_path
from benchmarks.measure import Cost, in_turn, print_times, run_command
from benchmarks.stand_in import EGO, EGO_SIZE, EXO_SIZE, random_mask
from formats.arguments import Parser, at_least
from formats.errors import UserError, run_script
from formats.masks import encode_lzstring, encode_mask
from formats.takes import is_ego, video_path

ROOT = Path(__file__).resolve().parents[1]
OURS = "this project"
STEP = 30
TAKES = ("take_0", "take_1")
OBJECTS = 5


def pyav(path: str) -> Iterator[np.ndarray]:
    """Every STEP-th frame of a video, (H, W, 3) BGR. So do the other readers."""
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % STEP == 0:
                yield frame.to_ndarray(format="bgr24")


def opencv(path: str) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    number = 0
    while video.grab():
        if number % STEP == 0:
            yield video.retrieve()[1]
        number += 1


def decord(path: str) -> Iterator[np.ndarray]:
    from decord import VideoReader, cpu

    reader = VideoReader(path, ctx=cpu(0))
    for image in reader.get_batch(range(0, len(reader), STEP)).asnumpy():
        yield np.ascontiguousarray(image[..., ::-1])


READERS = {"PyAV in sequence": pyav, "OpenCV grab/retrieve": opencv}
if importlib.util.find_spec("decord"):
    READERS["decord get_batch"] = decord


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    default = Path(__file__).with_name(".clips")
    add("--folder", type=Path, default=default, help="videos, kept between runs, and the takes made of them")
    add("--times", type=at_least(1), default=3, help=f"length of the videos, in groups of {GROUP} frames")
    add("--shrink", type=at_least(1), default=1, help="divide the sides of the videos by 2, 4 or 8, to try it out")
    add("--rounds", type=at_least(1), default=3, help="runs of each program")
    add("--plain", nargs=3, help=argparse.SUPPRESS)  # a plain program, in a process of its own
    args = parser.parse_args()
    if args.plain:
        process_plainly(args.plain[0], *map(Path, args.plain[1:]))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    root = args.folder / "takes_to_process"
    make_takes(root, args.folder, args.times, args.shrink)
    programs = {name: partial(run, name, root, root / "out" / name) for name in (OURS, *READERS)}
    costs = in_turn(programs, args.rounds)
    for name in READERS:
        check_equal(root / "out" / OURS, root / "out" / name)
    print(f"{len(TAKES)} takes, each with 2 videos of {args.times * GROUP} frames; two cores")
    print_times("wall time", {name: [cost.wall for cost in of_program] for name, of_program in costs.items()}, "run")
    print_times("CPU time", {name: [cost.cpu for cost in of_program] for name, of_program in costs.items()}, "run")
    print("peak memory of all processes:")
    for name, of_program in costs.items():
        print(f"  {name:<48} {median(cost.all_memory for cost in of_program):>9.0f} MB")


def make_takes(root: Path, clips: Path, times: int, shrink: int) -> None:
    """Write the takes, their annotations and split.json; the videos are links to the clips."""
    rng = np.random.default_rng(0)
    sizes = {EGO: EGO_SIZE, "cam01": EXO_SIZE}
    sizes = {camera: (height // shrink, width // shrink) for camera, (height, width) in sizes.items()}
    annotations = {}
    for name in TAKES:
        for camera, size in sizes.items():
            path = video_path(root / "takes", name, camera)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(clip_path(clips, size, times).resolve())
        objects = {
            f"thing_{i}": {
                camera: {"annotation": {str(f): drawn_mask(rng, size) for f in range(0, times * GROUP, STEP)}}
                for camera, size in sizes.items()
            }
            for i in range(OBJECTS)
        }
        annotations[f"uid-{name}"] = {"take_name": name, "scenario": "", "object_masks": objects}
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "relations_train.json").write_text(json.dumps({"annotations": annotations}))
    (root / "split.json").write_text(json.dumps({"train": list(annotations)}))


def drawn_mask(rng: np.random.Generator, size: tuple[int, int]) -> dict:
    """A mask as an annotation file has it."""
    counts = encode_mask(random_mask(rng, size))["counts"]
    return {"height": size[0], "width": size[1], "encodedMask": encode_lzstring(counts)}


def run(name: str, root: Path, out: Path) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    if name != OURS:
        return run_command(__file__, "--plain", name, root, out)
    script = ROOT / "data/process_data.py"
    return run_command(script, "--takepath", root / "takes", "--outputpath", out, "--num_workers", 2)


def process_plainly(library: str, root: Path, out: Path) -> None:
    """All takes, one video after the other, in this process."""
    for uid, take in json.loads((root / "annotations" / "relations_train.json").read_text())["annotations"].items():
        for camera in sorted({camera for tracks in take["object_masks"].values() for camera in tracks}):
            (out / uid / camera).mkdir(parents=True)
            images = READERS[library](str(video_path(root / "takes", take["take_name"], camera)))
            for number, image in enumerate(images):
                height, width = image.shape[:2]
                factor = -(-height // (704 if is_ego(camera) else 540))
                small = cv2.resize(image, (width // factor, height // factor))
                cv2.imwrite(str(out / uid / camera / f"{number * STEP}.jpg"), small)
        masks = {
            name: {
                camera: {frame: decode(mask) for frame, mask in track["annotation"].items()}
                for camera, track in tracks.items()
            }
            for name, tracks in take["object_masks"].items()
        }
        grid = sorted(int(path.stem) for path in (out / uid).glob("aria*/*.jpg"))
        (out / uid / "annotation.json").write_text(json.dumps({"masks": masks, "subsample_idx": grid}))


def decode(mask: dict) -> dict:
    counts = LZString().decompressFromEncodedURIComponent(mask["encodedMask"])
    return {"size": [mask["height"], mask["width"]], "counts": counts}


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


if __name__ == "__main__":
    run_script(main)
