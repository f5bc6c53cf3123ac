"""CPU time and memory to get every 30th frame of a 4K video, for this project's decoder and for others:

    python benchmarks/decode_video.py

Encodes three clips, which takes minutes and is done once: they stay in --folder. Then runs each method in a process of
its own, in turn, and prints medians over --rounds. All use one decoding thread, and every frame's number, which the
picture shows, is checked. decord, whose get_batch the reference uses, joins in if it is installed
(`pip install decord`). The last lines show memory against length, for a clip four times as long.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import numpy as np

from benchmarks.clips import FOLDER, GROUP, READERS, STEP, clip_path, read_number
from data.video import index_video, read_frames
from formats.arguments import Parser, at_least
from formats.errors import UserError, run_script

CLIPS = ("h264_gop250", "h264_gop30", "hevc_gop250")
OURS = "this project"


def ours(path: str, _threads: int) -> Iterator[np.ndarray]:
    index = index_video(path)
    return (image for _, image in read_frames(index, range(0, len(index), STEP)))


METHODS = {OURS: ours, **READERS}


def run_here(method: str, path: str) -> None:
    """Print what `method` takes, as JSON."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    numbers = [read_number(image) for image in METHODS[method](path, 1)]
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    status = Path("/proc/self/status").read_text()  # Linux; getrusage would count the process that started this one
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**10
    print(json.dumps({"cpu": cpu, "wall": time.perf_counter() - start, "peak_mb": peak, "numbers": numbers}))


def run_apart(method: str, path: Path) -> dict:
    """What `method` takes in a process of its own."""
    command = [sys.executable, __file__, "--run", method, str(path)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def compare(path: Path, num_frames: int, methods: list[str], rounds: int) -> None:
    results: dict[str, list[dict]] = {method: [] for method in methods}
    for number in range(rounds):
        for method in methods[number % len(methods) :] + methods[: number % len(methods)]:
            result = run_apart(method, path)
            if result["numbers"] != [number % GROUP for number in range(0, num_frames, STEP)]:
                raise UserError(f"{method} delivers wrong frames of {path}: {result['numbers']}")
            results[method].append(result)
    wanted = len(range(0, num_frames, STEP))
    print(f"\n{path.stem}, {path.stat().st_size / 1e6:.0f} MB, {wanted} of {num_frames} frames")
    best = median(result["cpu"] for result in results[OURS])
    for method, runs in results.items():
        cpu, peak = (median(run[key] for run in runs) for key in ("cpu", "peak_mb"))
        print(f"  {method:22}{cpu:7.2f} CPU s {peak:7.0f} MB    this project takes {best / cpu:.2f} of it")


def main() -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--folder", type=Path, default=FOLDER, help="clips, kept between runs")
    add("--times", type=at_least(1), default=3, help=f"length of the clips, in groups of {GROUP} frames")
    add("--clips", nargs="+", choices=CLIPS, default=CLIPS, help="which of them")
    add("--rounds", type=at_least(1), default=3, help="runs of each method")
    add("--run", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_here(*args.run)
        return
    for name in args.clips:
        compare(clip_path(args.folder, name, args.times), args.times * GROUP, list(METHODS), args.rounds)
    print("\nPeak memory against length, this project")
    for times in (args.times, 4 * args.times):
        path = clip_path(args.folder, args.clips[0], times)
        print(f"  {times * GROUP:5} frames: {run_apart(OURS, path)['peak_mb']:4.0f} MB")


if __name__ == "__main__":
    run_script(main)
