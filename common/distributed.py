"""The processes that torchrun starts: their ranks, communication, and signals to stop."""

import atexit
import os
import signal
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from common.errors import UserError
from common.parallel import STOP_SIGNALS

AGREE_EVERY = 8  # steps between agreements to stop; a step takes a second or less, and schedulers give minutes
MEETING = timedelta(minutes=5)  # for processes to meet; if torchrun was killed, some never come. PyTorch waits twice
PATIENCE = timedelta(days=7)  # a process may finish long before another, or wait for another run in its folder
STALL = timedelta(minutes=30)  # a step of training may be suspended so long; behind a dead link, it would never end


class Stopped(Exception):
    """A signal asked the run to stop, and its current step is finished."""


class World:
    """This process among the processes that torchrun started, or a single process. `rank` 0 writes files and prints;
    `size` is the number of processes. A single process need not communicate.
    """

    compares = False  # True: before each sum, processes compare what they add up, in case own code differs on them

    def __init__(self):
        self.rank = int(os.environ.get("RANK", 0))
        self.size = int(os.environ.get("WORLD_SIZE", 1))
        self.local_rank = int(os.environ.get("LOCAL_RANK", 0))
        self.is_main = self.rank == 0
        self.signal: signal.Signals | None = None  # the signal that asked this process to stop
        self._since = 0.0
        self._group: Any = None  # the group of gradients and sums
        self._control = None  # a group on the CPU, so that agreeing never waits for a GPU

    def start(self, device: torch.device | None = None) -> None:
        """Join the other processes. Gradients and values of `sum` travel by NCCL on a CUDA `device`, else by gloo.

        Raises UserError if the processes do not meet.
        """
        if self.size > 1:
            gpu = device if device and device.type == "cuda" else None
            try:
                dist.init_process_group("nccl" if gpu else "gloo", device_id=gpu, timeout=MEETING)
            except dist.DistError as error:
                reason = str(error).partition("\n")[0].rstrip(".")
                raise UserError(f"the processes of torchrun have not met: {reason}; start torchrun again") from None
            atexit.register(dist.destroy_process_group)  # earlier, others fail before this process has told why
            self._control = dist.new_group(backend="gloo", timeout=PATIENCE)
            self._group = dist.new_group(timeout=STALL)  # the first group would end a step that is suspended
            self._beside = dist.new_group(backend="gloo", timeout=STALL)

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of ranks, on every process."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    def broadcast(self, value: Any) -> Any:
        """The value of rank 0, on every process: machines without a shared folder have other files, or none."""
        values = [value]
        if self.size > 1:
            dist.broadcast_object_list(values, group=self._control)
        return values[0]

    def share(self, items: Sequence[Any]) -> list[Any]:
        """This process's part of items that begin with the largest: they are dealt back and forth, 0 1 2 2 1 0 0 1 2,
        so that no process gets the largest of each round.
        """
        last = 2 * self.size - 1
        dealt = (min(place % (last + 1), last - place % (last + 1)) for place in range(len(items)))
        return [item for item, rank in zip(items, dealt, strict=True) if rank == self.rank]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum over all processes, on the tensor's device, without waiting for the device. All have to
        call this as often, with values of the same shape. Raises UserError if `compares` is set and they do not.
        """
        if self.size > 1:
            caller = sys._getframe(1)
            where = f" in {caller.f_code.co_filename}, line {caller.f_lineno}"
            self._compare(f"world.sum of {values.dtype} of shape {tuple(values.shape)}", where)
            values = values.clone()
            dist.all_reduce(values, group=self._group)
        return values

    def _compare(self, what: str, where: str = "", value: Any = None) -> list[Any]:
        """The `value`s of all processes if `compares` is set, else this one's. Raises UserError if another process is
        about to do something else than `what`: they would wait for each other in vain, or end without a word.
        """
        if not self.compares:
            return [value]
        of_all: list[Any] = [None] * self.size
        dist.all_gather_object(of_all, (what, where, value), group=self._beside)
        whats, places, values = zip(*of_all, strict=True)
        if other := next((rank for rank in range(self.size) if whats[rank] != whats[0]), None):
            came = f"process 0 comes to {whats[0]}{places[0]}, process {other} to {whats[other]}{places[other]}"
            remedy = "call world.sum in all processes, as often and with the same shape, also behind an `if`"
            raise UserError(f"the processes' losses do not take the same way: {came}; {remedy}")
        return [*values]

    def add_gradients(self, network: nn.Module) -> None:
        """Replace the network's gradients by their sums over all processes. A parameter that has no gradient in some
        processes gets the sum of the others, if `compares` is set; else the same parameters must have one in all.

        DistributedDataParallel would do the same at the same time: it sends up to 25 MB at once, more than our networks
        have, and its graph would have to be the same in each step.
        """
        if self.size == 1:
            return
        parameters = [x for x in network.parameters() if x.requires_grad]
        used = self._compare("the end of its losses", value=[x.grad is not None for x in parameters])
        if parameters := [x for x, *of_all in zip(parameters, *used, strict=True) if any(of_all)]:
            gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in parameters]
            sums = torch.cat([x.flatten() for x in gradients])
            dist.all_reduce(sums, group=self._group)
            for parameter, part in zip(parameters, sums.split([x.numel() for x in parameters]), strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def start_alike(self, network: nn.Module) -> None:
        """Give all processes the parameters and buffers of rank 0, in case a network of the user's is not seeded."""
        for tensor in network.state_dict().values() if self.size > 1 else []:
            dist.broadcast(tensor, 0, group=self._group)

    def catch_signals(self) -> None:
        """From now on, note signals that ask to stop, so that these signals no longer end the process.

        A second signal ends the process at once if it comes at least a second later; files are whole at any time. An
        earlier second signal is the same request, which torchrun passes on although the terminal has sent it to all.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._note_signal)

    def _note_signal(self, number: int, _frame: Any) -> None:
        if self.signal is None:
            self.signal, self._since = signal.Signals(number), time.monotonic()
            if self.is_main:  # print() inside an interrupted print() would raise
                os.write(2, f"{self.signal.name}: saving after this step; once more ends at once\n".encode())
        elif time.monotonic() - self._since > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def stop_requested(self, step: int) -> bool:
        """True if a signal came to any of the processes. All processes must call this method at the same place. Several
        processes have to communicate for the answer, so they do so only at each `AGREE_EVERY`-th step.
        """
        if self.size > 1 and step % AGREE_EVERY:
            return False
        return any(self.gather(self.signal))
