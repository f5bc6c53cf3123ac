"""The processes that torchrun starts: rank, collectives and signals to stop."""

import os
import signal
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from common.errors import UserError
from common.parallel import STOP_SIGNALS

AGREE_EVERY = 8  # steps; schedulers give minutes, a step takes a second or less
MEETING = timedelta(minutes=10)  # so long processes look for each other, as torchrun may have been killed
PATIENCE = timedelta(days=7)  # one may finish long before another, or wait for another run in its folder


class Stopped(Exception):
    """A signal asked the run to stop; the step it was in is done."""


class World:
    """This process among those that torchrun started, or one alone. `rank` 0 writes files and prints; `size` counts the
    processes. Collectives are no-ops for a single process.
    """

    def __init__(self):
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.signal: signal.Signals | None = None  # that asked this process to stop
        self._since = 0.0
        self._control = None  # a group on the CPU, so that agreeing never waits for a GPU

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def start(self, device: torch.device | None = None) -> None:
        """Join the others. What `sum` and gradients send travels by NCCL if they are on a CUDA `device`, else by gloo.

        Raises UserError if they do not meet.
        """
        if self.size > 1:
            on_gpu = device is not None and device.type == "cuda"
            backend = {"backend": "nccl", "device_id": device} if on_gpu else {"backend": "gloo"}
            try:
                dist.init_process_group(**backend, timeout=MEETING)
            except dist.DistError as error:
                reason = str(error).partition("\n")[0].rstrip(".")
                raise UserError(f"the processes of torchrun have not met: {reason}; start torchrun again") from None
            self._control = dist.new_group(backend="gloo", timeout=PATIENCE)

    def meet(self) -> None:
        """Wait until all processes have come here."""
        if self.size > 1:
            dist.barrier(group=self._control)

    def stop(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in the order of their ranks, on every process."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise sum over the processes, on the tensor's device, without waiting for that device."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def catch_signals(self) -> None:
        """Note the signals that ask to stop instead of dying from them.

        A second one, a second later or more, ends the process at once: files are whole or not there at any time. What
        comes sooner is the same request again, which torchrun passes on although a terminal has sent it to everyone.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: Any) -> None:
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
            if self.is_main:  # print() inside an interrupted print() would raise
                os.write(2, f"{self.signal.name}: saving after this step; once more ends at once\n".encode())
        elif time.monotonic() - self._since > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def stop_requested(self, step: int = 0) -> bool:
        """Whether a signal came, to this process or to another one. All processes must ask at the same place; several
        agree at each `AGREE_EVERY`-th step only, as they have to talk for it.
        """
        if self.size == 1:
            return self.signal is not None
        if step % AGREE_EVERY:
            return False
        value = torch.tensor(int(self.signal is not None))
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self._control)
        return bool(value)
