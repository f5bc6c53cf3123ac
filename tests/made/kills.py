"""Scripts of ours, killed where they touch files."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tests.made.scripts import run_main

EVENTS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate", "shutil.copyfile")


def killed_at(number: int, folder: Path, main: Callable[[], int | None], *words: object) -> bool:
    """Run a script's `main` in a forked process, which is killed when it is about to do its `number`-th thing, from 1,
    to a file below `folder`. False if it ended before.

    Fit for scripts that call no function of OpenCV with threads: these do not survive a fork.
    """
    process = os.fork()
    if process == 0:
        try:
            left = [number]

            def kill(event: str, args: tuple) -> None:
                if event in EVENTS and args and str(args[0]).startswith(f"{folder}{os.sep}"):
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(kill)
            run_main(main, *words)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])
