"""Different ways to do the same work, measured in turn, and the one way to print what they take."""

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from common.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
T = TypeVar("T")


class Cost(NamedTuple):
    """Seconds of wall time and of CPU time, and the peak memory of all processes together, in MB."""

    wall: float
    cpu: float
    memory: float


def in_turn(ways: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each way returns in each round. Every round begins with another way: other load meets all of them alike."""
    returned: dict[str, list[T]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            returned[name].append(ways[name]())
    return returned


def timed(work: Callable[..., T], *arguments: object) -> tuple[float, T]:
    """Seconds that `work(*arguments)` takes, and what it returns."""
    start = time.perf_counter()
    value = work(*arguments)
    return time.perf_counter() - start, value


def print_times(title: str, times: Mapping[str, Sequence[float]], unit: str) -> None:
    """A line for each way: median of `times`, seconds per `unit` by round, and how it compares with the first way.

    The ratios are taken within each round, before their median.
    """
    first = next(iter(times))
    rounds = len(times[first])
    print(f"{title}: seconds per {unit}, medians of {rounds} rounds; x: times as fast as {first} (lowest to highest)")
    for name, seconds in times.items():
        ratios = [other / own for other, own in zip(times[first], seconds, strict=True)]
        spread = f"x{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {name:<48} {median(seconds):>9.4g} s {1 / median(seconds):>9.4g}/s  {spread}", flush=True)


def run_script_apart(script: str, *arguments: object, **environment: str) -> Cost:
    """Run a script of the repository in a process of its own. Raises UserError with its last line if it fails.

    The memory is read from /proc: 0 on other systems than Linux.
    """
    command = [sys.executable, ROOT / script, *arguments]
    with tempfile.TemporaryFile("w+") as errors:
        before, start, memory = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0.0
        process = subprocess.Popen(
            list(map(str, command)), env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=errors
        )
        while process.poll() is None:
            memory = max(memory, sum(_resident(process.pid)))
            time.sleep(0.05)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            errors.seek(0)
            raise UserError(f"{script}: {(errors.read().strip() or 'failed').splitlines()[-1]}")
    return Cost(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory)


def _resident(pid: int) -> Iterator[float]:
    """Resident memory in MB of a process and of each of its descendants."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # it has just ended
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        yield next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _resident(int(child))
