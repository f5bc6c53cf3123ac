"""Compare process_data.py on two cores with plain programs, which read the videos one after the other:

    python benchmarks/process_data.py

The videos are two rendered takes with an ego video and two 4K exo videos each. The first run makes the videos in some
minutes; the videos stay in --folder. The plain programs decode every frame in this process, with the library's default
number of threads, and write the same frames. One program uses OpenCV; if decord is installed (`pip install decord`),
another program uses decord's get_batch as the reference does. The script prints the ratio of the times and checks that
all frames look the same.
"""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import cv2
import numpy as np

from benchmarks.measure import make_takes, print_times, run_script_apart, time_in_turn
from common.arguments import Parser, at_least
from common.errors import UserError, run_script
from formats.frame_files import frame_path
from formats.processed import read_frame, shrink
from formats.takes import ANNOTATION_TEMPLATE, FRAME_STEP, MAX_SHORT_SIDE, annotation_path, camera_kind
from synthetic.options import VIDEO_SIZES

OURS = "this project"


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    default = Path(tempfile.gettempdir()) / "benchmark_of_process_data"
    add("--folder", type=Path, default=default, help="folder for the rendered takes and their frames")
    add("--frames", type=at_least(1), default=601, help="frames of each video")
    add("--size", choices=VIDEO_SIZES, default="native", help="of the videos")
    add("--rounds", type=at_least(1), default=3, help="runs of each program")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    make_takes(args.folder, "test", 2, "--num_frames", args.frames, "--size", args.size, "--hold", 1)
    programs = {OURS: process_ours, **{name: partial(process_plainly, reader) for name, reader in READERS.items()}}
    ways = {name: partial(program, args.folder, args.folder / name) for name, program in programs.items()}
    times, _ = time_in_turn(ways, args.rounds)
    for name in READERS:
        check_equal(args.folder / OURS, args.folder / name)
    print_times(f"6 videos of {args.frames} frames, two cores", times, "run")


def process_ours(folder: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    where = ("--takepath", folder / "takes", "--split_path", folder / "split.json", "--outputpath", out)
    run_script_apart("data/process_data.py", *where, "--num_workers", 2)


def process_plainly(frames: Callable[[str], Iterator[np.ndarray]], folder: Path, out: Path) -> None:
    """Write the frames of all videos, one video after the other."""
    shutil.rmtree(out, ignore_errors=True)
    annotations = json.loads(annotation_path(folder / ANNOTATION_TEMPLATE, "test").read_text())["annotations"]
    for uid, raw in annotations.items():
        for video in sorted((folder / "takes" / raw["take_name"]).glob("frame_aligned_videos/*.mp4")):
            camera = out / uid / video.stem
            camera.mkdir(parents=True)
            for number, image in enumerate(frames(str(video))):
                path = frame_path(camera, number * FRAME_STEP)
                cv2.imwrite(str(path), shrink(image, MAX_SHORT_SIDE[camera_kind(video.stem)]))


def frames_by_opencv(path: str) -> Iterator[np.ndarray]:
    """Yield each 30th frame of a video, (H, W, 3) BGR, as `frames_by_decord` does."""
    video, number = cv2.VideoCapture(path, cv2.CAP_FFMPEG), 0
    while video.grab():
        if number % FRAME_STEP == 0:
            yield video.retrieve()[1]
        number += 1


def frames_by_decord(path: str) -> Iterator[np.ndarray]:
    from decord import VideoReader, cpu

    reader = VideoReader(path, ctx=cpu(0))
    for image in reader.get_batch(range(0, len(reader), FRAME_STEP)).asnumpy():
        yield np.ascontiguousarray(image[..., ::-1])


READERS = {"OpenCV grab/retrieve": frames_by_opencv}
if importlib.util.find_spec("decord"):
    READERS["decord get_batch"] = frames_by_decord


def check_equal(ours: Path, theirs: Path) -> None:
    """Raise UserError if a frame is missing, or if it differs by more than decoders differ in rounding."""
    own, other = ({path.relative_to(folder) for path in folder.glob("*/*/*.jpg")} for folder in (ours, theirs))
    if own != other:
        raise UserError(f"{ours} and {theirs} hold different frames")
    for name in own:
        difference = np.abs(read_frame(ours / name).astype(int) - read_frame(theirs / name)).mean()
        if difference > 3:  # colors of older libraries differ by 2 to 3 gray levels
            raise UserError(f"{theirs / name} differs by {difference:.1f} gray levels on average")


if __name__ == "__main__":
    run_script(main)
