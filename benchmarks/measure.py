"""Different ways to do the same work, measured in turn, and the one way to print what they take."""

import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Cost(NamedTuple):
    """What a command takes: seconds, and peak memory in MB of its main process and of all its processes together."""

    wall: float
    cpu: float
    main_memory: float
    all_memory: float


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
        rate = 1 / median(seconds)
        spread = f"x{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"  {name:<48} {median(seconds):>9.4g} s {rate:>9.4g}/s  {spread}", flush=True)


def run_command(*command: object) -> Cost:
    """Run a Python script of ours with its arguments, without what it prints. Ends this program if it fails.

    The memory is read from /proc, so it is 0 on systems other than Linux.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    main_memory = all_memory = 0.0
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        sizes = list(_resident(process.pid))
        main_memory, all_memory = max(main_memory, *sizes[:1], 0), max(all_memory, sum(sizes))
        time.sleep(0.05)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"error: {' '.join(map(str, command))} failed")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, main_memory, all_memory)


def _resident(pid: int) -> Iterator[float]:
    """Resident memory in MB of a process, then of each of its descendants."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # it has just ended
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        yield next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield from _resident(int(child))
