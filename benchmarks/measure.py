"""Different ways to do the same work, measured in turn, on rendered takes; and the one way to print what they take."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TypeVar

from common.errors import UserError, counted
from common.parallel import default_workers

ROOT = Path(__file__).resolve().parents[1]
PROCESSED = "processed"
T = TypeVar("T")


def in_turn(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each way returns in each round. A round goes through all of them, so that other load meets them alike."""
    returned: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            returned[name].append(way())
    return returned


def timed(
    work: Callable[..., T], *arguments: object, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, T]:
    """Seconds that `work(*arguments)` takes, and what it returns."""
    start = clock()
    value = work(*arguments)
    return clock() - start, value


def processor() -> str:
    """The CPU's model, and how many of its cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {counted(default_workers(), 'core')}"


def print_times(title: str, times: Mapping[str, Sequence[float]], unit: str) -> None:
    """A line for each way: median of `times`, seconds per `unit` by round, and how it compares with the first way.

    The ratios are taken within each round, before their median.
    """
    first = next(iter(times))
    rounds = len(times[first])
    print(f"{title}, {processor()}:")
    print(f"seconds per {unit}, medians of {rounds} rounds; x: times as fast as {first} (lowest to highest)")
    for name, seconds in times.items():
        ratios = [other / own for other, own in zip(times[first], seconds, strict=True)]
        spread = f"x{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {name:<48} {median(seconds):>9.4g} s {1 / median(seconds):>9.4g}/s  {spread}", flush=True)


def run_script_apart(script: str, *arguments: object, **environment: str) -> None:
    """Run a script of the repository in a process of its own. Raises UserError with its last line if it fails."""
    command = list(map(str, (sys.executable, ROOT / script, *arguments)))
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{script}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")


def make_takes(root: Path, *options: object) -> None:
    """Rendered takes in `root`, with the options of make_takes.py; a rerun keeps what is there."""
    run_script_apart("synthetic/make_takes.py", "--outputpath", root, *options)


def process_takes(root: Path) -> Path:
    """The takes of `root` processed, with their pairs -> the folder of processed takes."""
    where = ("--takepath", root / "takes", "--split_path", root / "split.json", "--outputpath", root / PROCESSED)
    run_script_apart("data/process_data.py", *where)
    run_script_apart("data/create_pairs.py", "--data_dir", root / PROCESSED)
    return root / PROCESSED
