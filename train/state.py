"""The state of a training, which checkpoints store, and the folder with the files of a run."""

import contextlib
import math
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


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def is_history(value: Any) -> bool:
    epochs = ("epoch", "best_epoch")
    return has_form(value, {str: is_number}) and all(is_count(value[name]) for name in epochs if name in value)


def is_fit(value: Any) -> bool:
    return value == {} or has_form(value, {"made_of": dict, "before": dict})


def is_best(value: Any) -> bool:
    return value == {} or has_form(value, {"step": is_count, "encoder": dict}) and is_fit(value.get("finished", {}))


# What a checkpoint holds for training besides the network and the optimizer; a published file has nothing of this.
FORM = {"step": is_count, "history": is_history, "scaler": {str: is_number}, "pairs": {str: str}}
FORM |= {"mined": dict, "best": is_best, "finished": is_fit}


class TrainState:
    """Network and optimizer after `step` steps, including the steps of the warm-up.

    history: `{"epoch": the last finished epoch, "start_iou", "best_iou", "best_epoch", "last_iou"}`. If a run ended
    after the last step of an epoch but before the end of its validation, the history lacks this epoch.

    mined: what the recipe mined last, and at which "step". best: the content of netBest.pth. fit_made_of: the "step",
    pairs and options from which the recipe's `fit_judges` made the network that predicts; empty if it has not run.

    A content has two networks, by the names of their tensors: "trains", as the last step has left it, from which the
    training goes on, and "predicts", which is the same until `fit_judges` changes some tensors. How a file holds both
    is known to `as_stored` and `as_held` alone.
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
        self.mined, self.best, self.fit_made_of = {}, {}, {}
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
        network = self.network.state_dict()
        content = {"step": self.step, "history": self.history, "pairs": self.pair_digests}
        content |= {"trains": network, "predicts": network, "fit_made_of": {}}
        parts = {"optimiser": self.optimizer, "scaler": self.scaler}
        return self.origin | content | {name: part.state_dict() for name, part in parts.items()}

    def save(self, name: str, content: Mapping[str, Any] | None = None) -> None:
        """Write a checkpoint of this state, or of another `content`."""
        if self.folder:
            content = content or self.content() | {"mined": self.mined}
            save_checkpoint(self.folder / name, self.recipe, self.backbone, self.network, **as_stored(content))

    def save_last(self, content: Mapping[str, Any] | None = None) -> None:
        """Write LAST, from which training continues as if it had never stopped: of this state, or of another `content`
        of it. LAST also holds the best network, so BEST may be deleted.
        """
        self.save(LAST, {**(content or self.content()), "mined": self.mined, "best": self.best})

    def save_best(self) -> None:
        if self.best:
            self.save(BEST, self.best)

    @contextlib.contextmanager
    def holding(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Meanwhile, the network has these weights."""
        own = as_read(self.network.state_dict())
        self.network.load_state_dict(weights)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

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
        stored = {**dict.fromkeys(FORM, {}), "step": 0, **content}
        if odd := [name for name, form in FORM.items() if not has_form(stored[name], form)]:
            raise UserError(f"{path}: its {' and '.join(odd)} are not as train.py writes them; take an earlier file")
        own = as_held(stored, str(path))
        for held, name in ((own["best"], "best network"), (own, "encoder")):
            for use in ("predicts", "trains") if held else ():
                load_state(self.network, held[use], f"{path}, {name}")  # which stays what trains of this content
        if "optimiser" in content:
            load_optimizer(self.optimizer, content["optimiser"], f"{path}, optimizer")
        self.step, self.history, self.pair_digests = own["step"], dict(own["history"]), dict(own["pairs"])
        self.mined, self.best, self.fit_made_of = dict(own["mined"]), own["best"], own["fit_made_of"]
        if own["scaler"].keys() >= self.scaler.state_dict().keys():  # a run in another precision stores no scale
            self.scaler.load_state_dict(own["scaler"])
        if self.step:
            self.set_rate(self.schedule.learning_rate(self.step - 1))  # the rate of the previous step


def with_fit(content: Mapping[str, Any], made_of: dict[str, Any], changed: Mapping[str, Tensor]) -> dict[str, Any]:
    """The content after a fit that has `changed` tensors of the network that predicts."""
    return {**content, "predicts": content["trains"] | dict(changed), "fit_made_of": made_of}


def as_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """A content as a file holds it: "encoder" is the network that predicts, as in a published file, and "before" are
    the tensors that are other ones in the network that trains.
    """
    own = dict(content)
    predicts, trains, made_of = own.pop("predicts"), own.pop("trains"), own.pop("fit_made_of")
    own["encoder"] = predicts
    if made_of:
        before = {name: x for name, x in trains.items() if not x.equal(predicts[name])}
        own["finished"] = {"made_of": made_of, "before": before}
    if own.get("best"):
        own["best"] = as_stored(own["best"])
    return own


def as_held(stored: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The content of a file, which is the inverse of `as_stored`. Raises UserError if it lacks a network."""
    own = dict(stored)
    predicts, finished = named_tensors(own.pop("encoder", None), what), own.pop("finished", {})
    before = named_tensors(finished.get("before", {}), what)
    own |= {"predicts": predicts, "trains": predicts | before, "fit_made_of": finished.get("made_of", {})}
    if own.get("best"):
        own["best"] = as_held(own["best"], f"{what}, best network")
    return own
