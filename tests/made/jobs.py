"""Jobs for worker processes, which import this file and so need not wait for torch."""

import os
import signal
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


def sleep(number: int) -> None:
    print("busy", flush=True)
    time.sleep(600)
