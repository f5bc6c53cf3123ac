"""Stopping on request: a preempted job gets a signal, saves, and exits."""

import signal


class Stopped(Exception):
    """A signal asked the run to stop; the step it was in is done."""


class StopSignal:
    """Notes SIGTERM and SIGUSR1 (what SLURM can send ahead of a time limit) instead of dying from them."""

    def __init__(self):
        self.requested = False
        self._name = "another process's request"
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame) -> None:
        self.requested, self._name = True, signal.Signals(number).name

    def exception(self) -> Stopped:
        return Stopped(self._name)
