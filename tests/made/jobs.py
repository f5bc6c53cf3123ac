"""Jobs for worker processes. They have a file without torch, because workers import the file of their jobs."""

import os
import signal
import sys
import time

from common.errors import UserError


def double(number: int) -> int:
    return 2 * number


def fail_at_three(number: int) -> int:
    if number == 3:
        raise UserError("job 3 is bad")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def say_busy() -> None:
    sys.stdout.write("busy\n")  # print writes in two parts, and two processes share the pipe
    sys.stdout.flush()


def sleep(number: int) -> None:
    say_busy()
    time.sleep(600)
