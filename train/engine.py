"""The training loop, and the base class of a training step."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from common.distributed import Stopped, World
from model.features import Encoder
from model.xsegtx import XSegTx
from train.dataset import Batch
from train.feature_cache import FeatureCache
from train.log import Log
from train.losses import total_loss
from train.state import TrainState


class Step(nn.Module):
    """Computes losses of a batch by name (of this process's part of the global batch), and their `total`, which
    training minimizes. A step is a module, because data-parallel training wraps a module. A recipe defines the method
    `losses`: the paper's step is in train/letterboxed.py, the strong recipe's in train/crop_step.py.
    """

    def __init__(
        self,
        network: XSegTx,
        encoder: Encoder,
        cache: FeatureCache,
        weights: dict[str, float],
        world: World,
        precision: str = "fp32",
    ):
        super().__init__()
        self.network, self.encoder, self.cache = network, encoder, cache
        self.weights, self.world, self.precision = weights, world, precision

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        losses = self.losses(batch)
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
