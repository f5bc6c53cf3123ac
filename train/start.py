"""Where a training starts: the values of its options, and its state, which is new, has tensors of a trained network, or
continues a checkpoint.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.errors import UserError
from model.backbones import make_backbone
from model.checkpoint import load_matching, read_checkpoint, stored_backbone
from model.config import FREE
from model.device import resolve_precision
from model.weights import read_torch
from recipes.table import RECIPES, stored_options
from train.log import LOG_NAME
from train.options import DEFAULTS, NOT_RECIPE, UNUSED, Options, as_stored
from train.state import LAST, WARMUP, TrainState, run_files

WAYS = "give another --out-dir, or --overwrite to delete it"


class Start(NamedTuple):
    path: Any = None  # the path of a file, or None for a new network
    content: Any = None  # of the file
    continues: bool = False  # True if the file is a checkpoint to continue, False if it has initial weights
    is_own: bool = False  # True if the training continues the run in its own folder
    keeps_backbone: bool = False  # True if the file's backbone is the one to train on
    notes: tuple[str, ...] = ()  # lines about options that changed since the checkpoint, and about flags without effect


def resolve(typed: dict[str, Any], device: torch.device) -> tuple[Options, Start]:
    """The complete options, and the start of the training; the output folder must be claimed.

    Raises UserError if a file to start from is missing or does not fit, if the folder holds a run that would be lost,
    or if it holds a run of another recipe that --resume-pth does not name.
    """
    typed = dict(typed)
    unused = [flag for flag in UNUSED if typed.pop(flag[2:].replace("-", "_"), None) is not None]
    notes = (f"unused, as in the published trainer: {' '.join(unused)}",) if unused else ()
    out_dir, named = typed["out_dir"], typed.get("resume_pth")
    path = find_start(out_dir, None if named == "auto" else named, "overwrite" in typed)
    is_own = path == out_dir / LAST and "overwrite" not in typed
    for file in map(Path, filter(None, (typed.get("init_weights"), None if is_own else path))):
        if file.resolve() in [own.resolve() for own in run_files(out_dir)]:
            raise UserError(f"{file} is in --out-dir {out_dir}, and this run would replace it; give another --out-dir")
    # True if --resume-pth names the folder's own run, which may then continue with another recipe.
    names_own = named == "auto" or bool(named and path and Path(named).exists() and path.samefile(named))
    if named == "auto" or is_own and names_own:
        del typed["resume_pth"]  # the run's checkpoint holds the file from which it was started
    if path is None:
        start = Start(typed.get("init_weights"), notes=notes)
        content = read_torch(start.path, "give the file of a trained model") if start.path else None
        network = stored_options(content, start.path) if content is not None else {}
        options = merged_options(typed, network, {}, device)
        keeps = bool(network) and not {"backbone", "moco_path"} & typed.keys()
        return options, start._replace(content=content, keeps_backbone=keeps)
    content, _ = read_checkpoint(path, WAYS) if is_own else read_checkpoint(path)
    network, arguments = stored_options(content, path), content.get("arguments")
    former = as_stored(DEFAULTS) | arguments if arguments else {}  # the run may be older than some options
    kept = ("warmUpIter", "resume_pth") if is_own else ("warmUpIter",)
    options = merged_options(typed, network, {name: former[name] for name in kept if name in former}, device)
    changed = changed_lines(path, former | network, options.stored, network, keeps_recipe=is_own and not names_own)
    return options, Start(path, content, True, is_own, True, (*changed, *notes))


def merged_options(
    typed: dict[str, Any], network: dict[str, Any], kept: dict[str, Any], device: torch.device
) -> Options:
    """Give each option its value from the first of these that has one: the command line, the network of the file to
    start from, what is kept of the run that wrote this file, the recipe's defaults, the defaults of the paper's recipe.
    """
    recipe = (DEFAULTS | network | typed)["recipe"]
    kind = RECIPES[recipe]
    own = {field.name for field in fields(kind.Config)}
    for name in typed:
        if name in kind.without or name not in own and name not in Options.__dataclass_fields__:
            raise UserError(f"--{name}: the {recipe} recipe has no such option; leave it out, or give another --recipe")
    values = DEFAULTS | kind.defaults | kept | network | typed
    values["train_dir"] = [folder.resolve() for folder in values["train_dir"]]  # other spellings count as the same
    values["precision"] = resolve_precision(values["precision"], device)
    if values["warmUpIter"] is None:  # 1000 as in the paper, or a tenth of the steps that follow, if these are fewer
        steps = values["n_epoch"] * values["iter_epoch"]
        values["warmUpIter"] = max(1, steps // 10) if 0 < steps < 1000 else 1000
    if values["val_size"] is None:
        values["val_size"] = values["iter_epoch_val"] * values["batch_pos"]
    config = kind.Config(**{field.name: values[field.name] for field in fields(kind.Config) if field.metadata})
    return Options(**{field.name: values[field.name] for field in fields(Options) if field.metadata}, config=config)


def find_start(out_dir: Path, named: str | None, overwrite: bool) -> Path | None:
    """The checkpoint that a training into `out_dir` continues: the last one in this folder, otherwise the file `named`,
    or None. Raises UserError if the folder holds a run that would be lost.
    """
    held = [path for path in run_files(out_dir) if path.name not in (WARMUP, LOG_NAME)]
    if overwrite or not held:
        return Path(named) if named else None
    if not (out_dir / LAST).exists():
        what = f"{out_dir} holds {held[0].name} of a run and no {LAST} to continue"
        raise UserError(f"{what}: {WAYS}; to go on from it, give --resume-pth {held[0]} and another --out-dir")
    return out_dir / LAST


def changed_lines(
    start: Path, then: Mapping[str, Any], now: Mapping[str, Any], network: Mapping[str, Any], keeps_recipe: bool
) -> list[str]:
    """A line for each option whose value `now` differs from its value `then`, in the run that wrote the checkpoint.

    Raises UserError if a difference makes another network, or with `keeps_recipe`, another recipe.
    """
    changed = {name: f"{name} {then[name]} -> {new}" for name, new in now.items() if then.get(name, new) != new}
    if other_network := [text for name, text in changed.items() if name in network and name not in FREE]:
        what = f"{start} holds another network ({', '.join(other_network)})"
        raise UserError(f"{what}; leave that out to continue it, or give another --out-dir or --overwrite")
    other_recipe = [text for name, text in changed.items() if name not in NOT_RECIPE]
    if other_recipe and keeps_recipe:
        what = f"{start.parent} holds a run of another recipe ({', '.join(other_recipe[:3])})"
        raise UserError(f"{what}: continue it with --resume-pth auto, {WAYS}")
    return [f"changed since then: {text}" for text in changed.values()]


def starting_state(
    options: Options, start: Start, device: torch.device, pair_digests: dict[str, str]
) -> tuple[TrainState, list[str]]:
    """The state, and lines that tell its origin and what has changed since the checkpoint was written.

    `pair_digests`: the digests of pairs and pictures, by kind. Raises UserError if a file is missing or unfit.
    """
    if start.keeps_backbone:
        backbone = stored_backbone(start.content["backbone"], options.moco_path, start.path)
    else:
        backbone = make_backbone(options.backbone, options.moco_path)
    torch.manual_seed(options.seed)
    recipe = RECIPES[options.recipe]
    network = recipe.Network(replace(options.config, **recipe.channels_of(backbone)))
    state = TrainState(options, backbone, network, device, pair_digests)
    notes = [f"{options.backbone} backbone, new transformer"]
    if start.continues:
        others = state.restore(start.content, start.path)
        if not start.is_own or any(kind.endswith("validation") for kind in others):
            state.best = {}
            for name in ("start_iou", "best_iou"):  # the best IoU is measured anew
                state.history.pop(name, None)
        if not start.is_own or "training" in others:
            state.finished = {}
        if "training" in others:
            state.mined = {}
        if "step" not in start.content or options.resume_epoch and not start.is_own:  # the warm-up is done
            state.step = state.schedule.epoch_end(options.resume_epoch)
            state.history["epoch"] = options.resume_epoch
        anew = {"training": "", "validation": ", so the best IoU starts anew"}
        notes = [f"{start.path}, continued at step {state.step}"]
        notes += [f"changed since then: the {kind} pairs{anew[kind.split()[-1]]}" for kind in others]
    elif start.path:
        loaded, left_out = load_matching(network, start.content, start.path)
        tensors = f"{len(loaded)} of {len(network.state_dict())} tensors"
        notes = [f"{options.backbone} backbone, transformer with {tensors} from {start.path}"]
        notes += [f"not taken from {start.path}: {text}" for text in left_out]
    return state, [*notes, *start.notes]
