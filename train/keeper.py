"""What a run leaves behind: checkpoints as it goes, validation figures, the best model."""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np

from model.checkpoint import save_checkpoint
from train.dataset import Samples
from train.engine import Example, Run
from train.pictures import example_panel
from train.start import LAST, Start

WARMUP, BEST = "net_warmup.pth", "netBest.pth"


class Keeper:
    """Saves and reports on the first rank; the others only keep `history` the same.

    history: `{"epoch": epochs finished, "untrained_iou", "best_iou", "best_epoch", "last_iou"}`, kept in checkpoints.
    """

    def __init__(self, options: argparse.Namespace, start: Start, run: Run, about: dict, samples: Samples):
        self.options, self.start, self.run, self.about = options, start, run, about
        self.log, self.history = run.progress.log, start.history
        self.images = Samples(samples.pairs, samples.side)  # reads them even where features are at hand

    @property
    def epochs_done(self) -> int:
        return self.history.get("epoch", 0)

    def save(self, *names: str) -> None:
        """Checkpoints from which training goes on as if it had never stopped."""
        run, extra = self.run, dict(self.about)
        if not run.ranks.is_main:
            return
        if run.average is not None:  # `encoder` is what inference should use
            extra["trained_encoder"] = run.network.state_dict()
        extra |= {"step": run.step, "history": self.history, "scaler": run.scaler.state_dict()}
        first, *others = (Path(self.options.out_dir) / name for name in names)
        save_checkpoint(first, self.start.backbone, run.judged, run.optimizer, **extra)
        for path in others:
            link_or_copy(first, path)

    def untrained(self, figures: dict[str, float], examples: list[Example]) -> None:
        """Figures of the network before its first step."""
        self.history["untrained_iou"] = figures.get("iou", 0.0)
        self._report("untrained", figures, examples)

    def end_epoch(self, epoch: int, figures: dict[str, float], examples: list[Example]) -> None:
        """Note an epoch's figures and save what they make worth keeping."""
        iou = figures.get("iou", 0.0)
        self.history |= {"epoch": epoch, "last_iou": iou}
        names = [LAST]
        if iou > self.history.get("best_iou", -1.0):
            self.history |= {"best_iou": iou, "best_epoch": epoch}
            names.append(BEST)
        if self.options.save_every and epoch % self.options.save_every == 0:
            names.append(f"net{epoch:03d}.pth")
        self._report(f"epoch {epoch}/{self.options.n_epoch}", figures, examples)
        self.save(*names)

    def conclude(self) -> None:
        """Say what came of the training."""
        history = self.history
        if "best_iou" in history:
            self.log.say(
                f"validation IoU: untrained {history['untrained_iou']:.4f}, last {history['last_iou']:.4f}, "
                f"best {history['best_iou']:.4f} (epoch {history['best_epoch']}), "
                f"kept in {Path(self.options.out_dir) / BEST}"
            )

    def _report(self, epoch: str, figures: dict[str, float], examples: list[Example]) -> None:
        self.log.write("val", self.run.step, epoch=epoch, **figures)
        self.log.pictures(self.run.step, {f"val/{i} {e.source}": self._panel(e) for i, e in enumerate(examples)})
        shown = {"IoU": "iou", "existence balanced accuracy": "existence_accuracy"}
        text = ", ".join(f"{name} {figures[key]:.4f}" for name, key in shown.items() if key in figures)
        self.log.say(f"{epoch} validation on {figures['samples']:.0f} pairs: {text or 'no pair with a target mask'}")

    def _panel(self, example: Example) -> np.ndarray:
        source, *masks = example
        query, target = self.images.image(source.query), self.images.image(source.target)
        return example_panel(query, masks[0], target, *masks[1:])


def link_or_copy(source: Path, path: Path) -> None:
    """Give a finished file a second name, atomically. Files are replaced, never changed, so sharing is safe."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(source, temporary)
    temporary.replace(path)
