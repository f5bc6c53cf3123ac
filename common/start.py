"""The beginning of every script. A script in a folder first puts the repository's root on the path:

    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

    from common.start import start

    start(__name__)

Python 3.6 must be able to read this module and all scripts, so that it ends in a line and not in a traceback.
"""

import contextlib
import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt


def start(module: str) -> None:
    """Scripts call this with their `__name__` before all other imports. An older Python ends here, in one line.

    If the script is the program that runs:

    1. Ctrl-C and errors that a user can cause, such as a missing package, end the imports in one line.
    2. Freed memory is used again. By default glibc returns large blocks, such as feature maps, to the kernel, which
       clears each page before it gives memory again: a fifth of the time of training and prediction.
    3. A waiting thread of OpenMP spins only for a moment (`spin_briefly`).
    """
    if sys.version_info < (3, 10):  # noqa: UP036
        version = "{}.{}".format(*sys.version_info)
        remedy = "activate this project's environment (README.md)"
        sys.exit(f"error: {sys.executable} is Python {version}, and this needs 3.10 or newer; {remedy}")
    if module == "__main__":
        from common.errors import say_errors

        say_errors()
        spin_briefly()
        with contextlib.suppress(AttributeError, TypeError):  # the C library is not glibc
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def spin_briefly() -> None:
    """Call this before torch is imported. By default a waiting thread of OpenMP keeps its core from other programs: on
    a busy machine, a pair of pictures then took ten times as long.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
