"""The training loop and validation."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from model.xsegtx import STRIDE, Prediction
from train.dataset import Batch
from train.features import FeatureExtractor
from train.losses import compute_losses
from train.progress import Progress
from train.ranks import Ranks
from train.schedule import Schedule
from train.stopping import StopSignal
from train.validation import score, summarise


@dataclass
class Run:
    """What a training run consists of. `step` counts the steps done, those of the warm-up included."""

    model: nn.Module  # XSegTx, perhaps compiled and wrapped for several processes
    features: FeatureExtractor
    optimiser: torch.optim.Optimizer
    schedule: Schedule
    ranks: Ranks
    progress: Progress
    stop: StopSignal
    device: torch.device
    seed: int
    log_every: int
    step: int = 0


def train_one_epoch(run: Run, batches: Iterator[Batch], end: int, epoch: str) -> None:
    """Train up to step `end`; `batches` goes on from `run.step`. Raises `Stopped` after the step in which a signal
    came."""
    run.model.train()
    run.progress.restart_clock()
    while run.step < end:
        batch = run.progress.next_batch(batches)
        lr = run.schedule(run.step)
        losses = train_step(run, batch, lr)
        run.progress.add(losses, batch.sources, batch.unreadable)
        run.step += 1
        stopped = run.ranks.any(run.stop.requested)
        if stopped or run.step == end or run.step % run.log_every == 0:
            run.progress.flush(run.step, epoch, lr)
        if stopped:
            raise run.stop.exception()


def train_step(run: Run, batch: Batch, lr: float) -> Tensor:
    """One step of the optimiser -> (4,) total, mask, dice and existence loss, still on the device."""
    for group in run.optimiser.param_groups:
        group["lr"] = lr
    # Dropout, too, depends on the seed and the step alone: a resumed run needs no saved random state.
    torch.manual_seed(int(np.random.SeedSequence((run.seed, run.step, run.ranks.rank)).generate_state(1)[0]))
    batch = batch.to(run.device)
    prediction = predict(run, run.model, batch, blocked_tokens(batch))
    losses = compute_losses(
        prediction,
        batch.query_mask,
        batch.target_mask,
        batch.positive,
        batch_size=len(batch) * run.ranks.size,
        positive_count=run.ranks.sum(batch.positive.sum()),
    )
    run.optimiser.zero_grad(set_to_none=True)
    (losses.total * run.ranks.size).backward()  # a share of the global loss; DDP averages the gradients
    run.optimiser.step()
    return torch.stack(losses).detach()


def predict(run: Run, model: nn.Module, batch: Batch, target_blocked: Tensor | None = None) -> Prediction:
    """Both masks and the existence for a batch on the device."""
    query, target, mask = run.features(batch)
    return model(query, target, mask, target_blocked=target_blocked)


def blocked_tokens(batch: Batch) -> Tensor:
    """(B, L) bool: tokens outside the target mask, seen at one pixel a token, of the samples that ask for blocking.

    Where that leaves no token, as in negatives, the model blocks nothing.
    """
    outside = batch.target_mask[:, ::STRIDE, ::STRIDE] == 0
    return outside.flatten(1) & batch.block[:, None]


@torch.no_grad()
def evaluate(run: Run, model: nn.Module, loader: DataLoader) -> dict[str, float]:
    """Figures of `model` on the validation samples, without any knowledge of the target mask."""
    model.eval()
    rows = [torch.empty(0, 4, dtype=torch.float64)]
    for batch in loader:
        if len(batch):
            batch = batch.to(run.device)
            prediction = predict(run, model, batch)
            rows.append(score(batch, prediction.target_mask_prob, prediction.existence))
    return summarise(torch.cat(run.ranks.gather(torch.cat(rows)), 0))
