"""Errors that a user can cause end in one line on stderr and a non-zero exit status, never in a traceback."""

import functools
import sys
from collections.abc import Callable

# What parsing unexpected JSON can raise.
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


class UserError(Exception):
    """Bad input. The message is one line: the thing, its value, and what to do about it."""


@functools.cache
def warn_once(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def counted(number: int, noun: str) -> str:
    """`1 take`, `2 takes`, `1,317 takes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and exit with its status (None means 0).

    UserError and OSError (disk full, no permission, file gone) end in one line and status 1, Ctrl-C in status 130.
    Anything else is a bug of ours and keeps its traceback.
    """
    if hasattr(sys.stdout, "reconfigure"):  # a terminal without Unicode gets escapes, not an error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = main()
    except (UserError, OSError) as error:
        name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        print(f"error: {name}{' '.join(str(error).splitlines())}", file=sys.stderr)  # libraries' errors may have more
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    sys.exit(status)
