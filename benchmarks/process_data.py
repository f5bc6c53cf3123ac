"""process_data.py on two cores against plain programs that go through the videos one after the other:

    python benchmarks/process_data.py

Two rendered takes with an ego and two 4K exo videos each, which are made at the first run, in minutes, and stay in
--folder. The plain programs decode every frame in this process, with as many threads as the library takes by itself,
and write the same frames: with OpenCV and, if it is installed (`pip install decord`), with decord's get_batch as the
reference does. Prints the ratio of the times, and checks that all frames look the same.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import cv2
import numpy as np

from benchmarks.measure import in_turn, make_takes, print_times, run_script_apart
from common.arguments import Parser, at_least
from common.errors import UserError, run_script
from formats.processed import frame_path, shrink
from formats.takes import ANNOTATION_TEMPLATE, FRAME_STEP, KINDS, annotation_path, iter_annotations, kind_of
from synthetic.take import VIDEO_SIZES

OURS = "this project"


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    default = Path(tempfile.gettempdir()) / "benchmark_of_process_data"
    add("--folder", type=Path, default=default, help="the rendered takes, kept between runs, and what is made of them")
    add("--frames", type=at_least(1), default=601, help="of each video")
    add("--size", choices=VIDEO_SIZES, default="native", help="of the videos")
    add("--rounds", type=at_least(1), default=3, help="runs of each program")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    make_takes(args.folder, "test", 2, "--num_frames", args.frames, "--size", args.size, "--hold", 1)
    programs = {OURS: process, **{name: partial(process_plainly, name) for name in READERS}}
    times, _ = in_turn(
        {name: partial(way, args.folder, args.folder / name) for name, way in programs.items()}, args.rounds
    )
    annotations = annotation_path(args.folder / ANNOTATION_TEMPLATE, "test")
    uids = {raw["take_name"]: uid for uid, raw in iter_annotations(annotations)}
    for name in READERS:
        check_equal(args.folder / OURS, args.folder / name, uids)
    print_times(f"6 videos of {args.frames} frames, two cores", times, "run")


def process(folder: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    where = ("--takepath", folder / "takes", "--split_path", folder / "split.json", "--outputpath", out)
    run_script_apart("data/process_data.py", *where, "--num_workers", 2)


def process_plainly(reader: str, folder: Path, out: Path) -> None:
    """The frames of all videos, one after the other."""
    for path in sorted(folder.glob("takes/*/frame_aligned_videos/*.mp4")):
        camera = out / path.parts[-3] / path.stem
        camera.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(READERS[reader](str(path))):
            cv2.imwrite(str(frame_path(camera, number * FRAME_STEP)), shrink(image, KINDS[kind_of(path.stem)].max_rows))


def opencv(path: str) -> Iterator[np.ndarray]:
    """Every 30th frame of a video, (H, W, 3) BGR. So does the other reader."""
    video, number = cv2.VideoCapture(path, cv2.CAP_FFMPEG), 0
    while video.grab():
        if number % FRAME_STEP == 0:
            yield video.retrieve()[1]
        number += 1


def decord(path: str) -> Iterator[np.ndarray]:
    from decord import VideoReader, cpu

    reader = VideoReader(path, ctx=cpu(0))
    for image in reader.get_batch(range(0, len(reader), FRAME_STEP)).asnumpy():
        yield np.ascontiguousarray(image[..., ::-1])


READERS = {"OpenCV grab/retrieve": opencv}
if importlib.util.find_spec("decord"):
    READERS["decord get_batch"] = decord


def check_equal(ours: Path, theirs: Path, uids: dict[str, str]) -> None:
    """Raise UserError if a frame is missing or looks different, by more than decoders' roundings. `uids`: by name."""
    frames = {ours / uids[path.parts[-3]] / path.parts[-2] / path.name: path for path in theirs.glob("*/*/*.jpg")}
    if frames.keys() != set(ours.glob("*/*/*.jpg")):
        raise UserError(f"{ours} and {theirs} hold different frames")
    for own, other in frames.items():
        difference = np.abs(cv2.imread(str(own)).astype(int) - cv2.imread(str(other))).mean()
        if difference > 3:  # older libraries convert colors otherwise, by 2 to 3 grey levels
            raise UserError(f"{other} differs by {difference:.1f} grey levels on average")


if __name__ == "__main__":
    run_script(main)
