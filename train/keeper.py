"""What a run leaves behind: checkpoints as it goes, validation figures, the best model."""

import argparse
from pathlib import Path

from train.engine import Run
from train.progress import Log
from train.start import LAST, Start, save

WARMUP, BEST = "net_warmup.pth", "netBest.pth"


class Keeper:
    """Saves and reports on the first rank; the others only keep `history` the same.

    history: `{"epoch": epochs finished, "untrained_iou", "best_iou", "best_epoch", "last_iou"}`, kept in checkpoints.
    """

    def __init__(self, options: argparse.Namespace, start: Start, run: Run, log: Log, about: dict):
        self.options, self.start, self.run, self.log, self.about = options, start, run, log, about
        self.history = start.history

    @property
    def epochs_done(self) -> int:
        return self.history.get("epoch", 0)

    def save(self, *names: str) -> None:
        if self.run.ranks.is_main:
            for name in names:
                path = Path(self.options.out_dir) / name
                save(path, self.start, self.start.model, self.run.optimiser, self.run.step, self.about)

    def untrained(self, figures: dict[str, float]) -> None:
        """Figures of the network before its first step."""
        self.history["untrained_iou"] = figures.get("iou", 0.0)
        self._report("untrained", figures)

    def end_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        """Note an epoch's figures and save what they make worth keeping."""
        iou = figures.get("iou", 0.0)
        self.history |= {"epoch": epoch, "last_iou": iou}
        names = [LAST]
        if iou > self.history.get("best_iou", -1.0):
            self.history |= {"best_iou": iou, "best_epoch": epoch}
            names.append(BEST)
        if self.options.save_every and epoch % self.options.save_every == 0:
            names.append(f"net{epoch:03d}.pth")
        self._report(f"epoch {epoch}/{self.options.n_epoch}", figures)
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

    def _report(self, epoch: str, figures: dict[str, float]) -> None:
        self.log.write("val", self.run.step, epoch=epoch, **figures)
        shown = {"IoU": "iou", "existence balanced accuracy": "existence_accuracy"}
        text = ", ".join(f"{name} {figures[key]:.4f}" for name, key in shown.items() if key in figures)
        self.log.say(f"{epoch} validation on {figures['samples']:.0f} pairs: {text or 'no pair with a target mask'}")
