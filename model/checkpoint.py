"""Checkpoint files: `{"backbone", "encoder", "optimiser"}` as published, and whatever else a training run needs.

`backbone` and `encoder` are the state dicts of `Backbone` and `XSegTx`, `optimizer` is Adam's over
`XSegTx.parameters()` in their order. Our own files add `config` (the fields of `XSegTxConfig`); a published one does
without, and its size is read from the shapes.
"""

import math
import os
import pickle
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from model.backbone import Backbone
from model.xsegtx import SIZES, STRIDE, XSegTx, XSegTxConfig

WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # left by data-parallel training and torch.compile
NETWORK_KEYS = ("backbone", "encoder", "optimiser", "config")


class Checkpoint(NamedTuple):
    backbone: Backbone
    model: XSegTx  # in eval mode, on the CPU
    optimizer: dict | None
    extra: dict[str, Any]  # every other key of the file


def save_checkpoint(
    path: Path, backbone: Backbone, model: nn.Module, optimizer: torch.optim.Optimizer | None = None, **extra: Any
) -> None:
    """Write a checkpoint, whole or not at all. `backbone` is the original one, not a folded copy.

    `model` may be wrapped (DDP, torch.compile). `extra` may hold tensors, plain values and containers of them; paths
    become strings; TypeError for anything else, because it could not be loaded safely.
    """
    path = Path(path)
    if any(isinstance(module, nn.Identity) for module in backbone.modules()):
        raise ValueError("a folded backbone has lost its batch norms; save the one it was folded from")
    content = {"backbone": backbone.state_dict(), "encoder": _unwrapped(model.state_dict())}
    if optimizer is not None:
        content["optimiser"] = optimizer.state_dict()
    config = next(module.config for module in model.modules() if isinstance(module, XSegTx))
    content |= {"config": asdict(config)} | {key: _plain(value, key) for key, value in extra.items()}
    write_torch(path, content)


def write_torch(path: Path, content: Any) -> None:
    """`torch.save` to a temporary file beside `path`, then rename: `path` is never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_checkpoint(path: Path, **overrides: Any) -> Checkpoint:
    """Read a published checkpoint or one of ours. `overrides` replace fields of its `XSegTxConfig` (dropout, ...).

    FileNotFoundError if there is none; ValueError, in one line, if it is damaged or belongs to another model.
    """
    content = read_torch(path)
    if not isinstance(content, Mapping) or not {"backbone", "encoder"} <= set(content):
        raise ValueError(f"{path} is no XSegTx checkpoint: it must hold 'backbone' and 'encoder'")
    encoder = _unwrapped(content["encoder"])
    config = replace(_config(content.get("config"), encoder, path), **overrides)
    backbone, model = Backbone(), XSegTx(config)
    load_state(backbone, _unwrapped(content["backbone"]), f"{path}, backbone")
    load_state(model, encoder, f"{path}, encoder")
    extra = {key: value for key, value in content.items() if key not in NETWORK_KEYS}
    return Checkpoint(backbone, model.eval(), content.get("optimiser"), extra)


def read_torch(path: Path) -> Any:
    """`torch.load` of tensors and plain values onto the CPU, with one-line errors."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint file {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} is no readable checkpoint, truncated perhaps ({reason[:150]})") from None


def load_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Strict `load_state_dict`; the ValueError is one line that names the first few tensors at fault."""
    missing, unexpected, misshaped = _differences(module, state)
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshaped}
    faults = [f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds.items() if names]
    if faults:
        raise ValueError(f"{what}: does not fit this model, tensors {'; '.join(faults)}")
    module.load_state_dict(state)


def load_matching(model: XSegTx, path: Path) -> tuple[list[str], list[str]]:
    """Start from a related model, such as SegSwap's hard_mining_neg5.pth: load the tensors whose name and shape fit.

    Returns (names loaded, descriptions of what did not fit, of either side). ValueError if nothing fits.
    """
    content = read_torch(path)
    state = content
    for key in ("encoder", "state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            state = content[key]
            break
    state = _unwrapped(state) if isinstance(state, Mapping) else {}
    state = {name if name.startswith("net.") else f"net.{name}": tensor for name, tensor in state.items()}
    missing, unexpected, misshaped = _differences(model, state)
    fitting = {name: state[name] for name in model.state_dict() if name in state and name not in misshaped}
    if not fitting:
        raise ValueError(f"{path} holds no tensor that fits this model")
    model.load_state_dict(fitting, strict=False)
    left_out = [f"{name}: not in the file" for name in missing] + [f"{name}: unknown here" for name in unexpected]
    return list(fitting), left_out + [f"{name}: {shapes}" for name, shapes in misshaped.items()]


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping, what: str) -> None:
    """`load_state_dict` of an optimizer over `XSegTx.parameters()`, with the shapes checked (ValueError, one line)."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        order = [i for group in state["param_groups"] for i in group["params"]]
        shapes = [tuple(state["state"][i]["exp_avg"].shape) if i in state["state"] else None for i in order]
    except (KeyError, TypeError):
        raise ValueError(f"{what}: no Adam state") from None
    fits = len(shapes) == len(parameters) and all(
        s in (None, tuple(p.shape)) for s, p in zip(shapes, parameters, strict=True)
    )
    if not fits:
        raise ValueError(f"{what}: the optimizer's state belongs to another model ({len(shapes)} tensors in it)")
    optimizer.load_state_dict(dict(state))


def _config(stored: Mapping | None, encoder: Mapping[str, Tensor], path: Path) -> XSegTxConfig:
    if stored is None:
        return config_of(encoder, path)
    known = set(XSegTxConfig.__dataclass_fields__)
    if unknown := sorted(set(stored) - known):
        raise ValueError(f"{path} was written by a newer version: its config has {', '.join(unknown)}")
    return XSegTxConfig(**stored)


def config_of(encoder: Mapping[str, Tensor], path: Path) -> XSegTxConfig:
    """The configuration that an encoder's names and shapes tell; dropout and the like are the defaults."""
    try:
        width = encoder["net.feat_proj.weight"].shape[0]
        cells = math.isqrt(encoder["net.cls_branch.mlp.0.weight"].shape[1]) + 2
    except KeyError as error:
        raise ValueError(f"{path}, encoder: does not fit this model, tensor {error.args[0]} missing") from None
    prefix = "net.encoder_blocks."
    names = {name.removeprefix(prefix) for name in encoder if name.startswith(prefix)}
    blocks = 1 + max((int(name.partition(".")[0]) for name in names), default=-1)
    layers = []
    for layer in (f"{i}.layer{j}." for i in range(blocks) for j in (1, 2)):
        kinds = {name.removeprefix(layer).partition(".")[0] for name in names if name.startswith(layer)}
        layers.append("I" if "inner_encoder_layer" in kinds else "C" if kinds else "N")
    modes = [mode for mode, size in SIZES.items() if size[0] == width]
    if not modes:
        raise ValueError(
            f"{path}, encoder: width {width} is none of {', '.join(f'{m} {s[0]}' for m, s in SIZES.items())}"
        )
    mode = min(modes, key=lambda mode: abs(SIZES[mode][3] - blocks))  # base and large differ in their depth only
    config = XSegTxConfig(mode, cells * STRIDE)
    return config if config.layers == layers else replace(config, layer_types=" ".join(layers))


def _differences(module: nn.Module, state: Mapping[str, Tensor]) -> tuple[list[str], list[str], dict[str, str]]:
    """Names (missing in `state`, unexpected in it, misshaped with a description of the shapes)."""
    own = module.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    misshaped = {
        name: f"{tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    }
    return missing, unexpected, misshaped


def _first(names: list[str] | dict[str, str], count: int = 3) -> str:
    texts = [f"{k} {v}" for k, v in names.items()] if isinstance(names, dict) else names
    return ", ".join(texts[:count]) + (", ..." if len(texts) > count else "")


def _unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPER_PREFIXES * 2:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _plain(value: Any, where: str) -> Any:
    """`value` in types that `torch.load(weights_only=True)` accepts."""
    if value is None or isinstance(value, Tensor):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {key: _plain(item, f"{where}.{key}") for key, item in value.items()}
    for kind in (list, tuple):
        if isinstance(value, kind):
            return kind(_plain(item, where) for item in value)
    for kind in (bool, int, float, str, bytes):  # also of a subclass, such as numpy.float64
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"checkpoint entry {where} has type {type(value).__name__}; store a plain value or a tensor")
