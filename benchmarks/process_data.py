"""process_data.py on two cores against plain programs that go through the videos one after the other:

    python benchmarks/process_data.py

Two takes of an ego and two 4K exo videos each, which are encoded at the first run, in minutes, and stay in --folder.
The plain programs decode every frame in one process, with as many threads as the library takes by itself, and write
the same files: with PyAV, with OpenCV and, if it is installed (`pip install decord`), with decord's get_batch as the
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
from fractions import Fraction
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import av
import cv2
import numpy as np
from lzstring import LZString
from tqdm import tqdm

from benchmarks.measure import Cost, in_turn, print_times, run_script_apart
from benchmarks.stand_in import EGO_SIZE, EXO_SIZE, STEP, annotation, make_pool, make_take
from common.arguments import Parser, at_least
from common.errors import UserError, run_script
from formats.geometry import Size
from formats.takes import is_ego, video_path

OURS = "this project"
OBJECTS = 5
GRAIN = 5  # standard deviation of the videos' noise in grey levels; gives files of the size of real ones


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    default = Path(__file__).with_name(".clips")
    add("--folder", type=Path, default=default, help="videos, kept between runs, and the takes made of them")
    add("--frames", type=at_least(1), default=600, help="of each video")
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
    make_takes(root, args.folder, args.frames, args.shrink)
    programs = {name: partial(process, name, root, root / "out" / name) for name in (OURS, *READERS)}
    costs = in_turn(programs, args.rounds)
    for name in READERS:
        check_equal(root / "out" / OURS, root / "out" / name)
    for title in ("wall", "cpu"):
        times = {name: [getattr(cost, title) for cost in of_program] for name, of_program in costs.items()}
        print_times(f"{title} time, 6 videos of {args.frames} frames, two cores", times, "run")
    print("peak memory:")
    for name, of_program in costs.items():
        print(f"  {name:<48} {median(cost.memory for cost in of_program):>9.0f} MB")


def make_takes(root: Path, videos: Path, frames: int, shrink: int) -> None:
    """Write two takes, their annotations and split.json; the takes' videos are links to two files."""
    pool = make_pool(50, shrink=shrink)
    takes = [make_take(root, f"take_{number}", pool, OBJECTS, frames=-(-frames // STEP)) for number in range(2)]
    for take in takes:
        for camera in take.cameras:
            height, width = EGO_SIZE if is_ego(camera) else EXO_SIZE
            path = video_path(root / "takes", take.uid, camera)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(make_video(videos, (height // shrink, width // shrink), frames).resolve())
    (root / "annotations").mkdir(exist_ok=True)
    annotations = {take.uid: annotation(take) for take in takes}
    (root / "annotations" / "relations_train.json").write_text(json.dumps({"annotations": annotations}))
    (root / "split.json").write_text(json.dumps({"train": list(annotations)}))


def make_video(folder: Path, size: Size, frames: int) -> Path:
    """An H.264 video of `size` (H, W), a view that pans over a texture; made now if it is not in the folder."""
    path = folder / f"{size[1]}x{size[0]}_{frames}.mp4"
    if path.exists():
        return path
    part = path.with_suffix(".part.mp4")
    options = {"preset": "fast", "crf": "20", "g": "250", "bf": "3", "sc_threshold": "0"}
    with av.open(str(part), "w") as container:
        stream = container.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 30)
        for number, image in enumerate(tqdm(panning_view(size, frames), f"encode {path.name}", frames)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    part.rename(path)
    return path


def panning_view(size: Size, frames: int) -> Iterator[np.ndarray]:
    height, width = size
    rng = np.random.default_rng(0)
    scene = np.full((height + 300, width + 600, 3), 120, np.float32)
    for scale, strength in ((256, 60), (64, 30), (16, 14), (4, 6)):  # as detailed as a photograph
        noise = rng.normal(0, strength, (scene.shape[0] // scale + 2, scene.shape[1] // scale + 2, 3))
        scene += cv2.resize(noise.astype(np.float32), scene.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    scene = np.clip(scene, 0, 255).astype(np.uint8)
    grain = rng.normal(0, GRAIN, (height + 64, width + 64, 3)).astype(np.int8)
    for number in range(frames):
        top, left = int(150 + 140 * np.sin(number / 47)), int(300 + 290 * np.sin(number / 83))
        y, x = rng.integers(0, 64, 2)
        image, noise = scene[top : top + height, left : left + width], grain[y : y + height, x : x + width]
        yield cv2.add(image, noise, dtype=cv2.CV_8U)


def process(program: str, root: Path, out: Path) -> Cost:
    shutil.rmtree(out, ignore_errors=True)
    if program != OURS:
        return run_script_apart("benchmarks/process_data.py", "--plain", program, root, out)
    where = ("--takepath", root / "takes", "--outputpath", out)
    return run_script_apart("data/process_data.py", *where, "--num_workers", 2)


def process_plainly(program: str, root: Path, out: Path) -> None:
    """All takes, one video after the other, in this process."""
    for uid, take in json.loads((root / "annotations" / "relations_train.json").read_text())["annotations"].items():
        for camera in sorted({camera for tracks in take["object_masks"].values() for camera in tracks}):
            (out / uid / camera).mkdir(parents=True)
            images = READERS[program](str(video_path(root / "takes", take["take_name"], camera)))
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


def pyav(path: str) -> Iterator[np.ndarray]:
    """Every STEP-th frame of a video, (H, W, 3) BGR. So do the other readers."""
    with av.open(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % STEP == 0:
                yield frame.to_ndarray(format="bgr24")


def opencv(path: str) -> Iterator[np.ndarray]:
    video, number = cv2.VideoCapture(path, cv2.CAP_FFMPEG), 0
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
