"""Train XSegTx.

    cd train && bash run_ego.sh                # ego-exo, the paper's recipe
    cd train && bash run_exo.sh --n-epoch 1    # exo-ego; further arguments reach this script
    cd train && bash run_both.sh               # one network for both settings
    cd train && bash run_ego.sh --gpu 0,1      # two processes, by torchrun

Writes net_warmup.pth, netLast.pth, netBest.pth (with the best validation IoU), the checkpoints of every --save_every-th
epoch, log.jsonl and tensorboard/ to --out-dir. If a run was stopped, give the same command again: it continues.
"""

import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

from common.cpu import tune_cpu
from common.errors import run_script, say_errors

say_errors(__name__)
tune_cpu(__name__)

from train.flags import Asked, parse

if __name__ == "__main__":
    parse(None, __doc__)  # --help and wrong options need not wait for the imports below

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from common.distributed import Stopped, World
from common.errors import UserError, counted
from common.files import claimed, named_errors, remove_leftovers
from common.parallel import loader_failures, loader_options, local_ranks
from common.provenance import provenance
from formats.pairs import PairSet
from inference.matcher import Matcher, PaperMatcher
from inference.search import StrongMatcher
from model.device import PRECISIONS, memory_errors, resolve_device, tf32
from model.features import Encoder
from train.crop_step import CropStep
from train.crops import CropReader
from train.dataset import Batch, Reader, TrainSamples, step_batches
from train.engine import Step, train_one_epoch
from train.feature_cache import FeatureCache
from train.letterboxed import LetterboxReader, LetterboxStep
from train.log import LOG_NAME, Log, cut_log
from train.losses import loss_weights
from train.run import Run, resolve
from train.schedule import LR_DROP
from train.start import starting_state
from train.state import BEST, LAST, WARMUP, TrainState, remove_run
from train.validation import Validation


def main(argv: list[str] | None = None) -> int | None:
    threading.excepthook = lambda _: None  # an error of TensorBoard's thread is raised by its next call
    asked = parse(argv, __doc__)
    world = World()
    device = device_of(asked, world)
    out_dir = asked.options["out_dir"]
    with contextlib.ExitStack() as stack:
        world.start(device)  # before the folder is claimed: a rank that meets no other ranks would keep the claim
        stack.callback(world.stop)
        if world.is_main:
            stack.enter_context(claimed(out_dir, "training", f"trains into {out_dir}"))
        world.meet()
        run = resolve(asked, device)
        memory = memory_errors("give a smaller --batch-pos, more GPUs or --precision bf16; the same command continues")
        with loader_failures(), memory, named_errors(out_dir), tf32(run.precision == "tf32"):
            return train(run, world, device)


def device_of(asked: Asked, world: World) -> torch.device:
    """The device of this process: its GPU of --gpu, or else --device."""
    name, gpus = asked.options["device"], asked.typed.get("gpu")
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


def train(run: Run, world: World, device: torch.device) -> int | None:
    """Train on one of the processes. Returns the exit status of a run that a signal stopped."""
    if run.batch_pos % world.size:
        raise UserError(f"--batch-pos {run.batch_pos} cannot be split evenly over {world.size} processes")
    pairs, val_pairs = (PairSet(run.train_dir, split, run.setting) for split in ("train", "val"))
    if not val_pairs.visible.any():
        raise UserError(
            "no validation pair shows its object in the target, so no epoch is best; add masks of the targets"
        )
    digests = {"training": pairs.digest, "validation": f"{val_pairs.digest} {run.val_size}"}
    state, notes = starting_state(run, device, digests)
    if world.is_main:
        remove_leftovers(run.out_dir)
        if run.overwrite:
            remove_run(run.out_dir, keep=run.start or run.init_weights)
        cut_log(run.out_dir / LOG_NAME, state.step, state.is_validated)
    state.origin = {**provenance(), "arguments": run.arguments}
    state.folder = run.out_dir if world.is_main else None
    log = Log(run.out_dir, state.step, world, run.log_every)
    introduce(run, log, state, notes, pairs, val_pairs)

    world.catch_signals()  # before PyTorch starts loader processes, which Ctrl-C must not interrupt
    step, reader, matcher = make_step(run, state, world)
    loading = loader_options(run.num_workers, device.type == "cuda")
    samples = TrainSamples(pairs, reader, run.seed, run.block)
    numbers = step_batches(range(state.step, state.schedule.total_steps), run.batch_pos, world.rank, world.size)
    batches = iter(DataLoader(samples, batch_sampler=numbers, collate_fn=reader.collate, **loading))
    validation = Validation(val_pairs, run.val_size, matcher, log, loading)
    if world.size > 1:  # no buffers to sync: the position table is the same everywhere; the graph is always the same
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # the older name
        step = DistributedDataParallel(step, **{sync: False}, gradient_as_bucket_view=True, static_graph=True)
    try:
        train_epochs(state, step, batches, validation, log, run.save_every)
    except Stopped:
        state.save(LAST)
        log.count_unreadable()
        reason = world.signal.name if world.signal else "another process"
        again = " without --overwrite" if run.overwrite else ""
        log.say(f"stopped by {reason} at step {state.step}; the same command{again} continues")
        return 128 + (signal.SIGINT if world.signal == signal.SIGINT else signal.SIGTERM)  # as shells report signals
    finally:
        log.close()
    log.count_unreadable()
    conclude(run, log, state.history)
    return None


def train_epochs(
    state: TrainState, step: Step, batches: Iterator[Batch], validation: Validation, log: Log, save_every: int
) -> None:
    """Train and validate from the step of `state` to the last epoch; epoch 0 is the warm-up."""
    schedule, history = state.schedule, state.history
    if "start_iou" not in history:
        history["start_iou"] = validation.run(state.step, "start")
    for epoch in range(state.next_epoch, schedule.epochs + 1):
        train_one_epoch(state, step, batches, log, epoch)
        if epoch == 0:
            if schedule.warmup:
                state.save(WARMUP, LAST)
            continue
        state.save(LAST)  # before validation, which may take longer than the time that a preempted job still has
        is_best = state.note_validation(epoch, validation.run(state.step, schedule.epoch_name(epoch)))
        names = [f"net{epoch:03d}.pth"] if save_every and epoch % save_every == 0 else []
        state.save(*names, *([BEST] if is_best else []), LAST)


def make_step(run: Run, state: TrainState, world: World) -> tuple[Step, Reader, Matcher]:
    """The parts of a recipe: the training step, the reader of samples, and the matcher for validation."""
    network, encoder = state.network, Encoder(state.backbone, state.device, PRECISIONS[run.precision])
    cache = FeatureCache(int(run.cache_features * 1e9))
    parts = network, encoder, cache, loss_weights(run.existence_weight), world, run.precision
    if run.recipe == "strong":
        reader, matcher = CropReader(network.config, cache), StrongMatcher(encoder, network, run.precision)
        return CropStep(*parts), reader, matcher
    matcher = PaperMatcher(encoder, network, run.precision, run.batch_pos)
    return LetterboxStep(*parts), LetterboxReader(run.config.input_size, cache), matcher


def introduce(run: Run, log: Log, state: TrainState, notes: list[str], pairs: PairSet, val_pairs: PairSet) -> None:
    """Print and log the data, the network and the recipe of a run."""
    schedule = run.schedule
    block = f", block {run.block}" if run.recipe == "paper" else ""
    takes = counted(len(pairs.data_dir_of), "take")
    facts = {
        "setting": pairs.setting,
        "data": run.arguments["train_dir"],
        "train_pairs": f"{len(pairs)} of {takes}, {(~pairs.visible).sum()} of them negatives",
        "val_pairs": f"{min(run.val_size, len(val_pairs)) or len(val_pairs)} of {len(val_pairs)}",
        "start": notes[0],
        "recipe": f"{run.recipe}, existence_weight {run.existence_weight}" + block,
        "steps": f"{schedule.total_steps} of {run.batch_pos} samples",
        "warm-up": counted(schedule.warmup, "step"),
        "rate": f"{schedule.lr:g}, times {LR_DROP} after epoch {list(schedule.milestones)}",
        "device": f"{log.world.size} x {state.device}, {run.precision}",
        "out_dir": str(run.out_dir),
        **{name: state.origin[name] for name in ("commit", "command")},
    }
    for name, value in facts.items():
        log.say(f"{name.replace('_', ' ')}: {value}")
    for note in notes[1:]:
        log.say(note)
    log.write("start", state.step, **facts, arguments=run.arguments)


def conclude(run: Run, log: Log, history: dict[str, Any]) -> None:
    """Print the validation IoU that the finished run has reached."""
    if "best_iou" not in history:
        return
    best = f"best {history['best_iou']:.4f} (epoch {history['best_epoch']}), kept in {run.out_dir / BEST}"
    log.say(f"validation IoU: start {history['start_iou']:.4f}, last {history['last_iou']:.4f}, {best}")
    trained = run.init_weights or run.resume_pth
    if trained and history["start_iou"] > history["best_iou"]:
        log.say(f"warning: no epoch is as good as the start: use {trained} further, or try a lower --lr")


if __name__ == "__main__":
    run_script(main)
