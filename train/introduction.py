"""What a training says before its first step: its data, its network, its recipe, and what it will do and need."""

import shutil
from dataclasses import asdict

import numpy as np
from torch import Tensor

from common.errors import counted
from model.checkpoint import backbone_content
from train.engine import Run
from train.schedule import LR_DROP


def introduce(run: Run, notes: list[str]) -> None:
    """Print and log the data, the network and the recipe of a run. notes: where it starts, and lines beside this."""
    options, schedule, arguments = run.options, run.options.schedule, run.state.origin["arguments"]
    names = [name for name in ("existence_weight", *asdict(options.training)) if arguments[name] is not None]
    takes = counted(len(np.unique(run.pairs.take)), "take")
    rate = f"{schedule.lr:g}"
    if schedule.milestones:
        rate += f", times {LR_DROP} after epoch {list(schedule.milestones)}"
    if schedule.falls is not None:
        rate += f", falling after epoch {schedule.falls}"
    warmup = counted(schedule.warmup, "step")
    steps = {"steps": f"{schedule.total_steps} of {options.batch_pos} samples", "warm-up": warmup, "rate": rate}
    disk, lack_of_disk = disk_of_checkpoints(run)
    facts = {
        "setting": options.setting,
        "data": arguments["train_dir"],
        "train_pairs": f"{len(run.pairs)} of {takes}, {(~run.pairs.visible).sum()} of them negatives",
        "val_pairs": f"{run.validation.size} of {len(run.validation.pairs)}",
        "start": notes[0],
        "recipe": ", ".join([options.recipe, *(f"{name} {arguments[name]}" for name in names)]),
        **steps,
        **run.training.foreseen(run.searched_at_the_end),
        "device": f"{run.world.size} x {run.state.device}, {options.precision}",
        "out_dir": str(options.out_dir),
        "checkpoints": disk,
        **{name: run.state.origin[name] for name in ("commit", "command")},
    }
    for name, value in facts.items():
        run.log.say(f"{name.replace('_', ' ')}: {value}")
    for note in notes[1:]:
        run.log.say(note)
    if lack_of_disk:
        run.log.say(f"warning: {lack_of_disk}")
    if left_out := run.pairs.store.left_out | run.validation.pairs.store.left_out:
        count, (uid, reason) = counted(len(left_out), "take"), next(iter(left_out.items()))
        run.log.say(f"warning: {count} left out, which data/check_processed.py names; the first is {uid}: {reason}")
    if late := [epoch for epoch in getattr(options.training, "mine_epochs", ()) if epoch >= options.n_epoch]:
        run.log.say(f"warning: nothing is mined after epochs {late}, since --n-epoch is {options.n_epoch}")
    run.log.write("start", run.state.step, **facts, arguments=arguments)


def disk_of_checkpoints(run: Run) -> tuple[str, str]:
    """What the checkpoints of a whole run take on the disk; and a warning if it has less, else nothing."""
    options, state = run.options, run.state
    network, parameters = state.network.state_dict().values(), state.network.parameters()
    learned = sum(x.nbytes for x in network) + 2 * sum(x.nbytes for x in parameters)  # and Adam's two moments
    backbone = sum(x.nbytes for x in backbone_content(state.backbone).values() if isinstance(x, Tensor))
    kept = options.n_epoch // options.save_every if options.save_every else 0
    # LAST also holds what BEST holds, and while it is written, the former one is still there.
    needed = (kept + 1) * (backbone + learned) + 2 * (backbone + 2 * learned)
    there = sum(path.stat().st_size for path in options.out_dir.glob("net*.pth"))
    place = next(folder for folder in (options.out_dir, *options.out_dir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = f"{counted(kept + 2, 'file')}, {needed / 1e9:.2g} GB in all; {free / 1e9:.2g} GB are free"
    if needed - there <= free:
        return text, ""
    remedy = "free some, give a larger --save_every (0: only the last and the best are kept), or another --out-dir"
    return text, f"the disk of {place} is too small for the checkpoints; {remedy}"
