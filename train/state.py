"""The state of a training: what a step changes and a checkpoint keeps."""

from pathlib import Path
from typing import Any

import torch

from formats.errors import UserError
from formats.files import link_or_copy
from model.backbone import Backbone
from model.checkpoint import Checkpoint, load_optimizer, save_checkpoint
from model.xsegtx import XSegTx


class TrainState:
    """Network and optimizer, and how far they have come: `step` steps, those of the warm-up included.

    history: `{"epoch": epochs finished, "untrained_iou" or "start_iou", "best_iou", "best_epoch", "last_iou"}`.
    """

    def __init__(
        self,
        backbone: Backbone,
        network: XSegTx,
        device: torch.device,
        seed: int,
        lr: float,
        weight_decay: float = 0.0,
        amp: torch.dtype | None = None,
    ):
        """With `amp` float16, the loss is scaled."""
        self.backbone = backbone  # as it was loaded, for checkpoints: frozen
        self.network = network.to(device)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.seed, self.step = seed, 0
        self.history: dict[str, Any] = {}

    def set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def note_validation(self, epoch: int, iou: float) -> bool:
        """Note an epoch's validation IoU; True if it is the best so far."""
        self.history |= {"epoch": epoch, "last_iou": iou}
        best = iou > self.history.get("best_iou", -1.0)
        if best:
            self.history |= {"best_iou": iou, "best_epoch": epoch}
        return best

    def save(self, paths: list[Path], **about: Any) -> None:
        """Write a checkpoint, under each of `paths`, from which training goes on as if it had never stopped."""
        about |= {"step": self.step, "history": self.history, "scaler": self.scaler.state_dict()}
        save_checkpoint(paths[0], self.backbone, self.network, self.optimizer, **about)
        for path in paths[1:]:
            link_or_copy(paths[0], path)

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Go on from a checkpoint whose `encoder` is the network that this state was made with.

        A published checkpoint does not tell its step: 0 then. UserError if what a checkpoint tells is malformed.
        """
        extra = checkpoint.extra
        step, history, scaler = extra.get("step", 0), extra.get("history", {}), extra.get("scaler", {})
        plain = _is_numbers(history) and _is_numbers(scaler)
        if not plain or any(type(count) is not int or count < 0 for count in (step, history.get("epoch", 0))):
            raise UserError(f"{path} does not hold the state of a training: its step, history or scaler is malformed")
        if checkpoint.optimizer is not None:
            load_optimizer(self.optimizer, checkpoint.optimizer, f"{path}, optimizer")
        if scaler.keys() >= self.scaler.state_dict().keys():  # none of a run in another precision
            self.scaler.load_state_dict(scaler)
        self.step, self.history = step, dict(history)


def _is_numbers(value: Any) -> bool:
    """Whether it is a dictionary of plain numbers."""
    return isinstance(value, dict) and all(type(number) in (int, float) for number in value.values())
