"""The log of a run: JSON lines, TensorBoard, and one console line every few steps."""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_write
from train.dataset import Batch, Source
from train.distributed import Ranks
from train.losses import Losses

LOG_NAME, TRACE_NAME = "log.jsonl", "trace.json"
MUCH_WAITING = 0.3  # share of the time
CONSTANT = 1e-6  # existence probabilities closer than this are one answer
TERMS = {name: "loss" if name == "total" else f"{name}_loss" for name in Losses._fields}


class Log:
    """Writes `<out_dir>/log.jsonl` and `<out_dir>/tensorboard` and talks, on the first rank; silent on the others.

    It collects each step's losses on the device and asks for them only at `flush`: nothing waits in between.
    """

    def __init__(
        self,
        out_dir: Path,
        step: int,
        validated: bool,
        ranks: Ranks,
        every: int,
        max_unreadable: int,
        profile: int | None = None,
    ):
        """Continue the log at `step`, and after its validation if it is `validated`: what a killed run wrote after its
        last checkpoint is dropped, because it comes again. `profile`: of how many steps to write a trace.
        """
        self.ranks, self.every, self.max_unreadable = ranks, every, max_unreadable
        self.full_speed: float | None = None  # samples per second at a GPU's peak (train/utilization.py)
        self._said: set[str] = set()  # advice, each once
        self._profiler = _profiler(out_dir / TRACE_NAME, profile) if profile and ranks.is_main else None
        self.unreadable: set[str] = set()  # samples, each with its reason
        self._new_unreadable: list[str] = []
        self.restart_clock()
        if not ranks.is_main:
            return
        path = out_dir / LOG_NAME
        lines = read_log(path) if path.exists() else []
        kept = [line for line in lines if line["step"] < step + (validated or line["kind"] != "val")]
        if step == 0:  # a new run, whose first lines have this number too
            kept = []
        if len(kept) < len(lines):
            self.say(f"{path}: the last {len(lines) - len(kept)} lines go, there is no checkpoint after step {step}")
        with atomic_write(path) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._file = path.open("a", encoding="utf-8", buffering=1)  # line by line, so that others can follow it
        threading.excepthook = _excepthook
        self._board = SummaryWriter(str(out_dir / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line: `{"kind", "step", "time", ...}`; numbers also become TensorBoard scalars `kind/name`."""
        if not self.ranks.is_main:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 1), **values}) + "\n")
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """(H, W, 3) uint8."""
        if self.ranks.is_main:
            self._board.add_image(name, image, step, dataformats="HWC")

    def say(self, text: str) -> None:
        if self.ranks.is_main:
            tqdm.write(text)  # above a bar, if there is one
            sys.stdout.flush()

    def bar(self, things: Sized, name: str, unit: str) -> tqdm:
        """To go through things: with a bar on a terminal, whose lines take long to come."""
        return tqdm(things, name, unit=unit, leave=False, disable=None if self.ranks.is_main else True)

    def close(self) -> None:
        if self._profiler:
            self._profiler.stop()
        if self.ranks.is_main:
            self._file.close()
            self._board.close()
            threading.excepthook = threading.__excepthook__

    def restart_clock(self) -> None:
        """Count time and losses from here on: validation, for one, is not training time."""
        self._losses: list[torch.Tensor] = []
        self._sources: list[list[Source]] = []
        self._start, self._waited = time.perf_counter(), 0.0

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time until it is there counts as waiting for data."""
        if self._profiler:
            self._profiler.step()
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, losses: Losses, batch: Batch) -> None:
        """A step's losses, on the device, and the batch they come from."""
        self._losses.append(torch.stack(losses).detach())
        self._sources.append(batch.sources)
        self.note_unreadable(batch)

    def flush(self, step: int, epoch: str, lr: float, total_steps: int) -> None:
        """Report the steps since the last flush; `step` is the number of steps done.

        Raises UserError if a loss is not finite or too many samples could not be read.
        """
        local = torch.stack(self._losses).double()  # (steps, terms), of this process's part of the global loss
        local, losses = torch.stack((local, self.ranks.sum(local))).cpu()  # the only wait for the device
        self._check_finite(local, losses, step)
        self.report_unreadable(step)
        seconds = time.perf_counter() - self._start
        values = dict(zip(TERMS.values(), losses.mean(0).tolist(), strict=True))
        rate = sum(map(len, self._sources)) * self.ranks.size / seconds
        waited = self._waited / seconds
        speed = {"lr": lr, "samples_per_second": rate, "data_wait": waited, "unreadable": len(self.unreadable)}
        if self.full_speed:
            speed["flop_utilization"] = rate / (self.full_speed * self.ranks.size)
        if torch.cuda.is_initialized():
            speed["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.write("train", step, epoch=epoch, **values, **speed)
        terms = " ".join(f"{name.removesuffix('_loss')} {value:.4f}" for name, value in values.items())
        left = math.ceil((total_steps - step) * seconds / len(losses) / 60)  # minutes
        self.say(
            f"{epoch} step {step}/{total_steps} {terms} lr {lr:.2e} {rate:.1f} samples/s data wait {waited:.0%} left "
            + (f"{left // 60} h {left % 60:02d} min" if left >= 60 else f"{left} min")
        )
        self._advise(waited)
        self.restart_clock()

    def _advise(self, waited: float) -> None:
        """Say, once each, why training is slower than it could be."""
        if waited > MUCH_WAITING:
            self._say_once(
                f"training waits for its samples {waited:.0%} of the time: give more --num_workers, if there are CPUs"
            )
        load, cpus = os.getloadavg()[0], os.cpu_count() or 1
        if load > 2 * cpus:
            self._say_once(f"this machine is busy: a load of {load:.0f} on {cpus} CPUs slows training down")

    def _say_once(self, text: str) -> None:
        if (kind := text.split(":")[0][:20]) not in self._said:
            self._said.add(kind)
            self.say(text)

    def validation(self, step: int, epoch: str, figures: dict[str, float]) -> None:
        """Report the figures of `validation_figures`."""
        self.write("val", step, epoch=epoch, **figures)
        shown = {"IoU": "iou", "existence balanced accuracy": "existence_accuracy"}
        text = ", ".join(f"{name} {figures[key]:.4f}" for name, key in shown.items() if key in figures)
        self.say(f"{epoch} validation on {figures['samples']:.0f} pairs: {text or 'no pair with a target mask'}")
        constant = figures.get("existence_range", 1) < CONSTANT and figures["samples"] > 1
        if constant and epoch not in ("untrained", "start"):
            self._say_once(
                "the existence head gives every pair the same answer: all outputs of its ReLU may be 0, and then it "
                "never learns; another --seed may help, and with --similarity_prior existence does not rest on it alone"
            )

    def _check_finite(self, local: torch.Tensor, losses: torch.Tensor, step: int) -> None:
        bad = (~losses.isfinite()).any(1).nonzero()
        if not len(bad):
            return
        i = int(bad[0])
        terms = ", ".join(f"{name} {value:g}" for name, value in zip(TERMS.values(), losses[i].tolist(), strict=True))
        here = not local[i].isfinite().all()
        samples = "; ".join(map(str, self._sources[i])) if here else "in another process"
        raise UserError(
            f"step {step - len(losses) + i + 1}: the loss is not finite ({terms}); the last checkpoint is from "
            f"before; lower --lr or give --precision fp32; the batch: {samples}"
        )

    def note_unreadable(self, batch: Batch) -> None:
        """Note the samples of a batch that could not be read, for the next report."""
        self._new_unreadable += batch.unreadable

    def report_unreadable(self, step: int) -> None:
        """Say which samples turned out unreadable, each once. Raises UserError if they are too many."""
        noted = dict.fromkeys(text for texts in self.ranks.gather(self._new_unreadable) for text in texts)
        new = [text for text in noted if text not in self.unreadable]
        self._new_unreadable = []
        self.unreadable.update(new)
        for text in new:
            self.say(f"left out: {text}")
            self.write("unreadable", step, sample=text)
        if len(self.unreadable) > self.max_unreadable:
            raise UserError(
                f"{len(self.unreadable)} samples could not be read, more than --max_unreadable {self.max_unreadable}; "
                f"the last: {new[-1]}"
            )


def _profiler(path: Path, steps: int) -> torch.profiler.profile:
    """Of `steps` steps after the first few, which are slower than others."""
    profiler = torch.profiler.profile(
        schedule=torch.profiler.schedule(wait=2, warmup=2, active=steps, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
    )
    profiler.start()
    return profiler


def _excepthook(args: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread prints no traceback of a full disk: its writer raises the error once more in our thread."""
    if not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


def read_log(path: Path) -> list[dict]:
    """The lines of a log. An incomplete last line, as a crash leaves it, is ignored."""
    lines = []
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
        try:
            line = json.loads(text)
            lines.append({"kind": line["kind"], "step": int(line["step"]), **line})
        except (ValueError, KeyError, TypeError):
            if not text.startswith(b'{"kind"'):
                raise UserError(f"{path}, line {number}, is no log of train.py") from None
    return lines
