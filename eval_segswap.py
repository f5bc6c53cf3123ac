"""Predict the object masks of a split: checkpoint + processed takes -> {setting}_{split}_results.json.

    python eval_segswap.py --setting ego-exo
    python eval_segswap.py --setting both         # both results files, with the pictures of a moment encoded once
    python eval_segswap.py --setting exo-ego --split test --ckpt_path exoego.pth --out results
    torchrun --nproc_per_node 8 eval_segswap.py --setting ego-exo        # eight GPUs, the same file
    python eval_segswap.py --setting ego-exo --backbone vit_small_patch16_dinov3.lvd1689m    # with nothing trained
    python eval_segswap.py --setting ego-exo --predictor my_method.py:Method    # your own, see docs/extending.md

If a run was stopped, give the same command again: it continues where it stopped.
"""

from common.start import start

start(__name__)

import contextlib
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from common.arguments import (
    BATCH_SIZE,
    NETWORK_OPTIONS,
    Parser,
    add_data_path,
    add_network_options,
    add_setting,
    at_least,
    network_files,
    network_options,
)
from common.constants import SETTINGS, SHIPPED
from common.distributed import World
from common.errors import UserError, counted, run_script, warn_once
from common.files import check_outputs
from common.parallel import default_workers, loader_failures, loader_options
from common.progress import progress
from formats.pairs import BOTH, Pairs, open_pairs
from formats.processed import ANNOTATION
from formats.results import RESULTS_DIR
from inference.own_method import OwnMethod
from inference.resumable_run import ResumableRun, entries_of
from model.device import use_device
from recipes.base import Recipe
from recipes.scene import Scenes, answered
from recipes.table import load_recipe

CHECKPOINTS = Path(__file__).resolve().parent / "train" / "checkpoints"
CHECKPOINT_DIRS = {  # and the scripts that train them
    "ego-exo": ("egoexo_v2_480x480", "run_ego.sh"),
    "exo-ego": ("egoexo_v2_480x480_reverse", "run_exo.sh"),
    BOTH: ("egoexo_v2_480x480_both", "run_both.sh"),
}
INCOMPLETE_STATUS = 3  # the results file is there, but takes or pairs are missing from it


def parse_args(argv: list[str] | None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_setting(parser, BOTH)
    own = "class that predicts in place of the network, and its arguments; see docs/extending.md"
    add("--predictor", nargs="+", metavar=("FILE.py:CLASS", "KEY=VALUE"), help=own)
    add_data_path(parser)
    add("--split", default="val", help="split to predict: train, val or test")
    add("--out", "--out_path", type=Path, default=RESULTS_DIR, help="folder for the results file")
    add("--save_inter", action="store_true", help="also write each take's <out>/<take_uid>/pred_annotations.json")
    add_network_options(parser, "checkpoint (default: netBest.pth of a training in train/checkpoints)")
    text = f"pairs computed at once; fewer need less memory, and may move an existence by 2e-7 (default: {BATCH_SIZE})"
    add("--batch_size", type=at_least(1), help=text)
    workers = "processes that read and letterbox; 0: only this process (default: 1 with a CPU, up to 8 with a GPU)"
    add("--num_workers", type=at_least(0), help=workers)
    add("--overwrite", action="store_true", help="replace a results file that another run has made")
    args = parser.parse_args(argv)
    if args.setting == BOTH and args.save_inter:
        parser.error("--save_inter gives both settings' files the same names; predict one --setting after the other")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    world = World()
    world.start()
    recipe, pairs, runs = prepare_runs(args, world)
    status, report = 0, ""
    with contextlib.ExitStack() as claims:
        for run in runs if world.is_main else []:
            claims.enter_context(run.claimed())
        former = [run.made_already() if world.is_main and not args.overwrite else None for run in runs]
        former = world.broadcast(former)
        todo = [run for run, made in zip(runs, former, strict=True) if not made]
        if todo:
            report = predict_part(todo, pairs, recipe, world, args)
        for run, made in zip(runs, former, strict=True) if world.is_main else []:
            if made:
                when = f"by commit {made['commit']}, {made['date']}"
                print(f"{run.results_path} is complete already ({when}); delete it to predict again")
                missing = 0
            else:
                missing = finish_run(run, report)
            if args.save_inter:
                run.write_take_files()
            if not missing:
                run.finished.forget()
            status, report = status or missing, ""
    return status


def prepare_runs(args: Namespace, world: World) -> tuple[Recipe, Pairs, list[ResumableRun]]:
    """The recipe that predicts, the pairs to predict, and for each setting the run that has its part of them.

    Raises UserError if a file is missing, or if options do not fit each other.
    """
    settings = [*SETTINGS] if args.setting == BOTH else [args.setting]
    method = choose_method(args, settings)
    pairs = None
    if world.is_main:
        pairs = open_pairs([args.data_path], args.split, args.setting, args.splits_path, write=False)
        if not pairs.store.takes:
            reason = next(iter(pairs.store.left_out.values()))
            raise UserError(f"no take of split {args.split!r} can be read: {reason}")
        print(f"{method.description}, on {world.size} x {method.recipe.device}")
    pairs = world.broadcast(pairs)
    if isinstance(method.recipe, OwnMethod):
        method.recipe.pairs = pairs
    runs = [ResumableRun(args.out, setting, args.split, method.options, pairs) for setting in settings]
    if world.is_main:
        written = [path for run in runs for path in (run.results_path, run.record_path, run.finished.all_works)]
        written += [run.take_file(uid) for run in runs for uid in pairs.store.takes if args.save_inter]
        annotations = [folder / ANNOTATION for folder in pairs.store.folders]
        check_outputs(written, [*method.files, args.splits_path, *annotations])
    return method.recipe, pairs, runs


class Method(NamedTuple):
    """What predicts, as the command names it: the network, or a method of the user's."""

    recipe: Recipe
    description: str
    files: Sequence[Path | None]  # that it is read from
    options: dict[str, Any]  # by name, all that decides the numbers besides the pairs


def choose_method(args: Namespace, settings: list[str]) -> Method:
    """What is to predict pairs of these settings. Raises UserError if a file is missing, or if options do not fit."""
    device = use_device(args.device)
    if args.predictor:
        for name in ("ckpt_path", *NETWORK_OPTIONS):
            if getattr(args, name):
                raise UserError(f"--{name} is for the network; a method of your own takes KEY=VALUE behind --predictor")
        own = OwnMethod(*args.predictor, device=device)
        return Method(own, own.description, own.files, own.options)
    source = args.ckpt_path or (None if args.backbone else default_checkpoint(args.setting, args.recipe))
    recipe = load_recipe(source, device, **network_options(args))
    options = {"checkpoint": source.name if source else args.backbone, "checkpoint_sha256": recipe.digest}
    description = f"{source.parent}/{recipe.description}" if source else recipe.description  # whose netBest.pth it is
    others = [x for x in settings if recipe.settings and x not in recipe.settings]
    if others:
        warn_once(f"{source} was trained for {' and '.join(recipe.settings)}, not for {' and '.join(others)}")
    return Method(recipe, description, [source, *network_files(args)], options | recipe.options)


def default_checkpoint(setting: str, recipe: str | None = None) -> Path:
    """netBest.pth, or else netLast.pth, of a training for this setting, or else of a training for both settings."""
    (folder, script), (of_both, _) = CHECKPOINT_DIRS[setting], CHECKPOINT_DIRS[BOTH]
    paths = [CHECKPOINTS / x / name for x in (folder, of_both) for name in ("netBest.pth", "netLast.pth")]
    checkpoint = next((path for path in paths if path.exists()), None)
    if checkpoint:
        return checkpoint
    what = f"no checkpoint {paths[0]}; train one with `bash train/{script}` or give --ckpt_path"
    ours = "" if recipe else f", such as {SHIPPED}, the network of this repository"
    raise UserError(what + ours)


def predict_part(runs: list[ResumableRun], pairs: Pairs, recipe: Recipe, world: World, args: Namespace) -> str:
    """Predict this process's takes; returns lines on all processes, which end together."""
    begin = time.perf_counter()
    largest_first = np.argsort(-sum(run.counts for run in runs), kind="stable").tolist()
    # A take that one of two runs lacks is predicted for both, so that after a stop the same is encoded together.
    takes = [take for take in world.share(largest_first) if not all(run.parts[take].exists() for run in runs)]
    run_of = {row: run for run in runs for row in run.begin(takes)}
    todo = sum(world.gather(len(run_of)))
    kept = sum(int(run.counts.sum()) for run in runs) - todo
    if kept and world.is_main:
        print(f"{counted(kept, 'pair')} kept of a run that was stopped, {todo:,} to predict")
    groups = moments_of(pairs, np.array([*run_of], int), takes)
    scenes, workers = Scenes(pairs, groups, recipe.prepare), args.num_workers
    if workers is None:  # a CPU's cores are busy with the network already
        workers = min(8, default_workers()) if recipe.device.type == "cuda" else 1
    loader = DataLoader(scenes, batch_size=None, **loader_options(min(workers, len(scenes))))
    with loader_failures(), progress(None, args.setting, len(run_of), "pair", disable=not world.is_main) as bar:
        for scene, answers in answered(recipe, loader):
            entries = entries_of(scene, answers)
            for row, entry in entries.items():
                run_of[row].note(row, entry)
            bar.update(len(entries))
    of_process = len(run_of), time.perf_counter() - begin, Counter(recipe.tally)
    counts, times, tallies = zip(*world.gather(of_process), strict=True)
    rate = sum(counts) / max(*times, 1e-9)
    speed = f"{sum(counts)} pairs in {max(times):.1f} s, {rate:.2f} pairs/s on {world.size} process(es)\n"
    return recipe.remark(sum(tallies, Counter())) + speed


def moments_of(pairs: Pairs, rows: np.ndarray, takes: list[int]) -> list[np.ndarray]:
    """Rows of pairs of these takes, in groups of one moment: take after take, and the frames of a take ascend."""
    place = np.zeros(len(pairs.store.takes), int)
    place[takes] = range(len(takes))
    rows = rows[np.lexsort((pairs.frame[rows], place[pairs.take[rows]]))]
    return [rows[group] for group in pairs[rows].groups("take", "frame")]


def finish_run(run: ResumableRun, report: str) -> int:
    """Write the results file and the run's record, and print the report and a summary; returns the exit status."""
    left_out = run.join()
    print(report, end="")
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
