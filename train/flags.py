"""The command line of train.py: the published trainer's flags verbatim, ours in snake_case."""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

from common.arguments import DEFAULT_DATA_DIR, Parser, add_device, add_fields, at_least
from common.errors import UserError
from model.device import PRECISION_HELP, PRECISIONS
from model.strong import StrongConfig

CHECKPOINT_DIR = Path(__file__).resolve().parent / "checkpoints"
UNUSED = {  # flags of the published trainer that do nothing there
    "--batch-neg": {"type": int},
    "--prob-dir": {"nargs": "+"},
    "--prob-style": {"nargs": "+"},
    "--feat-pth": {},
    "--warp-mask": {"action": "store_true"},
    "--tps-grid": {"type": int, "nargs": "+"},
    "--eta-corr": {"type": float},
}
BLOCK = 0.5  # how often the target tokens outside the object are blocked, in the paper's recipe
STRONG = {"existence_weight": 0.05, "backbone": "efficientnet_lite0", "block": 0.0}  # --block is the paper's alone
RECIPES = {"paper": {}, "strong": STRONG}  # other defaults than the paper's, by option; docs/training.md says why
NOT_RECIPE = (  # options that do not decide what is learned; more epochs are the same recipe
    *("out_dir", "resume_epoch", "moco_path", "gpu", "device", "num_workers"),
    *("cache_features", "save_every", "log_every", "n_epoch"),
)


class Asked(NamedTuple):
    """What a command line asks for."""

    typed: dict[str, Any]  # the options that were typed, by name; folders are absolute
    defaults: dict[str, Any]  # every option's default; None where it depends on other options
    unused: list[str]  # flags that were typed and do nothing

    @property
    def options(self) -> dict[str, Any]:
        return self.defaults | self.typed


def parse(argv: list[str] | None, doc: str) -> Asked:
    """Raises UserError where two options do not go together."""
    parser = Parser(doc)
    _add_recipe(parser)
    _add_network(parser)
    _add_start(parser)
    _add_running(parser)
    for flag, kind in UNUSED.items():
        parser.add_argument(flag, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **kind)
    defaults = vars(parser.parse_args([]))
    unset = argparse.Namespace(**dict.fromkeys(defaults))  # argparse sets no default where there is a value, even None
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
        if "train_dir" in options:  # another spelling of a folder is no other recipe
            options["train_dir"] = [folder.resolve() for folder in options["train_dir"]]
    return Asked(typed, defaults, unused)


def _add_recipe(parser: Parser) -> None:
    title = "data and recipe (the defaults are the paper's, except that validation always uses the same pairs)"
    add = parser.add_argument_group(title).add_argument
    text = "the paper's, or strong: both views are crops at one scale, and a locator says where "
    text += f"(--existence_weight {STRONG['existence_weight']} --backbone {STRONG['backbone']})"
    add("--recipe", choices=RECIPES, default="paper", help=text)
    text = "folders of processed takes, each with train and val pair files"
    add("--train-dir", type=Path, nargs="+", default=[DEFAULT_DATA_DIR], metavar="DIR", help=text)
    add("--reverse", action="store_true", help="train exo-ego instead of ego-exo")
    add("--both", action="store_true", help="train one network for both settings")
    add("--batch-pos", type=at_least(1), default=32, help="batch size, over all processes together")
    add("--n-epoch", type=at_least(0), default=250, help="epochs after the warm-up")
    add("--iter-epoch", type=at_least(1), default=1000, help="training steps per epoch")
    add("--iter-epoch-val", type=at_least(1), default=100, help="validation batches, unless --val_size says otherwise")
    text = (
        "steps of warm-up, in which the rate rises from 0 (default: 1000; a tenth of the others where they are fewer)"
    )
    add("--warmUpIter", type=at_least(0), help=text)
    add("--lr", type=at_least(0, float), default=2e-4, help="learning rate of Adam")
    add("--lr-schedule", type=int, nargs="*", default=[50], help="epochs after which the rate is multiplied by 0.05")
    text = "of the existence loss; the masks' losses have weight 1"
    add("--existence_weight", type=at_least(0, float), default=1.0, metavar="WEIGHT", help=text)
    add("--weight-decay", type=at_least(0, float), default=0.0, help="weight decay of Adam")
    text = "how often the target tokens outside the object are blocked, in the paper's recipe"
    add("--block", type=at_least(0, float, 1), default=BLOCK, metavar="SHARE", help=text)
    add("--seed", type=at_least(0), default=0, help="of weights, samples and dropout")
    text = "validation pairs, the same each time; 0 = the whole split (default: --iter-epoch-val batches)"
    add("--val_size", type=at_least(0), help=text)


def _add_network(parser: Parser) -> None:
    title = "network (where training starts from a checkpoint, what is not given is as there)"
    add = parser.add_argument_group(title).add_argument
    add_fields(add, StrongConfig)
    text = "frozen: moco, efficientnet_lite0, or a model of timm"
    add("--backbone", default="moco", help=text)
    text = "file with the backbone's weights (default: for moco, those in model/pretrained or model)"
    add("--moco_path", "--backbone_weights", type=Path, help=text)


def _add_start(parser: Parser) -> None:
    add = parser.add_argument_group("where to start").add_argument
    text = "checkpoint to start from; auto = netLast.pth in --out-dir, if there is one, even if flags have changed "
    text += "(default: netLast.pth in --out-dir, if there is one of the same recipe)"
    add("--resume-pth", help=text)
    text = "epochs that the checkpoint of --resume-pth has been trained for, where it does not say so itself"
    add("--resume-epoch", type=at_least(0), default=0, help=text)
    text = "network to train further, or a related model: a new training with its tensors"
    add("--init_weights", type=Path, help=text)
    add("--overwrite", action="store_true", help="remove the run that --out-dir holds, and start anew")


def _add_running(parser: Parser) -> None:
    group = parser.add_argument_group("running")
    add = group.add_argument
    folder = "train/checkpoints/egoexo_v2_480x480, with --reverse …_reverse, with --both …_both"
    add("--out-dir", type=Path, help=f"for checkpoints and logs (default: {folder})")
    text = "CUDA GPUs, such as 0 or 0,1: one for each process, which run_*.sh start by torchrun"
    add("--gpu", help=text)
    add_device(group)
    text = f"of the networks; losses are float32; {PRECISION_HELP}"
    add("--precision", choices=PRECISIONS, help=text)
    text = (
        "loader processes of each training process (default: its CPUs less one; 0 with --cache_features of the paper's)"
    )
    add("--num_workers", type=at_least(0), help=text)
    text = "memory for backbone features of images seen"
    add("--cache_features", type=at_least(0, float), default=0, metavar="GB", help=text)
    text = "epochs between checkpoints that stay; 0 = none but last, best and warm-up"
    add("--save_every", type=at_least(0), default=10, help=text)
    add("--log_every", type=at_least(1), default=20, help="steps between console and log lines")
