"""Scripts of ours, run in this process: a new one would take seconds for its imports."""

import contextlib
import io
import subprocess
import sys
import time
from collections.abc import Callable

from common.errors import run_script


def exit_status(main: Callable[[], int | None], *words: object) -> int:
    """Run a script's `main` with these words on its command line; returns its exit status."""
    former, sys.argv = sys.argv, ["script.py", *map(str, words)]
    try:
        run_script(main)
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = former
    raise AssertionError("run_script returned")


def run_main(main: Callable[[], int | None], *words: object) -> subprocess.CompletedProcess[str]:
    """The same; what it prints is in the answer, as that of `subprocess.run`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = exit_status(main, *words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def living(process: subprocess.Popen) -> dict[int, str]:
    """The living processes, without zombies, of one that was started with a new session: process id -> command line."""
    columns = ["ps", "-ww", "-eo", "pid=,pgid=,stat=,args="]
    listing = subprocess.run(columns, capture_output=True, text=True, check=True).stdout
    rows = (line.split(maxsplit=3) for line in listing.splitlines())
    return {int(pid): args for pid, group, state, args in rows if group == str(process.pid) and state[0] != "Z"}


def wait_for_the_end(process: subprocess.Popen) -> None:
    """Return when no process is left of one that was started with a new session."""
    deadline = time.monotonic() + 300
    while left := living(process):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
