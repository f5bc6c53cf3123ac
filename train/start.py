"""Make the state in which a training starts: new, with tensors of a trained network, or from a checkpoint."""

from dataclasses import replace

import torch
from torch import nn

from model.backbone import Backbone
from model.backbones import make_backbone
from model.checkpoint import load_matching, stored_backbone
from model.weights import load_state
from train.options import Options, Start
from train.state import TrainState


def starting_state(
    options: Options, start: Start, device: torch.device, pair_digests: dict[str, str]
) -> tuple[TrainState, list[str]]:
    """The state, and lines that tell its origin and what has changed since the checkpoint was written.

    `pair_digests`: the digests of pairs and pictures, by kind. Raises UserError if a file is missing or unfit.
    """
    backbone, network, notes = network_of(options, start)
    state = TrainState(options, backbone, network, device, pair_digests)
    if start.continues:
        others = state.restore(start.content, start.path)
        if not start.is_own or any(kind.endswith("validation") for kind in others):
            for name in ("start_iou", "best_iou"):  # the best IoU is measured anew
                state.history.pop(name, None)
        if not start.is_own and ("step" not in start.content or options.resume_epoch):  # the warm-up is done
            state.step = state.schedule.epoch_end(options.resume_epoch)
            state.history["epoch"] = options.resume_epoch
        anew = {"training": "", "validation": ", so the best IoU starts anew"}
        notes = [f"{start.path}, continued at step {state.step}"]
        notes += [f"changed since then: the {kind} pairs{anew[kind.split()[-1]]}" for kind in others]
    return state, [*notes, *start.notes]


def network_of(options: Options, start: Start) -> tuple[Backbone, nn.Module, list[str]]:
    """The backbone, the network with the fitting tensors of the file, and lines that tell which tensors fit."""
    if start.keeps_backbone:
        backbone = stored_backbone(start.content["backbone"], options.moco_path, start.path)
    else:
        backbone = make_backbone(options.backbone, options.moco_path)
    torch.manual_seed(options.seed)
    network = options.kind.Network(replace(options.config, **options.kind.channels_of(backbone)))
    if start.continues:
        load_state(network, start.content["encoder"], f"{start.path}, encoder")
    elif start.path:
        loaded, left_out = load_matching(network, start.content, start.path)
        tensors = f"{len(loaded)} of {len(network.state_dict())} tensors"
        notes = [f"{options.backbone} backbone, transformer with {tensors} from {start.path}"]
        return backbone, network, notes + [f"not taken from {start.path}: {text}" for text in left_out]
    return backbone, network, [f"{options.backbone} backbone, new transformer"]
