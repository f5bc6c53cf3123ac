"""Checkpoint files: `{"backbone", "encoder", "optimiser"}` as published, with further keys that a training needs.

`encoder` is the state dict of the network; `optimiser` is the state dict of Adam over the network's parameters, in
their order. `backbone` is the state dict of the published ResNet-50; for any other backbone it is
`{"name", "digest", "weights"}`, since weights are large and have their own licenses. Our files add `recipe` (a name of
recipes/table.py), `config` (the fields of the network's configuration) and `arguments` (the flags of the training). A
published file has none of these; the shapes of its tensors give its configuration.
"""

import io
import itertools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import torch
from torch import nn

from common.errors import MALFORMED, UserError
from common.files import atomic_write, has_form
from model.backbone import STRIDE, Backbone
from model.backbones import empty_backbone, make_backbone
from model.weights import MAX_WEIGHT, load_state, named_tensors, one_line, read_torch
from model.xsegtx import MODES

GONE = {"blocks": None, "no_positions": False, "activation": "relu"}  # options of 3.0, with their usual values
RENAMED = {"detail_channels": "early_channels"}  # in checkpoints up to 3.0
REMEDY = "give a checkpoint of train.py, or a published one"


def save_checkpoint(path: Path, recipe: str, backbone: Backbone, network: Any, **extra: Any) -> None:
    """Write a checkpoint, whole or not at all. `backbone` is the original backbone, not a folded copy; `network` is a
    module with a `config`. `extra` may replace what is written, and hold tensors, plain values and containers of them;
    anything else could not be loaded safely.
    """
    content = {"recipe": recipe, "config": asdict(network.config)}
    content |= {"backbone": backbone_content(backbone), "encoder": network.state_dict()}
    torch.save(content | extra, buffer := io.BytesIO())  # a full disk would make it raise RuntimeError, not OSError
    with atomic_write(path, "wb") as file:
        file.write(buffer.getbuffer())


def backbone_content(backbone: Backbone) -> dict[str, Any]:
    """What a checkpoint holds of its backbone: the weights of the published one, and the name and digest of others."""
    if backbone.name == "moco":
        return backbone.network.state_dict()
    return {"name": backbone.name, "digest": backbone.digest, "weights": backbone.weights and str(backbone.weights)}


def read_checkpoint(path: Path, remedy: str = REMEDY) -> tuple[Mapping[str, Any], str]:
    """The content and the SHA-256 of a checkpoint. Raises UserError, which ends with `remedy`, if it is unreadable."""
    content, digest = read_torch(path, remedy)
    if not is_checkpoint(content):
        fault = "it lacks 'backbone' or 'encoder', or its 'arguments' are malformed"
        raise UserError(f"{path} is no XSegTx checkpoint: {fault}; {remedy}")
    return content, digest


def is_checkpoint(content: Any) -> bool:
    has_networks = isinstance(content, Mapping) and {"backbone", "encoder"} <= set(content)
    return has_networks and isinstance(content.get("arguments", {}), dict)  # a published file has no arguments


def load_fitting(network: nn.Module, state: Any, path: Path) -> tuple[list[str], list[str]]:
    """Load the tensors of a related model (such as SegSwap's hard_mining_neg5.pth) whose names and shapes fit.

    Returns the names of the loaded tensors, and descriptions of tensors of both models that did not fit. Raises
    UserError if fewer than half of the network's tensors are in the file.
    """
    own = network.state_dict()
    state = named_tensors(state["encoder"] if is_checkpoint(state) else state, str(path))
    fitting, left_out = {}, []
    for name, tensor in own.items():
        if name not in state:
            left_out.append(f"{name}: not in the file")
        elif state[name].shape != tensor.shape:
            left_out.append(f"{name}: {tuple(state[name].shape)} instead of {tuple(tensor.shape)}")
        else:
            fitting[name] = state[name]
    left_out += [f"{name}: unknown here" for name in state if name not in own]
    if 2 * len(fitting) < len(own):
        raise UserError(
            f"{path} has {len(fitting)} of the {len(own)} tensors of this network ({left_out[0]}); leave out the flags "
            "of the network, or give those that it was trained with"
        )
    load_state(network, own | fitting, str(path))
    return list(fitting), left_out


def load_optimizer(optimizer: torch.optim.Adam, state: Any, what: str) -> None:
    """Load Adam's moments from a state dict over the network's parameters; the optimizer keeps its rate and options.

    Raises UserError if the state is not Adam's, or if it belongs to another model.
    """
    own = optimizer.state_dict()["param_groups"]
    try:
        groups = [mine | {"params": group["params"]} for mine, group in zip(own, state["param_groups"], strict=True)]
        optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    except (*MALFORMED, IndexError, RuntimeError) as error:  # the latter two come from a tensor among the values
        raise UserError(f"{what}: does not fit this model ({one_line(error)})") from None


def stored_backbone(stored: Any, weights: Path | None, path: Path) -> Backbone:
    """Make the backbone of a checkpoint. `stored` has the weights, or the backbone's name and the weights' digest."""
    if not names_backbone(stored):
        backbone = empty_backbone()
        load_state(backbone.network, stored, f"{path}, backbone")
        return backbone
    name, file = str(stored.get("name")), stored.get("weights")
    if weights is None and isinstance(file, str):
        weights = Path(file)
    if gone := gone_options(stored):
        raise UserError(f"{path} holds no network that this version knows ({gone})")
    backbone = make_backbone(name, weights)
    if backbone.digest != stored["digest"]:
        raise UserError(
            f"{path} was trained on other weights of {name} than {weights or 'those found now'} (digest "
            f"{stored['digest']!s:.12}, not {backbone.digest:.12}); give the right file as --backbone_weights"
        )
    return backbone


def gone_options(options: Mapping[str, Any]) -> str:
    """Why a backbone or a network that was made with these options needs an older version; empty if it does not."""
    gone = [f"--{name} {options[name]!r:.40}" for name, x in GONE.items() if repr(options.get(name, x)) != repr(x)]
    return f"{', '.join(gone)} needs version 3.0" if gone else ""


def names_backbone(stored: Any) -> bool:
    """True if a checkpoint holds the backbone's name and digest; otherwise it should hold the backbone's weights."""
    return isinstance(stored, Mapping) and "digest" in stored


def stored_config(
    content: Mapping[str, Any], path: Path, recipes: Collection[str], recipe_of: Callable[[str], Any]
) -> tuple[str, Any]:
    """Which of the `recipes` wrote a checkpoint, by name, and the `Config` of its network. A published file names
    neither: the first recipe wrote it, and the tensors tell the configuration. recipe_of: gives a recipe by its name.
    """
    try:
        options = dict(content.get("config") or implied_options(content["encoder"]))
        if gone := gone_options(options):
            raise ValueError(gone)
        options = {RENAMED.get(name, name): value for name, value in options.items() if name not in GONE}
        recipe = content.get("recipe", next(iter(recipes)))
        if recipe == "matching":  # up to 3.0; its fit of existence harmed on other pictures (docs/experiments.md)
            raise ValueError("existence was fitted by version 3.0; give --backbone in place of the file")
        if recipe not in recipes:
            if ".py:" in str(recipe):
                raise ValueError(f"it was trained by {recipe!r:.60}; name this file and class with --recipe")
            raise ValueError(f"recipes/table.py has no recipe {recipe!r:.40}")
        kind = recipe_of(recipe).Config
        for field in fields(kind):
            if field.name in options and not has_form(value := options[field.name], form_of(field.type)):
                raise ValueError(f"{field.name} is {value!r:.40}")
        return recipe, kind(**options)
    except (*MALFORMED, IndexError, RuntimeError, UserError) as error:
        raise UserError(f"{path} holds no network that this version knows ({one_line(error)})") from None


def form_of(kind: Any) -> Any:
    """The form, for `has_form`, of an option's values of this type, without huge numbers and NaN."""
    if isinstance(kind, UnionType):
        parts = list(map(form_of, get_args(kind)))
        return lambda x: any(has_form(x, part) for part in parts)
    if get_origin(kind) is list:
        return [form_of(*get_args(kind))]
    accepted = int | float if kind is float else kind
    return lambda x: isinstance(x, accepted) and (not isinstance(x, int | float) or abs(x) < MAX_WEIGHT)


def implied_options(encoder: Any) -> dict[str, Any]:
    """The fields of `XSegTxConfig` that follow from the names and shapes of an encoder's tensors (not dropout etc.)."""
    encoder = named_tensors(encoder, "encoder")
    width, channels = encoder["net.feat_proj.weight"].shape[:2]
    cells = math.isqrt(encoder["net.cls_branch.mlp.0.weight"].shape[1]) + 2
    numbers = {int(name.split(".")[2]) for name in encoder if name.startswith("net.encoder_blocks.")}
    blocks = 1 + max(numbers, default=-1)
    layers = []
    for block, layer in itertools.product(range(blocks), (1, 2)):
        parts = [name for name in encoder if name.startswith(f"net.encoder_blocks.{block}.layer{layer}.")]
        layers.append("I" if any("inner_encoder_layer" in name for name in parts) else "C" if parts else "N")
    widths = {mode: shape[0] for mode, shape in MODES.items()}
    of_width = [mode for mode in widths if widths[mode] == width]
    if not of_width:
        raise ValueError(
            f"width {width} is none of {', '.join(f'{mode} {of_mode}' for mode, of_mode in widths.items())}"
        )
    mode = min(of_width, key=lambda mode: abs(MODES[mode][3] - blocks))  # base and large differ only in depth
    return {"mode": mode, "input_size": cells * STRIDE, "layer_types": " ".join(layers), "feature_channels": channels}
