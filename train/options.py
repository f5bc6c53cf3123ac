"""The options of a training, one field each, and their command line. The published trainer's flags keep their names;
further flags are in snake_case.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.arguments import PRECISION_HELP, Parser, add_fields, data_folder
from common.constants import DEFAULT_DATA_DIR, PRECISION_NAMES
from common.errors import UserError
from common.option_fields import option, option_values
from formats.pairs import BOTH
from recipes.table import RECIPES, recipe_name, recipe_of, training_of
from train.schedule import Schedule

CHECKPOINT_DIR = Path(__file__).resolve().parent / "checkpoints"
# Flags of the published trainer that have no effect there.
UNUSED = ("--batch-neg", "--prob-dir", "--prob-style", "--feat-pth", "--warp-mask", "--tps-grid", "--eta-corr")
RECIPE = "data and recipe"
NETWORK = "network (if training starts from a checkpoint, its values are the defaults)"
RESUME = "checkpoint to continue; auto: netLast.pth in --out-dir, if it exists, even if flags have changed (default: "
RESUME += "netLast.pth in --out-dir, if it exists and has the same recipe)"
FOLDER = "train/checkpoints/egoexo_v2_480x480, with --reverse …_reverse, with --both …_both"
# Options that do not change what is learned: the same command may continue with other values of them.
MAY_CHANGE = {"out_dir", "moco_path", "gpu", "device", "num_workers", "save_every", "log_every", "n_epoch"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of a training; `config` has those of its network, `training` those that only its recipe has."""

    recipe: str = option(
        "paper",
        f"method to train: {', '.join(RECIPES)} (docs/training.md), or FILE.py:CLASS, your own (docs/extending.md); "
        "`--recipe strong --help` lists its own flags",
        type=recipe_name,
    )
    train_dir: list[Path] = option(
        (DEFAULT_DATA_DIR,), "folders of processed takes", "--train-dir", nargs="+", type=data_folder
    )
    reverse: bool = option(False, "train exo-ego instead of ego-exo")
    both: bool = option(False, "train one network for both settings")
    batch_pos: int = option(32, "batch size of all processes together", "--batch-pos", limits=[1])
    n_epoch: int = option(250, "epochs after the warm-up; 0: the warm-up alone", "--n-epoch", limits=[0])
    iter_epoch: int = option(1000, "training steps in an epoch", "--iter-epoch", limits=[1])
    iter_epoch_val: int = option(100, "validation batches, without --val_size", "--iter-epoch-val", limits=[1])
    warmUpIter: int = option(..., "warm-up steps (default: 1000, or a tenth of the others if fewer)", limits=[0])
    lr: float = option(2e-4, "learning rate of Adam", limits=[0])
    lr_schedule: list[int] = option((50,), "epochs after which the rate is multiplied by 0.05", "--lr-schedule")
    lr_falls: int | None = option(None, "epoch after which the rate falls, linearly to 0 at the end", limits=[0])
    existence_weight: float = option(1.0, "weight of the losses of existence; the losses of masks have 1", limits=[0])
    weight_decay: float = option(0.0, "weight decay of Adam", "--weight-decay", limits=[0])
    seed: int = option(0, "seed of weights, samples and dropout", limits=[0])
    val_every: int = option(1, "epochs between validations; the last epoch is always validated", limits=[1])
    val_size: int = option(..., "validation pairs; 0: the whole split (default: --iter-epoch-val batches)", limits=[0])
    backbone: str = option("moco", "moco, efficientnet_lite0, or a model of timm; it is frozen", group=NETWORK)
    moco_path: Path | None = option(
        None, "the backbone's weights (default: for moco, in model/pretrained)", "--moco_path", "--backbone_weights"
    )
    resume_pth: str | None = option(None, RESUME, "--resume-pth", group="where to start")
    init_weights: Path | None = option(None, "network, or related model, from whose tensors a new training starts")
    out_dir: Path = option(..., f"folder for checkpoints and logs (default: {FOLDER})", "--out-dir", group="running")
    gpu: str | None = option(None, "CUDA GPUs, such as 0 or 0,1; run_*.sh start a process for each by torchrun")
    device: str = option("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: str = option(..., f"of the networks (losses: float32); {PRECISION_HELP}", choices=PRECISION_NAMES)
    num_workers: int | None = option(None, "loader processes of each process (default: its CPUs but one)", limits=[0])
    save_every: int = option(10, "keep every n-th epoch's checkpoint; 0: keep only last and best", limits=[0])
    log_every: int = option(20, "steps between console and log lines", limits=[1])

    config: Any = None  # without the numbers of channels, which depend on the backbone
    training: Any = None

    @property
    def setting(self) -> str:
        """A key of SETTINGS, or BOTH."""
        return BOTH if self.both else "exo-ego" if self.reverse else "ego-exo"

    @property
    def stored(self) -> dict[str, Any]:
        """All options by name, in the form in which a checkpoint stores them."""
        values = asdict(self.config) | option_values(self) | asdict(self.training)
        values["train_dir"] = " ".join(map(str, self.train_dir))
        values |= {name: str(value) for name, value in values.items() if isinstance(value, Path)}
        return values | {name: list(value) for name, value in values.items() if isinstance(value, tuple)}

    @property
    def schedule(self) -> Schedule:
        milestones = tuple(self.lr_schedule)
        return Schedule(self.lr, self.warmUpIter, self.iter_epoch, self.n_epoch, milestones, self.lr_falls)


def defaults_of(recipe: str, epochs: int = Options.n_epoch) -> dict[str, Any]:
    """The defaults of all options of a training by this recipe, in so many epochs."""
    training = training_of(recipe)
    values = option_values(Options) | option_values(recipe_of(recipe).Config) | option_values(training.Options)
    return values | training.defaults(epochs)


def parse(argv: list[str] | None, doc: str) -> dict[str, Any]:
    """The options that were typed, by name, and the output folder. Raises UserError if two exclude each other.

    Which flags there are depends on --recipe (without it: paper).
    """
    parser = Parser(doc)
    add_fields(parser, Options, RECIPE)
    first = Parser("", add_help=False)
    first.add_argument("--recipe", type=recipe_name, default=Options.recipe)
    recipe = first.parse_known_args(argv)[0].recipe
    add_fields(parser, recipe_of(recipe).Config, NETWORK)
    add_fields(parser, training_of(recipe).Options, f"only of the {recipe} recipe")
    known = defaults_of(recipe)
    parser.set_defaults(**known)
    parser.add_argument("--activation", choices=["relu"], help=argparse.SUPPRESS)  # of the published trainer
    for flag in UNUSED:
        parser.add_argument(flag, nargs="*", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    unset = argparse.Namespace(**dict.fromkeys(known))  # with these values, argparse sets no defaults
    typed = {name: value for name, value in vars(parser.parse_args(argv, unset)).items() if value is not None}
    typed.pop("activation", None)
    if typed.get("both") and typed.get("reverse"):
        raise UserError("--both trains both settings, --reverse only exo-ego; drop one of them")
    if typed.get("init_weights") and typed.get("resume_pth", "auto") != "auto":
        raise UserError("--init_weights begins a new training, --resume-pth continues one; drop one of them")
    suffix = "_both" if typed.get("both") else "_reverse" if typed.get("reverse") else ""
    return {"out_dir": CHECKPOINT_DIR / f"egoexo_v2_480x480{suffix}"} | typed
