"""The training loop, and validation: figures as the official evaluation computes them, on the network's grid."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from common.drawing import PREDICTION, QUERY, TRUTH, overlay
from formats.results import THRESHOLD
from model.backbone import STRIDE
from model.xsegtx import Prediction
from train.dataset import Batch, Samples
from train.distributed import Ranks, Stopped
from train.feature_cache import BatchEncoder
from train.log import Log
from train.losses import Counts, LossWeights, compute_losses
from train.state import TrainState

EXAMPLES = 4


def train_one_epoch(
    state: TrainState, encode: BatchEncoder, batches: Iterator[Batch], weights: LossWeights, log: Log, epoch: int
) -> None:
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

        query, target, mask_feat = encode(batch)
        target = target._replace(blocked=blocked_tokens(batch), mask=batch.target_mask)
        with state.autocast():
            prediction = model(query, target, mask_feat)
        counts = Counts(len(batch) * ranks.size, ranks.sum(batch.visible.sum()))
        losses = compute_losses(prediction, batch, weights, counts)
        state.optimizer.zero_grad(set_to_none=True)
        loss = losses.total * ranks.size  # this process's part of the global loss; DDP averages the gradients
        state.scaler.scale(loss).backward()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.step += 1

        log.add(losses, batch)
        log.note_unreadable(batch)
        stopped = ranks.stop_requested(state.step)
        if stopped or state.step == end or state.step % log.every == 0:
            log.flush(state.step, schedule.epoch_name(epoch), lr, schedule.total_steps)
        if stopped and state.step < end:
            raise Stopped


def blocked_tokens(batch: Batch) -> Tensor | None:
    """(B, L) bool: tokens outside the target mask, seen at one pixel a token, of the samples that ask for it. None
    if none does. Where no token is left, as in negatives, the model blocks nothing.
    """
    if batch.block is None:
        return None
    outside = batch.target_mask[:, ::STRIDE, ::STRIDE] == 0
    return outside.flatten(1) & batch.block[:, None]


class SampleScores(NamedTuple):
    """The scores of N validation samples: (N,) float64 each, on the CPU."""

    iou: Tensor  # NaN where the object is not visible
    existence: Tensor  # predicted probability
    visible: Tensor  # 1 or 0


@torch.no_grad()
def validate(state: TrainState, encode: BatchEncoder, loader: DataLoader, log: Log, epoch: str) -> float:
    """Report figures of the validation samples, without any knowledge of the target mask, and pictures of the first
    with a visible object; returns the IoU. Raises `Stopped` after the batch in which a signal came.
    """
    model = state.network.eval()
    log.say(f"{epoch} validation ...")
    samples = loader.dataset
    images = Samples(samples.pairs, samples.side, options=samples.options)  # none is black, as cached ones are there
    parts, pictures = [SampleScores(*torch.empty(3, 0, dtype=torch.float64))], []
    for batch in log.bar(loader, epoch, "batch"):
        log.note_unreadable(batch)
        if len(batch):
            batch = batch.to(state.device)
            views = encode(batch)
            with state.autocast():
                prediction = model(*views)
            parts.append(score_batch(batch, prediction))
            if len(pictures) < EXAMPLES:
                rows = batch.visible.nonzero()[: EXAMPLES - len(pictures), 0].tolist()
                pictures += [(str(batch.sources[row]), draw_example(batch, prediction, row, images)) for row in rows]
        if log.ranks.stop_requested():
            raise Stopped
    figures = validation_figures(_joined(log.ranks, parts))
    log.validation(state.step, epoch, figures)
    for i, (source, picture) in enumerate(pictures):
        log.picture(f"val/{i} {source}", picture, state.step)
    return figures.get("iou", 0.0)


def _joined(ranks: Ranks, parts: list[SampleScores]) -> SampleScores:
    """The scores of all batches of all ranks."""
    own = [torch.cat(values) for values in zip(*parts, strict=True)]
    return SampleScores(*map(torch.cat, zip(*ranks.gather(own), strict=True)))


def score_batch(batch: Batch, prediction: Prediction) -> SampleScores:
    """The scores of a batch. Predictions in the padding do not count: the results file has them cropped."""
    cells = torch.arange(batch.target_mask.shape[-1], device=batch.target_mask.device)
    rows, cols = (  # (B, S) bool
        (cells >= span[:, :1]) & (cells < span[:, 1:]) for span in (batch.frame_rows, batch.frame_cols)
    )
    predicted = (prediction.target_mask_prob > THRESHOLD) & rows[:, :, None] & cols[:, None, :]
    truth = batch.target_mask.bool()
    union = (predicted | truth).sum((1, 2))
    iou = (predicted & truth).sum((1, 2)) / (union + 1e-7)
    iou = torch.where(union == 0, 1.0, iou)  # a mask too small for the grid, and nothing predicted
    iou = torch.where(batch.visible, iou, math.nan)
    return SampleScores(*torch.stack((iou, prediction.existence, batch.visible)).double().cpu())


def validation_figures(scores: SampleScores) -> dict[str, float]:
    """Mean IoU of visible objects and balanced accuracy of existence. What has no samples to rest on is left out; the
    accuracy needs both kinds.
    """
    predicted, visible = scores.existence > THRESHOLD, scores.visible.bool()
    figures = {}
    if visible.any():
        figures["iou"] = scores.iou[visible].mean()
    if visible.any() and not visible.all():
        recalls = [(predicted[visible == truth] == truth).double().mean() for truth in (True, False)]
        figures["existence_accuracy"] = sum(recalls) / 2
    return {name: float(value) for name, value in figures.items()} | {"samples": len(scores.iou)}


def draw_example(batch: Batch, prediction: Prediction, row: int, images: Samples) -> np.ndarray:
    """Query with its mask | target with the predicted mask | target with the true one -> (S, 3 S, 3) uint8 RGB."""
    query, target = (images.shown(images.image(key), key) for key in batch.sources[row][1:])
    found = prediction.target_mask_prob > THRESHOLD
    drawn = (query, batch.query_mask, QUERY), (target, found, PREDICTION), (target, batch.target_mask, TRUTH)
    return np.concatenate([overlay(image, masks[row].cpu().numpy(), color) for image, masks, color in drawn], axis=1)
