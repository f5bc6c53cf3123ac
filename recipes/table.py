"""The recipes by their names, which no other module knows, and networks from checkpoints of any recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from common.errors import UserError
from common.options import option_values
from model.backbone import Backbone
from model.checkpoint import is_checkpoint, names_backbone, read_checkpoint, stored_backbone, stored_config
from model.weights import load_state
from recipes.base import NetworkRecipe
from recipes.paper import Paper
from recipes.strong.recipe import Strong

RECIPES: dict[str, type[NetworkRecipe]] = {"paper": Paper, "strong": Strong}


class Checkpoint(NamedTuple):
    recipe: type[NetworkRecipe]
    backbone: Backbone
    network: nn.Module  # in eval mode, on the CPU
    arguments: dict[str, Any]  # the flags of the training that wrote the file; empty if unknown
    digest: str  # SHA-256 of the file


def load_checkpoint(path: Path, backbone_weights: Path | None = None) -> Checkpoint:
    """Read a published checkpoint, or a checkpoint of this project.

    backbone_weights: the weights of a backbone whose weights are not in the checkpoint (default: the file used in
    training, or the place from which timm gets them). Raises UserError if a file is missing, damaged or unfit.
    """
    content, digest = read_checkpoint(path)
    name, config = stored_config(content, path, RECIPES)
    backbone = stored_backbone(content["backbone"], backbone_weights, path)
    for option, count in RECIPES[name].channels_of(backbone).items():
        if getattr(config, option) != count:
            raise UserError(f"{path}: its network has {option} {getattr(config, option)}, {backbone.name} has {count}")
    network = RECIPES[name].Network(config)
    load_state(network, content["encoder"], f"{path}, encoder")
    return Checkpoint(RECIPES[name], backbone, network.eval(), content.get("arguments", {}), digest)


def stored_options(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The training options that rebuild this file's network: the options of its configuration, `recipe` and `backbone`.
    The result is empty if the file holds a related model: SegSwap's files have the same keys, but another head.
    """
    encoder = content["encoder"] if is_checkpoint(content) else None
    ours = isinstance(encoder, Mapping) and ("recipe" in content or any("cls_branch.mlp.0." in str(x) for x in encoder))
    if not ours:
        return {}
    name, config = stored_config(content, path, RECIPES)
    backbone = str(content["backbone"]["name"]) if names_backbone(content["backbone"]) else "moco"
    return option_values(config) | {"recipe": name, "backbone": backbone}
