"""The state of a training: what a step changes and a checkpoint keeps."""

import itertools
from pathlib import Path
from typing import Any

import torch

from formats.errors import UserError
from formats.files import link_or_copy
from model.backbone import Backbone
from model.checkpoint import Checkpoint, load_optimizer, save_checkpoint
from model.xsegtx import XSegTx

# Of the existence head's convolution, with `slow_existence`. Adam moves each of its many weights by the rate, and the
# tokens have much in common, so that all outputs move together: at the full rate they fall below the ReLU in a few
# steps, often for ever.
SLOW_RATE = 0.1


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
        slow_existence: bool = False,
    ):
        """With `amp` float16, the loss is scaled."""
        self.backbone = backbone  # as it was loaded, for checkpoints: frozen
        self.network = network.to(device)
        slow = set(network.net.cls_branch.conv.parameters()) if slow_existence else set()
        runs = itertools.groupby(network.parameters(), slow.__contains__)  # moments are kept in the parameters' order
        groups, self.rates = zip(*((list(run), SLOW_RATE if is_slow else 1.0) for is_slow, run in runs), strict=True)
        self.optimizer = torch.optim.Adam([{"params": g} for g in groups], lr=lr, weight_decay=weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
        self.seed, self.step = seed, 0
        self.history: dict[str, Any] = {}

    def set_rate(self, lr: float) -> None:
        for group, share in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = lr * share

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
