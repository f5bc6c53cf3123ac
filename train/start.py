"""The start of a training: anew, with the tensors of a trained network, or from the state of a checkpoint.

Options of the network that are not typed come from the file that it starts from.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from common.arguments import values_of
from common.errors import UserError
from model.backbone import Backbone
from model.backbones import make_backbone
from model.checkpoint import (
    channels_of,
    checkpoint_of,
    load_matching,
    make_network,
    read_checkpoint,
    stored_backbone,
    stored_options,
)
from model.strong import StrongConfig
from model.weights import read_torch
from model.xsegtx import FREE, XSegTx, XSegTxConfig
from train.flags import NOT_RECIPE, RECIPES, parse_args, plain_arguments
from train.log import LOG_NAME
from train.schedule import Schedule
from train.state import LAST, WARMUP, TrainState, run_files

WAYS = "give another --out-dir, or --overwrite to lose it"


def find_start(args: argparse.Namespace) -> Path | None:
    """The checkpoint that a training into `args.out_dir` continues: the folder's own last one, else that of
    --resume-pth; None if there is none. Raises UserError if the folder holds a run that would be lost.
    """
    last, named = args.out_dir / LAST, None if args.resume_pth in (None, "auto") else Path(args.resume_pth)
    held = [path for path in run_files(args.out_dir) if path.name not in (WARMUP, LOG_NAME)]
    if args.overwrite or not held:
        return named
    if not last.exists():
        what = f"{args.out_dir} holds {held[0].name} of a run and no {LAST} to continue"
        raise UserError(f"{what}: {WAYS}; to go on from it, give --resume-pth {held[0]} and another --out-dir")
    return last


def starting_state(
    args: argparse.Namespace, path: Path | None, device: torch.device, pair_digests: dict[str, str]
) -> tuple[TrainState, list[str]]:
    """The state of the checkpoint `path`, or a new one, and lines that say where it comes from and what has changed.
    `args` get the options of the network that are not typed and come from a file. `pair_digests` are those of the
    training and the validation pairs, which are compared with the checkpoint's.

    Raises UserError if a file is missing or does not fit.
    """
    if path:
        content = read_checkpoint(path, WAYS) if path == args.out_dir / LAST else read_checkpoint(path)
        changes = take_over(args, content, path)
        checkpoint = checkpoint_of(content, path, args.moco_path, **{name: getattr(args, name) for name in FREE})
        backbone, network = checkpoint.backbone, checkpoint.model
    else:
        backbone, network, notes = new_network(args)
    schedule = Schedule(args.lr, args.warmUpIter, args.iter_epoch, args.n_epoch, tuple(args.lr_schedule))
    state = TrainState(backbone, network, device, schedule, args.seed, args.weight_decay, args.precision)
    if path:
        state.restore(checkpoint, path)
        stored_digests = checkpoint.extra.get("pairs", {})  # version 2.1 stored none
        others = [kind for kind, digest in pair_digests.items() if stored_digests.get(kind, digest) != digest]
        anew = {"training": "", "validation": ", so the best IoU starts anew"}
        changes += [f"changed since then: the {kind} pairs{anew[kind]}" for kind in others]
        is_own = path == args.out_dir / LAST
        if not is_own or "validation" in others:
            for name in ("start_iou", "best_iou"):  # what is better than these is measured from here on
                state.history.pop(name, None)
        if not is_own and ("step" not in checkpoint.extra or args.resume_epoch):  # a published one: its warm-up is done
            state.step = state.schedule.epoch_end(args.resume_epoch)
            state.history["epoch"] = args.resume_epoch
        notes = [f"{path}, continued at step {state.step}", *changes]
    return state, notes


def new_network(args: argparse.Namespace) -> tuple[Backbone, XSegTx, list[str]]:
    """An untrained network, or one with the tensors of --init_weights, and lines that say which."""
    file = args.init_weights
    content = read_torch(file, "give the file of a trained model") if file else None
    stored = stored_options(content, file)  # empty for a related model's file
    take_options(args, stored)
    if stored and "backbone" not in args.explicit:
        backbone = stored_backbone(content["backbone"], args.moco_path, file)
    else:
        backbone = make_backbone(args.backbone, args.moco_path)
    torch.manual_seed(args.seed)
    if args.recipe == "strong" and not backbone.detail_channels:
        raise UserError(f"the strong recipe reads an earlier layer of the backbone, and {backbone.name} has none")
    network = make_network(config_of(args, **channels_of(backbone)))
    notes = [f"{args.backbone} backbone, new transformer"]
    if file:
        loaded, left_out = load_matching(network, content, file)
        notes[0] += f", {len(loaded)} of {len(network.state_dict())} tensors from {file}"
        notes += [f"not taken from {file}: {text}" for text in left_out]
    return backbone, network, notes


def take_options(args: argparse.Namespace, stored: Mapping[str, Any]) -> None:
    """Set what is not typed as in the file; with the file's recipe, also the other defaults of that recipe."""
    if "recipe" in stored and "recipe" not in args.explicit:
        stored = RECIPES[stored["recipe"]] | stored
    for name in stored.keys() - args.explicit:
        setattr(args, name, stored[name])


def config_of(args: argparse.Namespace, **channels: int) -> XSegTxConfig:
    """The configuration of the network that `args` ask for."""
    kind = StrongConfig if args.recipe == "strong" else XSegTxConfig
    for name, recipe in (("frame_size", "strong"), ("block", "paper")):
        if name in args.explicit and args.recipe != recipe:
            raise UserError(f"--{name} is for the {recipe} recipe; leave it out, or give --recipe {recipe}")
    names = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in (values_of(args, kind) | channels).items() if name in names})


def take_over(args: argparse.Namespace, content: Mapping[str, Any], path: Path) -> list[str]:
    """Fill `args` up with what a checkpoint holds -> a line for each option that has another value than before.

    Raises UserError if that makes another network, or if the run that `args.out_dir` holds has another recipe, unless
    --resume-pth names it.
    """
    stored, before = stored_options(content, path), content.get("arguments", {})  # a published one has no arguments
    before = before and plain_arguments(parse_args([], "")) | before  # flags that are newer than that run: by default
    take_options(args, stored)
    if "warmUpIter" not in args.explicit:
        args.warmUpIter = before.get("warmUpIter", args.warmUpIter)
    is_own, named = path == args.out_dir / LAST, args.resume_pth and Path(args.resume_pth)
    is_meant = args.resume_pth == "auto" or bool(named and named.exists() and named.samefile(path))
    if is_own and (is_meant or not named):
        args.resume_pth = before.get("resume_pth")  # where this run began, which is a part of its recipe
    now, then = plain_arguments(args) | asdict(config_of(args)), before | stored
    changes = {name: f"{name} {then[name]} -> {new}" for name, new in now.items() if then.get(name, new) != new}
    if network := [text for name, text in changes.items() if name in stored and name not in FREE]:
        what = f"{path} holds another network ({', '.join(network)})"
        raise UserError(f"{what}; leave that out to continue it, or give another --out-dir or --overwrite")
    recipe = [text for name, text in changes.items() if name not in NOT_RECIPE]
    if is_own and recipe and not is_meant:
        what = f"{args.out_dir} holds a run of another recipe ({', '.join(recipe[:3])})"
        raise UserError(f"{what}: continue it with --resume-pth auto, {WAYS}")
    return [f"changed since then: {text}" for text in changes.values()]
