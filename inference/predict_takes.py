"""Run a predictor over processed takes."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from formats.errors import UserError
from formats.geometry import eval_size, unletterbox
from formats.masks import encode_mask
from formats.processed import ProcessedTake
from formats.results import camera_pair_key
from inference.chunks import Chunk
from inference.predictor import Predictor
from inference.timing import StageTimer


def predict_takes(
    predictor: Predictor,
    chunks: Iterable[Chunk],
    data_dir: Path,
    setting: str,
    write: Callable[[str, dict], None],
    timer: StageTimer,
    progress: Callable[[int], None] = lambda pairs: None,
    strict: bool = False,
) -> dict[str, str]:
    """Predict every chunk; hand each finished take to `write(take_uid, result)`, as the results file has it.

    The chunks of a take must follow each other. Returns the reason for each take that could not be read; with `strict`
    the first one is raised as a UserError instead. `progress` is told the number of pairs done.
    """
    failed: dict[str, str] = {}
    predictions = _predictions(predictor, chunks, timer)
    for uid, of_take in itertools.groupby(predictions, key=lambda item: item[0].plan.take_uid):
        result = empty_result(ProcessedTake.read(data_dir, uid), setting)
        for chunk, masks, existence in of_take:
            if chunk.error and uid not in failed:
                if strict:
                    raise UserError(f"take {uid}: {chunk.error}")
                failed[uid] = chunk.error
            if uid not in failed:
                with timer("encode"):
                    _fill(result, chunk, masks, existence)
            progress(chunk.plan.pair_count)
        if uid not in failed:
            with timer("encode"):
                write(uid, result)
    return failed


def empty_result(take: ProcessedTake, setting: str) -> dict:
    """The results of a take before any is known: every object, camera pair and query frame has its key."""
    masks: dict = {object_name: {} for object_name in take.masks}
    for pair in take.camera_pairs(setting):
        key = camera_pair_key(pair.query_camera, pair.target_camera)
        frames = take.masks[pair.object_name][pair.query_camera]
        masks[pair.object_name][key] = {str(frame): None for frame in frames}
    return {"masks": masks, "subsample_idx": take.subsample_idx}


def _fill(result: dict, chunk: Chunk, masks: np.ndarray, existence: np.ndarray) -> None:
    for (pair, frame, size), mask, confidence in zip(chunk.pairs, masks, existence.tolist(), strict=True):
        key = camera_pair_key(pair.query_camera, pair.target_camera)
        result["masks"][pair.object_name][key][str(frame)] = {
            "pred_mask": encode_mask(unletterbox(mask, eval_size(size))),
            "confidence": confidence,
        }


def _predictions(
    predictor: Predictor, chunks: Iterable[Chunk], timer: StageTimer
) -> Iterator[tuple[Chunk, np.ndarray | None, np.ndarray | None]]:
    """(chunk, masks (P, 480, 480) uint8, existence (P,)); both None for a chunk that could not be read.

    One chunk behind: while the caller encodes a chunk, a GPU already works on the next.
    """
    waiting = None
    for chunk in _timed(chunks, timer):
        launched = (chunk, None, None) if chunk.error else (chunk, *_launch(predictor, chunk))
        if waiting:
            yield _collect(*waiting)
        waiting = launched
    if waiting:
        yield _collect(*waiting)


def _launch(predictor: Predictor, chunk: Chunk) -> tuple[torch.Tensor, torch.Tensor]:
    prob, existence = predictor.predict(chunk.images, chunk.masks, chunk.mask_image, chunk.pair_mask, chunk.pair_target)
    return predictor.eval_masks(prob), existence


def _collect(chunk: Chunk, masks, existence):
    return (chunk, None, None) if chunk.error else (chunk, masks.cpu().numpy(), existence.cpu().numpy())


def _timed(chunks: Iterable[Chunk], timer: StageTimer) -> Iterator[Chunk]:
    iterator = iter(chunks)
    while True:
        with timer("read"):
            chunk = next(iterator, None)
        if chunk is None:
            return
        yield chunk
