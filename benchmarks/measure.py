"""Measure several ways to do the same work in turn, print their times, and make rendered takes for the measurements."""

import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from statistics import median
from typing import TypeVar

from common.errors import UserError, counted
from common.parallel import default_workers
from formats.takes import SPLITS

ROOT = Path(__file__).resolve().parents[1]
PROCESSED = "processed"
Times = dict[str, list[float]]  # the seconds of each way, by round
T = TypeVar("T")


def time_in_turn(
    ways: Mapping[str, Callable[[], T]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[Times, dict[str, list[T]]]:
    """Run each way once in each round. Returns the seconds by `clock` that each way took, and the values it returned.
    Each round runs all ways, so that other load on the machine slows all of them down alike.
    """
    times: Times = {name: [] for name in ways}
    returned: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = clock()
            returned[name].append(way())
            times[name].append(clock() - start)
    return times, returned


def processor_name() -> str:
    """The model of the CPU, and the number of its cores that this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {counted(default_workers(), 'core')}"


def print_times(title: str, times: Times, unit: str, count: int = 1) -> None:
    """Print a line for each way: the median of its seconds per `unit` (a round has `count` units), and how many times
    as fast as the first way it is. The printed ratio is the median of the ratios within each round.
    """
    first, *_ = times
    print(f"{title}, {processor_name()}:")
    print(f"seconds per {unit}, medians of {len(times[first])} rounds; x: times as fast as {first} (lowest to highest)")
    for name, seconds in times.items():
        ratios = [other / own for other, own in zip(times[first], seconds, strict=True)]
        spread = f"x{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        each = median(seconds) / count
        print(f"  {name:<48} {each:>9.4g} s {1 / each:>9.4g}/s  {spread}", flush=True)


def run_script_apart(script: str, *arguments: object) -> None:
    """Run a script of the repository in another process. Raises UserError with its last line if the script fails."""
    words = list(map(str, (sys.executable, ROOT / script, *arguments)))
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{script}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")


def make_takes(root: Path, split: str, count: int, *options: object) -> None:
    """Render `count` takes of a split into `root`, with `options` of make_takes.py; a rerun keeps existing takes."""
    counts = {f"--num_{name}": count if name == split else 0 for name in SPLITS}
    run_script_apart("synthetic/make_takes.py", "--outputpath", root, *chain(*counts.items()), *options)


def process_takes(root: Path) -> Path:
    """Process the takes in `root` and list their pairs; returns the folder of processed takes."""
    where = ("--takepath", root / "takes", "--split_path", root / "split.json", "--outputpath", root / PROCESSED)
    run_script_apart("data/process_data.py", *where)
    run_script_apart("data/create_pairs.py", "--data_dir", root / PROCESSED)
    return root / PROCESSED
