"""Train XSegTx.

    cd train && bash run_ego.sh                # ego-exo, the paper's recipe
    cd train && bash run_exo.sh --n-epoch 1    # exo-ego; further arguments reach this script
    cd train && bash run_both.sh               # one network for both settings
    cd train && bash run_ego.sh --gpu 0,1      # two processes, by torchrun

Writes net_warmup.pth, netLast.pth, netBest.pth (by validation IoU) and every k-th epoch's checkpoint to --out-dir, with
log.jsonl and tensorboard/ beside them.
"""

import argparse
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

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from common.errors import UserError
from common.files import claimed, named_errors, remove_leftovers
from common.parallel import loader_failures, local_ranks
from common.provenance import provenance
from formats.pairs import BOTH, PairSet
from inference.matcher import Matcher, PaperMatcher
from inference.search import StrongMatcher
from model.device import PRECISIONS, memory_errors, resolve_device, resolve_precision, tf32
from model.features import Encoder
from train.crop_step import CropStep
from train.crops import CropReader
from train.dataset import Batch, Reader, TrainSamples, loader_options, step_batches
from train.distributed import Ranks, Stopped
from train.engine import Step, train_one_epoch
from train.feature_cache import FeatureCache
from train.flags import parse_args, plain_arguments
from train.letterboxed import LetterboxReader, LetterboxStep
from train.log import LOG_NAME, Log, cut_log
from train.losses import LossWeights
from train.schedule import LR_DROP, USUAL_WARMUP
from train.start import find_start, starting_state
from train.state import BEST, LAST, WARMUP, TrainState, remove_run
from train.validation import Validation


def main(argv: list[str] | None = None) -> int | None:
    args = parse_args(argv, __doc__)
    threading.excepthook = lambda _: None  # an error of TensorBoard's thread is raised by its next call
    gpus = args.gpu.split(",") if args.gpu else []
    ranks = Ranks()
    if gpus and len(gpus) != local_ranks():
        what = f"--gpu {args.gpu} names {len(gpus)} GPUs for {local_ranks()} processes"
        raise UserError(f"{what}; give each one: torchrun --nproc_per_node {len(gpus)} train/train.py --gpu {args.gpu}")
    if args.batch_pos % ranks.size:
        raise UserError(f"--batch-pos {args.batch_pos} cannot be split evenly over {ranks.size} processes")
    device = resolve_device(f"cuda:{gpus[ranks.local_rank]}" if gpus else args.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    args.precision = resolve_precision(args.precision, device)
    with contextlib.ExitStack() as stack:
        ranks.start(device)  # before the folder is claimed, which a rank that never meets the others would keep
        stack.callback(ranks.stop)
        if ranks.is_main:
            stack.enter_context(claimed(args.out_dir, "training", f"trains into {args.out_dir}"))
        ranks.meet()
        memory = memory_errors("give a smaller --batch-pos, more GPUs or --precision bf16; the same command continues")
        with loader_failures(), memory, named_errors(args.out_dir), tf32(args.precision == "tf32"):
            return train(args, ranks, device)


def train(args: argparse.Namespace, ranks: Ranks, device: torch.device) -> int | None:
    """From pairs to checkpoints, on one of the processes. Returns the exit status of a run that a signal stopped."""
    setting = BOTH if args.both else "exo-ego" if args.reverse else "ego-exo"
    pairs, val_pairs = (PairSet(args.train_dir, split, setting) for split in ("train", "val"))
    if not val_pairs.visible.any():
        raise UserError(
            "no validation pair shows its object in the target, so no epoch is best; add masks of the targets"
        )
    start = find_start(args)
    pair_digests = {"training": pairs.digest, "validation": f"{val_pairs.digest} {args.val_size}"}
    state, notes = starting_state(args, start, device, pair_digests)
    if ranks.is_main:
        remove_leftovers(args.out_dir)
        if args.overwrite:
            remove_run(args.out_dir, keep=start or args.init_weights)
        cut_log(args.out_dir / LOG_NAME, state.step, state.is_validated)
    state.origin = {**provenance(), "arguments": plain_arguments(args), "pairs": pair_digests}
    state.folder = args.out_dir if ranks.is_main else None
    log = Log(args.out_dir, state.step, ranks, args.log_every)
    introduce(args, log, state, notes, pairs, val_pairs)

    if args.cache_features and args.recipe == "paper" and args.num_workers is None:
        args.num_workers = 0  # once all features are cached, nothing is read
    ranks.catch_signals()  # before PyTorch starts a loader, which Ctrl-C must not interrupt
    step, reader, matcher = make_step(args, state, ranks)
    loading = loader_options(args.num_workers, device.type == "cuda")
    samples = TrainSamples(pairs, reader, args.seed, args.block)
    numbers = step_batches(range(state.step, state.schedule.total_steps), args.batch_pos, ranks.rank, ranks.size)
    batches = iter(DataLoader(samples, batch_sampler=numbers, collate_fn=reader.collate, **loading))
    validation = Validation(val_pairs, args.val_size, matcher, log, loading)
    if ranks.size > 1:  # the position table is the same everywhere, and every step has the same graph
        known = inspect.signature(DistributedDataParallel).parameters
        sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its older name
        step = DistributedDataParallel(step, **{sync: False}, gradient_as_bucket_view=True, static_graph=True)
    try:
        train_epochs(state, step, batches, validation, log, args.save_every)
    except Stopped:
        state.save(LAST)
        log.count_unreadable()
        reason = ranks.signal.name if ranks.signal else "another process"
        again = " without --overwrite" if args.overwrite else ""
        log.say(f"stopped by {reason} at step {state.step}; the same command{again} continues")
        return 128 + (signal.SIGINT if ranks.signal == signal.SIGINT else signal.SIGTERM)  # as a shell reports them
    finally:
        log.close()
    log.count_unreadable()
    conclude(args, log, state.history)
    return None


def train_epochs(
    state: TrainState, step: Step, batches: Iterator[Batch], validation: Validation, log: Log, save_every: int
) -> None:
    """Train and validate from where `state` is to the last epoch; epoch 0 is the warm-up."""
    schedule, history = state.schedule, state.history
    if "start_iou" not in history:
        history["start_iou"] = validation.run(state.step, "start")
    for epoch in range(state.next_epoch, schedule.epochs + 1):
        train_one_epoch(state, step, batches, log, epoch)
        if epoch == 0:
            if schedule.warmup:
                state.save(WARMUP, LAST)
            continue
        state.save(LAST)  # validation may take longer than a preempted job may run on
        is_best = state.note_validation(epoch, validation.run(state.step, schedule.epoch_name(epoch)))
        names = [f"net{epoch:03d}.pth"] if save_every and epoch % save_every == 0 else []
        state.save(*names, *([BEST] if is_best else []), LAST)


def make_step(args: argparse.Namespace, state: TrainState, ranks: Ranks) -> tuple[Step, Reader, Matcher]:
    """A recipe: the step that makes losses of a batch, the reader of samples, and the matcher that is validated."""
    network, encoder = state.network, Encoder(state.backbone, state.device, PRECISIONS[args.precision])
    cache = FeatureCache(int(args.cache_features * 1e9))
    parts = network, encoder, cache, LossWeights(args.existence_weight), ranks, args.precision
    if args.recipe == "strong":
        reader, matcher = CropReader(network.config, cache), StrongMatcher(encoder, network, args.precision)
        return CropStep(*parts), reader, matcher
    matcher = PaperMatcher(encoder, network, args.precision, args.batch_pos)
    return LetterboxStep(*parts), LetterboxReader(args.input_size, cache), matcher


def introduce(args, log: Log, state: TrainState, notes: list[str], pairs: PairSet, val_pairs: PairSet) -> None:
    """Print and log the data, the network and the recipe of a run."""
    is_short = args.warmUpIter < USUAL_WARMUP and "warmUpIter" not in args.explicit
    warmup = f"{args.warmUpIter} steps of warm-up" + is_short * " (few, as the run is short: --warmUpIter sets them)"
    block = f", block {args.block}" if args.recipe == "paper" else ""
    facts = {
        "setting": pairs.setting,
        "data": state.origin["arguments"]["train_dir"],
        "train_pairs": f"{len(pairs)} of {len(pairs.data_dir_of)} takes, {(~pairs.visible).sum()} of them negatives",
        "val_pairs": f"{min(args.val_size, len(val_pairs)) or len(val_pairs)} of {len(val_pairs)}",
        "start": notes[0],
        "recipe": f"{args.recipe}, existence_weight {args.existence_weight}" + block,
        "steps": f"{state.schedule.total_steps} of {args.batch_pos} samples",
        "rate": f"{args.lr:g} after {warmup}, times {LR_DROP} after epoch {args.lr_schedule}",
        "device": f"{log.ranks.size} x {state.device}, {args.precision}",
        "out_dir": str(args.out_dir),
        **{name: state.origin[name] for name in ("commit", "command")},
    }
    for name, value in facts.items():
        log.say(f"{name.replace('_', ' ')}: {value}")
    for note in notes[1:]:
        log.say(note)
    if args.unused:
        log.say(f"unused, as in the published trainer: {' '.join(args.unused)}")
    log.write("start", state.step, **facts, arguments=state.origin["arguments"])


def conclude(args: argparse.Namespace, log: Log, history: dict[str, Any]) -> None:
    """Print what the finished run has reached."""
    if "best_iou" not in history:
        return
    best = f"best {history['best_iou']:.4f} (epoch {history['best_epoch']}), kept in {args.out_dir / BEST}"
    log.say(f"validation IoU: start {history['start_iou']:.4f}, last {history['last_iou']:.4f}, {best}")
    trained = args.init_weights or args.resume_pth
    if trained not in (None, "auto") and history["start_iou"] > history["best_iou"]:
        log.say(f"warning: no epoch is as good as the start: use {trained} further, or try a lower --lr")


if __name__ == "__main__":
    run_script(main)
