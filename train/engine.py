"""The training loop, and validation."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from formats.pairs import PairSet
from train.dataset import Batch
from train.distributed import Ranks, Stopped
from train.log import Log
from train.losses import Losses
from train.scores import SampleScores, Scored, validation_figures
from train.state import TrainState

EXAMPLES = 4


class Step(Protocol):
    """What a recipe makes of a batch: train/letterboxed.py has the paper's, train/crops.py the strong one's."""

    def losses(self, model: nn.Module, autocast: torch.autocast, batch: Batch, ranks: Ranks) -> Losses:
        """This process's part of the global batch's losses."""

    def score(self, network: nn.Module, autocast: torch.autocast, batch: Batch) -> Scored:
        """Without any knowledge of the target mask."""

    def draw(self, pairs: PairSet, batch: Batch, found: Tensor, row: int) -> np.ndarray:
        """A sample of a batch and the mask that was found, (H, W, 3) uint8 RGB."""


def train_one_epoch(state: TrainState, step: Step, batches: Iterator[Batch], log: Log, epoch: int) -> None:
    """Train from `state.step` to the end of `epoch`. Raises `Stopped` after the step in which a signal came, unless it
    is the last: what is owed after it, such as a validation, stops by itself.

    `batches` goes on from `state.step`.
    """
    schedule, ranks, model = state.schedule, log.ranks, state.model.train()
    end = schedule.epoch_end(epoch)
    log.restart_clock()
    for _ in log.bar(range(state.step, end), schedule.epoch_name(epoch), "step"):
        batch = log.next_batch(batches).to(state.device)
        lr = schedule.learning_rate(state.step)
        state.set_rate(lr)
        # Dropout, too, depends on the seed and the step alone: a resumed run needs no saved random state.
        torch.manual_seed(int(np.random.SeedSequence((state.seed, state.step, ranks.rank)).generate_state(1)[0]))

        losses = step.losses(model, state.autocast(), batch, ranks)
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


@torch.no_grad()
def validate(state: TrainState, step: Step, loader: DataLoader, log: Log, epoch: str) -> float:
    """Report figures of the validation samples, and pictures of the first with a visible object; returns the IoU.
    Raises `Stopped` after the batch in which a signal came.
    """
    network = state.network.eval()
    log.say(f"{epoch} validation ...")
    parts, pictures = [SampleScores(*torch.empty(3, 0, dtype=torch.float64))], []
    for batch in log.bar(loader, epoch, "batch"):
        log.note_unreadable(batch)
        if len(batch):
            batch = batch.to(state.device)
            scores, found = step.score(network, state.autocast(), batch)
            parts.append(scores)
            for row in batch.visible.nonzero()[: EXAMPLES - len(pictures), 0].tolist():
                pictures.append((str(batch.sources[row]), step.draw(loader.dataset.pairs, batch, found, row)))
        if log.ranks.stop_requested():
            raise Stopped
    own = [torch.cat(values) for values in zip(*parts, strict=True)]
    figures = validation_figures(SampleScores(*map(torch.cat, zip(*log.ranks.gather(own), strict=True))))
    log.validation(state.step, epoch, figures)
    for i, (source, picture) in enumerate(pictures):
        log.picture(f"val/{i} {source}", picture, state.step)
    return figures.get("iou", 0.0)
