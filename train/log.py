"""The log of a run: JSON lines, TensorBoard, and one console line every few steps."""

import json
import math
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

LOG_NAME = "log.jsonl"
TERMS = {name: "loss" if name == "total" else f"{name}_loss" for name in Losses._fields}


class Log:
    """Writes `<out_dir>/log.jsonl` and `<out_dir>/tensorboard` and talks, on the first rank; silent on the others.

    It collects each step's losses on the device and asks for them only at `flush`: nothing waits in between.
    """

    def __init__(self, out_dir: Path, step: int, ranks: Ranks, every: int, max_unreadable: int):
        """Goes on at `step` with the log that is there."""
        self.ranks, self.every, self.max_unreadable = ranks, every, max_unreadable
        known = read_log(out_dir / LOG_NAME) if ranks.is_main and step else []
        known = [line["sample"] for line in known if line["kind"] == "unreadable"]
        self.unreadable: set[str] = set(ranks.gather(known)[0])  # samples, each with its reason
        self._new_unreadable: list[str] = []
        self.restart_clock()
        if ranks.is_main:  # written line by line, so that others can follow it
            self._file = (out_dir / LOG_NAME).open("a", encoding="utf-8", buffering=1)
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
        if self.ranks.is_main:
            self._file.close()
            self._board.close()

    def restart_clock(self) -> None:
        """Count time and losses from here on: validation, for one, is not training time."""
        self._losses: list[torch.Tensor] = []
        self._sources: list[list[Source]] = []
        self._start, self._waited = time.perf_counter(), 0.0

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time until it is there counts as waiting for data."""
        start = time.perf_counter()
        batch = next(batches)
        self._waited += time.perf_counter() - start
        return batch

    def add(self, losses: Losses, batch: Batch) -> None:
        """A step's losses, on the device, and the batch they come from."""
        self._losses.append(torch.stack([loss for loss in losses if loss is not None]).detach())
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
        values = dict(zip(TERMS.values(), losses.mean(0).tolist(), strict=False))
        rate = sum(map(len, self._sources)) * self.ranks.size / seconds
        waited = self._waited / seconds
        speed = {"lr": lr, "samples_per_second": rate, "data_wait": waited, "unreadable": len(self.unreadable)}
        if torch.cuda.is_initialized():
            speed["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.write("train", step, epoch=epoch, **values, **speed)
        terms = " ".join(f"{name.removesuffix('_loss')} {value:.4f}" for name, value in values.items())
        left = math.ceil((total_steps - step) * seconds / len(losses) / 60)  # minutes
        self.say(
            f"{epoch} step {step}/{total_steps} {terms} lr {lr:.2e} {rate:.1f} samples/s data wait {waited:.0%} left "
            + (f"{left // 60} h {left % 60:02d} min" if left >= 60 else f"{left} min")
        )
        self.restart_clock()

    def validation(self, step: int, epoch: str, figures: dict[str, float]) -> None:
        """Report the figures of `validation_figures`."""
        self.write("val", step, epoch=epoch, **figures)
        shown = {"IoU": "iou", "existence balanced accuracy": "existence_accuracy"}
        text = ", ".join(f"{name} {figures[key]:.4f}" for name, key in shown.items() if key in figures)
        self.say(f"{epoch} validation on {figures['samples']:.0f} pairs: {text or 'no pair with a target mask'}")

    def _check_finite(self, local: torch.Tensor, losses: torch.Tensor, step: int) -> None:
        bad = (~losses.isfinite()).any(1).nonzero()
        if not len(bad):
            return
        i = int(bad[0])
        terms = ", ".join(f"{name} {value:g}" for name, value in zip(TERMS.values(), losses[i].tolist(), strict=False))
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


def cut_log(path: Path, step: int, validated: bool) -> None:
    """Drop the lines of a log that come again when a training goes on at `step`: those of a killed run after its last
    checkpoint, and those of the validation at `step` unless it is `validated`.
    """
    lines = read_log(path) if path.exists() and step else []
    kept = [line for line in lines if line["step"] < step + (validated or line["kind"] != "val")]
    with atomic_write(path) as file:
        file.writelines(json.dumps(line) + "\n" for line in kept)


def silence_disk_errors_of_threads() -> None:
    """TensorBoard's thread prints no traceback of a full disk: its writer raises the error once more in our thread."""
    show = threading.__excepthook__
    threading.excepthook = lambda args: None if issubclass(args.exc_type, OSError) else show(args)


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
