"""The training loop."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from train.dataset import Batch
from train.distributed import Stopped
from train.log import Log
from train.state import TrainState


def train_one_epoch(state: TrainState, step: nn.Module, batches: Iterator[Batch], log: Log, epoch: int) -> None:
    """Train from `state.step` to the end of `epoch`. Raises `Stopped` after the step in which a signal came, unless it
    is the last: what is owed after it, such as a validation, stops by itself.

    step: a batch -> its losses, by the network of `state`; train/letterboxed.py has the paper's, train/crops.py the
    strong recipe's. `batches` goes on from `state.step`.
    """
    schedule, ranks = state.schedule, log.ranks
    end = schedule.epoch_end(epoch)
    step.train()
    log.restart_clock()
    for _ in log.bar(range(state.step, end), schedule.epoch_name(epoch), "step"):
        batch = log.next_batch(batches).to(state.device)
        lr = schedule.learning_rate(state.step)
        state.set_rate(lr)
        # Dropout, too, depends on the seed and the step alone: a resumed run needs no saved random state.
        torch.manual_seed(int(np.random.SeedSequence((state.seed, state.step, ranks.rank)).generate_state(1)[0]))

        losses = step(batch)
        state.optimizer.zero_grad(set_to_none=True)
        loss = losses.total * ranks.size  # this process's part of the global loss; DDP averages the gradients
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1

        log.add(losses, batch)
        stopped = ranks.stop_requested(state.step)
        if stopped or state.step == end or state.step % log.every == 0:
            log.flush(state.step, schedule.epoch_name(epoch), lr, schedule.total_steps)
        if stopped and state.step < end:
            raise Stopped
