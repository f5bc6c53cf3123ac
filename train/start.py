"""Make the state in which a training starts: new, with tensors of a trained network, or from a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from model.backbone import Backbone
from model.backbones import make_backbone
from model.checkpoint import channels_of, holds_network, load_matching, make_network, stored_backbone
from model.weights import load_state, read_torch
from model.xsegtx import XSegTx
from train.run import Run
from train.state import TrainState


def starting_state(run: Run, device: torch.device, pair_digests: dict[str, str]) -> tuple[TrainState, list[str]]:
    """The state, and lines that tell its origin and what has changed since the checkpoint was written.

    `pair_digests`: the digests of pairs and pictures, by kind. Raises UserError if a file is missing or unfit.
    """
    file = run.start or run.init_weights
    content = read_torch(file) if file else None
    backbone, network, notes = network_of(run, file, content)
    state = TrainState(backbone, network, device, run.schedule, run.seed, pair_digests, run.weight_decay, run.precision)
    if run.start:
        others = state.restore(content, file)
        if not run.is_own or any(kind.endswith("validation") for kind in others):
            for name in ("start_iou", "best_iou"):  # the best IoU is measured anew
                state.history.pop(name, None)
        if not run.is_own and ("step" not in content or run.resume_epoch):  # in a published file, the warm-up is done
            state.step = state.schedule.epoch_end(run.resume_epoch)
            state.history["epoch"] = run.resume_epoch
        anew = {"training": "", "validation": ", so the best IoU starts anew"}
        notes = [f"{file}, continued at step {state.step}"]
        notes += [f"changed since then: the {kind} pairs{anew[kind.split()[-1]]}" for kind in others]
    return state, notes + run.notes


def network_of(run: Run, file: Path | None, content: Any) -> tuple[Backbone, XSegTx, list[str]]:
    """The backbone, the network with the fitting tensors of the file, and lines that tell which tensors fit."""
    if run.start or holds_network(content) and "backbone" not in run.typed:
        backbone = stored_backbone(content["backbone"], run.moco_path, file)
    else:
        backbone = make_backbone(run.backbone, run.moco_path)
    if run.recipe == "strong" and not backbone.detail_channels:
        raise UserError(f"the strong recipe reads an earlier layer of the backbone, and {backbone.name} has none")
    torch.manual_seed(run.seed)
    network = make_network(replace(run.config, **channels_of(run.config, backbone)))
    notes = [f"{run.backbone} backbone, new transformer"]
    if run.start:
        load_state(network, content["encoder"], f"{file}, encoder")
    elif file:
        loaded, left_out = load_matching(network, content, file)
        tensors = f"{len(loaded)} of {len(network.state_dict())} tensors"
        notes = [f"{run.backbone} backbone, transformer with {tensors} from {file}"]
        notes += [f"not taken from {file}: {text}" for text in left_out]
    return backbone, network, notes
