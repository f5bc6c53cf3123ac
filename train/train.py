"""Train XSegTx.

    cd train && bash run_ego.sh                # ego-exo, the paper's recipe
    cd train && bash run_exo.sh --n-epoch 1    # exo-ego; further arguments reach this script

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
from formats.provenance import provenance
from model.backbone import Backbone, moco_backbone
from model.checkpoint import load_checkpoint, load_matching
from model.device import resolve_device
from model.xsegtx import XSegTx, XSegTxConfig
from train.batches import StepSampler, make_loader
from train.dataset import Samples, TrainSamples, ValidationSamples
from train.distributed import Ranks, Stopped, StopSignal
from train.engine import Schedule, evaluate, train_one_epoch
from train.features import FeatureExtractor
from train.flags import parse_args
from train.log import Log
from train.state import BEST, LAST, WARMUP, TrainState, calibrated_backbone
from train.validation import draw_example

STOPPED_STATUS = 143  # what a shell reports of a process that SIGTERM ended
AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
FIXED = ("mode", "input_size", "layers", "mask_position")  # a checkpoint's network must have these as asked for


def main(argv: list[str] | None = None) -> int | None:
    args = parse_args(argv, __doc__)
    ranks = Ranks()
    device = choose_device(args, ranks)
    ranks.start(device)
    try:
        return train(args, ranks, device)
    finally:
        ranks.stop()


def train(args: argparse.Namespace, ranks: Ranks, device: torch.device) -> int | None:
    setting = "exo-ego" if args.reverse else "ego-exo"
    pairs, val_pairs = (PairSet.open(args.train_dir, split, setting) for split in ("train", "val"))
    state, notes = starting_state(args, pairs, device)
    schedule = Schedule(
        args.lr, args.warmUpIter, args.iter_epoch, args.n_epoch, tuple(args.lr_schedule), cosine=args.cosine
    )
    log = Log(args.out_dir, state.step, ranks, args.log_every, args.max_unreadable)
    about = {**provenance(), "arguments": plain_arguments(args)}
    introduce(args, log, state, notes, schedule, pairs, val_pairs, about | {"device": f"{ranks.size} x {device}"})

    features = FeatureExtractor(state.backbone, device, AMP[args.amp], int(args.cache_features * 1e9))
    samples = TrainSamples(
        pairs, args.input_size, args.seed, features.cache, hard_negatives=args.hard_negatives, augment=args.augment
    )
    val_samples = ValidationSamples(val_pairs, args.val_size, args.input_size, features.cache)
    share = (args.batch_pos, ranks.rank, ranks.size)
    steps = StepSampler(range(state.step, schedule.total_steps), *share)
    val_steps = StepSampler(range(-(-len(val_samples) // args.batch_pos)), *share, count=len(val_samples))
    pin = device.type == "cuda"
    batches = iter(make_loader(samples, steps, args.num_workers, pin))
    val_batches = make_loader(val_samples, val_steps, args.num_workers, pin)
    model = DistributedDataParallel(state.network) if ranks.size > 1 else state.network
    model = torch.compile(model) if args.compile else model
    stop = StopSignal(ranks)

    def save(*names: str) -> None:
        if ranks.is_main:
            state.save([args.out_dir / name for name in names], **about)

    def validate(epoch: str) -> float:
        figures, examples = evaluate(state, features, val_batches, ranks, log, stop)
        log.validation(state.step, epoch, figures)
        for i, example in enumerate(examples):
            log.picture(
                f"val/{i} {example.source}", draw_example(example, Samples(val_pairs, args.input_size)), state.step
            )
        return figures.get("iou", 0.0)

    try:
        if "untrained_iou" not in state.history:
            state.history["untrained_iou"] = validate("untrained")
        first = 0 if state.step < schedule.warmup else state.history.get("epoch", 0) + 1
        for epoch in range(first, args.n_epoch + 1):
            train_one_epoch(model, state, features, batches, schedule, epoch, ranks, log, stop)
            if epoch == 0:  # the warm-up
                save(WARMUP, LAST)
                continue
            save(LAST)  # validation may take longer than a preempted job is given
            is_best = state.note_validation(epoch, validate(schedule.epoch_name(epoch)))
            keep = [f"net{epoch:03d}.pth"] if args.save_every and epoch % args.save_every == 0 else []
            save(*keep, *([BEST] if is_best else []), LAST)
    except Stopped:
        save(LAST)
        log.say(f"stopped by {stop.name or 'another process'} at step {state.step}; continue with --resume-pth auto")
        return STOPPED_STATUS
    finally:
        log.close()
    if "best_iou" in state.history:
        log.say(
            "validation IoU: untrained {untrained_iou:.4f}, last {last_iou:.4f}, best {best_iou:.4f} "
            "(epoch {best_epoch}), kept in ".format(**state.history)
            + str(args.out_dir / BEST)
        )
    return None


def starting_state(args: argparse.Namespace, pairs: PairSet, device: torch.device) -> tuple[TrainState, list[str]]:
    """The state to train from and, in words, where it comes from. UserError if a file is missing or does not fit."""
    config = XSegTxConfig(
        mode=args.mode,
        input_size=args.input_size,
        layer_types=" ".join(args.layer_type) if args.layer_type else None,
        dropout=args.dropout,
        drop_feat=args.drop_feat,
        activation=args.activation,
        pos_weight=args.pos_weight,
        feat_weight=args.feat_weight,
        mask_position=args.mask_position,
    )
    path = args.resume_pth and Path(args.resume_pth)
    if args.resume_pth == "auto":
        path = args.out_dir / LAST if (args.out_dir / LAST).exists() else None
    if path:
        free = {name: value for name, value in vars(config).items() if name not in (*FIXED, "layer_types")}
        checkpoint = load_checkpoint(path, **free)
        backbone, network = checkpoint.backbone, checkpoint.model
        for name in FIXED:
            stored, asked = getattr(network.config, name), getattr(config, name)
            if stored != asked:
                raise UserError(f"{path} has {name} {stored}, not {asked}; give the options it was trained with")
        notes = [f"{path}, step {checkpoint.extra.get('step', 0)}"]
        before, now = checkpoint.extra.get("arguments", {}), plain_arguments(args)
        changed = [name for name in before if name in now and before[name] != now[name] and name != "resume_pth"]
        notes += [f"changed since then: {name} {before[name]} -> {now[name]}" for name in changed]
    else:
        backbone = frozen_backbone(args, pairs)
        torch.manual_seed(args.seed)
        network, notes = XSegTx(config), [f"{args.backbone} backbone, new transformer"]
        if args.init_weights:
            loaded, left_out = load_matching(network, args.init_weights)
            notes[0] += f", {len(loaded)} of {len(network.state_dict())} tensors from {args.init_weights}"
            notes += [f"not taken from {args.init_weights}: {text}" for text in left_out]
    state = TrainState(
        backbone, network, device, args.seed, args.lr, args.weight_decay, ema=args.ema, amp=AMP[args.amp]
    )
    if path:
        state.restore(checkpoint, path)
    return state, notes


def frozen_backbone(args: argparse.Namespace, pairs: PairSet) -> Backbone:
    if args.backbone == "random":
        return calibrated_backbone(TrainSamples(pairs, args.input_size, args.seed))
    try:
        return moco_backbone()
    except UserError as error:
        raise UserError(f"{error}, or try things out with --backbone random") from None


def choose_device(args: argparse.Namespace, ranks: Ranks) -> torch.device:
    """The device of this process. Raises UserError if the flags ask for one that is not there."""
    gpus = [] if args.gpu is None else args.gpu.split(",")
    if gpus and len(gpus) != ranks.size:
        raise UserError(
            f"--gpu {args.gpu} asks for {len(gpus)} GPUs and there are {ranks.size} processes; "
            f"start with run_ego.sh, or torchrun --nproc_per_node {len(gpus)}"
        )
    if args.batch_pos % ranks.size:
        raise UserError(f"--batch-pos {args.batch_pos} cannot be split evenly over {ranks.size} processes")
    name = args.device
    if gpus:
        name = f"cuda:{gpus[ranks.local_rank]}"
    elif name in ("auto", "cuda") and ranks.size > 1 and torch.cuda.is_available():
        name = f"cuda:{ranks.local_rank}"
    device = resolve_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def plain_arguments(args: argparse.Namespace) -> dict:
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}


def introduce(args, log: Log, state: TrainState, notes: list[str], schedule: Schedule, pairs, val_pairs, about) -> None:
    """Say what will be trained on what, on the console and in the log."""
    facts = {
        "setting": pairs.setting,
        "data": str(pairs.data_dir),
        "train_pairs": f"{len(pairs)} of {len(pairs.takes)} takes, {int((~pairs.positive).sum())} of them negatives",
        "val_pairs": f"{min(args.val_size, len(val_pairs)) or len(val_pairs)} of {len(val_pairs)}",
        "start": notes[0],
        "parameters": sum(p.numel() for p in state.network.parameters()),
        "frozen_parameters": sum(p.numel() for p in state.backbone.parameters()),
        "steps": f"{schedule.total_steps} of {args.batch_pos} samples",
        "device": about["device"],
        "precision": "float32" if args.amp == "off" else args.amp,
        "out_dir": str(args.out_dir),
        "torch": torch.__version__,
        "commit": about["commit"],
        "command": about["command"],
    }
    for name, value in facts.items():
        log.say(f"{name.replace('_', ' ')}: {value}")
    for note in notes[1:]:
        log.say(note)
    log.write("start", state.step, **facts, arguments=about["arguments"])


if __name__ == "__main__":
    run_script(main)
