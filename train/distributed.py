"""The processes of a run: how they start, rank, collectives and stop signals."""

import os
import signal
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from common.errors import UserError
from common.parallel import STOP_SIGNALS

AGREE_EVERY = 8  # steps; schedulers give minutes, a step takes a second or less
TIMEOUT = timedelta(days=1)  # rank 0 may wait for another training in its folder; torchrun ends what hangs


class Stopped(Exception):
    """A signal asked the run to stop; the step it was in is done."""


def launch(processes: int, *command: str) -> int:
    """Run a Python program as that many processes, by torchrun, which gives each a rank -> exit status.

    Several machines each call it, with NNODES, NODE_RANK, MASTER_ADDR and MASTER_PORT as torchrun names them.
    """
    given = os.environ
    words = ["--nproc_per_node", str(processes)]
    if given.get("NNODES", "1") == "1":
        words += ["--standalone"]
    elif "MASTER_ADDR" not in given:
        raise UserError(f"NNODES={given['NNODES']} needs MASTER_ADDR, the name of the first machine")
    else:
        words += ["--nnodes", given["NNODES"], "--node_rank", given.get("NODE_RANK", "0")]
        words += ["--master_addr", given["MASTER_ADDR"], "--master_port", given.get("MASTER_PORT", "29500")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as torchrun does, with a warning
    signal.signal(signal.SIGUSR1, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # torchrun passes on the latter
    try:
        torchrun.main([*words, *command])
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:  # it has said why
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    return 0


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
            dist.init_process_group(timeout=TIMEOUT, **cuda)
            self._control = dist.new_group(backend="gloo", timeout=TIMEOUT)

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
            if self.is_main:  # print() must not be interrupted by itself
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
