"""Train XSegTx.

    cd train && bash run_ego.sh                # ego-exo, the paper's recipe
    cd train && bash run_exo.sh --n-epoch 1    # exo-ego; extra arguments reach this script

Writes net_warmup.pth, netLast.pth, netBest.pth (by validation IoU) and every k-th epoch's checkpoint to --out-dir, with
log.jsonl and tensorboard/ beside them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # repository root

import torch
from torch.nn.parallel import DistributedDataParallel

from data.errors import UserError, run_script
from data.pairs import PairSet
from model.device import resolve_device
from train.dataset import StepSampler, TrainSamples, ValidationSamples, make_loader
from train.engine import Run, evaluate, train_one_epoch
from train.features import FeatureExtractor
from train.keeper import WARMUP, Keeper
from train.options import parse_options
from train.progress import Log, Progress
from train.ranks import Ranks
from train.schedule import Schedule
from train.start import LAST, Start, make_optimiser, provenance, starting_point
from train.stopping import Stopped, StopSignal

STOPPED_STATUS = 143  # what a shell reports of a process that SIGTERM ended


def main() -> int | None:
    options = parse_options()
    ranks = Ranks()
    device = choose_device(options, ranks)
    ranks.start(device)
    try:
        return train(options, ranks, device)
    finally:
        ranks.stop()


def train(options: argparse.Namespace, ranks: Ranks, device: torch.device) -> int | None:
    setting = "exo-ego" if options.reverse else "ego-exo"
    pairs, val_pairs = (PairSet.open(options.train_dir, split, setting) for split in ("train", "val"))
    start = starting_point(options, pairs)
    run = make_run(options, ranks, device, start)
    log, about = run.progress.log, provenance(options)
    introduce(log, options, start, run, about, setting, pairs, val_pairs)

    samples = TrainSamples(pairs, options.input_size, options.seed, run.features.known)
    steps = StepSampler(range(run.step, run.schedule.total_steps), options.batch_pos, ranks.rank, ranks.size)
    batches = iter(make_loader(samples, steps, options.num_workers, pin=device.type == "cuda"))
    val_samples = ValidationSamples(val_pairs, options.val_size, options.input_size, run.features.known)
    share = range(ranks.rank, len(val_samples), ranks.size)
    val_steps = [share[i : i + options.batch_pos] for i in range(0, len(share), options.batch_pos)]
    val_loader = make_loader(val_samples, val_steps, options.num_workers, pin=device.type == "cuda")

    keeper = Keeper(options, start, run, log, about)
    try:
        if "untrained_iou" not in start.history:
            keeper.untrained(evaluate(run, start.model, val_loader))
        if run.step < run.schedule.warmup:
            train_one_epoch(run, batches, run.schedule.warmup, "warm-up")
            keeper.save(WARMUP, LAST)
        for epoch, end in enumerate(run.schedule.epoch_ends()[keeper.epochs_done :], keeper.epochs_done + 1):
            train_one_epoch(run, batches, end, f"epoch {epoch}/{options.n_epoch}")
            keeper.save(LAST)  # validation may take longer than a preempted job is given
            keeper.end_epoch(epoch, evaluate(run, start.model, val_loader))
    except Stopped as reason:
        keeper.save(LAST)
        log.say(f"stopped by {reason} at step {run.step}; continue with --resume-pth auto")
        return STOPPED_STATUS
    finally:
        log.close()
    keeper.conclude()
    return None


def make_run(options: argparse.Namespace, ranks: Ranks, device: torch.device, start: Start) -> Run:
    schedule = Schedule(options.lr, options.warmUpIter, options.iter_epoch, options.n_epoch, tuple(options.lr_schedule))
    start.model.to(device)
    log = Log(options.out_dir, start.step, ranks.is_main)
    return Run(
        model=DistributedDataParallel(start.model) if ranks.size > 1 else start.model,
        features=FeatureExtractor(start.backbone, device, cache_bytes=int(options.cache_features * 1e9)),
        optimiser=make_optimiser(start, options),
        schedule=schedule,
        ranks=ranks,
        progress=Progress(log, ranks, schedule.total_steps, options.batch_pos, options.max_unreadable),
        stop=StopSignal(),
        device=device,
        seed=options.seed,
        log_every=options.log_every,
        step=start.step,
    )


def choose_device(options: argparse.Namespace, ranks: Ranks) -> torch.device:
    """The device of this process. Raises UserError if the options ask for one that is not there."""
    gpus = [] if options.gpu is None else options.gpu.split(",")
    if gpus and len(gpus) != ranks.size:
        raise UserError(
            f"--gpu {options.gpu} asks for {len(gpus)} GPUs and there are {ranks.size} processes; "
            f"start with run_ego.sh, or torchrun --nproc_per_node {len(gpus)}"
        )
    name = options.device
    if gpus:
        name = f"cuda:{gpus[ranks.local_rank]}"
    elif name in ("auto", "cuda") and ranks.size > 1 and torch.cuda.is_available():
        name = f"cuda:{ranks.local_rank}"
    try:
        device = resolve_device(name)
    except ValueError as error:
        raise UserError(str(error)) from None
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def introduce(
    log: Log, options, start: Start, run: Run, about: dict, setting: str, pairs: PairSet, val: PairSet
) -> None:
    """Say what will be trained on what, on the console and in the log."""
    trained = sum(p.numel() for p in start.model.parameters())
    frozen = sum(p.numel() for p in start.backbone.parameters())
    facts = {
        "setting": setting,
        "data": str(pairs.data_dir),
        "train_pairs": len(pairs),
        "train_negatives": int((~pairs.positive).sum()),
        "train_takes": len(pairs.takes),
        "val_pairs": len(val),
        "val_negatives": int((~val.positive).sum()),
        "parameters": trained,
        "frozen_parameters": frozen,
        "start": start.origin,
        "device": str(run.device),
        "processes": run.ranks.size,
        "torch": torch.__version__,
        "steps": run.schedule.total_steps,
        "out_dir": str(options.out_dir),
    }
    for name, value in (facts | {"commit": about["commit"], "command": about["command"]}).items():
        log.say(f"{name.replace('_', ' ')}: {value}")
    log.write("start", run.step, **facts, **about)


if __name__ == "__main__":
    run_script(main)
