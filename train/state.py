"""The state of a training, which checkpoints store, and the folder with the files of a run."""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.files import has_form
from common.parts import Parts
from model.backbone import Backbone
from model.checkpoint import load_optimizer, save_checkpoint
from model.device import PRECISIONS
from model.weights import as_read, load_state, named_tensors
from train.options import Options

LAST, BEST = "netLast.pth", "netBest.pth"
SEARCHED = "searched"  # a folder, until a checkpoint has what was made of the searches


class TrainState:
    """Network and optimizer after `step` steps, including the steps of the warm-up.

    history: `{"epoch": the last finished epoch, "start_iou", "best_iou", "best_epoch", "last_iou"}`. If a run ended
    after the last step of an epoch but before the end of its validation, the history lacks this epoch.

    mined: what the recipe mined last, and at which "step". best: what netBest.pth holds. finished: the "step", pairs
    and options from which the recipe's `fit_judges` made what the checkpoint predicts with; empty if it has not run.
    The network itself stays what the last step has made of it.
    """

    def __init__(self, options: Options, backbone: Backbone, network: nn.Module, device: torch.device):
        """With precision fp16, the loss is scaled."""
        self.backbone = backbone  # frozen, stored in checkpoints as it was loaded
        self.network, self.device = network.to(device), device
        self.recipe, self.schedule, self.seed = options.recipe, options.schedule, options.seed
        adam = {"lr": options.lr, "weight_decay": options.weight_decay, "fused": device.type == "cuda"}
        self.optimizer = torch.optim.Adam(network.parameters(), **adam)
        self.scaler = torch.amp.GradScaler(device.type, enabled=PRECISIONS[options.precision] == torch.float16)
        self.step = 0
        self.history: dict[str, Any] = {}
        self.mined, self.best, self.finished = {}, {}, {}
        self.pair_digests: dict[str, str] = {}  # by kind: "training", "validation"
        self.folder: Path | None = None  # the folder for checkpoints; None on all ranks except the first
        self.origin: dict[str, Any] = {}  # how the checkpoints were made; each checkpoint stores this

    def set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    @property
    def next_epoch(self) -> int:
        """The epoch whose steps or validation come next; 0 is the warm-up."""
        return max(self.history.get("epoch", -1) + 1, self.schedule.epoch(self.step - 1))

    @property
    def is_validated(self) -> bool:
        """True if the validation that is due at this step has been recorded."""
        return "start_iou" in self.history and self.history.get("epoch", 0) >= self.schedule.epoch(self.step - 1)

    def note_validation(self, epoch: int, iou: float) -> bool:
        """Record the validation IoU of an epoch; returns True if it is the best so far."""
        self.history |= {"epoch": epoch, "last_iou": iou}
        best = iou > self.history.get("best_iou", -1.0)
        if best:
            self.history |= {"best_iou": iou, "best_epoch": epoch}
            self.best = as_read(self.content())
        return best

    def content(self) -> dict[str, Any]:
        """What every checkpoint holds of this state, with the tensors themselves, not copies."""
        content = {"step": self.step, "history": self.history, "pairs": self.pair_digests}
        parts = {"encoder": self.network, "optimiser": self.optimizer, "scaler": self.scaler}
        return self.origin | content | {name: part.state_dict() for name, part in parts.items()}

    def save(self, name: str, content: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint of this state, or of another `content`."""
        if self.folder:
            content = content or self.content() | {"mined": self.mined}
            save_checkpoint(self.folder / name, self.recipe, self.backbone, self.network, **content)

    def save_last(self, made_of: dict[str, Any] | None = None, changed: Mapping[str, Tensor] | None = None) -> None:
        """Write LAST, from which training continues as if it had never stopped. LAST also holds the best network, so
        BEST may be deleted. made_of, changed: see `finished`.
        """
        content = self.content() | {"mined": self.mined, "best": self.best}
        self.save(LAST, content if made_of is None else finished(content, made_of, changed or {}))

    @contextlib.contextmanager
    def holding(self, content: Mapping[str, Any]) -> Iterator[None]:
        """Meanwhile, the network has the weights of another checkpoint of this run."""
        own = as_read(self.network.state_dict())
        self.network.load_state_dict(unfinished(content, "a checkpoint of this run"))
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def save_best(self) -> None:
        if self.best:
            self.save(BEST, self.best)

    def forget_searches(self) -> None:
        if self.folder:
            Parts(self.folder / SEARCHED, "", ".pth").forget()

    def forget_best(self) -> None:
        """The best IoU is measured anew."""
        self.best = {}
        for name in ("start_iou", "best_iou"):
            self.history.pop(name, None)

    def set_pairs(self, digests: dict[str, str]) -> list[str]:
        """Train on pairs with these digests, by kind. Returns lines that tell which pairs have changed since the
        checkpoint was written, so that what follows from them is made anew.
        """
        former, self.pair_digests = self.pair_digests, digests
        changed = [kind for kind, digest in digests.items() if former.get(kind, digest) != digest]
        if "training" in changed:
            self.mined = {}
        if "validation" in changed:
            self.forget_best()
        anew = {"training": "", "validation": ", so the best IoU starts anew"}
        return [f"changed since then: the {kind} pairs{anew[kind]}" for kind in changed]

    def restore(self, content: Mapping[str, Any], path: Path) -> None:
        """Continue from the content of a checkpoint.

        The step of a published checkpoint is unknown and becomes 0. Raises UserError if the network or the optimizer's
        state is another network's, or if the checkpoint is damaged.
        """
        values = {str: int | float}
        form = {"history": values, "scaler": values, "pairs": {str: str}, "mined": dict, "best": dict, "finished": dict}
        stored: dict[str, Any] = {"step": 0, **{name: {} for name in form}, **content}
        best, finish = stored["best"], stored["finished"]
        is_whole = has_form(stored, form | {"step": int}) and has_form(best.get("finished", {}), dict)
        if not is_whole or stored["step"] < 0:
            what = f"{path}: its step, {', '.join(form)} are not as train.py writes them"
            raise UserError(f"{what}; take an earlier file")
        if best:
            load_state(copy.deepcopy(self.network), unfinished(best, str(path)), f"{path}, best network")
        load_state(self.network, unfinished(content, str(path)), f"{path}, encoder")
        if "optimiser" in content:
            load_optimizer(self.optimizer, content["optimiser"], f"{path}, optimizer")
        self.step, self.history, self.pair_digests = stored["step"], dict(stored["history"]), dict(stored["pairs"])
        self.mined, self.best, self.finished = dict(stored["mined"]), dict(best), finish.get("made_of", finish)
        if stored["scaler"].keys() >= self.scaler.state_dict().keys():  # a run in another precision stores no scale
            self.scaler.load_state_dict(stored["scaler"])
        if self.step:
            self.set_rate(self.schedule.learning_rate(self.step - 1))  # the rate of the previous step


def finished(content: Mapping[str, Any], made_of: dict[str, Any], changed: Mapping[str, Tensor]) -> dict[str, Any]:
    """The content of a checkpoint after the last step of a training, which has `changed` tensors of the network:
    "encoder", which predicts, gets them, and "finished" keeps the former ones, with which training can go on.
    """
    network = unfinished(content, "a checkpoint of this run")
    before = {name: network[name] for name in changed}
    return {**content, "encoder": network | dict(changed), "finished": {"made_of": made_of, "before": before}}


def unfinished(content: Mapping[str, Any], what: str) -> dict[str, Tensor]:
    """The network of a checkpoint as its last step of the optimizer has left it."""
    network = content.get("trained", content.get("encoder"))  # version 3.0 stored all of it once more
    return named_tensors(network, what) | named_tensors(content.get("finished", {}).get("before", {}), what)
