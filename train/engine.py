"""The training loop and validation."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from model.backbone import STRIDE
from train.batches import Batch
from train.distributed import Ranks, Stopped, StopSignal
from train.features import FeatureExtractor
from train.log import Log
from train.losses import compute_losses
from train.schedule import Schedule
from train.state import TrainState
from train.validation import Example, positives, score, summarize

EXAMPLES = 4


def train_one_epoch(
    model: nn.Module,
    state: TrainState,
    features: FeatureExtractor,
    batches: Iterator[Batch],
    schedule: Schedule,
    existence_weight: float,
    epoch: int,
    ranks: Ranks,
    log: Log,
    stop: StopSignal,
) -> None:
    """Train from `state.step` to the end of the epoch. Raises `Stopped` after the step in which a signal came.

    `model` is `state.network`, perhaps compiled and wrapped for several processes; `batches` goes on from `state.step`.
    """
    model.train()
    log.restart_clock()
    end = schedule.epoch_end(epoch)
    while state.step < end:
        batch = log.next_batch(batches).to(features.device)
        lr = schedule.learning_rate(state.step)
        state.set_rate(lr)
        # Dropout, too, depends on the seed and the step alone: a resumed run needs no saved random state.
        torch.manual_seed(int(np.random.SeedSequence((state.seed, state.step, ranks.rank)).generate_state(1)[0]))

        inputs = features(batch)
        with features.autocast():
            prediction = model(**inputs, target_blocked=blocked_tokens(batch))
        losses = compute_losses(
            prediction,
            batch.query_mask,
            batch.target_mask,
            batch.positive,
            batch.whole,
            batch_size=len(batch) * ranks.size,
            positive_count=ranks.sum(batch.positive.sum()),
            existence_weight=existence_weight,
        )
        state.optimizer.zero_grad(set_to_none=True)
        loss = losses.total * ranks.size  # this process's share of the global loss; DDP averages the gradients
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1

        log.add(losses, batch)
        stopped = stop.requested()
        if stopped or state.step == end or state.step % log.every == 0:
            log.flush(state.step, schedule.epoch_name(epoch), lr, schedule.total_steps)
        if stopped:
            raise Stopped


def blocked_tokens(batch: Batch) -> Tensor:
    """(B, L) bool: tokens outside the target mask, seen at one pixel a token, of the samples that ask for blocking.

    Where that leaves no token, as in negatives, the model blocks nothing.
    """
    outside = batch.target_mask[:, ::STRIDE, ::STRIDE] == 0
    return outside.flatten(1) & batch.block[:, None]


@torch.no_grad()
def evaluate(
    state: TrainState, features: FeatureExtractor, loader: DataLoader, ranks: Ranks, log: Log, stop: StopSignal
) -> tuple[dict[str, float], list[Example]]:
    """Figures on the validation samples, without any knowledge of the target mask, and the first positives.

    Raises `Stopped` after the batch in which a signal came.
    """
    model = state.network.eval()
    rows, examples = [torch.empty(0, 4, dtype=torch.float64)], []
    for batch in loader:
        log.note_unreadable(batch)
        if len(batch):
            batch = batch.to(features.device)
            inputs = features(batch)
            with features.autocast():
                prediction = model(**inputs)
            rows.append(score(batch, prediction))
            if len(examples) < EXAMPLES:
                examples += positives(batch, prediction)
        if stop.requested():
            raise Stopped
    log.report_unreadable(state.step)
    return summarize(torch.cat(ranks.gather(torch.cat(rows)))), examples[:EXAMPLES]
