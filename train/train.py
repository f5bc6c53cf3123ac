"""Train XSegTx.

    cd train && bash run_ego.sh                # ego-exo, the paper's recipe
    cd train && bash run_exo.sh --n-epoch 1    # exo-ego; further arguments reach this script
    cd train && bash run_both.sh               # one network for both settings
    cd train && bash run_ego.sh --gpu 0,1      # two processes, by torchrun

Writes net_warmup.pth, netLast.pth, netBest.pth (with the best validation IoU), the checkpoints of every --save_every-th
epoch, log.jsonl and tensorboard/ to --out-dir. If a run was stopped, give the same command again: it continues.
"""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import UserError, counted, run_script, say_errors

say_errors(__name__)
tune_cpu(__name__)

import numpy as np
import torch
from torch.utils.data import DataLoader

from common.distributed import Stopped, World
from common.files import claimed, remove_leftovers
from common.parallel import loader_failures, loader_options, local_ranks
from common.provenance import provenance
from formats.pairs import Pairs, open_pairs
from model.device import memory_errors, resolve_device, tf32
from model.weights import as_read
from recipes.base import NetworkRecipe, Search
from recipes.samples import Batch
from recipes.stream import TrainSamples, sample_numbers_by_step
from recipes.table import RECIPES
from train.engine import Step, train_epochs
from train.log import LOG_NAME, Log, cut_log
from train.options import Options, parse
from train.schedule import LR_DROP
from train.searches import search_pairs
from train.start import Start, choose_start, starting_state
from train.state import BEST, LAST, TRAINED, TrainState, remove_run
from train.validation import Validation


def main(argv: list[str] | None = None) -> int | None:
    threading.excepthook = lambda _: None  # an error of TensorBoard's thread is raised by its next call
    typed = parse(argv, __doc__)
    world = World()
    device = device_of(typed, world)
    out_dir = typed["out_dir"]
    world.start(device)  # before the folder is claimed: a rank that meets no other ranks would keep the claim
    with claimed(out_dir, "training", f"trains into {out_dir}") if world.is_main else contextlib.nullcontext():
        options, start = world.broadcast(choose_start(typed, device) if world.is_main else None)
        memory = memory_errors("use more GPUs, or --resume-pth auto with a smaller --batch-pos or --precision bf16")
        with loader_failures(), memory, tf32(options.precision == "tf32"):
            return train(options, start, world, device)


def device_of(typed: dict[str, Any], world: World) -> torch.device:
    """The device of this process: its GPU of --gpu, or else --device."""
    name, gpus = typed.get("device", Options.device), typed.get("gpu")
    if gpus:
        numbers = gpus.split(",")
        if len(numbers) != local_ranks():
            what = f"--gpu {gpus} names {len(numbers)} GPUs for {local_ranks()} processes"
            command = f"torchrun --nproc_per_node {len(numbers)} train/train.py --gpu {gpus}"
            raise UserError(f"{what}; give each one: {command}")
        name = f"cuda:{numbers[world.local_rank]}"
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def train(options: Options, start: Start, world: World, device: torch.device) -> int | None:
    """Train on one of the processes. Returns the exit status of a run that a signal stopped."""
    if options.batch_pos % world.size:
        raise UserError(f"--batch-pos {options.batch_pos} cannot be split evenly over {world.size} processes")
    if world.is_main:
        print("reading the pairs ...", flush=True)
    pairs, val_pairs = (open_pairs(options.train_dir, split, options.setting) for split in ("train", "val"))
    if not val_pairs.visible.any():
        raise UserError("no validation pair shows its object in the target, so no epoch is best; add masks of targets")
    digests = {"training": pairs.digest, "validation": f"{val_pairs.digest} {options.val_size}"}
    if world.is_main:
        print("loading the network ...", flush=True)
    state, notes = starting_state(options, start, device, world.broadcast(digests))
    if world.is_main:
        remove_leftovers(options.out_dir)
        if options.overwrite:
            remove_run(options.out_dir)
        cut_log(options.out_dir / LOG_NAME, state.step if start.is_own else 0, state.is_validated)
    state.origin = {**provenance(), "arguments": options.stored}
    state.folder = options.out_dir if world.is_main else None
    log = Log(options.out_dir, state.step, world, options.log_every)
    print_introduction(options, log, state, notes, pairs, val_pairs)

    world.catch_signals()  # before PyTorch starts loader processes, which Ctrl-C must not interrupt
    parts = state.network, state.backbone, device, options.precision
    loading = loader_options(options.num_workers, device.type == "cuda")
    recipe = RECIPES[options.recipe](*parts, training=options.training, loading=loading)
    samples = TrainSamples(pairs, recipe.read, options.seed)

    def search(function: Callable[..., list], share: float | None) -> list:  # other pairs in each mining and the fit
        return search_pairs(recipe, pairs, (options.seed, state.step), world, function, share)

    def load_batches(mines: bool) -> Iterator[Batch]:  # anew after each mining, of which loaders have a copy
        if mines:
            log.say("mining rivals in the training pairs ...")
            state.mined = {"step": state.step, **recipe.mine(search)}
            log.say(f"mined {state.mined['searched']:,} of {len(pairs):,} pairs")
            state.save(LAST)
        if state.mined:
            recipe.use_mined(state.mined, pairs)
        steps = range(state.step, state.schedule.total_steps)
        numbers = sample_numbers_by_step(steps, options.batch_pos, world.rank, world.size)
        return iter(DataLoader(samples, batch_sampler=numbers, collate_fn=recipe.collate, **loading))  # pyrefly: ignore

    validation = Validation(val_pairs, options.val_size, recipe, log)
    step = world.data_parallel(Step(recipe, world, options.existence_weight))
    try:
        train_epochs(options, state, step, load_batches, validation, log)
        finish(options, state, recipe, pairs, log, search)
        if state.best:
            state.save(BEST)
    except Stopped:
        if state.next_epoch <= state.schedule.epochs:  # afterwards, the network can be the best one
            state.save(LAST)
        log.count_unreadable()
        reason = world.signal.name if world.signal else "another process"
        again = " without --overwrite" if options.overwrite else ""
        log.say(f"stopped by {reason} at step {state.step}; the same command{again} continues")
        return 128 + (signal.SIGINT if world.signal == signal.SIGINT else signal.SIGTERM)  # as shells report signals
    finally:
        log.close()
    log.count_unreadable()
    print_best_iou(options, log, state)
    return None


def finish(options: Options, state: TrainState, recipe: NetworkRecipe, pairs: Pairs, log: Log, search: Search) -> None:
    """Let the recipe finish the best network and the last one, which may be the same, unless this has been done."""
    done = {"step": state.step, "pairs": pairs.digest, **asdict(options.training)}
    if state.finished == done:
        return
    networks = {LAST: state.network.state_dict()}
    if state.best.get("step", state.step) != state.step:
        networks[BEST] = state.best.get(TRAINED, state.best["encoder"])
    results: dict[str, dict[str, Any]] = {}
    for name, trained in as_read(networks).items():
        state.network.load_state_dict(trained)
        if not (text := recipe.finish(search, options.seed)):  # this recipe has no such step
            return
        log.say(f"{name}: {text}")
        results[name] = {"encoder": as_read(state.network.state_dict()), TRAINED: trained}
    if state.best:
        state.best = as_read(state.best | results.get(BEST, results[LAST]))
    state.save(LAST, **results[LAST], finished=done)


def print_introduction(
    options: Options, log: Log, state: TrainState, notes: list[str], pairs: Pairs, val_pairs: Pairs
) -> None:
    """Print and log the data, the network and the recipe of a run."""
    schedule, arguments = options.schedule, state.origin["arguments"]
    names = [name for name in ("existence_weight", *asdict(options.training)) if arguments[name] is not None]
    takes = counted(len(np.unique(pairs.take)), "take")
    facts = {
        "setting": options.setting,
        "data": arguments["train_dir"],
        "train_pairs": f"{len(pairs)} of {takes}, {(~pairs.visible).sum()} of them negatives",
        "val_pairs": f"{min(options.val_size, len(val_pairs)) or len(val_pairs)} of {len(val_pairs)}",
        "start": notes[0],
        "recipe": ", ".join([options.recipe, *(f"{name} {arguments[name]}" for name in names)]),
        "steps": f"{schedule.total_steps} of {options.batch_pos} samples",
        "warm-up": counted(schedule.warmup, "step"),
        "rate": f"{schedule.lr:g}"
        + f", times {LR_DROP} after epoch {list(schedule.milestones)}" * bool(schedule.milestones)
        + f", falling after epoch {schedule.falls}" * (schedule.falls is not None),
        "device": f"{log.world.size} x {state.device}, {options.precision}",
        "out_dir": str(options.out_dir),
        **{name: state.origin[name] for name in ("commit", "command")},
    }
    for name, value in facts.items():
        log.say(f"{name.replace('_', ' ')}: {value}")
    for note in notes[1:]:
        log.say(note)
    if left_out := pairs.store.left_out | val_pairs.store.left_out:
        count, (uid, reason) = counted(len(left_out), "take"), next(iter(left_out.items()))
        log.say(f"warning: {count} left out, which data/check_processed.py names; the first is {uid}: {reason}")
    if late := [epoch for epoch in getattr(options.training, "mine_epochs", ()) if epoch >= options.n_epoch]:
        log.say(f"warning: nothing is mined after epochs {late}, since --n-epoch is {options.n_epoch}")
    log.write("start", state.step, **facts, arguments=arguments)


def print_best_iou(options: Options, log: Log, state: TrainState) -> None:
    """Print the validation IoU that the finished run has reached."""
    history = state.history
    if "best_iou" not in history:
        return
    best = f"best {history['best_iou']:.4f} (epoch {history['best_epoch']}), kept in {options.out_dir / BEST}"
    log.say(f"validation IoU: start {history['start_iou']:.4f}, last {history['last_iou']:.4f}, {best}")
    trained = options.init_weights or options.resume_pth
    if trained and history["start_iou"] > history["best_iou"]:
        log.say(f"warning: no epoch is as good as the start: use {trained} instead, or try a lower --lr")


if __name__ == "__main__":
    run_script(main)
