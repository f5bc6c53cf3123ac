"""How a program computes on a CPU, where PyTorch's and the C library's own ways waste much of its time."""

import contextlib
import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's mallopt


def tune_cpu(module: str, keep_memory: bool = True) -> None:
    """Scripts that run a network, and inference/predictor.py, call this with their `__name__` before they import torch.

    1. OpenMP's threads that wait for others spin for a moment only, unless torch is loaded already. By default they
       keep their core from other programs: beside other work, a pair of pictures took ten times as long.
    2. A script also uses freed memory again. By default glibc gives large blocks, such as feature maps, back at once,
       and the kernel clears each page of the next ones: a fifth of the CPU time of training and prediction. Without
       `keep_memory`, blocks of 4 MB or more are always given back: threads that read pictures would each keep theirs.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    if module != "__main__":
        return
    with contextlib.suppress(AttributeError, TypeError):  # the C library is not glibc
        mallopt = ctypes.CDLL(None).mallopt
        if keep_memory:
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        else:
            mallopt(M_MMAP_THRESHOLD, 2**22)
