"""Progress bars; in a job's log, which is no terminal, a line every few minutes."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

DELAY = 1  # seconds until a bar appears
EVERY = 180  # seconds between two lines


def progress(items: Iterable | None, name: str, total: int | None, unit: str, **options: Any) -> tqdm:
    """Count items on a bar of tqdm. It appears late, so that an early error is not printed below it."""
    options = {"unit": unit, "delay": DELAY, **options}
    if not sys.stderr.isatty():
        options |= {"delay": EVERY, "mininterval": EVERY, "maxinterval": EVERY, "leave": False}
        options |= {"file": _Lines(), "bar_format": "{desc}: {n_fmt} of {total_fmt} {unit}s, {remaining} left"}
    return tqdm(items, name, total, **options)


class _Lines:
    """The file of a bar that nobody watches: what it writes over and over is a line each time."""

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            print(line, file=sys.stderr)

    def flush(self) -> None:
        sys.stderr.flush()
