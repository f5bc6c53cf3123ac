"""Run trainings in other processes and end them at a chosen event, by a signal or because the disk is full."""

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

import timm  # noqa: F401, imported here once for all copies of this process
import torch._dynamo  # noqa: F401, which an optimizer imports

import recipes.strong.training
import train.state
from common.errors import run_script
from recipes.paper import Paper
from recipes.strong.recipe import Strong
from recipes.strong.training import StrongTraining
from tests.made.networks import lite0
from tests.made.processes import context
from tests.made.training import run_training
from train.log import Log
from train.state import TrainState

FULL_DISK = "a full disk"
WRITES = ("checkpoint", "line of the log")  # the kinds of events at which the disk can be full
lite0()


def train_until(end: tuple | None, how: signal.Signals | str, *given: object) -> int:
    """Run `run_training(*given)` and end it at the event `end`, one of `all_events` (None: never), as `how` says. Waits
    for all its processes; returns its exit status.
    """
    until_gone, held = context.Pipe(duplex=False)  # `held` stays open in all processes that the training forks
    process = context.Process(target=_train, args=(end, how, None, given, held))
    process.start()
    held.close()
    process.join()
    assert until_gone.poll(timeout=300), "a loader process lives on"
    return process.exitcode


def all_events(*given: object) -> list[tuple[str, int, int]]:
    """All events at which `run_training(*given)` can be ended: kind, step, and number of the event in this step."""
    queue = context.SimpleQueue()
    process = context.Process(target=_train, args=(None, "", queue, given))
    process.start()
    events = list(iter(queue.get, None))
    process.join()
    assert process.exitcode == 0
    return events


def _train(end: tuple | None, how: signal.Signals | str, queue: Any, given: tuple, held: Any = None) -> None:
    known, numbers = [], {}
    init = TrainState.__init__
    TrainState.__init__ = lambda state, *args: (known.append(state), init(state, *args))[1]

    def note_calls(owner: Any, name: str, kind: str, when_full: Callable | None = None) -> None:
        function = getattr(owner, name)

        def noted(*args, **kwargs):
            step = known[0].step
            numbers[kind, step] = number = numbers.get((kind, step), 0) + 1
            if queue:
                queue.put((kind, step, number))
            if (kind, step, number) == end:
                when_full(*args) if how == FULL_DISK else os.kill(os.getpid(), how)
            return function(*args, **kwargs)

        setattr(owner, name, noted)

    def fill_disk(*_: Any) -> None:
        def no_space(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.fsync = no_space

    def write_half(log: Log, *_: Any) -> None:
        log._file.write('{"kind": "tr')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    note_calls(TrainState, "set_rate", "step")
    for recipe in (Paper, Strong):
        note_calls(recipe, "predict", "frame of a validation")
    note_calls(StrongTraining, "wrong_places", "frame of a mining")
    note_calls(recipes.strong.training, "all_looks", "frame of a fit")
    note_calls(train.state, "save_checkpoint", "checkpoint", fill_disk)
    note_calls(TrainState, "forget_searches", "end of the searches")
    note_calls(Log, "write", "line of the log", write_half)
    try:
        run_script(lambda: run_training(*given))
    finally:
        if queue:
            queue.put(None)
