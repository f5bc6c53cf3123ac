"""Set OpenMP and the C library so that a program takes much less CPU time than with the default settings."""

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt


def tune_cpu(module: str) -> None:
    """Scripts that run a network, and inference/predictor.py, call this with their `__name__` before they import torch.

    1. A waiting thread of OpenMP spins only for a moment. By default it keeps its core from other programs: on a busy
       machine, a pair of pictures then took ten times as long.
    2. In a script, freed memory is used again. By default glibc returns large blocks, such as feature maps, to the
       kernel, which clears each page before it gives memory again: a fifth of the time of training and prediction.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if module != "__main__":
        return
    with contextlib.suppress(AttributeError, TypeError):  # the C library is not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
