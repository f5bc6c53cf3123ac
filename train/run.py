"""Resolve the options of a training once, from the command line, the file to start from and the run to continue."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from formats.pairs import BOTH
from model.checkpoint import read_checkpoint, stored_options
from model.config import FREE, StrongConfig, XSegTxConfig
from model.device import resolve_precision
from model.weights import read_torch
from train.flags import NOT_RECIPE, RECIPES, Asked
from train.log import LOG_NAME
from train.schedule import Schedule, usual_warmup
from train.state import LAST, WARMUP, run_files

WAYS = "give another --out-dir, or --overwrite to lose it"


@dataclass(frozen=True)
class Run:
    """The complete options of a training. The first fields are options of train.py, whose --help explains them."""

    recipe: str
    train_dir: list[Path]
    batch_pos: int
    existence_weight: float
    weight_decay: float
    block: float
    seed: int
    val_size: int
    backbone: str
    moco_path: Path | None
    resume_pth: str | None  # the file from which this run was started, also after it was continued
    resume_epoch: int
    init_weights: Path | None
    overwrite: bool
    out_dir: Path
    precision: str
    num_workers: int | None
    cache_features: float
    save_every: int
    log_every: int

    setting: str  # a key of SETTINGS, or BOTH
    schedule: Schedule
    config: XSegTxConfig  # without the numbers of channels, which depend on the backbone
    start: Path | None  # the checkpoint to continue
    typed: frozenset[str]  # the names of the options that were typed
    arguments: dict[str, Any]  # all options, in the form of checkpoints
    notes: list[str]  # lines about options that changed since the checkpoint, and about flags without effect

    @property
    def is_own(self) -> bool:
        """True if this training continues the run in its own folder."""
        return self.start == self.out_dir / LAST


def resolve(asked: Asked, device: torch.device) -> Run:
    """Resolve the parsed command line; the output folder must be claimed.

    Raises UserError if a file to start from is missing or does not fit, if the folder holds a run that would be lost,
    or if it holds a run of another recipe that --resume-pth does not name.
    """
    typed, out_dir, named = dict(asked.typed), asked.options["out_dir"], asked.typed.get("resume_pth")
    start = find_start(out_dir, None if named == "auto" else named, "overwrite" in typed)
    is_own = start == out_dir / LAST
    # True if --resume-pth names the folder's own run, which may then continue with another recipe.
    is_meant = named == "auto" or bool(named and start and Path(named).exists() and start.samefile(named))
    if named == "auto" or is_own and is_meant:
        del typed["resume_pth"]  # the run's checkpoint holds the file from which it was started
    network, former = {}, {}
    if start:
        content, _ = read_checkpoint(start, WAYS) if is_own else read_checkpoint(start)
        network, former = stored_options(content, start), former_options(content, asked.defaults)
    elif file := typed.get("init_weights"):
        network = stored_options(read_torch(file, "give the file of a trained model"), file)
    kept_names = ("warmUpIter", "resume_pth") if is_own else ("warmUpIter",)
    kept = {name: former[name] for name in kept_names if name in former}

    # An option gets its value from the first of these that has one: the command line, the network of the file to start
    # from, the run that wrote this file, the defaults of the recipe, the defaults of the paper's recipe.
    recipe = (asked.defaults | network | typed)["recipe"]
    options = asked.defaults | RECIPES[recipe] | kept | network | typed
    options["precision"] = resolve_precision(options["precision"], device)
    if options["warmUpIter"] is None:
        options["warmUpIter"] = usual_warmup(options["n_epoch"] * options["iter_epoch"])
    if options["val_size"] is None:
        options["val_size"] = options["iter_epoch_val"] * options["batch_pos"]
    config, arguments = config_of(options, typed), as_stored(options)
    notes = [f"unused, as in the published trainer: {' '.join(asked.unused)}"] if asked.unused else []
    if start:
        keeps_recipe = is_own and not is_meant
        notes = changes(start, former | network, arguments | asdict(config), network, keeps_recipe) + notes
    if options["num_workers"] is None and options["cache_features"] and recipe == "paper":
        options["num_workers"] = 0  # when all features are cached, nothing is read
    length = options["warmUpIter"], options["iter_epoch"], options["n_epoch"]
    return Run(
        **{field.name: options[field.name] for field in fields(Run) if field.name in options},
        setting=BOTH if options["both"] else "exo-ego" if options["reverse"] else "ego-exo",
        schedule=Schedule(options["lr"], *length, tuple(options["lr_schedule"])),
        config=config,
        start=start,
        typed=frozenset(typed),
        arguments=arguments,
        notes=notes,
    )


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


def changes(
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


def former_options(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run that wrote a checkpoint, newer options with their defaults; empty for a published file."""
    former = content.get("arguments") and as_stored(defaults) | content["arguments"] or {}
    return former | {"resume_pth": None} if former.get("resume_pth") == "auto" else former  # version 2.1 stored "auto"


def config_of(options: Mapping[str, Any], typed: Mapping[str, Any]) -> XSegTxConfig:
    """The configuration of the network. Raises UserError if an option was typed that the recipe does not have."""
    for name, recipe in (("frame_size", "strong"), ("block", "paper")):
        if name in typed and options["recipe"] != recipe:
            raise UserError(f"--{name} is for the {recipe} recipe; leave it out, or give --recipe {recipe}")
    kind = StrongConfig if options["recipe"] == "strong" else XSegTxConfig
    return kind(**{field.name: options[field.name] for field in fields(kind) if field.metadata})


def as_stored(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options in the form in which a checkpoint stores them."""
    values = {name: str(value) if isinstance(value, Path) else value for name, value in options.items()}
    del values["overwrite"]
    return values | {"train_dir": " ".join(map(str, options["train_dir"]))}
