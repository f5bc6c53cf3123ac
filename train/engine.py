"""The training loop: all epochs with their validation, and the steps of one."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.distributed import Stopped, World
from recipes.base import NetworkRecipe
from recipes.samples import Batch
from train.log import Log
from train.options import Options
from train.state import BEST, LAST, WARMUP, TrainState
from train.validation import Validation


class Step(nn.Module):
    """The losses of a batch by name (of this process's part of the global batch), and their `total`, which training
    minimizes. This is a module, because data-parallel training wraps one.
    """

    def __init__(self, recipe: NetworkRecipe, world: World, existence_weight: float):
        super().__init__()
        self.network, self.recipe, self.world = recipe.network, recipe, world
        self.weights = recipe.weights(existence_weight)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        losses = self.recipe.losses(batch, self.world)
        total: Any = sum(self.weights[name] * loss for name, loss in losses.items())
        return {"total": total, **losses}


def train_epochs(
    options: Options, state: TrainState, step: nn.Module, load_batches: Callable, validation: Validation, log: Log
) -> None:
    """Train and validate from the step of `state` to the last epoch; epoch 0 is the warm-up. `load_batches` gives those
    from this step on, and is told whether mining is due before them.
    """
    schedule, history = state.schedule, state.history
    mining = [schedule.epoch_end(epoch) for epoch in getattr(options.training, "mine_epochs", ())]  # steps
    batches: Any = None  # until there is a step to take
    if "start_iou" not in history:
        history["start_iou"] = validation.run(state.step, "start")
    for epoch in range(state.next_epoch, schedule.epochs + 1):
        if state.step < schedule.epoch_end(epoch):
            is_lost = not state.mined and any(end < state.step for end in mining)  # it was of other pairs
            mines_now = is_lost or state.step in mining and state.mined.get("step") != state.step
            if mines_now or batches is None:
                batches = load_batches(mines_now)
        train_one_epoch(state, step, batches, log, epoch)
        if epoch == 0:
            history["epoch"] = 0
            if schedule.warmup:
                state.save(WARMUP, LAST)
            continue
        state.save(LAST)  # before validation, which may take longer than the time that a preempted job still has
        validates = epoch % options.val_every == 0 or epoch == schedule.epochs
        is_best = validates and state.note_validation(epoch, validation.run(state.step, schedule.epoch_name(epoch)))
        names = [f"net{epoch:03d}.pth"] if options.save_every and epoch % options.save_every == 0 else []
        state.save(*names, *([BEST] if is_best else []), LAST)


def train_one_epoch(state: TrainState, step: nn.Module, batches: Iterator[Batch], log: Log, epoch: int) -> None:
    """Train from `state.step` to the end of `epoch`. If a signal comes, raises `Stopped` after the step, except in the
    last step of the epoch, after which the validation stops.

    step: a `Step` with the network of `state`, perhaps wrapped. `batches` begins with the batch of `state.step`.
    """
    schedule, world = state.schedule, log.world
    end = schedule.epoch_end(epoch)
    step.train()
    log.restart_clock()
    for _ in log.bar(range(state.step, end), schedule.epoch_name(epoch), "step"):
        start = time.perf_counter()
        batch = next(batches)
        log.waited += time.perf_counter() - start
        batch = batch.to(state.device)
        lr = schedule.learning_rate(state.step)
        state.set_rate(lr)
        # Dropout also depends on the seed and the step alone, so a resumed run needs no saved random state.
        torch.manual_seed(int(np.random.SeedSequence((state.seed, state.step, world.rank)).generate_state(1)[0]))

        losses = step(batch)
        state.optimizer.zero_grad(set_to_none=True)
        loss = losses["total"] * world.size  # DDP averages gradients of the processes' parts of the loss
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1

        log.add(losses, batch)
        stopped = world.stop_requested(state.step)
        if stopped or state.step == end or state.step % log.every == 0:
            log.flush(state.step, schedule.epoch_name(epoch), lr, schedule.total_steps)
        if stopped and state.step < end:
            raise Stopped
