"""Where training starts: a backbone and a transformer, fresh or from a file."""

import argparse
import copy
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from formats.errors import UserError
from formats.pairs import PairSet
from model.backbone import Backbone, calibrate_batch_norm, moco_backbone, normalize_image, random_backbone
from model.checkpoint import load_checkpoint, load_matching, load_optimizer, load_state
from model.xsegtx import XSegTx, XSegTxConfig
from train.batches import collate
from train.dataset import TrainSamples

LAST = "netLast.pth"
CALIBRATION_BATCHES, CALIBRATION_BATCH = 4, 8  # of pairs of frames
FIXED = ("mode", "input_size", "layers", "mask_position")  # a checkpoint's network must have these as asked for


@dataclass
class Start:
    """A network and how far it has come."""

    backbone: Backbone
    network: XSegTx
    origin: str  # in words
    notes: list[str] = field(default_factory=list)  # what else the user should know
    average: XSegTx | None = None  # of the weights, if the file has one
    optimizer: dict | None = None  # Adam's state dict
    scaler: dict | None = None
    step: int = 0
    history: dict = field(default_factory=dict)  # validation figures so far, see keeper.py


def starting_point(options: argparse.Namespace, pairs: PairSet) -> Start:
    """The network that the options ask for. Raises UserError in one line if a file is missing or does not fit."""
    try:
        path = resume_path(options)
        return _resume(path, options) if path else _fresh(options, pairs)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from None


def resume_path(options: argparse.Namespace) -> Path | None:
    """The checkpoint that --resume-pth names; `auto` is the run's last one, if there is one."""
    if options.resume_pth != "auto":
        return Path(options.resume_pth) if options.resume_pth else None
    last = options.out_dir / LAST
    return last if last.exists() else None


def network_config(options: argparse.Namespace) -> XSegTxConfig:
    return XSegTxConfig(
        mode=options.mode,
        input_size=options.input_size,
        layer_types=" ".join(options.layer_type) if options.layer_type else None,
        dropout=options.dropout,
        drop_feat=options.drop_feat,
        activation=options.activation,
        pos_weight=options.pos_weight,
        feat_weight=options.feat_weight,
        mask_position=options.mask_position,
    )


def _fresh(options: argparse.Namespace, pairs: PairSet) -> Start:
    config = network_config(options)
    if options.backbone == "random":
        backbone, origin = calibrated_backbone(options.seed, pairs, options.input_size), "random backbone"
    else:
        try:
            backbone, origin = moco_backbone(), "MoCo backbone"
        except FileNotFoundError as error:
            raise UserError(f"{error}, or try things out with --backbone random") from None
    torch.manual_seed(options.seed)
    network, origin, notes = XSegTx(config), f"{origin}, new transformer", []
    if options.init_weights:
        loaded, left_out = load_matching(network, options.init_weights)
        notes = [f"not taken from {options.init_weights}: {text}" for text in left_out]
        origin = f"{origin}, {len(loaded)} of {len(network.state_dict())} tensors from {options.init_weights}"
    return Start(backbone, network, origin, notes)


def calibrated_backbone(seed: int, pairs: PairSet, side: int) -> Backbone:
    """A random backbone whose batch norms have the statistics of training frames: its features differ by content."""
    backbone, samples = random_backbone(seed), TrainSamples(pairs, side, seed)

    def batches():
        for i in range(CALIBRATION_BATCHES):
            batch = collate([samples[i * CALIBRATION_BATCH + k] for k in range(CALIBRATION_BATCH)])
            yield normalize_image(torch.cat((batch.query_image, batch.target_image)))

    calibrate_batch_norm(backbone, batches())
    return backbone


def _resume(path: Path, options: argparse.Namespace) -> Start:
    config = network_config(options)
    free = {name: value for name, value in vars(config).items() if name not in (*FIXED, "layer_types")}
    checkpoint = load_checkpoint(path, **free)
    for name in FIXED:
        stored, asked = getattr(checkpoint.model.config, name), getattr(config, name)
        if stored != asked:
            raise UserError(
                f"{path} has {name} {stored}, the options say {asked}; give the options it was trained with"
            )
    extra, network, average = checkpoint.extra, checkpoint.model, None
    if "trained_encoder" in extra:
        network, average = copy.deepcopy(network), network
        load_state(network, extra["trained_encoder"], f"{path}, trained_encoder")
    return Start(
        backbone=checkpoint.backbone,
        network=network,
        origin=f"{path}, step {extra.get('step', 0)}",
        notes=_changes(extra.get("arguments", {}), options),
        average=average,
        optimizer=checkpoint.optimizer,
        scaler=extra.get("scaler"),
        step=extra.get("step", 0),
        history=dict(extra.get("history", {})),
    )


def _changes(before: dict, options: argparse.Namespace) -> list[str]:
    now = plain_arguments(options)
    names = [name for name in before if name in now and before[name] != now[name] and name != "resume_pth"]
    return [f"changed since then: {name} {before[name]} -> {now[name]}" for name in names]


def make_optimizer(start: Start, options: argparse.Namespace) -> torch.optim.Adam:
    """Adam over the transformer, on its device, with the state of the file that training goes on from."""
    optimizer = torch.optim.Adam(start.network.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    if start.optimizer is not None:
        try:
            load_optimizer(optimizer, start.optimizer, f"{options.resume_pth}, optimizer")
        except ValueError as error:
            raise UserError(str(error)) from None
        for group in optimizer.param_groups:
            group["weight_decay"] = options.weight_decay
    return optimizer


def provenance(options: argparse.Namespace) -> dict:
    """What a checkpoint and the log say about their making."""
    root = Path(__file__).resolve().parents[1]
    commit = "unknown"
    if shutil.which("git"):
        git = subprocess.run(["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        commit = git.stdout.strip() or commit
    return {"commit": commit, "command": " ".join(sys.argv), "arguments": plain_arguments(options)}


def plain_arguments(options: argparse.Namespace) -> dict:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
