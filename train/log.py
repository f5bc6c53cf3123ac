"""The log of a run: JSON lines, TensorBoard, and a line on the console every few steps."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common.distributed import World
from common.errors import UserError, counted
from common.files import atomic_write, has_form, json_errors
from common.progress import progress
from recipes.samples import Batch

LOG_NAME = "log.jsonl"


class Log:
    """On the first rank, writes `<out_dir>/log.jsonl` and `<out_dir>/tensorboard`, and prints; other ranks are silent.

    Losses stay on the device until `flush`, so that steps need not wait for it.
    """

    def __init__(self, out_dir: Path, step: int, world: World, every: int):
        """Continue an existing log at `step`, or begin one."""
        self.world, self.every = world, every
        self._unreadable: dict[str, None] = {}  # samples that this process could not read, with the reason
        self._bar = tqdm(disable=True)
        self.restart_clock()
        if world.is_main:  # line by line, so that other programs can follow the log
            self._file = (out_dir / LOG_NAME).open("a", encoding="utf-8", buffering=1)
            self._board = SummaryWriter(out_dir / "tensorboard", purge_step=step + 1 if step else None)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Write a line `{"kind", "step", "time", ...}`; numbers also become TensorBoard scalars `kind/name`."""
        if not self.world.is_main:
            return
        self._file.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 1), **values}) + "\n")
        for name, value in values.items():
            if type(value) in (int, float):
                self._board.add_scalar(f"{kind}/{name}", value, step)

    def say(self, text: str) -> None:
        if self.world.is_main:
            tqdm.write(text)  # above the progress bar, if one is shown
            sys.stdout.flush()

    def bar(self, items: Any, name: str, unit: str) -> tqdm:
        """The items, with their progress shown by the first rank. `close` also ends the bar."""
        self._bar = progress(items, name, len(items), unit, leave=False, disable=not self.world.is_main)
        return self._bar

    def close(self) -> None:
        self._bar.close()  # so that an error is printed below it
        if self.world.is_main:
            self._file.close()
            self._board.close()

    def restart_clock(self) -> None:
        """Begin to count time and losses anew, for example after a validation, which is not training time."""
        self._losses: list[torch.Tensor] = []
        self._num_samples = 0  # samples of this process
        self._start, self.waited = time.perf_counter(), 0.0  # seconds; `waited`: for data

    def add(self, losses: dict[str, torch.Tensor], batch: Batch) -> None:
        """Add a step's losses by name, scalars on the device, and count the samples of its batch."""
        self.note_unreadable(batch.unreadable)
        self._terms = ["loss" if name == "total" else f"{name}_loss" for name in losses]
        self._losses.append(torch.stack(list(losses.values())).detach())
        self._num_samples += len(batch)

    def flush(self, step: int, epoch: str, lr: float, total_steps: int) -> None:
        """Report the steps since the last flush; `step` is the number of steps done.

        Raises UserError if a loss is not finite.
        """
        losses = torch.stack(self._losses)  # (steps, terms), this process's part of the global losses
        losses = self.world.sum(losses).cpu().double()  # the only wait for the device
        if len(bad := (~losses.isfinite()).any(1).nonzero()):
            i = int(bad[0])
            named = zip(self._terms, losses[i].tolist(), strict=True)
            terms = ", ".join(f"{name} {value:g}" for name, value in named)
            remedy = "continue with --resume-pth auto and a lower --lr or --precision fp32"
            raise UserError(f"step {step - len(losses) + i + 1}: the loss is not finite ({terms}); {remedy}")
        seconds = time.perf_counter() - self._start
        values = dict(zip(self._terms, losses.mean(0).tolist(), strict=True))
        rate = self._num_samples * self.world.size / seconds
        waited = self.waited / seconds
        speed = {"lr": lr, "samples_per_second": rate, "data_wait": waited}
        if torch.cuda.is_initialized():
            speed["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        self.write("train", step, epoch=epoch, **values, **speed)
        terms = " ".join(f"{name.removesuffix('_loss')} {value:.4f}" for name, value in values.items())
        left = tqdm.format_interval((total_steps - step) * seconds / len(losses))  # 2:05:00, or 05:00
        where, pace = f"{epoch} step {step}/{total_steps}", f"{rate:.1f} samples/s data wait {waited:.0%}"
        self.say(f"{where} {terms} lr {lr:.2e} {pace} left {left}")
        self.restart_clock()

    def report_validation(self, step: int, epoch: str, figures: dict[str, float]) -> None:
        """Report the figures of `validation_figures`."""
        self.write("val", step, epoch=epoch, **figures)
        names = {"iou": "IoU", "existence_accuracy": "existence balanced accuracy"}
        text = ", ".join(f"{name} {figures[key]:.4f}" if key in figures else f"{name} -" for key, name in names.items())
        unreadable = f", {figures['unreadable']} more unreadable" if "unreadable" in figures else ""
        self.say(f"{epoch} validation on {figures['samples']} pairs{unreadable}: {text}")

    def note_unreadable(self, reasons: list[str]) -> None:
        """Note samples that were left out, and print the first one."""
        if reasons and not self._unreadable:
            tqdm.write(f"left out: {reasons[0]}", file=sys.stderr)
        self._unreadable |= dict.fromkeys(reasons)

    def count_unreadable(self) -> None:
        """Print how many samples were left out, each counted once. All ranks must call it."""
        if unreadable := set().union(*self.world.gather(list(self._unreadable))):
            what = f"{counted(len(unreadable), 'sample')} could not be read, and others were taken"
            self.say(f"{what}; data/check_processed.py finds frames that are missing or cut off")


def cut_log(path: Path, step: int, validated: bool) -> None:
    """Delete lines of a log that will be written again when a training continues at `step`: lines that a killed run
    wrote after its last checkpoint and, unless `validated`, lines of the validation at `step`.

    Raises UserError if the log is not of train.py; at step 0 also if it tells of an epoch: its checkpoints are gone.
    """
    texts = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # a crash can cut off the last line
    remedy = "move it away, or give another --out-dir"
    with json_errors(path, remedy):
        lines = [json.loads(text) for text in texts]
    if not has_form(lines, [{"kind": str, "step": int}]):
        raise UserError(f"{path} has lines that train.py does not write; {remedy}")
    if not step and any(line["kind"] == "val" and line.get("epoch") != "start" for line in lines):
        raise UserError(f"{path} is the log of a run whose checkpoints are gone; {remedy}")
    kept = [line for line in lines if line["step"] < step + (validated or line["kind"] != "val")]
    with atomic_write(path) as file:
        file.writelines(json.dumps(line) + "\n" for line in kept)
