"""The command line of train.py. The published trainer's flags keep their names; further flags are in snake_case."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from common.arguments import DEFAULT_DATA_DIR, Parser, add_device, add_fields, add_precision, at_least
from common.errors import UserError
from model.config import StrongConfig

CHECKPOINT_DIR = Path(__file__).resolve().parent / "checkpoints"
UNUSED = {  # flags of the published trainer that have no effect there
    "--batch-neg": {"type": int},
    "--prob-dir": {"nargs": "+"},
    "--prob-style": {"nargs": "+"},
    "--feat-pth": {},
    "--warp-mask": {"action": "store_true"},
    "--tps-grid": {"type": int, "nargs": "+"},
    "--eta-corr": {"type": float},
}
BLOCK = 0.5  # the share of samples whose target tokens outside the object are blocked, in the paper's recipe
# --block is of the paper's recipe. Without dropout, a step takes four fifths of the time.
STRONG = {"existence_weight": 0.05, "backbone": "efficientnet_lite0", "block": 0.0, "dropout": 0.0, "drop_feat": 0.0}
RECIPES = {"paper": {}, "strong": STRONG}  # for each recipe, the defaults that differ from the paper's
NOT_RECIPE = (  # options that do not change the recipe; a run may continue with other values of them
    *("out_dir", "resume_epoch", "moco_path", "gpu", "device", "num_workers"),
    *("cache_features", "save_every", "log_every", "n_epoch"),
)


class Asked(NamedTuple):
    """The parsed command line."""

    typed: dict[str, Any]  # the options that were typed, by name; folders are absolute
    defaults: dict[str, Any]  # the default of every option; None if it depends on other options
    unused: list[str]  # typed flags that have no effect

    @property
    def options(self) -> dict[str, Any]:
        return self.defaults | self.typed


def parse(argv: list[str] | None, doc: str) -> Asked:
    """Parse a command line. Raises UserError if two options exclude each other."""
    parser = Parser(doc)
    _add_recipe(parser)
    _add_network(parser)
    _add_start(parser)
    _add_running(parser)
    for flag, kind in UNUSED.items():
        parser.add_argument(flag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **kind)
    defaults = vars(parser.parse_args([]))
    unset = argparse.Namespace(**dict.fromkeys(defaults))  # with these values, argparse sets no defaults
    typed = {name: value for name, value in vars(parser.parse_args(argv, unset)).items() if value is not None}
    unused = [flag for flag in UNUSED if typed.pop(flag[2:].replace("-", "_"), None) is not None]
    if typed.get("both") and typed.get("reverse"):
        raise UserError("--both trains both settings, --reverse only exo-ego; drop one of them")
    if typed.get("overwrite") and typed.get("resume_pth") == "auto":
        raise UserError("--overwrite removes the run that --resume-pth auto would continue; drop one of them")
    if typed.get("resume_epoch") and typed.get("resume_pth", "auto") == "auto":
        epoch = typed["resume_epoch"]
        raise UserError(f"--resume-epoch {epoch} needs a checkpoint to start from: --resume-pth FILE")
    kind = "_both" if typed.get("both") else "_reverse" if typed.get("reverse") else ""
    defaults["out_dir"] = CHECKPOINT_DIR / f"egoexo_v2_480x480{kind}"
    for options in (defaults, typed):
        if "train_dir" in options:  # so that other spellings of a folder count as the same
            options["train_dir"] = [folder.resolve() for folder in options["train_dir"]]
    return Asked(typed, defaults, unused)


def _add_recipe(parser: Parser) -> None:
    title = "data and recipe (the defaults are the paper's, except that validation always uses the same pairs)"
    add = parser.add_argument_group(title).add_argument
    text = "paper, or strong: both views are crops with the object in the same size, and a locator finds the places "
    text += f"(with --existence_weight {STRONG['existence_weight']} --backbone {STRONG['backbone']})"
    add("--recipe", choices=RECIPES, default="paper", help=text)
    text = "folders of processed takes, each with train and val pair files"
    add("--train-dir", type=Path, nargs="+", default=[DEFAULT_DATA_DIR], metavar="DIR", help=text)
    add("--reverse", action="store_true", help="train exo-ego instead of ego-exo")
    add("--both", action="store_true", help="train one network for both settings")
    add("--batch-pos", type=at_least(1), default=32, help="batch size of all processes together")
    add("--n-epoch", type=at_least(0), default=250, help="epochs after the warm-up")
    add("--iter-epoch", type=at_least(1), default=1000, help="training steps in an epoch")
    add("--iter-epoch-val", type=at_least(1), default=100, help="validation batches, unless --val_size is given")
    text = (
        "steps of warm-up, in which the rate rises from 0 (default: 1000, or a tenth of the other steps if these are "
        "fewer than 1000)"
    )
    add("--warmUpIter", type=at_least(0), help=text)
    add("--lr", type=at_least(0, float), default=2e-4, help="learning rate of Adam")
    add("--lr-schedule", type=int, nargs="*", default=[50], help="epochs after which the rate is multiplied by 0.05")
    text = "weight of the existence loss; the losses of masks have weight 1"
    add("--existence_weight", type=at_least(0, float), default=1.0, metavar="WEIGHT", help=text)
    add("--weight-decay", type=at_least(0, float), default=0.0, help="weight decay of Adam")
    text = "share of the samples whose target tokens outside the object are blocked, in the paper's recipe"
    add("--block", type=at_least(0, float, 1), default=BLOCK, metavar="SHARE", help=text)
    add("--seed", type=at_least(0), default=0, help="seed of weights, samples and dropout")
    text = "number of validation pairs, always the same ones; 0: the whole split (default: --iter-epoch-val batches)"
    add("--val_size", type=at_least(0), help=text)


def _add_network(parser: Parser) -> None:
    title = "network (if training starts from a checkpoint, its values are the defaults)"
    add = parser.add_argument_group(title).add_argument
    add_fields(add, StrongConfig)
    text = "frozen backbone: moco, efficientnet_lite0, or a model of timm"
    add("--backbone", default="moco", help=text)
    text = "file with the backbone's weights (default: for moco, the file in model/pretrained or model)"
    add("--moco_path", "--backbone_weights", type=Path, help=text)


def _add_start(parser: Parser) -> None:
    add = parser.add_argument_group("where to start").add_argument
    text = "checkpoint to continue; auto: netLast.pth in --out-dir, if it exists, even if flags have changed "
    text += "(default: netLast.pth in --out-dir, if it exists and has the same recipe)"
    add("--resume-pth", help=text)
    text = "epochs for which the checkpoint of --resume-pth was trained, if its file does not tell"
    add("--resume-epoch", type=at_least(0), default=0, help=text)
    text = "network, or related model, from whose tensors a new training starts"
    add("--init_weights", type=Path, help=text)
    add("--overwrite", action="store_true", help="delete the run in --out-dir, and start anew")


def _add_running(parser: Parser) -> None:
    group = parser.add_argument_group("running")
    add = group.add_argument
    folder = "train/checkpoints/egoexo_v2_480x480, with --reverse …_reverse, with --both …_both"
    add("--out-dir", type=Path, help=f"folder for checkpoints and logs (default: {folder})")
    text = "CUDA GPUs, such as 0 or 0,1; run_*.sh start a process for each by torchrun"
    add("--gpu", help=text)
    add_device(group)
    add_precision(group, "precision of the networks (losses are float32); ")
    text = (
        "loader processes of each training process (default: its CPUs except one; 0 in the paper's recipe with "
        "--cache_features)"
    )
    add("--num_workers", type=at_least(0), help=text)
    text = "memory in which backbone features of images are kept"
    add("--cache_features", type=at_least(0, float), default=0, metavar="GB", help=text)
    text = "keep each n-th epoch's checkpoint; 0: keep only last, best and warm-up"
    add("--save_every", type=at_least(0), default=10, help=text)
    add("--log_every", type=at_least(1), default=20, help="steps between console and log lines")
