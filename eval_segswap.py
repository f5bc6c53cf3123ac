"""Predict the object masks of a split: checkpoint + processed takes -> {setting}_{split}_results.json.

    python eval_segswap.py --setting ego-exo
    python eval_segswap.py --setting exo-ego --split test --ckpt_path exoego.pth --out_path results
    torchrun --nproc_per_node 8 eval_segswap.py --setting ego-exo        # eight GPUs, the same file
    python eval_segswap.py --setting ego-exo --backbone vit_small_patch16_dinov3.lvd1689m    # with nothing trained
    python eval_segswap.py --setting ego-exo --predictor my_method.py:Method    # your own, see docs/extending.md

If a run was stopped, give the same command again: it continues where it stopped.
"""

import contextlib
import shutil
import sys
import time
from argparse import Namespace
from pathlib import Path

from common.cpu import tune_cpu
from common.errors import UserError, counted, run_script, say_errors, warn_once

say_errors(__name__)
tune_cpu(__name__)

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.arguments import (
    BATCH_SIZE,
    NETWORK_OPTIONS,
    Parser,
    add_data_path,
    add_network_options,
    add_setting,
    at_least,
    network_options,
)
from common.constants import SHIPPED
from common.distributed import World
from common.parallel import default_workers, loader_failures, loader_options
from formats.pairs import open_or_list_pairs
from formats.results import RESULTS_DIR
from inference.own_method import OwnMethod
from inference.resumable_run import ResumableRun
from model.device import resolve_device
from recipes.base import Recipe
from recipes.frame import Frames, answered
from recipes.table import load_recipe

CHECKPOINTS = Path(__file__).resolve().parent / "train" / "checkpoints"
CHECKPOINT_DIRS = {"ego-exo": "egoexo_v2_480x480", "exo-ego": "egoexo_v2_480x480_reverse"}
INCOMPLETE_STATUS = 3  # the results file is there, but takes or pairs are missing from it


def parse_args(argv: list[str] | None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_setting(parser)
    own = "class that predicts in place of the network, and its arguments; see docs/extending.md"
    add("--predictor", nargs="+", metavar=("FILE.py:CLASS", "KEY=VALUE"), help=own)
    add_data_path(parser)
    add("--split", default="val", help="split to predict: train, val or test")
    add("--out_path", type=Path, default=RESULTS_DIR, help="folder for the results file")
    add("--save_inter", action="store_true", help="also write each take's <out_path>/<take_uid>/pred_annotations.json")
    add_network_options(parser, "checkpoint (default: netBest.pth of a training in train/checkpoints)")
    text = f"pairs computed at once; fewer need less memory, and may move an existence by 2e-7 (default: {BATCH_SIZE})"
    add("--batch_size", type=at_least(1), help=text)
    workers = "processes that read and letterbox; 0: only this process (default: 1 with a CPU, up to 8 with a GPU)"
    add("--num_workers", type=at_least(0), help=workers)
    add("--overwrite", action="store_true", help="replace a results file that another run has made")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    world = World()
    world.start()
    recipe, run = prepare_run(args, world)
    with run.claimed() if world.is_main else contextlib.nullcontext():
        if former := world.broadcast(run.made_already() if world.is_main and not args.overwrite else None):
            when = f"by commit {former['commit']}, {former['date']}"
            print(f"{run.results_path} is complete already ({when}); delete it to predict again")
            status = 0
        else:
            reports = world.gather(predict_part(run, recipe, world, args.num_workers))
            status = finish_run(run, reports) if world.is_main else 0
        if world.is_main and args.save_inter:
            run.write_take_files()
        if world.is_main and not status:
            shutil.rmtree(run.folder.parent, ignore_errors=True)  # finished takes, of interrupted other runs, too
    return status


def prepare_run(args: Namespace, world: World) -> tuple[Recipe, ResumableRun]:
    """The recipe that predicts, and the run with the takes to predict.

    Raises UserError if a file is missing, or if options do not fit each other.
    """
    device = resolve_device(args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # otherwise PyTorch also uses memory of the first GPU
    if args.predictor:
        for name in ("ckpt_path", *NETWORK_OPTIONS):
            if getattr(args, name):
                raise UserError(f"--{name} is for the network; a method of your own takes KEY=VALUE behind --predictor")
        recipe = OwnMethod(*args.predictor, device=device)
        source, description = recipe.path, recipe.description
    else:
        source = args.ckpt_path or (None if args.backbone else default_checkpoint(args.setting))
        recipe = load_recipe(source, device, **network_options(args))
        description = recipe.description
        if source:
            description = f"{source.parent}/{description}"  # tells whose netBest.pth it is
        if recipe.settings and args.setting not in recipe.settings:
            warn_once(f"{source} was trained for {' and '.join(recipe.settings)}, not for {args.setting}")
    pairs = None
    if world.is_main:
        pairs = open_or_list_pairs(args.data_path, args.split, args.setting, args.splits_path)
        if not pairs.store.takes:
            reason = next(iter(pairs.store.left_out.values()))
            raise UserError(f"no take of split {args.split!r} can be read: {reason}")
        print(f"{description}, on {world.size} x {device}")
    pairs = world.broadcast(pairs)
    if isinstance(recipe, OwnMethod):
        recipe.pairs = pairs
    name = source.name if source else args.backbone
    options = {"checkpoint": name, "checkpoint_sha256": recipe.digest} | recipe.options
    return recipe, ResumableRun(args.out_path, args.setting, args.split, options, pairs)


def default_checkpoint(setting: str) -> Path:
    """netBest.pth, or else netLast.pth, of a training for this setting, or else of a training for both settings."""
    folders = [CHECKPOINTS / x for x in (CHECKPOINT_DIRS[setting], "egoexo_v2_480x480_both")]
    paths = [folder / name for folder in folders for name in ("netBest.pth", "netLast.pth")]
    if checkpoint := next((path for path in paths if path.exists()), None):
        return checkpoint
    script = "run_ego.sh" if setting == "ego-exo" else "run_exo.sh"
    what = f"no checkpoint {paths[0]}; train one with `bash train/{script}` or give --ckpt_path"
    raise UserError(f"{what}, such as {SHIPPED}, the network of this repository")


def predict_part(run: ResumableRun, recipe: Recipe, world: World, workers: int | None) -> tuple[int, float]:
    """Predict this process's takes; returns the number of their pairs, and the seconds that they took."""
    begin, todo = time.perf_counter(), run.todo(world.rank, world.size)
    for take in todo:
        if not run.counts[take]:
            run.write_part(take)
    frames = Frames(run.pairs, run.rows_of(todo), recipe.prepare)
    if workers is None:  # a CPU's cores are busy with the network already
        workers = min(8, default_workers()) if recipe.device.type == "cuda" else 1
    loader = DataLoader(frames, batch_size=None, **loader_options(min(workers, len(frames))))
    pairs = int(run.counts[todo].sum())
    # With the delay, no bar appears before an early error.
    bar_options = {"desc": run.setting, "unit": "pair", "disable": None if world.is_main else True, "delay": 1}
    with loader_failures(), tqdm(total=pairs, **bar_options) as bar:
        for frame, answers in answered(recipe, loader):
            run.note(frame, answers)
            bar.update(len(frame.row) + len(frame.left_out))
    return pairs, time.perf_counter() - begin


def finish_run(run: ResumableRun, reports: list[tuple[int, float]]) -> int:
    """Write the results file and the run's record, and print a summary; returns the exit status."""
    pairs, seconds = sum(pairs for pairs, _ in reports), max(seconds for _, seconds in reports)
    left_out = run.join()
    print(f"{pairs} pairs in {seconds:.1f} s, {pairs / max(seconds, 1e-9):.2f} pairs/s on {len(reports)} process(es)")
    for uid, reason in run.failed.items():
        print(f"skipped take {uid}: {reason}", file=sys.stderr)
    for uid, reasons in left_out.items():
        what = f"{counted(sum(reasons.values()), 'pair')} left out for {counted(len(reasons), 'reason')}"
        print(f"take {uid}: {what} (all are in {run.record_path}): {next(iter(reasons))}", file=sys.stderr)
    missing = f", {counted(len(run.failed), 'take')} skipped" if run.failed else ""
    missing += f", {counted(sum(sum(x.values()) for x in left_out.values()), 'pair')} left out" if left_out else ""
    print(f"{counted(len(run.parts), 'take')} in {run.results_path}{missing}")
    return INCOMPLETE_STATUS if missing else 0


if __name__ == "__main__":
    run_script(main)
