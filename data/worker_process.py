"""What every worker process does first."""

import signal

import cv2


def start_worker() -> None:
    """One OpenCV thread: the processes are the parallelism. Ctrl-C is left to the parent, which ends its workers."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_loader_worker(_worker_id: int) -> None:
    """The same for a DataLoader's workers, which also ignore what a scheduler sends to all processes of a job it is
    about to end: the parent still needs them to finish its step and save.
    """
    start_worker()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
