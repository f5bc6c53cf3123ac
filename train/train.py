"""Train XSegTx.

    cd train && bash run_ego.sh                # ego-exo, the paper's recipe
    cd train && bash run_exo.sh --n-epoch 1    # exo-ego; further arguments reach this script
    cd train && bash run_both.sh               # one network for both settings
    cd train && bash run_ego.sh --gpu 0,1      # two processes, by torchrun

Writes netLast.pth, netBest.pth (with the best validation IoU), the checkpoints of every --save_every-th epoch,
log.jsonl and tensorboard/ to --out-dir. If a run was stopped, give the same command again: it continues.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.start import start

start(__name__)

import contextlib
import signal
import threading
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from common.distributed import Stopped, World
from common.errors import UserError, run_script
from common.files import claimed, remove_leftovers
from common.parallel import loader_failures, loader_options, local_ranks
from common.provenance import provenance
from formats.pairs import Pairs, open_pairs
from model.device import memory_errors, tf32, use_device
from model.weights import as_read
from recipes.table import RECIPES, recipe_of, training_of
from train.engine import Run, Validation, train_epochs
from train.introduction import introduce
from train.log import LOG_NAME, Log, cut_log
from train.options import Options, parse
from train.start import Start, choose_start, starting_state
from train.state import BEST, LAST, TrainState, with_fit


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
    return use_device(name)


def train(options: Options, start: Start, world: World, device: torch.device) -> int | None:
    """Train on one of the processes. Returns the exit status of a run that a signal stopped."""
    run = prepare(options, start, world, device)
    world.catch_signals()  # before PyTorch starts loader processes, which Ctrl-C must not interrupt
    try:
        train_epochs(run)
        finish(run)
        run.state.save_best()
        run.state.forget_searches()  # a killed process may have left some
    except Stopped:
        return stopped(run)
    finally:
        run.log.close()
    run.log.count_unreadable()
    print_best_iou(options, run.log, run.state)
    return None


def prepare(options: Options, start: Start, world: World, device: torch.device) -> Run:
    """Open the pairs, load the network, and begin or continue the log."""
    if options.batch_pos % world.size:
        raise UserError(f"--batch-pos {options.batch_pos} cannot be split evenly over {world.size} processes")
    if world.is_main:
        print("loading the network ...", flush=True)
    state, notes = starting_state(options, start, device)
    if world.is_main:
        print("reading the pairs ...", flush=True)
    # One process lists what is not listed yet; on machines without a shared folder, others might list other pairs.
    pairs, val_pairs = world.broadcast(open_both(options) if world.is_main else None)
    if not val_pairs.visible.any():
        raise UserError("no validation pair shows its object in the target, so no epoch is best; add target masks")
    digests = {"training": pairs.digest, "validation": f"{val_pairs.digest} {options.val_size}"}
    notes += state.set_pairs(world.broadcast(digests))
    state.origin = {**provenance(), "arguments": options.stored}
    own = RECIPES[options.recipe].own
    world.compares = own is not None
    if own:
        state.origin["recipe_sha256"] = own.digest
    if world.is_main:
        state.folder = options.out_dir
        remove_leftovers(options.out_dir)
        cut_log(options.out_dir / LOG_NAME, state.step if start.is_own else 0, state.is_validated)
    log = Log(options.out_dir, state.step, world, options.log_every)
    loading = loader_options(options.num_workers, device.type == "cuda")
    recipe = recipe_of(options.recipe)(state.network, state.backbone, device, options.precision)
    training = training_of(options.recipe)(recipe, options.training)
    validation = Validation(val_pairs, options.val_size, recipe, log, loading)
    run = Run(options, world, state, training, pairs, validation, log, loading)
    if world.is_main:
        introduce(run, notes)
    return run


def open_both(options: Options) -> list[Pairs]:
    """The pairs of train and of val. Raises UserError if a data set has none of one of them."""
    of_splits = {split: open_pairs(options.train_dir, split, options.setting) for split in ("train", "val")}
    for split, pairs in of_splits.items():
        pairs.check_sets(options.train_dir, split)
    return [*of_splits.values()]


def finish(run: Run) -> None:
    """Let the recipe finish the last network, and the best one if it is another, unless this has been done."""
    state = run.state
    made_of = {"step": state.step, "pairs": run.pairs.digest, **asdict(run.options.training)}
    if state.fit_made_of == made_of:
        run.log.say("the fit was made or refused already, with these pairs and options")
        return
    text, of_last = run.training.fit_judges(partial(run.search, LAST), run.options.seed)
    if not text:  # this recipe has no such step
        return
    run.log.say(f"{LAST}: {text}")
    of_best = of_last
    if state.best.get("step", state.step) != state.step:
        with state.holding(state.best["trains"]):
            text, of_best = run.training.fit_judges(partial(run.search, BEST), run.options.seed)
        run.log.say(f"{BEST}: {text}")
    if state.best:
        state.best = as_read(with_fit(state.best, made_of, of_best))
    state.save_last(with_fit(state.content(), made_of, of_last))


def stopped(run: Run) -> int:
    """Save a run that a signal has stopped. Returns its exit status."""
    state, world = run.state, run.world
    if state.next_epoch <= state.schedule.epochs:  # afterwards, LAST is written already
        state.save_last()
    run.log.count_unreadable()
    reason = world.signal.name if world.signal else "another process"
    run.log.say(f"stopped by {reason} at step {state.step}; the same command continues")
    return 128 + (signal.SIGINT if world.signal == signal.SIGINT else signal.SIGTERM)  # as shells report signals


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
