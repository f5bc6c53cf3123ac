"""The state of a training, which its checkpoints keep, and the folder that they go to."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import has_form
from model.backbone import Backbone
from model.checkpoint import load_optimizer, save_checkpoint
from model.device import PRECISIONS
from model.xsegtx import XSegTx
from train.log import LOG_NAME
from train.schedule import Schedule

LAST, BEST, WARMUP = "netLast.pth", "netBest.pth", "net_warmup.pth"


class TrainState:
    """Network and optimizer, trained for `step` steps, those of the warm-up included.

    history: `{"epoch": the last one that was validated, "start_iou", "best_iou", "best_epoch", "last_iou"}`. It lags
    behind `step` where a run ended between an epoch's last step and the end of its validation.
    """

    def __init__(
        self,
        backbone: Backbone,
        network: XSegTx,
        device: torch.device,
        schedule: Schedule,
        seed: int,
        pair_digests: dict[str, str],
        weight_decay: float = 0.0,
        precision: str = "fp32",
    ):
        """`pair_digests`: of the training and the validation pairs. `precision` is a key of PRECISIONS; with fp16 the
        loss is scaled.
        """
        self.backbone = backbone  # as it was loaded, for checkpoints: frozen
        self.network = network.to(device)
        self.device, self.schedule, self.seed, self.pair_digests = device, schedule, seed, pair_digests
        options = {"lr": schedule.lr, "weight_decay": weight_decay, "fused": device.type == "cuda"}
        self.optimizer = torch.optim.Adam(network.parameters(), **options)
        self.scaler = torch.amp.GradScaler(device.type, enabled=PRECISIONS[precision] == torch.float16)
        self.step = 0
        self.history: dict[str, Any] = {}
        self.folder: Path | None = None  # for checkpoints; None on other ranks than the first
        self.origin: dict[str, Any] = {}  # how they were made, which they hold, too

    def set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @property
    def next_epoch(self) -> int:
        """The epoch whose steps or whose validation come next. 0 is the warm-up."""
        return max(self.history.get("epoch", -1) + 1, self.schedule.epoch(self.step - 1))

    @property
    def is_validated(self) -> bool:
        """Whether the history has the validation of this step, if there is one."""
        return "start_iou" in self.history and self.history.get("epoch", 0) >= self.schedule.epoch(self.step - 1)

    def note_validation(self, epoch: int, iou: float) -> bool:
        """Note an epoch's validation IoU; True if it is the best so far."""
        self.history |= {"epoch": epoch, "last_iou": iou}
        best = iou > self.history.get("best_iou", -1.0)
        if best:
            self.history |= {"best_iou": iou, "best_epoch": epoch}
        return best

    def save(self, *names: str) -> None:
        """Write a checkpoint, under each of `names`, from which training goes on as if it had never stopped."""
        content = self.origin | {"step": self.step, "history": self.history, "scaler": self.scaler.state_dict()}
        content["pairs"] = self.pair_digests
        for name in names if self.folder else ():
            save_checkpoint(self.folder / name, self.backbone, self.network, self.optimizer, **content)

    def restore(self, content: Mapping[str, Any], path: Path) -> list[str]:
        """Go on from the content of a checkpoint, whose network this state was made with. Returns the kinds of pairs,
        "training" or "validation", that were other ones then.

        The step of a published checkpoint is not known: 0 then. UserError if its optimizer is another network's, or
        if it is damaged.
        """
        if "optimiser" in content:
            load_optimizer(self.optimizer, content["optimiser"], f"{path}, optimizer")
        stored = {"step": 0, "history": {}, "scaler": {}, "pairs": {}} | content
        form = {"step": int, "history": {str: int | float}, "scaler": {str: int | float}, "pairs": {str: str}}
        if not has_form(stored, form) or stored["step"] < 0:
            what = f"{path}: its step, history, scaler or pairs are not as train.py writes them"
            raise UserError(f"{what}; take an earlier file")
        self.step, self.history, scaler = stored["step"], dict(stored["history"]), stored["scaler"]
        if scaler.keys() >= self.scaler.state_dict().keys():  # a run in another precision has stored none
            self.scaler.load_state_dict(scaler)
        if self.step:
            self.set_rate(self.schedule.learning_rate(self.step - 1))  # as the step before has left it
        return [kind for kind, digest in self.pair_digests.items() if stored["pairs"].get(kind, digest) != digest]


def run_files(out_dir: Path) -> list[Path]:
    """The files of a run in its folder, without TensorBoard's."""
    names = (LAST, BEST, WARMUP, "net[0-9][0-9][0-9]*.pth", LOG_NAME)
    return [path for name in names for path in sorted(out_dir.glob(name))]


def remove_run(out_dir: Path, keep: Path | None) -> None:
    """Delete the files of a run in its folder, except for a checkpoint to start from."""
    for path in run_files(out_dir):
        if not (keep and path.samefile(keep)):
            path.unlink()
    shutil.rmtree(out_dir / "tensorboard", ignore_errors=True)
