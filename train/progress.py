"""What a run tells about itself: a JSON-lines log, TensorBoard, and one console line every few steps."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from formats.errors import UserError
from formats.files import atomic_write
from train.dataset import Source
from train.ranks import Ranks

LOG_NAME = "log.jsonl"
TERMS = ("loss", "mask_loss", "dice_loss", "existence_loss")


class Log:
    """`<out_dir>/log.jsonl` and `<out_dir>/tensorboard`; silent on all ranks but the first."""

    def __init__(self, out_dir: Path, step: int, active: bool):
        """Continue the log at `step`: what a killed run wrote after its last checkpoint is dropped."""
        self.active = active
        if not active:
            return
        path = Path(out_dir) / LOG_NAME
        kept = [line for line in read_log(path) if line["step"] <= step] if step and path.exists() else []
        with atomic_write(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._file = path.open("a", encoding="utf-8", buffering=1)  # line by line, so that others can follow it
        self._board = SummaryWriter(str(Path(out_dir) / "tensorboard"), purge_step=step or None)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line: `{"kind", "step", "time", ...}`; numbers also become TensorBoard scalars `kind/name`."""
        if not self.active:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 1), **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def pictures(self, step: int, panels: dict[str, np.ndarray]) -> None:
        """(H, W, 3) uint8 pictures by name."""
        if self.active:
            for name, panel in panels.items():
                self._board.add_image(name, panel, step, dataformats="HWC")

    def say(self, text: str) -> None:
        if self.active:
            print(text, flush=True)

    def close(self) -> None:
        if self.active:
            self._file.close()
            self._board.close()


def read_log(path: Path) -> list[dict]:
    """The lines of a log. An incomplete last line, as a crash leaves it, is ignored."""
    lines = []
    for number, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except ValueError:
            if not text.startswith("{"):
                raise UserError(f"{path}, line {number}, is no log of train.py") from None
    return lines


class Progress:
    """Collects each step's losses on the device and asks for them only at `flush`: nothing waits in between."""

    def __init__(self, log: Log, ranks: Ranks, total_steps: int, batch_size: int, max_unreadable: int):
        self.log, self.ranks = log, ranks
        self.total_steps, self.batch_size, self.max_unreadable = total_steps, batch_size, max_unreadable
        self.unreadable: set[str] = set()
        self._unreadable: list[str] = []
        self._reset()

    def _reset(self) -> None:
        self._losses: list[Tensor] = []
        self._sources: list[list[Source]] = []
        self._start, self._waited = time.perf_counter(), 0.0

    def next_batch(self, batches) -> Any:
        """The next batch, with the time it took to come on the account of waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, losses: Tensor, sources: list[Source], unreadable: list[str]) -> None:
        """One step's (4,) losses on the device, and the batch they come from."""
        self._losses.append(losses)
        self._sources.append(sources)
        self._unreadable += unreadable

    def flush(self, step: int, epoch: str, lr: float) -> None:
        """Report the steps since the last flush; `step` is the number of steps done.

        Raises UserError if a loss is not finite or too many samples could not be read.
        """
        if not self._losses:
            return
        local = torch.stack(self._losses).double()
        losses = self.ranks.sum(local)  # each holds its share of the global loss
        self._check_finite(local.cpu(), losses.cpu(), step)
        self.report_unreadable(step)
        seconds = time.perf_counter() - self._start
        values = dict(zip(TERMS, losses.mean(0).tolist(), strict=True))
        rate = len(self._losses) * self.batch_size / seconds
        waited = self._waited / seconds
        left = (self.total_steps - step) * seconds / len(self._losses)
        self.log.write(
            "train",
            step,
            epoch=epoch,
            **values,
            lr=lr,
            samples_per_second=rate,
            data_wait=waited,
            unreadable=len(self.unreadable),
        )
        terms = " ".join(f"{name.removesuffix('_loss')} {values[name]:.4f}" for name in TERMS)
        self.log.say(
            f"{epoch} step {step}/{self.total_steps} {terms} lr {lr:.2e} "
            f"{rate:.1f} samples/s data wait {waited:.0%} left {_duration(left)}"
        )
        self._reset()

    def restart_clock(self) -> None:
        """After validation: its time is not training time."""
        self._start, self._waited = time.perf_counter(), 0.0

    def _check_finite(self, local: Tensor, losses: Tensor, step: int) -> None:
        bad = (~losses.isfinite()).any(1).nonzero()
        if not len(bad):
            return
        i = int(bad[0])
        terms = ", ".join(f"{name} {value:g}" for name, value in zip(TERMS, losses[i].tolist(), strict=True))
        here = not local[i].isfinite().all()
        samples = "; ".join(map(str, self._sources[i])) if here else "in another process"
        raise UserError(
            f"step {step - len(self._losses) + i + 1}: the loss is not finite ({terms}); the last checkpoint is from "
            f"before; lower --lr or leave --amp off; the batch: {samples}"
        )

    def note_unreadable(self, samples: list[str]) -> None:
        """Samples that could not be read, each with its reason, for the next report."""
        self._unreadable += samples

    def report_unreadable(self, step: int) -> None:
        """Say which samples turned out unreadable, each once. Raises UserError if they are too many."""
        noted = dict.fromkeys(text for texts in self.ranks.gather(self._unreadable) for text in texts)
        new = [text for text in noted if text not in self.unreadable]
        self._unreadable = []
        self.unreadable.update(new)
        for text in new:
            self.log.say(f"left out: {text}")
            self.log.write("unreadable", step, sample=text)
        if len(self.unreadable) > self.max_unreadable:
            raise UserError(
                f"{len(self.unreadable)} samples could not be read, more than --max_unreadable {self.max_unreadable}; "
                f"the last: {new[-1]}"
            )


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
