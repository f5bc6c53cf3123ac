"""The options of a training, one field each, and their values: from the command line, from the file to start from, from
the run to continue, and from the recipe.

The published trainer's flags keep their names; further flags are in snake_case.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from common.arguments import DEFAULT_DATA_DIR, Parser, add_fields, option
from common.errors import UserError
from formats.pairs import BOTH
from model.checkpoint import read_checkpoint
from model.device import PRECISION_HELP, PRECISIONS, resolve_precision
from model.weights import read_torch
from model.xsegtx import FREE
from recipes.base import NetworkRecipe
from recipes.table import CONFIGS, RECIPES, stored_options
from train.log import LOG_NAME
from train.run_files import LAST, WARMUP, run_files
from train.schedule import Schedule, usual_warmup

CHECKPOINT_DIR = Path(__file__).resolve().parent / "checkpoints"
WAYS = "give another --out-dir, or --overwrite to lose it"
UNUSED = {  # flags of the published trainer that have no effect there
    "--batch-neg": {"type": int},
    "--prob-dir": {"nargs": "+"},
    "--prob-style": {"nargs": "+"},
    "--feat-pth": {},
    "--warp-mask": {"action": "store_true"},
    "--tps-grid": {"type": int, "nargs": "+"},
    "--eta-corr": {"type": float},
}
RECIPE = "data and recipe (the defaults are the paper's, except that validation always uses the same pairs)"
NETWORK = "network (if training starts from a checkpoint, its values are the defaults)"
START, RUNNING = "where to start", "running"
RESUME = "checkpoint to continue; auto: netLast.pth in --out-dir, if it exists, even if flags have changed (default: "
RESUME += "netLast.pth in --out-dir, if it exists and has the same recipe)"
FOLDER = "train/checkpoints/egoexo_v2_480x480, with --reverse …_reverse, with --both …_both"
NOT_RECIPE = (  # options that do not change the recipe; a run may continue with other values of them
    *("out_dir", "resume_epoch", "moco_path", "gpu", "device", "num_workers"),
    *("cache_features", "save_every", "log_every", "n_epoch"),
)


@dataclass(frozen=True)
class Options:
    """All options of a training; the options of its network are in `config`."""

    recipe: str = option("paper", "method to train (docs/training.md)", choices=RECIPES, group=RECIPE)
    train_dir: list[Path] = option(
        (DEFAULT_DATA_DIR,), "folders of processed takes with train and val pair files", "--train-dir", nargs="+"
    )
    reverse: bool = option(False, "train exo-ego instead of ego-exo")
    both: bool = option(False, "train one network for both settings")
    batch_pos: int = option(32, "batch size of all processes together", "--batch-pos", limits=[1])
    n_epoch: int = option(250, "epochs after the warm-up", "--n-epoch", limits=[0])
    iter_epoch: int = option(1000, "training steps in an epoch", "--iter-epoch", limits=[1])
    iter_epoch_val: int = option(100, "validation batches, without --val_size", "--iter-epoch-val", limits=[1])
    warmUpIter: int | None = option(
        None, "steps in which the rate rises from 0 (default: 1000, or a tenth of the others if fewer)", limits=[0]
    )
    lr: float = option(2e-4, "learning rate of Adam", limits=[0])
    lr_schedule: list[int] = option((50,), "epochs after which the rate is multiplied by 0.05", "--lr-schedule")
    existence_weight: float = option(1.0, "weight of the losses of existence; the losses of masks have 1", limits=[0])
    weight_decay: float = option(0.0, "weight decay of Adam", "--weight-decay", limits=[0])
    block: float = option(0.5, "share of the paper's samples with blocked tokens around the object", limits=[0, 1])
    fit_pairs: int = option(
        2000, "pairs to which the strong recipe fits its choice after the last step; 0: it stays", limits=[0]
    )
    seed: int = option(0, "seed of weights, samples and dropout", limits=[0])
    val_size: int | None = option(
        None, "validation pairs, always the same; 0: the whole split (default: --iter-epoch-val batches)", limits=[0]
    )
    backbone: str = option("moco", "moco, efficientnet_lite0, or a model of timm; it is frozen", group=NETWORK)
    moco_path: Path | None = option(
        None, "the backbone's weights (default: for moco, in model/pretrained)", "--moco_path", "--backbone_weights"
    )
    resume_pth: str | None = option(None, RESUME, "--resume-pth", group=START)
    resume_epoch: int = option(0, "epochs of the checkpoint, if its file does not tell", "--resume-epoch", limits=[0])
    init_weights: Path | None = option(None, "network, or related model, from whose tensors a new training starts")
    overwrite: bool = option(False, "delete the run in --out-dir, and start anew")
    out_dir: Path = option(None, f"folder for checkpoints and logs (default: {FOLDER})", "--out-dir", group=RUNNING)
    gpu: str | None = option(None, "CUDA GPUs, such as 0 or 0,1; run_*.sh start a process for each by torchrun")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: str = option(None, f"of the networks (losses: float32); {PRECISION_HELP}", choices=PRECISIONS)
    num_workers: int | None = option(
        None, "loader processes of each process (default: its CPUs but one; 0 if all features are cached)", limits=[0]
    )
    cache_features: float = option(0, "GB of memory in which backbone features of images are kept", limits=[0])
    save_every: int = option(10, "keep each n-th epoch's checkpoint; 0: keep only last, best and warm-up", limits=[0])
    log_every: int = option(20, "steps between console and log lines", limits=[1])

    config: Any = None  # without the numbers of channels, which depend on the backbone

    @property
    def kind(self) -> type[NetworkRecipe]:
        return RECIPES[self.recipe]

    @property
    def setting(self) -> str:
        """A key of SETTINGS, or BOTH."""
        return BOTH if self.both else "exo-ego" if self.reverse else "ego-exo"

    @property
    def stored(self) -> dict[str, Any]:
        """All options by name, also of the network, in the form in which a checkpoint stores them."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.metadata}
        return as_stored(asdict(self.config) | own)

    @property
    def loaders(self) -> int | None:
        """The number of loader processes of each training process; None: as many as its CPUs, except one."""
        cached = self.cache_features and self.kind.caches_all  # then nothing is read
        return 0 if cached and self.num_workers is None else self.num_workers

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.lr, self.warmUpIter, self.iter_epoch, self.n_epoch, tuple(self.lr_schedule))


CLASSES = (Options, *CONFIGS.values())
DEFAULTS = {field.name: field.default for kind in CLASSES for field in fields(kind) if field.metadata}


class Start(NamedTuple):
    """Where a training starts."""

    path: Path | None = None  # a file, or None for a new network
    content: Any = None  # of the file
    continues: bool = False  # True if the file is a checkpoint to continue, False if it has initial weights
    is_own: bool = False  # True if the training continues the run in its own folder
    keeps_backbone: bool = False  # True if the file's backbone is the one to train on
    notes: tuple[str, ...] = ()  # lines about options that changed since the checkpoint, and about flags without effect


def parse(argv: list[str] | None, doc: str) -> dict[str, Any]:
    """The options that were typed, by name, and the output folder. Raises UserError if two exclude each other."""
    parser = Parser(doc)
    for kind in CLASSES:
        add_fields(parser, kind, NETWORK)
    for flag, arguments in UNUSED.items():
        parser.add_argument(flag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **arguments)
    unset = argparse.Namespace(**dict.fromkeys(DEFAULTS))  # with these values, argparse sets no defaults
    typed = {name: value for name, value in vars(parser.parse_args(argv, unset)).items() if value is not None}
    if typed.get("both") and typed.get("reverse"):
        raise UserError("--both trains both settings, --reverse only exo-ego; drop one of them")
    if typed.get("overwrite") and typed.get("resume_pth") == "auto":
        raise UserError("--overwrite removes the run that --resume-pth auto would continue; drop one of them")
    if typed.get("resume_epoch") and typed.get("resume_pth", "auto") == "auto":
        epoch = typed["resume_epoch"]
        raise UserError(f"--resume-epoch {epoch} needs a checkpoint to start from: --resume-pth FILE")
    suffix = "_both" if typed.get("both") else "_reverse" if typed.get("reverse") else ""
    return {"out_dir": CHECKPOINT_DIR / f"egoexo_v2_480x480{suffix}"} | typed


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
    is_own = path == out_dir / LAST
    # True if --resume-pth names the folder's own run, which may then continue with another recipe.
    is_meant = named == "auto" or bool(named and path and Path(named).exists() and path.samefile(named))
    if named == "auto" or is_own and is_meant:
        del typed["resume_pth"]  # the run's checkpoint holds the file from which it was started
    if path is None:
        start = Start(typed.get("init_weights"), notes=notes)
        content = read_torch(start.path, "give the file of a trained model") if start.path else None
        network = stored_options(content, start.path) if start.path else {}
        options = merged(typed, network, {}, device)
        return options, start._replace(content=content, keeps_backbone=bool(network) and "backbone" not in typed)
    content = read_checkpoint(path, WAYS) if is_own else read_checkpoint(path)
    network, former = stored_options(content, path), former_options(content)
    kept = ("warmUpIter", "resume_pth") if is_own else ("warmUpIter",)
    options = merged(typed, network, {name: former[name] for name in kept if name in former}, device)
    changed = changes(path, former | network, options.stored, network, keeps_recipe=is_own and not is_meant)
    return options, Start(path, content, True, is_own, True, (*changed, *notes))


def merged(
    typed: Mapping[str, Any], network: Mapping[str, Any], kept: Mapping[str, Any], device: torch.device
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
    if values["warmUpIter"] is None:
        values["warmUpIter"] = usual_warmup(values["n_epoch"] * values["iter_epoch"])
    if values["val_size"] is None:
        values["val_size"] = values["iter_epoch_val"] * values["batch_pos"]
    config = kind.Config(**{field.name: values[field.name] for field in fields(kind.Config) if field.metadata})
    return Options(**{field.name: values[field.name] for field in fields(Options) if field.metadata}, config=config)


def as_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name, in the form in which a checkpoint stores them."""
    stored = {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
    del stored["overwrite"]
    return stored | {"train_dir": " ".join(map(str, values["train_dir"])), "lr_schedule": list(values["lr_schedule"])}


def former_options(content: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the run that wrote a checkpoint, newer options with their defaults; empty for a published file."""
    arguments = content.get("arguments")
    return as_stored(DEFAULTS) | arguments if arguments else {}


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
