"""The training loop."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from common.distributed import Stopped, World
from recipes.base import NetworkRecipe
from recipes.losses import total_loss
from recipes.samples import Batch
from train.log import Log
from train.state import TrainState


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
        return {"total": total_loss(losses, self.weights), **losses}


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
        batch = log.next_batch(batches).to(state.device)
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
