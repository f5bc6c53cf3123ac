"""The training loop and validation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from model.xsegtx import STRIDE, Prediction, XSegTx
from train.batches import Batch
from train.dataset import Source
from train.ema import WeightAverage
from train.features import FeatureExtractor
from train.losses import compute_losses
from train.progress import Progress
from train.ranks import Ranks
from train.schedule import Schedule
from train.stopping import StopSignal
from train.validation import score, summarize

EXAMPLES = 4


@dataclass
class Run:
    """What a training run consists of. `step` counts the steps done, those of the warm-up included."""

    network: XSegTx
    model: nn.Module  # the same network, perhaps compiled and wrapped for several processes
    average: WeightAverage | None
    features: FeatureExtractor
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ranks: Ranks
    progress: Progress
    stop: StopSignal
    device: torch.device
    amp: torch.dtype | None  # of the network's forward pass; weights and losses are float32
    scaler: torch.amp.GradScaler  # does nothing unless amp is float16
    seed: int
    log_every: int
    step: int = 0

    @property
    def judged(self) -> XSegTx:
        """The network that is validated and kept."""
        return self.network if self.average is None else self.average.model


class Example(NamedTuple):
    """A validation sample and its prediction; masks (S, S), on the CPU."""

    source: Source
    query_mask: np.ndarray
    target_mask: np.ndarray
    target_mask_prob: np.ndarray


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
    """One step of the optimizer -> (4,) total, mask, dice and existence loss, still on the device."""
    for group in run.optimizer.param_groups:
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
    run.optimizer.zero_grad(set_to_none=True)
    share = losses.total * run.ranks.size  # of the global loss; DDP averages the gradients
    run.scaler.scale(share).backward()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.average is not None:
        run.average.update(run.network, run.step)
    return torch.stack(losses).detach()


def predict(run: Run, model: nn.Module, batch: Batch, target_blocked: Tensor | None = None) -> Prediction:
    """Both masks and the existence for a batch on the device."""
    query, target, mask = run.features(batch)
    with torch.autocast(run.device.type, run.amp, enabled=run.amp is not None):
        return model(query, target, mask, target_blocked=target_blocked)


def blocked_tokens(batch: Batch) -> Tensor:
    """(B, L) bool: tokens outside the target mask, seen at one pixel a token, of the samples that ask for blocking.

    Where that leaves no token, as in negatives, the model blocks nothing.
    """
    outside = batch.target_mask[:, ::STRIDE, ::STRIDE] == 0
    return outside.flatten(1) & batch.block[:, None]


@torch.no_grad()
def evaluate(run: Run, loader: DataLoader) -> tuple[dict[str, float], list[Example]]:
    """Figures on the validation samples, without any knowledge of the target mask, and the first positives."""
    model = run.judged.eval()
    rows, examples = [torch.empty(0, 4, dtype=torch.float64)], []
    for batch in loader:
        run.progress.note_unreadable(batch.unreadable)
        if len(batch):
            batch = batch.to(run.device)
            prediction = predict(run, model, batch)
            rows.append(score(batch, prediction.target_mask_prob, prediction.existence))
            if len(examples) < EXAMPLES:
                examples += _examples(batch, prediction)
    run.progress.report_unreadable(run.step)
    return summarize(torch.cat(run.ranks.gather(torch.cat(rows)), 0)), examples[:EXAMPLES]


def _examples(batch: Batch, prediction: Prediction) -> list[Example]:
    arrays = (batch.query_mask, batch.target_mask, prediction.target_mask_prob)
    query_mask, target_mask, prob = (x.cpu().numpy() for x in arrays)
    numbers = batch.positive.cpu().nonzero()[:, 0].tolist()
    return [Example(batch.sources[i], query_mask[i], target_mask[i], prob[i]) for i in numbers]
