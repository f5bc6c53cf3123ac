"""Where training starts: a backbone and a transformer, fresh or from a file."""

import argparse
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from data.errors import UserError
from data.pairs import PairSet
from model.backbone import Backbone, calibrate_batch_norm, moco_backbone, normalize_image, random_backbone
from model.checkpoint import load_checkpoint, load_optimiser, save_checkpoint
from model.xsegtx import XSegTx, XSegTxConfig
from train.dataset import TrainSamples, collate

LAST = "netLast.pth"
CALIBRATION_BATCHES, CALIBRATION_BATCH = 4, 8  # of pairs of frames
FIXED = ("mode", "input_size", "layers", "mask_position")  # a checkpoint's network must have these as asked for


@dataclass
class Start:
    """A network and how far it has come. `optimiser` is Adam's state dict, None for a fresh start."""

    backbone: Backbone
    model: XSegTx
    optimiser: dict | None = None
    step: int = 0
    history: dict = field(default_factory=dict)  # validation figures so far, see train.py
    origin: str = ""


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
    return Start(backbone, XSegTx(config), origin=f"{origin}, new transformer")


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
    extra = checkpoint.extra
    return Start(
        checkpoint.backbone,
        checkpoint.model,
        checkpoint.optimiser,
        extra.get("step", 0),
        dict(extra.get("history", {})),
        f"{path}, step {extra.get('step', 0)}",
    )


def make_optimiser(start: Start, options: argparse.Namespace) -> torch.optim.Adam:
    """Adam over the transformer, on its device, with the state of the file that training goes on from."""
    optimiser = torch.optim.Adam(start.model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    if start.optimiser is not None:
        try:
            load_optimiser(optimiser, start.optimiser, f"{options.resume_pth}, optimiser")
        except ValueError as error:
            raise UserError(str(error)) from None
        for group in optimiser.param_groups:
            group["weight_decay"] = options.weight_decay
    return optimiser


def save(path: Path, start: Start, model: nn.Module, optimiser: torch.optim.Optimizer, step: int, about: dict) -> None:
    """A checkpoint from which training goes on as if it had never stopped."""
    save_checkpoint(path, start.backbone, model, optimiser, step=step, history=start.history, **about)


def provenance(options: argparse.Namespace) -> dict:
    """What a checkpoint and the log say about their making."""
    root = Path(__file__).resolve().parents[1]
    git = subprocess.run(["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    return {"commit": git.stdout.strip() or "unknown", "command": " ".join(sys.argv), "arguments": arguments}
