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

from formats.errors import UserError, run_script
from formats.pairs import PairSet
from model.device import resolve_device
from train.batches import StepSampler, make_loader
from train.dataset import TrainSamples, ValidationSamples, never
from train.ema import WeightAverage
from train.engine import Run, evaluate, train_one_epoch
from train.features import FeatureExtractor
from train.keeper import WARMUP, Keeper
from train.options import parse_options
from train.progress import Log, Progress
from train.ranks import Ranks
from train.schedule import Schedule
from train.start import LAST, Start, make_optimizer, provenance, starting_point
from train.stopping import Stopped, StopSignal

STOPPED_STATUS = 143  # what a shell reports of a process that SIGTERM ended


def main(argv: list[str] | None = None) -> int | None:
    options = parse_options(argv)
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
    log, about, pin = run.progress.log, provenance(options), device.type == "cuda"
    introduce(run, options, start, about, pairs, val_pairs)

    known = run.features.known if run.features.cache is not None else never
    recipe = {"hard_negatives": options.hard_negatives, "augment": options.augment}
    samples = TrainSamples(pairs, options.input_size, options.seed, known, **recipe)
    steps = StepSampler(range(run.step, run.schedule.total_steps), options.batch_pos, ranks.rank, ranks.size)
    batches = iter(make_loader(samples, steps, options.num_workers, pin))
    val_samples = ValidationSamples(val_pairs, options.val_size, options.input_size, known)
    val_loader = make_loader(val_samples, share_batches(val_samples, options, ranks), options.num_workers, pin)

    keeper = Keeper(options, start, run, about, val_samples)
    try:
        if "untrained_iou" not in start.history:
            keeper.untrained(*evaluate(run, val_loader))
        if run.step < run.schedule.warmup:
            train_one_epoch(run, batches, run.schedule.warmup, "warm-up")
            keeper.save(WARMUP, LAST)
        for epoch, end in enumerate(run.schedule.epoch_ends()[keeper.epochs_done :], keeper.epochs_done + 1):
            train_one_epoch(run, batches, end, f"epoch {epoch}/{options.n_epoch}")
            keeper.save(LAST)  # validation may take longer than a preempted job is given
            keeper.end_epoch(epoch, *evaluate(run, val_loader))
    except Stopped as reason:
        keeper.save(LAST)
        log.say(f"stopped by {reason} at step {run.step}; continue with --resume-pth auto")
        return STOPPED_STATUS
    finally:
        log.close()
    keeper.conclude()
    return None


def make_run(options: argparse.Namespace, ranks: Ranks, device: torch.device, start: Start) -> Run:
    start.network.to(device)
    model = DistributedDataParallel(start.network) if ranks.size > 1 else start.network
    schedule = Schedule(
        options.lr, options.warmUpIter, options.iter_epoch, options.n_epoch, tuple(options.lr_schedule), options.cosine
    )
    log = Log(options.out_dir, start.step, ranks.is_main)
    amp = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[options.amp]
    scaler = torch.amp.GradScaler(device.type, enabled=amp == torch.float16)
    scaler.load_state_dict(start.scaler or scaler.state_dict())
    average = WeightAverage((start.average or start.network).to(device), options.ema) if options.ema else None
    return Run(
        network=start.network,
        model=torch.compile(model) if options.compile else model,
        average=average,
        features=FeatureExtractor(start.backbone, device, amp, int(options.cache_features * 1e9)),
        optimizer=make_optimizer(start, options),
        schedule=schedule,
        ranks=ranks,
        progress=Progress(log, ranks, schedule.total_steps, options.batch_pos, options.max_unreadable),
        stop=StopSignal(),
        device=device,
        amp=amp,
        scaler=scaler,
        seed=options.seed,
        log_every=options.log_every,
        step=start.step,
    )


def share_batches(samples: ValidationSamples, options: argparse.Namespace, ranks: Ranks) -> list[range]:
    """Sample numbers of this process's validation batches."""
    share, size = range(ranks.rank, len(samples), ranks.size), max(options.batch_pos // ranks.size, 1)
    return [share[i : i + size] for i in range(0, len(share), size)]


def choose_device(options: argparse.Namespace, ranks: Ranks) -> torch.device:
    """The device of this process. Raises UserError if the options ask for one that is not there."""
    gpus = [] if options.gpu is None else options.gpu.split(",")
    if gpus and len(gpus) != ranks.size:
        raise UserError(
            f"--gpu {options.gpu} asks for {len(gpus)} GPUs and there are {ranks.size} processes; "
            f"start with run_ego.sh, or torchrun --nproc_per_node {len(gpus)}"
        )
    if options.batch_pos % ranks.size:
        raise UserError(f"--batch-pos {options.batch_pos} cannot be split evenly over {ranks.size} processes")
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
    run: Run, options: argparse.Namespace, start: Start, about: dict, pairs: PairSet, val_pairs: PairSet
) -> None:
    """Say what will be trained on what, on the console and in the log."""
    log = run.progress.log
    facts = {
        "setting": pairs.setting,
        "data": str(pairs.data_dir),
        "train_pairs": f"{len(pairs)} of {len(pairs.takes)} takes, {int((~pairs.positive).sum())} of them negatives",
        "val_pairs": f"{min(options.val_size, len(val_pairs)) or len(val_pairs)} of {len(val_pairs)}",
        "start": start.origin,
        "parameters": sum(p.numel() for p in start.network.parameters()),
        "frozen_parameters": sum(p.numel() for p in start.backbone.parameters()),
        "steps": f"{run.schedule.total_steps} of {options.batch_pos} samples",
        "device": f"{run.device}, {run.ranks.size} process{'es' * (run.ranks.size > 1)}",
        "precision": options.amp if run.amp else "float32",
        "out_dir": str(options.out_dir),
        "torch": torch.__version__,
        "commit": about["commit"],
        "command": about["command"],
    }
    for name, value in facts.items():
        log.say(f"{name.replace('_', ' ')}: {value}")
    for note in start.notes:
        log.say(note)
    log.write("start", run.step, **facts, arguments=about["arguments"])


if __name__ == "__main__":
    run_script(main)
