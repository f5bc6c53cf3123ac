"""What every worker process does first."""

import signal

import cv2


def start_worker() -> None:
    """For spawned processes: one OpenCV thread, for the processes are the parallelism. Ctrl-C is left to the parent,
    which ends its workers.
    """
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def start_loader_worker(_worker_id: int) -> None:
    """For a DataLoader's workers. They ignore Ctrl-C and what a scheduler sends to all processes of a job that it is
    about to end: the parent still needs them to finish its step and save.

    OpenCV's threads are off already, by data/processed.py: to set them in a forked process can hang.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
