"""Worker processes: their number, jobs and DataLoaders that use them, what happens when one dies; and threads."""

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

import cv2

from common.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
MAX_LOADERS = 16  # loader processes by default; 16 processes read about 1,000 samples a second, more than a GPU needs
PREFETCH = 4  # batches that each loader process reads ahead
STOP_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1  # SLURM can send SIGUSR1 ahead of a time limit


def default_workers() -> int:
    """The number of CPUs that this process may use: a scheduler may limit it, and processes of torchrun share it."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, _cpu_quota() or cpus) // local_ranks())


def _cpu_quota(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """The number of CPUs whose time a container may use; `os.sched_getaffinity` does not show this limit."""
    with contextlib.suppress(OSError, ValueError):  # there are no cgroups, or the limit is "max"
        quota, period = map(int, path.read_text().split())
        return max(1, quota // period)
    return None


def local_ranks() -> int:
    """The number of processes that torchrun started on this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def run_jobs(function: Callable[[Job], Result], jobs: Iterable[Job], num_workers: int) -> Iterator[tuple[Job, Result]]:
    """Run `function(job)` for all jobs in `num_workers` processes (0 or 1: in this process), and yield `(job, result)`
    as soon as a job is finished.

    `jobs` may be a generator; at most two jobs a worker are drawn and unfinished. `function` and the jobs are pickled.
    The workers are killed at once if `function` raises an exception (which is raised again here), after Ctrl-C, and if
    the caller leaves its loop; so files that `function` writes must appear whole or not at all. Raises UserError if
    somebody else kills a worker.
    """
    if num_workers <= 1:
        for job in jobs:
            yield job, function(job)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each worker's NumPy would start a thread for each CPU
    # Workers are spawned, because forking is unsafe beside the threads of OpenCV and of the executor.
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(num_workers, context, _start_worker)
    jobs, running = iter(jobs), {}
    try:
        while True:
            for job in itertools.islice(jobs, 2 * num_workers - len(running)):  # so that no worker has to wait
                with _signals_blocked():  # `submit` starts the processes
                    running[pool.submit(function, job)] = job
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
        pool.shutdown()
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed or could not start, perhaps for lack of memory; finished work is kept: run "
            f"the same command again, with fewer --num_workers (now {num_workers})"
        ) from None
    finally:
        for process in set(multiprocessing.active_children()) - others:  # they have all ended unless a job failed
            process.kill()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Processes that start within the block do not react to the signals that a terminal or a scheduler sends to all
    processes of a job. Only the parent ends them: after Ctrl-C, a worker that still imports would show a traceback.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism
    _end_with_parent()


def _end_with_parent() -> None:
    """End this worker if its parent is killed. Otherwise, the worker would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # a worker has one

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def in_threads(function: Callable[..., Result], *inputs: Iterable, threads: int | None = None) -> list[Result]:
    """`list(map(function, *inputs))` in threads, for functions that spend their time in OpenCV: one for each CPU that
    this process may use, the same ones in each call; or in so many `threads` of its own, which wait for a disk.
    """
    if threads:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, *inputs))
    pool = _pool_of(os.getpid())
    return list(pool.map(function, *inputs) if pool else map(function, *inputs))


@functools.cache
def _pool_of(_process: int) -> ThreadPoolExecutor | None:
    """The threads of a process; a fork has none of its parent's. None if there is one CPU for it."""
    return ThreadPoolExecutor(default_workers()) if default_workers() > 1 else None


def loader_options(workers: int | None, pin: bool = False) -> dict[str, Any]:
    """The arguments of a DataLoader with `workers` processes, which it keeps for its next iteration; with 0 workers,
    this process reads. None means one process for each CPU except the CPU on which this process computes.
    """
    if workers is None:
        workers = max(1, min(default_workers() - 1, MAX_LOADERS))
    cv2.setNumThreads(0)  # OpenCV's threads do not survive the fork of a worker
    ahead: dict[str, Any] = {"prefetch_factor": PREFETCH, "persistent_workers": True}
    ahead["worker_init_fn"] = init_loader_worker
    if sys.platform == "linux":  # other start methods (the default from Python 3.14 on) copy the data into each worker
        ahead["multiprocessing_context"] = "fork"
    return {"num_workers": workers, "pin_memory": pin, **(ahead if workers else {})}


def init_loader_worker(_worker_id: int) -> None:
    """The `worker_init_fn` of our DataLoaders.

    The workers ignore the signals that a terminal sends to a process group and SLURM to a whole job, because the parent
    still needs the workers to finish its step and save. The workers end at a SIGTERM from the parent, which PyTorch
    sends when the parent fails.
    """
    knows_senders = hasattr(signal, "sigwaitinfo")  # macOS lacks this
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS if knows_senders else {signal.SIGINT, signal.SIGUSR1})
    cv2.setNumThreads(0)  # for workers that are spawned: they did not inherit the parent's setting
    os.setsid()
    _end_with_parent()
    if knows_senders:
        threading.Thread(target=_end_at_sigterm_of_parent, daemon=True).start()


def _end_at_sigterm_of_parent() -> None:
    parent = multiprocessing.parent_process()  # os.getppid() may be a fork server
    while parent and signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


@contextlib.contextmanager
def loader_failures() -> Iterator[None]:
    """The context in which a DataLoader is used. Raises UserError if one of the loader's workers dies."""
    try:
        yield
    except UserError as error:  # PyTorch puts a worker's traceback before the line
        raise UserError(str(error).rpartition("UserError: ")[2]) from None
    except (RuntimeError, OSError, EOFError) as error:  # "DataLoader worker process" begins an error of our own in it
        if "DataLoader worker (pid" not in str(error) and not isinstance(error, ConnectionError | EOFError):
            raise
        with contextlib.suppress(RuntimeError):
            time.sleep(1)  # after a broken connection, PyTorch raises the worker's death here and not somewhere later
        raise UserError(
            "a loader process died, perhaps for lack of memory or shared memory; run the same command again with fewer "
            "--num_workers (0 starts none), or in a container with more shared memory: docker run --shm-size 16g"
        ) from None
