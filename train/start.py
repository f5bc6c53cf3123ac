"""Where a training starts: the values of its options, and its state.

--out-dir holds a run | --resume-pth is   | the training
----------------------|-------------------|------------------------------------------------------------------
yes                   | not given         | continues this run; its options must match
yes                   | auto, or this run | continues this run; its options may change, except the network's
yes                   | another file      | continues this run, if it began from that file; otherwise refused
no                    | a file            | continues this file's training, as a run of its own
no                    | not given, auto   | is new, perhaps with the tensors of --init_weights
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.errors import UserError
from common.files import check_outputs
from common.option_fields import option_values
from model.backbones import make_backbone
from model.checkpoint import GONE, REMEDY, load_fitting, read_checkpoint, stored_backbone
from model.device import resolve_precision
from model.weights import read_torch
from model.xsegtx import NETWORK_MAY_CHANGE
from recipes.table import RECIPES, recipe_of, stored_options, training_of
from train.options import MAY_CHANGE, UNUSED, Options, defaults_of
from train.state import BEST, LAST, SEARCHED, TrainState

RUN_REMEDY = "give another --out-dir, or delete the run"


class Start(NamedTuple):
    path: Any  # the path of a file, or None for a new network
    content: Any  # of the file
    continues: bool  # True if the file is a checkpoint to continue, False if it has initial weights
    is_own: bool  # True if the training continues the run in its own folder
    keeps_backbone: bool  # True if the file's backbone is the one to train on


def choose_start(typed: dict[str, Any], device: torch.device) -> tuple[Options, Start]:
    """The complete options, and the start of the training; the output folder must be claimed. Prints which flags have
    no effect, and which options have changed since the checkpoint.

    Raises UserError if a file to start from is missing or does not fit, if the folder holds a run that would be lost,
    or if it holds a run with other options that --resume-pth does not name.
    """
    typed = dict(typed)
    if unused := [flag for flag in UNUSED if typed.pop(flag[2:].replace("-", "_"), None) is not None]:
        print(f"unused, as in the published trainer: {' '.join(unused)}")
    out_dir, named = typed["out_dir"], typed.get("resume_pth")
    written = [out_dir / name for name in (LAST, BEST, SEARCHED)]
    own_recipe = RECIPES[typed.get("recipe", Options.recipe)].own
    read = [typed.get(name) for name in ("init_weights", "moco_path")]
    check_outputs(written, [*read, own_recipe.path if own_recipe else None])
    own = checkpoint_in(out_dir)
    names_own = named == "auto" or bool(own and named and Path(named).exists() and own.samefile(named))
    if names_own:
        del typed["resume_pth"]  # what it is in the run, which may have begun from a file, stays
    if own:
        return continued(own, typed, device, is_own=True, may_change=names_own)
    if named and not names_own:
        return continued(Path(named), typed, device, is_own=False, may_change=True)
    return begun(typed, device)


def checkpoint_in(out_dir: Path) -> Path | None:
    """The checkpoint of a folder's run, None without a run. Raises UserError if the run has no checkpoint."""
    held = [path for name in (LAST, BEST, "net[0-9][0-9][0-9]*.pth") for path in sorted(out_dir.glob(name))]
    if held and not (out_dir / LAST).exists():
        what = f"{out_dir} holds {held[0].name} of a run and no {LAST} to continue"
        raise UserError(f"{what}: {RUN_REMEDY}; to go on from it, give --resume-pth {held[0]} and another --out-dir")
    return out_dir / LAST if held else None


def continued(
    path: Path, typed: dict[str, Any], device: torch.device, is_own: bool, may_change: bool
) -> tuple[Options, Start]:
    """Go on from a checkpoint. may_change: its options may, and not only MAY_CHANGE."""
    content = read_checkpoint(path, RUN_REMEDY if is_own else REMEDY)[0]
    network = stored_options(content, path)
    then = {**content.get("arguments", {}), **network}
    kept_names = ("warmUpIter", "resume_pth") if is_own else ("warmUpIter",)
    kept = {name: then[name] for name in kept_names if name in then}
    options = merged_options(typed, network | kept, device)
    say_changes(path, then, network.keys() - NETWORK_MAY_CHANGE, options.stored, may_change)
    return options, Start(path, content, continues=True, is_own=is_own, keeps_backbone=True)


def begun(typed: dict[str, Any], device: torch.device) -> tuple[Options, Start]:
    """Begin a run, with the tensors of --init_weights if it is given."""
    path = typed.get("init_weights")
    content = read_torch(path, "give the file of a trained model")[0] if path else {}
    network = stored_options(content, path) if path else {}
    keeps_backbone = bool(network) and not {"backbone", "moco_path"} & typed.keys()
    options = merged_options(typed, network, device)
    return options, Start(path, content, continues=False, is_own=False, keeps_backbone=keeps_backbone)


def merged_options(typed: dict[str, Any], known: dict[str, Any], device: torch.device) -> Options:
    """Each option's value is the one that was typed, else the one `known` from the file to start from, else the
    recipe's default.
    """
    name = ({"recipe": Options.recipe} | known | typed)["recipe"]
    defaults = defaults_of(name, typed.get("n_epoch", Options.n_epoch))
    recipe, training = recipe_of(name), training_of(name)
    for other in typed.keys() - defaults.keys():
        raise UserError(f"--{other}: the {name} recipe has no such option; leave it out, or give another --recipe")
    values = defaults | known | typed
    values["train_dir"] = [folder.resolve() for folder in values["train_dir"]]  # other spellings count as the same
    values["precision"] = resolve_precision(values["precision"], device)
    if values["warmUpIter"] is None:  # 1000 as in the paper, or a tenth of the steps that follow, if these are fewer
        steps = values["n_epoch"] * values["iter_epoch"]
        values["warmUpIter"] = max(1, steps // 10) if 0 < steps < 1000 else 1000
    if values["val_size"] is None:
        values["val_size"] = values["iter_epoch_val"] * values["batch_pos"]
    kinds = recipe.Config, training.Options, Options
    config, own, options = (kind(**{name: values[name] for name in option_values(kind)}) for kind in kinds)
    return replace(options, config=config, training=own)


def say_changes(path: Path, then: dict[str, Any], fixed: set[str], now: dict[str, Any], may_change: bool) -> None:
    """Print each option that has changed since a run with the options `then` wrote the checkpoint `path`. In the strong
    recipe, lr_falls is half of the epochs: a longer run has another default, and nobody changed it.

    Raises UserError if an option of the network has changed (`fixed`), or unless `may_change`, one of the training.
    """
    changed = {name: f"{name} {then[name]} -> {x}" for name, x in now.items() if then.get(name, x) != x}
    if other_network := [text for name, text in changed.items() if name in fixed]:
        what = f"{path} holds another network ({', '.join(other_network)})"
        raise UserError(f"{what}; leave that out to continue it, or {RUN_REMEDY}")
    if changed.keys() - MAY_CHANGE and not may_change:
        of_recipe = [text for name, text in changed.items() if name == "n_epoch" or name not in MAY_CHANGE]
        what = f"{path.parent} holds a run with other options ({', '.join(of_recipe)})"
        raise UserError(f"{what}: continue it with --resume-pth auto, {RUN_REMEDY}")
    gone = [f"{name} {x} is no option any more" for name, x in then.items() if name not in now and name not in GONE]
    for text in (*changed.values(), *gone):
        print(f"changed since then: {text}")


def starting_state(options: Options, start: Start, device: torch.device) -> tuple[TrainState, list[str]]:
    """The state, and lines that tell its origin and which tensors do not fit. Raises UserError if a file is missing or
    unfit.
    """
    if start.keeps_backbone:
        backbone = stored_backbone(start.content["backbone"], options.moco_path, start.path)
    else:
        backbone = make_backbone(options.backbone, options.moco_path)
    torch.manual_seed(options.seed)
    recipe = recipe_of(options.recipe)
    network = recipe.Network(replace(options.config, **recipe.channels_of(backbone)))
    state = TrainState(options, backbone, network, device)
    if start.continues:
        state.restore(start.content, start.path)
        if not start.is_own:
            state.forget_best()
        if "step" not in start.content:  # a published file: the warm-up is done
            state.step, state.history["epoch"] = state.schedule.epoch_end(0), 0
        return state, [f"{start.path}, continued at step {state.step}"]
    if not start.path:
        return state, [f"{options.backbone} backbone, new transformer"]
    loaded, left_out = load_fitting(network, start.content, start.path)
    tensors = f"{len(loaded)} of {len(network.state_dict())} tensors"
    note = f"{options.backbone} backbone, transformer with {tensors} from {start.path}"
    return state, [note, *(f"not taken from {start.path}: {text}" for text in left_out)]
