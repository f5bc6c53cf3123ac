"""Many takes at once: one process a camera, one decoder thread each, one progress bar."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.connection import wait as wait_for_exit
from typing import Any

import cv2
from tqdm import tqdm

from data.extraction import CameraJob, Options, TakePlan, extract_camera, finish_take, plan_take
from data.failures import Failure, write_failures
from formats.errors import UserError
from formats.takes import FRAME_STEP, Take, is_ego

EXO_COST = 4  # a 3840x2160 frame has about four times the pixels of a 1408x1408 one
REPORT_INTERVAL = 0.25  # seconds between a worker's messages
Done = Callable[[Take, list[Failure]], None]


class _Stopped(Exception):
    """The run was called off while a job was under way."""


def estimated_work(take: Take) -> int:
    """Effort to process a take, in decoded frames of the size of an ego frame.

    Taken from the annotation alone, so that every machine of a cluster comes to the same, whatever it has on its disk.
    """
    frames = [max(track.annotated_frames, default=0) for tracks in take.objects.values() for track in tracks.values()]
    return (max(frames, default=0) + FRAME_STEP) * _cost(take.cameras)


def _cost(cameras: Sequence[str]) -> int:
    return sum(1 if is_ego(camera) else EXO_COST for camera in cameras)


def process_takes(takes: Sequence[Take], options: Options, num_workers: int, title: str, done: Done) -> None:
    """Process takes in `num_workers` processes (1: in this one); calls `done(take, failures)` as each is finished.

    An exception, from `done` too, stops all workers at their next frame; what is finished stays. Raises UserError if a
    worker is killed or the output cannot be written.
    """
    try:
        _Run(takes, options, title, done).execute(num_workers)
    except OSError as error:
        raise UserError(
            f"cannot write to {options.data_dir} ({error.strerror or error}); what is finished stays: run the same "
            "command again once this is mended"
        ) from None


class _Run:
    """The takes under way: each is planned, then its cameras are extracted, then it is finished."""

    def __init__(self, takes: Sequence[Take], options: Options, title: str, done: Done) -> None:
        self.waiting = sorted(takes, key=estimated_work)  # the longest goes first: none is left over for one worker
        self.options, self.done = options, done
        self.futures: dict[Future, tuple[Take, Callable[[Any], None]]] = {}  # and what to do with its result
        self.given_up: set[str] = set()
        self.bar = _Progress(title, {take.uid: estimated_work(take) for take in takes})

    def execute(self, num_workers: int) -> None:
        with self.bar, _pool(num_workers, self.bar.add_frames) as (self.pool, poll):
            while self.waiting or self.futures:
                # Few takes at a time, so that they are finished one after the other; enough to keep everybody busy.
                while self.waiting and len(self.futures) < 2 * num_workers:
                    take = self.waiting.pop()
                    self._submit(take, partial(self._extract, take), plan_take, take, self.options)
                finished, _ = wait(self.futures, timeout=0.5, return_when=FIRST_COMPLETED)
                poll()
                for future in finished:
                    self._receive(future)

    def _submit(self, take: Take, then: Callable[[Any], None], function: Callable, *args: Any) -> None:
        self.futures[self.pool.submit(function, *args)] = take, then

    def _receive(self, future: Future) -> None:
        take, then = self.futures.pop(future)
        try:
            result = future.result()
        except (OSError, UserError, BrokenProcessPool):
            raise
        except Exception as error:  # an oddity that nobody thought of must not keep the other takes from being done
            if take.uid not in self.given_up:
                self.given_up.add(take.uid)
                failures = [Failure.broken(None, f"unexpected {type(error).__name__}: {error}")]
                write_failures(self.options.data_dir / take.uid, take.name, failures)
                self._close(take, failures)
            return
        if take.uid not in self.given_up:
            then(result)

    def _extract(self, take: Take, plan: TakePlan) -> None:
        if plan.done:
            self._close(take, plan.failures)
            return
        self.bar.expect(take.uid, plan)
        jobs, plan.jobs = sorted(plan.jobs, key=lambda job: is_ego(job.camera)), []  # long ones first
        if not jobs:
            self._finish(take, plan, [])
        results: list[Failure | None] = []

        def collect(failure: Failure | None) -> None:
            results.append(failure)
            if len(results) == len(jobs):
                failures = filter(None, results)
                self._finish(take, plan, sorted(failures, key=lambda failure: failure.camera))

        for job in jobs:
            self._submit(take, collect, _extract, take.uid, job)

    def _finish(self, take: Take, plan: TakePlan, failures: list[Failure]) -> None:
        self._submit(take, partial(self._close, take), finish_take, take, plan, self.options, failures)

    def _close(self, take: Take, failures: list[Failure]) -> None:
        self.bar.close_take(take.uid)
        self.done(take, failures)


class _Progress:
    """A bar whose length is work, so that its time to completion is honest, and which counts takes and frames."""

    def __init__(self, title: str, work: dict[str, float]) -> None:
        self.work = work  # of each take, as far as known
        self.spent = dict.fromkeys(work, 0.0)
        self.takes = self.frames = 0
        form = "{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}{postfix}]"
        pause = 0.1 if sys.stderr.isatty() else 60  # the log file of a cluster job need not hold every step
        self.bar = tqdm(
            total=sum(work.values()),
            desc=title,
            bar_format=form,
            smoothing=0,
            dynamic_ncols=True,
            mininterval=pause,
            maxinterval=max(pause, 10),
        )
        self._show()

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def expect(self, uid: str, plan: TakePlan) -> None:
        """Correct the estimate for a take by what its videos hold."""
        self._resize(uid, sum(len(job.index) * _cost([job.camera]) for job in plan.jobs))

    def add_frames(self, uid: str, frames: int, work: float) -> None:
        """Some more frames of a take have been written."""
        self.frames += frames
        self.spent[uid] += work
        self._show(work)

    def close_take(self, uid: str) -> None:
        self.takes += 1
        self._resize(uid, self.spent[uid])
        self._show()

    def _resize(self, uid: str, work: float) -> None:
        self.bar.total = max(self.bar.total + work - self.work[uid], self.bar.n)  # rounding
        self.work[uid] = work

    def _show(self, work: float = 0) -> None:
        self.bar.total = max(self.bar.total, self.bar.n + work)
        self.bar.set_postfix_str(f"{self.takes}/{len(self.work)} takes, {self.frames} frames", refresh=False)
        self.bar.update(work)


# What a worker process has: the way to tell of frames, and whether it must stop.
_add_frames: Callable[[str, int, float], None]
_stop: Any = None


def _extract(uid: str, job: CameraJob) -> Failure | None:
    told, last = 0, time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal told, last
        if _stop is not None and _stop.value:
            raise _Stopped
        # Seldom, so that the messages never fill the pipe while nobody reads it.
        if done == total or time.monotonic() - last > REPORT_INTERVAL:
            _add_frames(uid, done - told, (done - told) / total * len(job.index) * _cost([job.camera]))
            told, last = done, time.monotonic()

    return extract_camera(job, report)


@contextlib.contextmanager
def _pool(num_workers: int, add_frames: Callable) -> Iterator[tuple[Executor, Callable[[], None]]]:
    """An executor, and a function that passes on to `add_frames` what its workers have told since the last call."""
    global _add_frames, _stop
    if num_workers == 1:
        _add_frames, _stop = add_frames, None
        yield _ThisProcess(), lambda: None
        return
    context = multiprocessing.get_context("spawn")  # forking is unsafe with the threads of OpenCV and of the executor
    stop, told = context.RawValue("b", 0), context.SimpleQueue()  # no lock that a killed worker could hold

    def poll() -> None:
        while not told.empty():
            add_frames(*told.get())

    pool = _Pool(num_workers, context, _start_worker, (stop, told))
    try:
        yield pool, poll
    except BrokenProcessPool:
        for child in multiprocessing.active_children():  # one that was just starting escapes the pool's own clean-up,
            child.kill()  # which then waits for it for ever
        raise UserError(
            "a worker process was killed or could not start, perhaps for want of memory; run the same command again, "
            f"with fewer --num_workers (now {num_workers}, each takes up to 0.4 GB)"
        ) from None
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


def _start_worker(stop: Any, told: Any) -> None:
    global _add_frames, _stop
    cv2.setNumThreads(1)
    _add_frames, _stop = (lambda *args: told.put(args)), stop
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # If the parent is killed outright, a worker that went on would get in the way of the next run.
    wait_for_exit([multiprocessing.parent_process().sentinel])
    os._exit(1)


class _Pool(ProcessPoolExecutor):
    """Its workers, which start in `submit`, never see Ctrl-C: the parent does, and then sets `stop`."""

    def submit(self, *args: Any, **kwargs: Any) -> Future:
        try:
            with _without_interrupts():  # processes inherit this
                return super().submit(*args, **kwargs)
        except OSError:  # no worker can start, or one was killed in the middle of this
            raise BrokenProcessPool from None


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Ctrl-C waits."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


class _ThisProcess(Executor):
    """Does what it is given at once."""

    def submit(self, function: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
