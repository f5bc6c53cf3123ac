"""The processes of a run: rank, collectives and stop signals."""

import os
import signal
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from common.parallel import STOP_SIGNALS

AGREE_EVERY = 8  # steps; schedulers give minutes, a step takes a second or less
PATIENCE = timedelta(days=1)  # rank 0 may wait for another training in its folder


class Stopped(Exception):
    """A signal asked the run to stop; the step it was in is done."""


class Ranks:
    """This process among those that train together, as torchrun starts them, or one alone. `rank` 0 writes files and
    prints; `size` counts them. Collectives are no-ops for a single process.
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

    def start(self, device: torch.device) -> None:
        """Join the others. Gradients travel by NCCL between GPUs, by gloo between CPUs."""
        if self.size > 1:
            cuda = {"backend": "nccl", "device_id": device} if device.type == "cuda" else {"backend": "gloo"}
            dist.init_process_group(**cuda)
            self._control = dist.new_group(backend="gloo", timeout=PATIENCE)

    def meet(self) -> None:
        """Wait until all ranks have come here."""
        if self.size > 1:
            dist.barrier(group=self._control)

    def stop(self) -> None:
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in the order of the ranks, on every rank."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Element-wise sum over the ranks, on the tensor's device, without waiting for that device."""
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
        """A signal came, to this process or to another one. To be asked by all ranks at the same place; several agree
        at each `AGREE_EVERY`-th step only, as they have to talk for it.
        """
        if self.size == 1:
            return self.signal is not None
        if step % AGREE_EVERY:
            return False
        value = torch.tensor(int(self.signal is not None))
        dist.all_reduce(value, dist.ReduceOp.MAX, group=self._control)
        return bool(value)
