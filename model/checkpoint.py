"""Checkpoint files: `{"backbone", "encoder", "optimiser"}` as published, and whatever else a training run needs.

`encoder` is the state dict of `XSegTx`, `optimiser` Adam's over `XSegTx.parameters()` in their order. `backbone` is the
state dict of the published ResNet-50; of any other backbone it is `{"name", "digest", "weights"}`: the weights, large
and under licences of their own, stay where they are. Our own files add `config` (the fields of `XSegTxConfig`) and
`arguments` (the flags of the training); a published one does without, and its size is read from the shapes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.errors import UserError
from model.backbone import STRIDE, Backbone, ResNet50, resnet50_backbone
from model.backbones import make_backbone
from model.weights import differences, load_state, named_tensors, read_torch, write_torch
from model.xsegtx import MODES, XSegTx, XSegTxConfig

RETIRED = {"mask_position"}  # options of former versions, kept by files that were trained with and without
NETWORK_KEYS = ("backbone", "encoder", "optimiser", "config", "arguments")


class Checkpoint(NamedTuple):
    backbone: Backbone
    model: XSegTx  # in eval mode, on the CPU
    optimizer: dict | None
    arguments: dict[str, Any]  # the flags of the training that wrote the file; empty if it does not say
    extra: dict[str, Any]  # every other key of the file


def save_checkpoint(
    path: Path, backbone: Backbone, model: XSegTx, optimizer: torch.optim.Optimizer | None = None, **extra: Any
) -> None:
    """Write a checkpoint, whole or not at all. `backbone` is the original one, not a folded copy.

    `extra` may hold tensors, plain values and containers of them: nothing else can be loaded without running code.
    """
    if not isinstance(backbone.network, ResNet50):
        weights = backbone.weights and str(backbone.weights)
        stored = {"name": backbone.name, "digest": backbone.digest, "weights": weights}
    elif any(isinstance(module, nn.Identity) for module in backbone.modules()):
        raise ValueError("a folded backbone has lost its batch norms; save the one it was folded from")
    else:
        stored = backbone.network.state_dict()
    content = {"backbone": stored, "encoder": model.state_dict(), "config": asdict(model.config), **extra}
    if optimizer is not None:
        content["optimiser"] = optimizer.state_dict()
    write_torch(path, content)


def load_checkpoint(path: Path, backbone_weights: Path | None = None, **overrides: Any) -> Checkpoint:
    """Read a published checkpoint or one of ours. `overrides` replace fields of its `XSegTxConfig` (dropout, ...).

    backbone_weights: the file of a backbone whose weights are not in the checkpoint; by default where they were in
    training, or where timm gets them. UserError, in one line, if a file is missing, damaged or of another model.
    """
    content = read_torch(path, "is it a checkpoint, and whole?")
    if not isinstance(content, Mapping) or not {"backbone", "encoder"} <= set(content):
        raise UserError(f"{path} is no XSegTx checkpoint: it must hold 'backbone' and 'encoder'")
    encoder = named_tensors(content["encoder"], f"{path}, encoder")
    arguments = training_arguments(content, path)
    config = replace(_config(content.get("config"), encoder, path), **overrides)
    if arguments.get("closer_look") and config.zoom == 1:
        raise UserError(f"{path} has learned from closer looks, which its network cannot take: its zoom is 1")
    backbone = _backbone(content["backbone"], backbone_weights, config.input_size, path)
    if backbone.channels != config.feature_channels:
        raise UserError(
            f"{path}: its transformer reads {config.feature_channels} channels, {backbone.name} has {backbone.channels}"
        )
    model = XSegTx(config)
    load_state(model, encoder, f"{path}, encoder")
    extra = {key: value for key, value in content.items() if key not in NETWORK_KEYS}
    return Checkpoint(backbone, model.eval(), content.get("optimiser"), arguments, extra)


def training_arguments(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The flags of the training that wrote the checkpoint `path`; a published one does not tell."""
    arguments = content.get("arguments", {})
    if not isinstance(arguments, dict):
        raise UserError(f"{path} does not hold the state of a training: its arguments are malformed")
    return arguments


def stored_options(path: Path) -> dict[str, Any]:
    """What `load_matching` needs to take all of the file `path`: the options of training that define its network, by
    field of `XSegTxConfig`, the name of its `backbone`, and whether it has learned from a `closer_look`. Empty if it is
    no XSegTx checkpoint, as SegSwap's.
    """
    content = read_torch(path, "give the file of a trained model")
    if not isinstance(content, Mapping) or not {"backbone", "encoder"} <= set(content):
        return {}
    options = asdict(_config(content.get("config"), named_tensors(content["encoder"], f"{path}, encoder"), path))
    del options["feature_channels"]  # the backbone's
    options["backbone"] = content["backbone"]["name"] if "digest" in content["backbone"] else "moco"
    return options | {"closer_look": bool(training_arguments(content, path).get("closer_look"))}


def load_matching(model: XSegTx, path: Path) -> tuple[list[str], list[str]]:
    """Start from a related model, such as SegSwap's hard_mining_neg5.pth: load the tensors whose name and shape fit.

    Returns (names loaded, descriptions of what did not fit, of either side). UserError if fewer than half of the
    model's tensors are there.
    """
    state = read_torch(path, "give the file of a trained model")
    for key in ("encoder", "state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    state = named_tensors(state, str(path))
    state = {name if name.startswith(("net.", "prior.")) else f"net.{name}": t for name, t in state.items()}
    missing, unexpected, unfit = differences(model, state)
    fitting = {name: state[name] for name in model.state_dict() if name in state and name not in unfit}
    left_out = [f"{name}: {reason}" for name, reason in unfit.items()]
    left_out += [f"{name}: not in the file" for name in missing] + [f"{name}: unknown here" for name in unexpected]
    if 2 * len(fitting) < len(model.state_dict()):
        raise UserError(
            f"{path} has {len(fitting)} of the {len(model.state_dict())} tensors of this network ({left_out[0]}); "
            "leave out the flags of the network, or give those that it was trained with"
        )
    load_state(model, model.state_dict() | fitting, str(path))
    return list(fitting), left_out


def load_optimizer(optimizer: torch.optim.Adam, state: Any, what: str) -> None:
    """Take Adam's moments from a state dict over `XSegTx.parameters()`; rates and the like stay the optimizer's own.

    UserError, in one line, if the state is none of Adam or belongs to another model.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        if not isinstance(state, Mapping):
            raise TypeError
        order = [i for group in state["param_groups"] for i in group["params"]]
        moments = [state["state"].get(i) for i in order]  # None: this tensor has not had a gradient yet
        fits = len(moments) == len(parameters) and all(
            moment is None
            or isinstance(moment, Mapping)
            and math.isfinite(moment["step"])
            and all(_is_average(moment[name], p) for name in ("exp_avg", "exp_avg_sq"))
            for moment, p in zip(moments, parameters, strict=True)
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError):
        raise UserError(f"{what}: no Adam state") from None
    if not fits:
        raise UserError(
            f"{what}: the optimizer's state belongs to another model or is damaged ({len(moments)} tensors)"
        )
    own = optimizer.state_dict()["param_groups"]
    state = {i: dict(moment) for i, moment in enumerate(moments) if moment is not None}
    optimizer.load_state_dict({"state": state, "param_groups": own})


def _is_average(value: Any, parameter: Tensor) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.shape == parameter.shape
        and value.is_floating_point()
        and bool(value.isfinite().all())
    )


def _backbone(stored: Any, weights: Path | None, input_size: int, path: Path) -> Backbone:
    """The backbone of a checkpoint: its weights are there, or its name and the digest of its weights."""
    if not isinstance(stored, Mapping) or "digest" not in stored:
        backbone = resnet50_backbone()
        load_state(backbone.network, stored, f"{path}, backbone")
        return backbone
    name, known, file = (stored.get(key) for key in ("name", "digest", "weights"))
    if not isinstance(name, str) or not isinstance(known, str) or not isinstance(file, str | None):
        raise UserError(f"{path}, backbone: name, digest and weights must be texts")
    if weights is None and file is not None and Path(file).is_file():
        weights = Path(file)
    backbone = make_backbone(name, weights, input_size)
    if backbone.digest != known:
        raise UserError(
            f"{path} was trained on other weights of {name} than {weights or 'those found now'} (digest {known[:12]}, "
            f"not {backbone.digest[:12]}); give the right file as --backbone_weights"
        )
    return backbone


def _config(stored: Any, encoder: Mapping[str, Tensor], path: Path) -> XSegTxConfig:
    """The configuration in a file, checked against its tensors; if it has none, the one that its tensors imply."""
    implied = config_of(encoder, path)
    if stored is None:
        return implied
    if not isinstance(stored, Mapping):
        raise UserError(f"{path}: its config is {type(stored).__name__}, no fields by name")
    # Whether a network has learned from closer looks is among the arguments now.
    stored = {name: value for name, value in stored.items() if name != "closer_look" and (name not in RETIRED or value)}
    if gone := sorted(RETIRED & stored.keys()):
        raise UserError(f"{path} needs the option {gone[0]}, which this version has no more; use the one that wrote it")
    if stored.get("similarity_prior") is True and "zoom" not in stored:
        raise UserError(f"{path} compares images as former versions enlarged them; use the version that wrote it")
    kinds = {field.name: field.type for field in fields(XSegTxConfig)}
    if unknown := sorted(set(map(str, stored)) - set(kinds)):
        raise UserError(f"{path} was written by a newer version: its config has {', '.join(unknown)[:150]}")
    for name, value in stored.items():
        if not isinstance(value, int | float if kinds[name] is float else kinds[name]):
            raise UserError(f"{path}, config: {name} is of type {type(value).__name__}")
    try:
        config = XSegTxConfig(**stored)
    except UserError as error:
        raise UserError(f"{path}, config: {error}") from None
    if _shape(config) != _shape(implied):
        raise UserError(f"{path}: its config does not fit its tensors ({_shape(config)} against {_shape(implied)})")
    return config


def _shape(config: XSegTxConfig) -> str:
    """The part of a configuration that shapes the tensors."""
    layers = f"{len(config.layers)} layers {' '.join(config.layers[:20])}"
    return f"width {MODES[config.mode][0]}, {layers}, {config.feature_channels} channels, {config.input_size} pixels"


def config_of(encoder: Mapping[str, Tensor], path: Path) -> XSegTxConfig:
    """The configuration that an encoder's names and shapes imply; dropout and the like have their defaults."""
    try:
        width, channels = encoder["net.feat_proj.weight"].shape[:2]
        cells = math.isqrt(encoder["net.cls_branch.mlp.0.weight"].shape[1]) + 2
    except KeyError as error:
        raise UserError(f"{path}, encoder: does not fit this model, tensor {error.args[0]} missing") from None
    except (ValueError, IndexError):
        raise UserError(f"{path}, encoder: does not fit this model, tensors of other shapes") from None
    found = {}  # (block, layer) -> kinds of its modules
    for name in encoder:
        if match := re.match(r"net\.encoder_blocks\.(\d+)\.layer([12])\.([a-z_]+)\.", name):
            found.setdefault((int(match[1]), int(match[2])), set()).add(match[3])
    blocks = len({block for block, _ in found})
    kinds = [found.get((block, layer), set()) for block in range(blocks) for layer in (1, 2)]
    layers = ["I" if "inner_encoder_layer" in kind else "C" if kind else "N" for kind in kinds]
    modes = [mode for mode, size in MODES.items() if size[0] == width]
    if not modes:
        raise UserError(
            f"{path}, encoder: width {width} is none of {', '.join(f'{m} {s[0]}' for m, s in MODES.items())}"
        )
    mode = min(modes, key=lambda mode: abs(MODES[mode][3] - blocks))  # base and large differ in their depth only
    try:
        return XSegTxConfig(mode, cells * STRIDE, " ".join(layers), feature_channels=channels)
    except UserError as error:
        raise UserError(f"{path}, encoder: {error}") from None
