"""Errors that a user can cause end in one line on stderr and a non-zero exit status, never in a traceback."""

import atexit
import contextlib
import functools
import gc
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

# The exceptions that code may raise when it takes values out of JSON of another form than expected.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
OWN = "__own__"  # a name in a module that the user has written, see common/own_code.py
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # characters that end a line or command a terminal


class UserError(Exception):
    """Bad input. The message is one line: the thing, its value, and what to do about it."""


class Ended(SystemExit):
    """The end that a command line asks for, as by --help. Whatever else raises SystemExit is code of the user's own."""


@functools.cache
def warn_once(message: str) -> None:
    print(f"warning: {printable(message)}", file=sys.stderr)


def printable(text: str) -> str:
    """A line that may hold names from files, with its control characters as escapes."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def counted(number: int, noun: str) -> str:
    """`1 take`, `2 takes`, `1,317 takes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_few(names: Sequence[Any], most: int = 3) -> str:
    """`a, b, c, ...`"""
    return ", ".join([*map(str, names[:most]), *(["..."] if len(names) > most else [])])


def say_errors() -> None:
    """From now on, errors that a user can cause end the program in one line, also before `run_script`.

    Until then, nobody searches for garbage, which would take a tenth of the imports' time; and the program's end does
    not wait for a last search in all that PyTorch has imported, which takes a second.
    """
    gc.disable()
    atexit.register(gc.freeze)
    sys.excepthook = lambda kind, error, trace: _say(error) or sys.__excepthook__(kind, error, trace)


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status (None means 0).

    UserError, OSError (disk full, no permission, file gone), MemoryError and a SystemExit of the user's own code end in
    one line and status 1, Ctrl-C in status 130. If nobody reads on (`| head -1`), the script ends without a word in
    status 141, as programs in a shell do. Anything else is a bug of ours and keeps its traceback.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without Unicode gets escapes, not an error
        sys.stdout.reconfigure(errors="backslashreplace")
    gc.enable()
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it again when it ends
        status = 141
    except Ended:
        raise
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        status = _say(error)
        if not status:
            raise
    sys.exit(status)


@functools.cache
def is_first_to_fail() -> bool:
    """True unless another process of torchrun has failed before and told why. Most often, all meet the same error, or
    the others fail because they have lost that process.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore

    with contextlib.suppress(RuntimeError):  # torchrun is gone
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), timeout=timedelta(seconds=2))
        return store.add(f"failed in attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT')}", 1) == 1
    return True


def own_lines(error: BaseException) -> list[tuple[str, int]]:
    """Through which files of the user's own code an error came, with the numbers of the lines."""
    frames = traceback.walk_tb(error.__traceback__)
    return [(frame.f_code.co_filename, line) for frame, line in frames if OWN in frame.f_globals]


def exit_message(error: SystemExit) -> str:
    """The line for code of the user's own that ends the program: without it, the end would look like a success."""
    all_lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    file, line = (own_lines(error) or all_lines)[-1]
    return f"{file}, line {line}: SystemExit: {error}; raise an error that says why, in place of ending the program"


def _say(error: BaseException) -> int:
    """Print an error that a user can cause as one line, and return the exit status. If the code is wrong, return 0."""
    if not is_first_to_fail():
        return 1
    message = printable(" ".join(str(error).splitlines()))  # libraries' errors may have several lines
    if isinstance(error, KeyboardInterrupt):
        print("interrupted; run the same command again to continue", file=sys.stderr)
        return 130
    if isinstance(error, ModuleNotFoundError):
        message = f"{sys.executable} has no module {error.name}; activate this project's environment (README.md), or "
        message += "pip install -r requirements.txt"
    elif isinstance(error, MemoryError):
        message = "the memory of this machine is full; close other programs or give fewer --num_workers"
    elif isinstance(error, SystemExit):
        message = printable(exit_message(error))
    elif isinstance(error, OSError):
        message = f"{type(error).__name__}: {message}"
    elif not isinstance(error, UserError):
        return 0
    print(f"error: {message}", file=sys.stderr)
    return 1
