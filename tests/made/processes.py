"""Run scripts in this process (a new process needs seconds for imports), kill scripts, run processes beside them; copy
the repository for commands with their default paths.
"""

import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import run_script
from tests.made import ROOT

# Imports take seconds, so they are done once, in a process from which all of this context are forked. Forks of the
# process that runs the tests would wait for ever for threads of OpenCV or FFmpeg, which do not survive a fork.
context = multiprocessing.get_context("forkserver")
SLOW_IMPORTS = ["tests.made.stops", "data.import_take", "evaluation.evaluate", "inference.segment_video"]
context.set_forkserver_preload(SLOW_IMPORTS)


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
    """Run a script's `main` as `exit_status` does; the result, with its output, is like the one of `subprocess.run`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = exit_status(main, *words)
    assert "\r" not in out.getvalue() + err.getvalue()  # a log gets no progress bar
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def wait_for_the_end(process: subprocess.Popen) -> None:
    """Wait until no process of the session that `process` leads lives any more; zombies do not count."""
    columns, deadline, left = ["ps", "-ww", "-eo", "pgid=,stat=,args="], time.monotonic() + 300, True
    while left:
        rows = subprocess.run(columns, capture_output=True, text=True, check=True).stdout.splitlines()
        left = [row for row in rows if row.split()[0] == str(process.pid) and row.split()[1][0] != "Z"]
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


HOLD = """import sys
from pathlib import Path
from common.files import claimed
with claimed(Path(sys.argv[1]), sys.argv[2], ""):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def claimed_elsewhere(folder: Path, name: str) -> Iterator[subprocess.Popen]:
    """Yield another process, which holds the claim of `name` in `folder` for the time of the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLD, folder, name], cwd=ROOT, **pipes) as process:
        assert process.stdout.readline() == "claimed\n"
        yield process
        process.stdin.close()


EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.copyfile")


def killed_at(number: int, folder: Path, main: Callable[[], int | None], *words: object) -> bool:
    """Run a script's `main`, which a module must have by this name, in another process, and kill it just before its
    `number`-th operation, counted from 1, on a file below `folder`. Returns False if it ended before.
    """
    process = context.Process(target=_until_killed, args=(number, folder, main, words))
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def _until_killed(number: int, folder: Path, main: Callable[[], int | None], words: tuple) -> None:
    left = [number]

    def kill(event: str, args: tuple) -> None:
        if event in EVENTS and args and str(args[0]).startswith(f"{folder}{os.sep}"):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    run_main(main, *words)


def copy_repository(folder: Path) -> Path:
    """Copy all files that git tracks, in their present state."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():  # it may be deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder
