"""The command line of train.py: the published trainer's flags verbatim, ours in snake_case."""

import argparse
from pathlib import Path

from formats.errors import UserError
from formats.processed import DEFAULT_DATA_DIR
from model.transformer import ACTIVATIONS
from model.xsegtx import SIZES

DEFAULT_OUT_DIR = Path(__file__).resolve().parent / "checkpoints" / "egoexo_v2_480x480"


def parse_options(argv: list[str] | None = None) -> argparse.Namespace:
    """Parsed and checked options. Raises UserError where two of them do not go together."""
    parser = argparse.ArgumentParser(
        description="Train XSegTx on processed takes. See train/run_ego.sh and train/run_exo.sh for the two settings.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_recipe(parser)
    _add_network(parser)
    _add_start(parser)
    _add_running(parser)
    options = parser.parse_args(argv)
    _check(options)
    return options


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("data and recipe (the defaults are the paper's)").add_argument
    add("--train-dir", type=Path, default=DEFAULT_DATA_DIR, help="processed takes with train and val pair files")
    add("--reverse", action="store_true", help="train exo-ego instead of ego-exo")
    add("--batch-pos", type=int, default=32, help="batch size, over all processes together")
    add("--batch-neg", type=int, default=0, help="accepted and unused, as in the published trainer")
    add("--n-epoch", type=int, default=250, help="epochs after the warm-up")
    add("--iter-epoch", type=int, default=1000, help="training steps an epoch")
    add("--iter-epoch-val", type=int, default=50, help="validation batches, unless --val_size says otherwise")
    add("--warmUpIter", type=int, default=1000, help="steps of warm-up, the learning rate rising from 0")
    add("--lr", type=float, default=2e-4, help="learning rate of Adam")
    add("--lr-schedule", type=int, nargs="*", default=[50], help="epochs after which the rate is multiplied by 0.05")
    add("--weight-decay", type=float, default=0.0, help="weight decay of Adam")
    add("--cosine", action="store_true", help="let the rate fall along a cosine instead of --lr-schedule's drops")
    add(
        "--ema", type=float, default=0.0, metavar="DECAY", help="validate and keep averaged weights, 0.999 say; 0 = off"
    )
    add("--augment", action="store_true", help="change colors, scale and crop of both views, and flip them, at random")
    add("--hard_negatives", action="store_true", help="add negatives of the same take")
    add("--seed", type=int, default=0, help="of weights, samples and dropout")
    add("--val_size", type=int, help="validation pairs, the same each time; 0 = the whole split")


def _add_network(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("network").add_argument
    add("--mode", choices=SIZES, default="small", help="size of the cross-image transformer")
    add("--layer-type", nargs="+", help="two words of I, C, N a block; by default as --mode says: I C I C I N")
    add("--input_size", type=int, default=480, help="side of the square input in pixels, a multiple of 16")
    add("--dropout", type=float, default=0.1, help="dropout in the transformer")
    add("--drop-feat", type=float, default=0.1, help="dropout of whole feature channels")
    add("--pos-weight", type=float, default=0.1, help="weight of the position encoding")
    add("--feat-weight", type=float, default=1.0, help="weight of the features that it is added to")
    add("--activation", choices=ACTIVATIONS, default="relu", help="in the feed-forward layers")
    add("--mask_position", action="store_true", help="tell query tokens by place, too, whether they lie in the object")
    add("--backbone", choices=("moco", "random"), default="moco", help="random: seeded, for trying things out")


def _add_start(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where to start").add_argument
    add("--resume-pth", help="checkpoint to continue; auto = the newest in --out-dir, if there is one")
    add("--init_weights", type=Path, help="checkpoint of this or a related model to take the tensors from that fit")


def _add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("running").add_argument
    add("--out-dir", type=Path, default=DEFAULT_OUT_DIR, help="for checkpoints and logs")
    add("--gpu", help="CUDA GPUs, such as 0 or 0,1; several need run_ego.sh or torchrun; default: as --device says")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    add("--amp", choices=("off", "bf16", "fp16"), default="off", help="precision of the networks; losses are float32")
    add("--compile", action="store_true", help="compile the transformer: a slow first step, faster ones after it")
    add("--num_workers", type=int, help="loader processes of each training process; 0 with --cache_features, else 4")
    add("--cache_features", type=float, default=0, metavar="GB", help="memory for backbone features of images seen")
    add("--save_every", type=int, default=10, help="epochs between checkpoints that stay; 0 = only last and best")
    add("--max_unreadable", type=int, default=100, help="samples that may turn out unreadable before training stops")
    add("--log_every", type=int, default=20, help="steps between console and log lines")


def _check(options: argparse.Namespace) -> None:
    if options.num_workers is None:
        options.num_workers = 0 if options.cache_features else 4  # the cache is in the training process
    if options.augment and options.cache_features:
        raise UserError("--augment changes images each time, so --cache_features has nothing to keep; drop one of them")
    if not 0 <= options.ema < 1:
        raise UserError(f"--ema {options.ema} must be at least 0 and below 1")
    for name in ("batch_pos", "iter_epoch", "iter_epoch_val", "log_every"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} must be at least 1")
    for name in ("n_epoch", "warmUpIter", "num_workers", "cache_features", "save_every", "lr", "seed"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)} must not be negative")
    if options.val_size is None:
        options.val_size = options.iter_epoch_val * options.batch_pos
