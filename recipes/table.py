"""The recipes by their names, which no other module knows, and recipes from checkpoints or backbones."""

import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from common.constants import SETTINGS, SHIPPED
from common.errors import UserError, warn_once
from common.option_fields import option_values
from common.own_code import OwnClass, load_class
from model.backbone import Backbone
from model.backbones import make_backbone
from model.checkpoint import is_checkpoint, names_backbone, read_checkpoint, stored_backbone, stored_config
from model.device import PRECISIONS, resolve_device, resolve_precision
from model.weights import load_state
from recipes.base import NetworkRecipe


class RecipeClasses(NamedTuple):
    """The classes of a recipe and of its training, or where they are, as module:class. A prediction imports no
    training, and no other recipe.
    """

    recipe: str | type
    training: str | type
    own: OwnClass | None = None  # of `--recipe FILE.py:CLASS`, which has the class of its training as `Training`


RECIPES = {
    "paper": RecipeClasses("recipes.paper:Paper", "recipes.paper:PaperTraining"),
    "strong": RecipeClasses("recipes.strong.recipe:Strong", "recipes.strong.training:StrongTraining"),
}


def recipe_of(name: str) -> type[NetworkRecipe]:
    return imported(RECIPES[name].recipe)


def training_of(name: str) -> Any:
    """A class of recipes/training.py."""
    return imported(RECIPES[name].training)


def recipe_name(text: str) -> str:
    """The name of a recipe: that of one in the table, or FILE.py:CLASS, whose class is put there by this.

    Checkpoints store the file's name and its SHA-256, and never where it is: only what a user names here is run. Raises
    UserError if there is no such recipe.
    """
    if text in RECIPES:
        return text
    if ":" not in text and not text.endswith(".py"):
        raise UserError(f"--recipe {text} is none of {', '.join(RECIPES)}; give one of them, or FILE.py:CLASS")
    own = load_class("--recipe", text, is_own_recipe, "a class of its training as `Training`")
    RECIPES[own.name] = RecipeClasses(own.kind, own.kind.Training, own)
    return own.name


def is_own_recipe(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, NetworkRecipe) and hasattr(value, "Training")


def config_of(content: Mapping[str, Any], path: Path) -> tuple[str, Any]:
    """The name of the recipe that wrote a checkpoint, and its network's configuration, as `stored_config`. Warns if the
    file of a recipe of one's own has changed since.
    """
    name, config = stored_config(content, path, RECIPES, recipe_of)
    if (own := RECIPES[name].own) and own.digest != (then := content.get("recipe_sha256")):
        warn_once(f"{own.path} has changed since {path} was trained (SHA-256 {own.digest:.12}, then {then!s:.12})")
    return name, config


@functools.cache
def imported(name: str | type) -> Any:
    if isinstance(name, type):
        return name
    module, _, member = name.partition(":")
    return getattr(importlib.import_module(module), member)


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
    name, config = config_of(content, path)
    recipe, backbone = recipe_of(name), stored_backbone(content["backbone"], backbone_weights, path)
    for option, count in recipe.channels_of(backbone).items():
        if getattr(config, option) != count:
            raise UserError(f"{path}: its network has {option} {getattr(config, option)}, {backbone.name} has {count}")
    network = recipe.Network(config)
    load_state(network, content["encoder"], f"{path}, encoder")
    return Checkpoint(recipe, backbone, network.eval(), content.get("arguments", {}), digest)


def load_recipe(
    path: Path | None = None,
    device: torch.device | str = "auto",
    precision: str | None = "fp32",
    backbone_weights: Path | None = None,
    backbone: str | None = None,
    recipe: str | None = None,
    **options: Any,
) -> NetworkRecipe:
    """The recipe of a checkpoint, by default this repository's, or matching with a `backbone`, with nothing trained.

    backbone_weights: see `load_checkpoint` and `make_backbone`. recipe: FILE.py:CLASS, for a checkpoint of a recipe of
    one's own, see `recipe_name`. options: such as `batch_size` and `looks`, see `NetworkRecipe`, and with a `backbone`
    also those of `Matching.of` and `make_backbone`. precision: None picks the fastest one that is safe on the device,
    as the scripts do. Raises UserError if an option is unfit.
    """
    given = recipe_name(recipe) if recipe else None
    if precision not in (*PRECISIONS, None):
        raise UserError(f"precision {precision!r} is unknown; choose from {', '.join(PRECISIONS)}, or None")
    device = resolve_device(str(device))
    precision = resolve_precision(precision, device)
    if backbone:
        if given:
            raise UserError(f"--recipe {given} goes with a checkpoint that it trained; leave it or --backbone out")
        if path:
            raise UserError(f"--ckpt_path {path} has its own backbone; leave out --backbone {backbone}")
        frozen = make_backbone(backbone, backbone_weights)
        from recipes.matching import Matching

        matching = Matching.of(frozen, device, precision, **options)
        matching.description = f"{backbone}: {matching.config}, with nothing trained, in {precision}"
        matching.description += drawn_by(matching)
        matching.digest = frozen.digest
        return matching
    if options.pop("input_size", None):
        raise UserError("--input_size goes with --backbone; a checkpoint fixes its own value")
    path = path or SHIPPED
    kind, frozen, network, arguments, digest = load_checkpoint(path, backbone_weights)
    if given and kind is not recipe_of(given):
        raise UserError(f"{path} was trained by another recipe than --recipe {given}; leave --recipe out")
    made = kind(network, frozen, device, precision, **options)
    made.description = f"{path.name}: {network.config} on {frozen.name} features, in {precision}"
    made.digest = digest
    if given and (own := RECIPES[given].own):
        made.description += f", by {own.name}"
        made.options |= {"recipe": own.name, "recipe_sha256": own.digest}
    made.description += drawn_by(made)
    if arguments:
        single = "exo-ego" if arguments.get("reverse") is True else "ego-exo"
        made.settings = tuple(SETTINGS) if arguments.get("both") is True else (single,)
    return made


def drawn_by(recipe: NetworkRecipe) -> str:
    """The part of a recipe's description that names what draws the outlines, if the user has chosen it."""
    return f", outlines by {name}" if (name := recipe.options.get("outline")) else ""


def stored_options(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The training options that rebuild this file's network: the options of its configuration, `recipe` and `backbone`.
    The result is empty if the file holds a related model: SegSwap's files have the same keys, but another head.
    """
    encoder = content["encoder"] if is_checkpoint(content) else None
    ours = isinstance(encoder, Mapping) and ("recipe" in content or any("cls_branch.mlp.0." in str(x) for x in encoder))
    if not ours:
        return {}
    name, config = config_of(content, path)
    stored = content["backbone"] if names_backbone(content["backbone"]) else {"name": "moco"}
    return option_values(config) | {"backbone": str(stored["name"]), "recipe": name}
